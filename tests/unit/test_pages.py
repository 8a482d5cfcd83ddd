"""Pages: they open from disk, show what they were given, and sort as their script says."""

import re
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from voxplain.faults import SetupFault
from voxplain.pages import Page


class Reader(HTMLParser):
    """Tags that are opened and closed, cells, links and pictures."""

    def __init__(self, text):
        super().__init__()
        self.open, self.cells, self.values, self.links, self.pictures = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        told = dict(attributes)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")
            self.values.append(told.get("data-value"))
        if tag == "a":
            self.links.append(told["href"])
        if tag == "img":
            self.pictures.append(told)

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


def test_cells_show_rounded_numbers_and_sort_by_whole_ones(page, tmp_path):
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


def test_a_picture_is_within_the_page_and_nothing_comes_from_a_network(page, tmp_path):
    plt.imsave(tmp_path / "small.png", np.zeros((2, 3)))
    page.add_picture(tmp_path / "small.png", 'a "black" box', "Nothing")
    page.add_text("1 < 2")
    page.add_points(["one", "two"])
    text = written(page, tmp_path)
    read = Reader(text)
    (picture,) = read.pictures
    assert picture["alt"] == 'a "black" box'
    assert picture["src"].startswith("data:image/png;base64,iVBOR")
    assert not re.search(r"https?:|//[a-z]", text.replace("// What is no number", ""))
    assert "Who &lt;finds&gt; it?" in text and "A &amp; B" in text and "1 &lt; 2" in text
    assert [link for link in read.links if link.startswith("#")] == ["#section-1"]
    assert not list(tmp_path.glob("*.unfinished"))


def test_what_is_no_picture_is_refused_by_name(page, tmp_path):
    (tmp_path / "no.png").write_text("nothing")
    with pytest.raises(SetupFault, match=r"no\.png is no PNG picture"):
        page.add_picture(tmp_path / "no.png", "x", "y")


def test_nothing_stands_before_the_first_section():
    with pytest.raises(SetupFault, match="before the first section"):
        Page("Empty").add_text("lost")
