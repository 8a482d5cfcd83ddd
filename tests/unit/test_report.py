"""The parts of the page of a run."""

import re
from dataclasses import replace
from pathlib import Path

import bibtexparser
import pandas as pd
import pytest
import yaml

from voxplain import __version__
from voxplain.cohort.fates import COLUMNS, write_fates
from voxplain.models import MODELS
from voxplain.pages import Page
from voxplain.relevance import METHODS
from voxplain_workflow.planning.settings import complete_settings, read_schema
from voxplain_workflow.reports import citations
from voxplain_workflow.reports import report as module
from voxplain_workflow.reports.citations import Used, citations_of, read_papers, to_bibtex
from voxplain_workflow.reports.making import costs_of_rules, hide_subjects
from voxplain_workflow.reports.report import Report, read_table

OWN = "The voxplain authors"


@pytest.fixture(scope="module")
def config(repository):
    schema = read_schema(repository / "schemas/config.schema.yaml")
    settings = yaml.safe_load((repository / "config.yaml").read_text())
    return complete_settings(settings, schema)


# --- tables ---------------------------------------------------------------------------------------


def test_a_table_is_read_with_its_numbers_and_its_names(tmp_path):
    path = tmp_path / "table.tsv"
    path.write_text("name\tn\tmean\tlow\nNA\t3\t1.0\tn/a\nnull\t4\t-1.0\tn/a\n007\t5\tn/a\tn/a\n")
    table = read_table(path)
    assert list(table["name"]) == ["NA", "null", "007"]
    assert list(table["n"]) == [3, 4, 5]
    assert str(table["n"].dtype) == "Int64"
    assert table["mean"].dtype == float, "1.0 is not a count"
    assert table["mean"].isna().tolist() == [False, False, True]
    assert table["low"].isna().all()


def test_files_are_copied_beside_the_page_and_linked(tmp_path, monkeypatch):
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
    shown = module._shown_localisation(pd.DataFrame(rows, columns=columns))
    assert list(shown.columns) == ["method", "truth", "truth, smoothed 12 mm"]
    assert shown["truth"][0] == (0.25, "0.25 (0.20 to 0.30), 2.5 x")
    assert shown["truth, smoothed 12 mm"][0] == (0.5, "0.50, 5.0 x")
    assert shown["truth"][1][1] == "n/a"


