"""The page of a run shows its results and, if set, no subjects."""

import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from browser import browse, needs_browser
from workflow.conftest import FIRST, TINY, read_scans, snakemake

pytestmark = pytest.mark.slow

RUN = "report_files/tiny/AD-NC/rieke/fixed/seed-1"


class Reader(HTMLParser):
    """Reads links, pictures and the visible text."""

    def __init__(self, path):
        super().__init__()
        self.links, self.pictures, self.text = [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "a":
            self.links.append(unquote(values["href"]))
        if tag == "img":
            self.pictures.append(unquote(values["src"]))

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def reader(tiny_run):
    return Reader(tiny_run / "results/report.html")


def test_every_file_of_the_page_lies_beside_it(tiny_run, reader):
    links = [link for link in reader.links if not link.startswith("#")]
    assert not [link for link in links + reader.pictures if "://" in link or link.startswith("/")]
    for link in {*links, *reader.pictures}:
        assert (tiny_run / "results" / link).is_file(), link
    assert all(picture.startswith("report_files/") for picture in reader.pictures)
    # And no other file is there.
    folder = tiny_run / "results/report_files"
    files = {f"report_files/{path.relative_to(folder)}" for path in folder.rglob("*.*")}
    assert files - {"report_files/.snakemake_timestamp"} == {
        link for link in (*links, *reader.pictures) if link.startswith("report_files/")
    }


def test_the_page_has_every_picture(tiny_run, reader):
    methods = ("mean_maps", "distances", "area_distribution")
    worth = ("localisation", "precision_recall", "truth", "faithfulness", "randomisation")
    for name in (*methods, *worth):
        assert f"{RUN}/{name}.png" in reader.pictures
    for name in ("learning_curves", "roc", "confusion"):
        assert f"report_files/tiny/AD-NC/rieke/{name}.png" in reader.pictures
    assert "report_files/summary.png" in reader.pictures
    assert "tiny/quality.html" in reader.links
    copy = tiny_run / "results" / RUN / "mean_maps.png"
    original = tiny_run / "results/tiny/AD-NC/rieke/fixed/seed-1/mean_maps.png"
    assert copy.read_bytes() == original.read_bytes()


def test_the_tables_of_the_page_have_the_numbers_of_the_files(tiny_run, reader):
    text = "\n".join(reader.text)
    rows = (tiny_run / "results" / RUN / "distances.tsv").read_text().splitlines()
    column = rows[0].split("\t").index("distance")
    distances = [float(row.split("\t")[column]) for row in rows[1:]]
    assert all(f"{distance * 1e4:.2f}" in text for distance in distances)
    assert "explain_scans" in text, "its costs"
    assert "Rieke et al. 2018" in text


def test_the_configuration_on_the_page_gives_the_same_run(tiny_run):
    config = tiny_run / "results/report_files/config.yaml"
    run = snakemake(tiny_run, "-n", "--configfile", str(config))
    assert run.status == 0, run.said
    assert "Nothing to be done" in run.said, run.said


def test_the_page_without_subjects_names_no_subject(finished):
    run = snakemake(finished, config={**FIRST, "report": {"subjects": False}})
    assert run.status == 0, run.said
    assert not run.rules
    scans = read_scans(finished, "tiny")
    names = {*scans, *(row["subject"] for row in scans.values())}
    names |= {re.sub(r"\W|_", "", name) for name in names}
    page = finished / "results/report.html"
    files = [path for path in (finished / "results/report_files").rglob("*") if path.is_file()]
    viewer = [finished / "results/viewer.html", *(finished / "results/viewer_files").iterdir()]
    for path in [page, *files, *viewer]:
        content = path.read_bytes()
        assert not [name for name in names if name.encode() in content], path
    shown = Reader(page)
    assert not [link for link in (*shown.links, *shown.pictures) if "truth" in link]
    pages = ("scans.tsv", "quality.html", "trust.html")
    assert not [link for link in shown.links if link.endswith(pages)]
    assert f"{RUN}/mean_maps.png" in shown.pictures
    assert {path.name for path in files} >= {"mean_maps.png", "config.yaml", "citations.bib"}


def test_the_viewer_offers_averages_and_some_scans(tiny_run):
    text = (tiny_run / "results/viewer.html").read_text(encoding="utf-8")
    maps = json.loads(re.search(r"^const maps = (.*);$", text, re.M).group(1))
    subjects = {shown["subject"] for shown in maps}
    assert {"average of AD (n = 1)", "average of NC (n = 1)"} < subjects
    assert all("of 2 test patients" in shown["run"] for shown in maps)
    assert len(subjects) == 4, "and a scan of each class"
    assert {shown["method"] for shown in maps} == set(TINY["heatmaps"]["methods"])
    assert len(maps) == 4 * len(TINY["heatmaps"]["methods"])
    files = tiny_run / "results/viewer_files"
    for shown in maps:
        assert (files / f"{shown['file']}.js").is_file()
        assert shown["top"] > 0
    assert len({shown["under"] for shown in maps}) == 3, "the template, and the scans' own brains"


@needs_browser
@pytest.mark.parametrize("width", [420, 1400])
def test_the_page_opens_in_a_browser_from_disk(tiny_run, tmp_path, width):
    picture = tmp_path / "page.png"
    page = tiny_run / "results/report.html"
    browse(page, f"--window-size={width},3000", f"--screenshot={picture}")
    assert picture.stat().st_size > 50_000


def test_the_page_on_trust_explains_its_columns(tiny_run):
    text = (tiny_run / "results/trust.html").read_text()
    for name in ("average precision", "gain", "random network"):
        assert f"<li>{name}: " in text
    assert "retrained" not in text, "with one seed there are no columns over seeds"
