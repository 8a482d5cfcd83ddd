"""Pages open from disk, show their content, and can be sorted."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from browser import browse, needs_browser
from voxplain.faults import SetupFault
from voxplain.pages import Page, Thumbnail, Words, with_interval
from voxplain.plots.figures import Picture, save


class Reader(HTMLParser):
    """Reads opened and closed tags, cells, links and pictures."""

    def __init__(self, text):
        super().__init__()
        self.open, self.cells, self.values, self.links, self.pictures = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")
            self.values.append(values.get("data-value"))
        if tag == "a":
            self.links.append(values["href"])
        if tag == "img":
            self.pictures.append(values)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "td":
            self.cells[-1] += data


@pytest.fixture
def page():
    page = Page("Who <finds> it?", lead=["A & B"], footer="made by a test")
    page.add_section("First")
    return page


def written(page, tmp_path):
    page.write(tmp_path / "page.html")
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_cells_show_rounded_numbers_and_sort_by_exact_ones(page, tmp_path):
    table = pd.DataFrame(
        {
            "method": ["lrp", "<script>"],
            "mean": [0.12345, np.nan],
            "scans": [40, 7],
            "interval": [(0.5, "0.50 (0.41 to 0.59)"), (np.nan, "n/a")],
            "noise": [True, False],
        }
    )
    page.add_table(table, "Scores", "runs/scores.tsv", digits=3)
    read = Reader(written(page, tmp_path))
    assert read.open == []
    assert read.cells == [
        *("lrp", "0.123", "40", "0.50 (0.41 to 0.59)", "yes"),
        *("<script>", "n/a", "7", "n/a", "no"),
    ]
    assert read.values == [None, "0.12345", "40.0", "0.5", None, None, None, "7.0", None, None]
    assert "runs/scores.tsv" in read.links


def test_a_picture_is_embedded_and_nothing_is_loaded_from_a_network(page, tmp_path):
    plt.imsave(tmp_path / "small.png", np.zeros((2, 3)))
    page.add_picture(tmp_path / "small.png", 'a "black" box', "Nothing")
    page.add_text("1 < 2")
    page.add_points(["one", "two"])
    page.add_section("Second")
    text = written(page, tmp_path)
    read = Reader(text)
    (picture,) = read.pictures
    assert picture["alt"] == 'a "black" box'
    assert picture["src"].startswith("data:image/png;base64,iVBOR")
    assert not re.search(r"https?:|//[a-z]", text.replace("// Cells without a number", ""))
    assert "Who &lt;finds&gt; it?" in text and "A &amp; B" in text and "1 &lt; 2" in text
    assert [link for link in read.links if link.startswith("#")] == [
        "#section-1",
        "#section-2",
    ]
    assert not list(tmp_path.glob("*.unfinished"))


def test_pictures_are_shown_in_proportion_to_their_printed_size(page, tmp_path):
    for name, inches, dpi in (("narrow", 3.5, 300), ("wide", 7.0, 100)):
        save(Picture(figsize=(inches, 1)), tmp_path / f"{name}.png", dpi=dpi)
        page.add_picture(tmp_path / f"{name}.png", name, name)
    Image.new("RGB", (20, 10)).save(tmp_path / "unknown.png")
    page.add_picture(tmp_path / "unknown.png", "unknown", "unknown")
    read = Reader(written(page, tmp_path))
    assert [picture.get("width") for picture in read.pictures] == ["525", "1050", None]


def test_an_interval_around_zero_has_no_minus_sign():
    assert with_interval(-0.001, -0.004, 0.002) == (-0.001, "0.00 (0.00 to 0.00)")
    assert with_interval(-0.001, -0.004, 0.002, digits=3)[1] == "-0.001 (-0.004 to 0.002)"


def test_a_file_that_is_not_a_picture_is_refused_by_name(page, tmp_path):
    (tmp_path / "no.png").write_text("nothing")
    with pytest.raises(SetupFault, match=r"no\.png is no PNG picture"):
        page.add_picture(tmp_path / "no.png", "x", "y")


def test_content_before_the_first_section_is_refused():
    with pytest.raises(SetupFault, match="before the first section"):
        Page("Empty").add_text("lost")


def test_a_picture_beside_the_page_is_linked_and_loaded_lazily(page, tmp_path):
    cells = [Thumbnail("a b/mask#1.png", "mask of <I1>"), Words("two words")]
    page.add_table(pd.DataFrame([cells], columns=["picture", "why"]), "Scans")
    read = Reader(written(page, tmp_path))
    (picture,) = read.pictures
    assert picture["src"] == "a%20b/mask%231.png" == read.links[-1]
    assert (picture["loading"], picture["alt"]) == ("lazy", "mask of <I1>")
    assert [cell.strip() for cell in read.cells] == ["", "two words"]


def test_words_that_sort_by_numbers_are_not_a_column_of_numbers(page, tmp_path):
    table = pd.DataFrame({"verdict": [(1.0, "usable")], "volume": [(2.0, "1450")]})
    page.add_table(table, "Scans")
    text = written(page, tmp_path)
    assert text.count('class="number"') == 2, "a head and a cell"
    assert Reader(text).values == ["1.0", "2.0"]


@needs_browser
def test_a_table_is_sorted_and_searched_in_a_browser(page, tmp_path):
    table = pd.DataFrame(
        {
            "image": ["I1", "I2", "I3", "I4"],
            "volume": [(900.0, "900"), (float("nan"), "n/a"), (1500.0, "1500"), (80.0, "80")],
            "why": [Words("too small"), Words("Failed here"), Words(""), Words("too small")],
        }
    )
    page.add_table(table, "Scans", find="failed")
    page.write(tmp_path / "page.html")
    script = """<script>
    const told = [], all = (what) => [...document.querySelectorAll(what)];
    const images = () => all("tbody tr").filter((row) => !row.hidden)
      .map((row) => row.cells[0].textContent).join(" ");
    told.push(images());
    all("th button")[1].click(); told.push(images());
    all("th button")[1].click(); told.push(images());
    const field = document.querySelector("input");
    const find = (words) => {
      field.value = words; field.dispatchEvent(new Event("input"));
      told.push(images() + ": " + document.querySelector("output").textContent);
    };
    find("small TOO"); find("failed"); find("nobody"); find("");
    document.body.textContent = "<" + told.join("|") + ">";
    </script>"""
    with open(tmp_path / "page.html", "a") as stream:
        stream.write(script)
    shown = browse(tmp_path / "page.html", "--dump-dom", f"--user-data-dir={tmp_path / 'profile'}")
    shown_rows = re.search(r"<body>&lt;(.*)&gt;", shown).group(1).split("|")
    assert shown_rows == [
        "I1 I2 I3 I4",
        "I3 I1 I4 I2",
        "I4 I1 I3 I2",
        "I4 I1: 2 of 4 rows",
        "I2: 1 of 4 rows",
        ": 0 of 4 rows",
        "I4 I1 I3 I2: 4 of 4 rows",
    ]