@pytest.mark.parametrize("subjects", [True, False])
def test_age_and_sex_of_few_people_are_hidden_if_subjects_are_hidden(
    tmp_path, monkeypatch, subjects
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    head = "group\tpatients\tfemale\tmale\tage_mean\tage_sd\tage_min\tage_max\n"
    rows = "AD\t2\t1\t1\t91.25\t1.5\t90\t92.5\nNC\t30\t14\t16\t71.25\t6.5\t55.5\t95\n"
    (tmp_path / "results/people.tsv").write_text(head + rows)
    page = Page("Report")
    page.add_section("People")
    Report(page, "results/report_files", subjects).people("results/people.tsv", "People.")
    (table,) = page.sections[0].parts
    shown = {row[0]["text"]: [cell["text"] for cell in row[1:]] for row in table["rows"]}
    if subjects:
        assert shown["AD"] == ["2", "1", "1", "91.25", "1.50", "90.00", "92.50"]
    else:
        assert shown["AD"] == ["2", "n/a", "n/a", "n/a", "n/a"]
        assert shown["NC"] == ["30", "14", "16", "71.25", "6.50"]
        assert not (tmp_path / "results/report_files").exists()


def test_a_cohort_without_a_usable_scan_is_reported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results/lost"
    folder.mkdir(parents=True)
    lost = {**dict.fromkeys(COLUMNS, "n/a"), "image": "I1", "fate": "failed"}
    write_fates(folder / "scans.tsv", [lost])
    (folder / "scans_flagged.tsv").write_text("image\tmeasure\n")
    page = Page("Report")
    report = Report(page, "results/report_files", subjects=True)
    lost = {"name": "lost", "folder": "results/lost", "simulated": False}
    module.report_quality(report, [lost], {"min_overlap": 0.9})
    table, link = page.sections[0].parts
    assert "0 usable scans, 0 flags" in table["caption"]
    assert all(cell["text"] == "n/a" for row in table["rows"] for cell in row[1:4])
    assert table["rows"][3][4]["text"] == "0.900", "the least overlap"
    assert link["link"] == "lost/quality.html"


# --- costs ----------------------------------------------------------------------------------------


def test_the_costs_of_a_rule_are_those_of_all_its_jobs(tmp_path):
    head = "s\th:m:s\tmax_rss\tcpu_time\n"
    (tmp_path / "train/deep").mkdir(parents=True)
    (tmp_path / "train/deep/one.tsv").write_text(head + "120\t0:02:00\t900.5\t180\n")
    (tmp_path / "train/two.tsv").write_text(head + "60\t0:01:00\t1000\t60\n")
    (tmp_path / "once.tsv").write_text(head + "0.01\t0:00:00\t-\tNA\n")  # too short to measure
    costs = costs_of_rules(tmp_path).set_index("rule")
    assert costs.loc["train", "jobs"] == 2
    assert costs.loc["train", "CPU time, min"] == 4
    assert costs.loc["train", "longest job, min"] == 2
    assert costs.loc["train", "peak memory, MB"] == 1000
    assert costs.loc["once", "CPU time, min"] == 0
    assert pd.isna(costs.loc["once", "peak memory, MB"])
    assert costs_of_rules(tmp_path / "nowhere").empty
    (tmp_path / "train/three.tsv").touch()  # of a job that is just ending
    assert costs_of_rules(tmp_path).set_index("rule").loc["train", "jobs"] == 2


# --- citations and configuration ------------------------------------------------------------------


USED = Used(frozenset({"rieke"}), ("sensitivity", "lrp"), followed=True, randomised=False)


def keys(config, used=USED):
    return {citation.key for citation in citations_of(config, used)} - {"voxplain"}  # always


def test_only_used_methods_and_tools_are_cited(config):
    cited = {"rieke2018", "wen2020", "simonyan2014", "bach2015", "avants2008", "petsiuk2018"}
    assert cited <= keys(config)
    assert not {"zeiler2014", "selvaraju2017", "korolev2017", "adebayo2018"} & keys(config)
    assert {"smith2002", "fisch2024"} <= keys(config), "auto may be either"
    deep = {**config, "skull": {**config["skull"], "tool": "deepbet"}}
    assert "smith2002" not in keys(deep)
    only = {**config, "skull": {**config["skull"], "tool": "bet", "ladder": ["neck"]}}
    assert "fisch2024" not in keys(only)
    assert "korolev2017" in keys(config, replace(USED, models=frozenset({"voxcnn"})))
    assert "ciric2022" in keys({**config, "template": "templateflow"})


def test_n4_is_cited_where_the_ladder_may_run_it(config):
    never = {**config, "bias_correction": "never"}
    assert "tustison2010" in keys(never)
    assert "tustison2010" not in keys({**never, "skull": {**config["skull"], "ladder": ["neck"]}})


def test_brains_that_are_only_registered_cite_no_skull_tool(config):
    def cohorts(**changes):
        return {name: {**c, **changes} for name, c in config["cohorts"].items()}

    without_bias = {**config, "bias_correction": "never"}
    given = {**without_bias, "cohorts": cohorts(source="bids", images_are="registered")}
    assert keys(given, Used()) == {"rieke2018", "wen2020", "fonov2011", "molder2021"}
    given = {**without_bias, "cohorts": cohorts(source="bids", images_are="brains")}
    assert keys(given, Used()) == {"rieke2018", "wen2020", "fonov2011", "avants2008", "molder2021"}


def test_every_method_has_its_citation_and_every_citation_its_entry(config):
    for method in METHODS:
        cited = citations_of(config, replace(USED, methods=(method,)))
        text = to_bibtex(cited)
        assert re.findall(r"^@\w+\{(\w+),$", text, re.M) == [citation.key for citation in cited]
        assert text.count("{") == text.count("}")
    cited = citations_of(config, replace(USED, methods=tuple(METHODS)))
    assert len({citation.key for citation in cited}) == len(cited)
    for citation in cited:
        assert str(citation.year) in citation.text
        assert citation.title in citation.text
        assert citation.authors[0].split(",")[0] in citation.text
        assert all("," in name or name in ("others", OWN) for name in citation.authors)


def test_the_run_itself_is_cited_and_volumes_and_pages_have_their_fields(config, repository):
    cited = citations_of(config, USED)
    text = to_bibtex(cited)
    about = yaml.safe_load((repository / "CITATION.cff").read_text())
    assert cited[0].authors == [OWN] == [about["authors"][0]["name"]]
    assert (cited[0].title, cited[0].year) == (about["title"], about["date-released"].year)
    assert f"author = {{{{{OWN}}}}}" in text
    assert f"version {__version__}" in text
    (wen,) = re.findall(r"@article\{wen2020,(.*?)^\}", text, re.M | re.S)
    assert "journal = {Medical Image Analysis}" in wen
    assert "volume = {63}" in wen and "pages = {101694}" in wen
    (li,) = re.findall(r"@article\{li2016,(.*?)^\}", text, re.M | re.S)
    assert "pages = {47--56}" in li


def test_every_entry_of_the_bibliography_is_read_and_names_its_use():
    path = Path(citations.__file__).with_name("references.bib")
    assert not bibtexparser.parse_file(path).failed_blocks
    papers = read_papers()
    assert re.findall(r"^@\w+\{(\w+),$", path.read_text(), re.M) == list(papers)
    entries = [*METHODS.values(), *MODELS.values()]
    assert {key for entry in entries for key in entry.sources} <= papers.keys()
    text = to_bibtex(list(papers.values()))
    for paper in papers.values():
        assert paper.text.startswith(f"{paper.use}: ")
        assert not set("{}\n") & set(paper.text)
    assert "use =" not in text, "our word, which BibTeX does not know"
    # The file is BibTeX: read again, it is the same.
    again = bibtexparser.parse_string(text)
    assert not again.failed_blocks
    fields = {entry.key: {f.key: f.value for f in entry.fields} for entry in again.entries}
    assert fields == {key: paper.fields for key, paper in papers.items()}


def test_a_citation_has_its_authors_volume_number_and_pages():
    papers = read_papers()
    assert papers["smith2002"].text == (
        "Skull removal (BET): Smith 2002, Fast robust automated brain extraction. "
        "Human Brain Mapping 17(3), 143-155."
    )
    assert papers["zeiler2014"].text.startswith("Occlusion: Zeiler and Fergus 2014, ")
    assert papers["paszke2019"].text.startswith("Networks (PyTorch): Paszke et al. 2019, ")
    assert papers["paszke2019"].text.endswith(". NeurIPS 32.")
    assert papers["korolev2017"].text.endswith(". ISBI, 835-838.")


def test_a_configuration_without_subjects_names_no_image(config):
    settings = {**config, "quality": {**config["quality"], "keep": ["I32237"]}}
    assert hide_subjects(settings, subjects=True)["quality"]["keep"] == ["I32237"]
    assert hide_subjects(settings, subjects=False)["quality"]["keep"] == []
    assert settings["quality"]["keep"] == ["I32237"]


def test_a_configuration_without_subjects_names_no_heads(config):
    with_heads = {
        **config,
        "cohorts": {"own": {"simulation": {"heads": ["/data/sub-1.nii.gz", "b.nii"]}}},
    }
    hidden = hide_subjects(with_heads, subjects=False)["cohorts"]["own"]
    assert hidden["simulation"]["heads"] == ["head 1", "head 2"]
    assert with_heads["cohorts"]["own"]["simulation"]["heads"][0] == "/data/sub-1.nii.gz"
