"""What the page of a run is made of."""

import re

import pandas as pd
import pytest
import yaml

from pipeline import report as module
from pipeline.citations import citations_of, to_bibtex
from pipeline.report import Report, costs_of_rules, hide_subjects, read_table
from pipeline.settings import complete_settings
from voxplain.pages import Page
from voxplain.relevance import METHODS


@pytest.fixture(scope="module")
def config(repository):
    schema = yaml.safe_load((repository / "schemas/config.schema.yaml").read_text())
    told = yaml.safe_load((repository / "config.yaml").read_text())
    return complete_settings(told, schema)


# --- tables ---------------------------------------------------------------------------------------


def test_a_table_is_read_with_its_numbers_and_its_names(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text("name\tn\tmean\tlow\nNA\t3\t1.0\tn/a\nnull\t4\t-1.0\tn/a\n007\t5\tn/a\tn/a\n")
    table = read_table(path)
    assert list(table["name"]) == ["NA", "null", "007"]
    assert list(table["n"]) == [3, 4, 5]
    assert str(table["n"].dtype) == "Int64"
    assert table["mean"].dtype == float, "1.0 is no count"
    assert table["mean"].isna().tolist() == [False, False, True]
    assert table["low"].isna().all()


def test_files_are_kept_where_they_were_and_linked_from_beside_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "results/a b/AD-NC/table.tsv"
    source.parent.mkdir(parents=True)
    source.write_text("some_name\tn\nx\t1\n")
    page = Page("Report")
    page.add_section("Tables")
    report = Report(page, "results/report_files", subjects=True)
    report.table("results/a b/AD-NC/table.tsv", "A table.")
    copy = tmp_path / "results/report_files/a b/AD-NC/table.tsv"
    assert copy.read_text() == source.read_text()
    page.write(tmp_path / "results/report.html")
    text = (tmp_path / "results/report.html").read_text()
    assert "report_files/a b/AD-NC/table.tsv" in text
    assert "some name" in text


def test_localisation_shows_a_row_for_each_method(tmp_path):
    columns = ["method", "region", "smoothing_mm", "measure", "mean", "low", "high", "times_chance"]
    rows = [
        ("cam", "truth", 0, "average_precision", 0.25, 0.2, 0.3, 2.5),
        ("cam", "truth", 12, "average_precision", 0.5, None, None, 5.0),
        ("cam", "truth", 0, "mass", 0.9, 0.9, 0.9, 9.0),
        ("lrp", "truth", 0, "average_precision", None, None, None, None),
    ]
    told = module._shown_localisation(pd.DataFrame(rows, columns=columns))
    assert list(told.columns) == ["method", "truth", "truth, smoothed 12 mm"]
    assert told["truth"][0] == (0.25, "0.25 (0.20 to 0.30), 2.5 x")
    assert told["truth, smoothed 12 mm"][0] == (0.5, "0.50, 5.0 x")
    assert told["truth"][1][1] == "n/a"


# --- costs ----------------------------------------------------------------------------------------


def test_the_costs_of_a_rule_are_those_of_all_its_jobs(tmp_path):
    head = "s\th:m:s\tmax_rss\tcpu_time\n"
    (tmp_path / "train/deep").mkdir(parents=True)
    (tmp_path / "train/deep/one.tsv").write_text(head + "120\t0:02:00\t900.5\t180\n")
    (tmp_path / "train/two.tsv").write_text(head + "60\t0:01:00\t1000\t60\n")
    (tmp_path / "once.tsv").write_text(head + "0.01\t0:00:00\t-\tNA\n")  # too short to be measured
    told = costs_of_rules(tmp_path).set_index("rule")
    assert told.loc["train", "jobs"] == 2
    assert told.loc["train", "CPU time, min"] == 4
    assert told.loc["train", "longest job, min"] == 2
    assert told.loc["train", "peak memory, MB"] == 1000
    assert told.loc["once", "CPU time, min"] == 0
    assert pd.isna(told.loc["once", "peak memory, MB"])
    assert costs_of_rules(tmp_path / "nowhere").empty


# --- citations and configuration ------------------------------------------------------------------


def keys(config):
    return {citation.key for citation in citations_of(config)}


def test_what_was_used_is_cited_and_nothing_else(config):
    own = {**config, "heatmaps": {**config["heatmaps"], "methods": ["sensitivity", "lrp"]}}
    assert {"rieke2018", "wen2020", "simonyan2014", "bach2015", "avants2008"} <= keys(own)
    assert not {"zeiler2014", "selvaraju2017", "korolev2017"} & keys(own)
    assert {"smith2002", "fisch2024"} <= keys(own), "auto may be either"
    deep = {**own, "skull": {**own["skull"], "tool": "deepbet"}}
    assert "smith2002" not in keys(deep)
    only = {**own, "skull": {**own["skull"], "tool": "bet", "ladder": ["neck"]}}
    assert "fisch2024" not in keys(only)
    assert "tustison2010" not in keys({**own, "bias_correction": "never"})
    assert "korolev2017" in keys({**own, "models": {"voxcnn": {}}})
    given = {name: {**c, "images_are": "brains"} for name, c in own["cohorts"].items()}
    assert not {"smith2002", "fisch2024"} & keys({**own, "cohorts": given})


def test_every_method_has_its_citation_and_every_citation_its_entry(config):
    for method in METHODS:
        one = {**config, "heatmaps": {**config["heatmaps"], "methods": [method]}}
        cited = citations_of(one)
        text = to_bibtex(cited)
        assert re.findall(r"^@\w+\{(\w+),$", text, re.M) == [citation.key for citation in cited]
        assert text.count("{") == text.count("}")
    everything = {**config, "heatmaps": {**config["heatmaps"], "methods": list(METHODS)}}
    cited = citations_of(everything)
    assert len({citation.key for citation in cited}) == len(cited)
    for citation in cited:
        assert str(citation.year) in citation.text
        assert citation.title in citation.text
        authors = citation.authors.split(" and ")
        assert authors[0].split(",")[0] in citation.text
        assert all("," in name or name == "others" for name in authors)


def test_a_configuration_without_subjects_names_none(config):
    kept = {**config, "quality": {**config["quality"], "keep": ["I32237"]}}
    assert hide_subjects(kept, subjects=True)["quality"]["keep"] == ["I32237"]
    assert hide_subjects(kept, subjects=False)["quality"]["keep"] == []
    assert kept["quality"]["keep"] == ["I32237"]
