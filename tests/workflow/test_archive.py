"""A download in the archive's tree and table, and its possible faults."""

import ast
import csv
import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest

from voxplain.cohort.plan import plan_cohort
from voxplain_workflow.texts import unshield
from workflow.conftest import ROOT, TINY, plan, read_scans, snakemake
from workflow.test_rules import RULES

SOURCE = "results/tiny/source"


def archive_config(**settings):
    cohort = {"source": "adni", "table": "scans.csv", "images": "ADNI"}
    return {**TINY, "cohorts": {"own": cohort}, **settings}


@pytest.fixture
def listed(tmp_path):
    """A download with what a plan needs: the table and the names of folders."""
    place = tmp_path / "download"
    simulation = TINY["cohorts"]["tiny"]["simulation"]
    plan = plan_cohort(
        **{key: simulation[key] for key in ("seed", "groups", "visits")},
        age=[55, 90],
        ageing_per_decade=0.02,
        progression_per_year=0.1,
        heads=["packaged"],
    )
    for scan in plan:
        if scan.group != "MCI":
            (place / "ADNI" / scan.folder).mkdir(parents=True)
    write_rows(place, [scan.table_row() for scan in plan])
    return place


@pytest.fixture
def archive(first_run, tmp_path):
    """The tiny cohort's tree and table as a user's own download, not processed."""
    place = tmp_path / "download"
    place.mkdir()
    shutil.copytree(
        first_run / SOURCE / "ADNI",
        place / "ADNI",
        ignore=shutil.ignore_patterns(".snakemake_timestamp"),
    )
    shutil.copy(first_run / SOURCE / "scans.csv", place)
    return place


def rows_of(archive):
    with open(archive / "scans.csv", newline="") as stream:
        return list(csv.DictReader(stream))


def write_rows(archive, rows):
    with open(archive / "scans.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def series_of(archive, image):
    return next(archive.glob(f"ADNI/*/*/*/{image}"))


@pytest.mark.slow
def test_each_fault_fails_its_scan_only(archive, first_run):
    rows = rows_of(archive)
    images = [row["Image Data ID"] for row in rows if row["Group"] != "MCI"]
    good, truncated, missing, empty, *remaining = images
    broken = sorted(series_of(archive, truncated).iterdir())[10]
    broken.write_bytes(broken.read_bytes()[:-500])
    shutil.rmtree(series_of(archive, missing))
    for path in series_of(archive, empty).iterdir():
        path.unlink()
    (series_of(archive, empty) / "readme.txt").write_text("no images here")
    rows.append({**rows[0], "Image Data ID": "I999", "Group": "Dementai"})
    rows.append(dict(next(row for row in rows if row["Image Data ID"] == good)))
    write_rows(archive, rows)

    run = snakemake(archive, "preprocessed", config=archive_config(max_failed=1.0))

    assert run.status == 0, run.said
    scans = read_scans(archive, "own")
    fine = {good, *remaining}
    fates = {i: (row["fate"], row["stage"]) for i, row in scans.items() if i not in fine}
    assert all(scans[image]["fate"] == "usable" for image in remaining)
    mci = [row["Image Data ID"] for row in rows if row["Group"] == "MCI"]
    assert fates == {
        truncated: ("failed", "convert"),
        missing: ("failed", "find"),
        empty: ("failed", "convert"),
        "I999": ("failed", "table"),
        **dict.fromkeys(mci, ("unused", "table")),
    }
    assert broken.name in scans[truncated]["reason"]
    assert "truncated" in scans[truncated]["reason"]
    assert missing in scans[missing]["reason"]
    assert "no DICOM" in scans[empty]["reason"]
    assert "'Dementai'" in scans["I999"]["reason"]
    assert "diagnosis_words" in scans["I999"]["remedy"]
    assert all(
        scans[image]["remedy"] != "n/a" for image, (fate, _) in fates.items() if fate == "failed"
    )
    with open(archive / "results/own/scans.tsv", newline="") as stream:
        table = list(csv.DictReader(stream, delimiter="\t"))
    assert [row["fate"] for row in table if row["image"] == good] == ["usable", "duplicate"]
    # The end of the run lists the failed scans, with the remedy.
    assert f"{truncated} (" in run.said
    assert "download the image again" in run.said
    # The good scan is the same as in the simulated cohort: the same rules made it.
    preprocessed = scans[remaining[0]]["preprocessed"]
    from_archive = nib.load(archive / "results/own" / preprocessed).get_fdata()
    from_simulation = nib.load(first_run / "results/tiny" / preprocessed).get_fdata()
    assert np.array_equal(from_archive, from_simulation)
    # The failed scan's volumes exist, but cannot be read as real ones.
    volume = next(archive.glob(f"results/own/derivatives/**/*{truncated}_T1w.nii.gz"))
    assert volume.stat().st_size == 0


@pytest.mark.slow
def test_too_many_failed_scans_stop_the_run_with_their_list(archive):
    for path in archive.glob("ADNI/*/*/*/*"):
        shutil.rmtree(path)
        path.mkdir()
    run = snakemake(archive, config=archive_config())
    assert run.status != 0
    assert "6 of 6 scans were lost, more than max_failed = 0.05 allows" in run.said
    assert run.said.count("is empty; download") + run.said.count("is empty -> download") >= 6
    assert "Traceback" not in run.said
    assert len(read_scans(archive, "own")) == 9, "the table is written"


@pytest.mark.slow
def test_one_more_scan_is_converted_alone_and_verify_inputs_names_a_replaced_file(archive):
    config = archive_config()
    rows = rows_of(archive)
    write_rows(archive, [row for row in rows if row["Image Data ID"] != rows[0]["Image Data ID"]])
    assert snakemake(archive, "converted", config=config).status == 0
    write_rows(archive, rows)
    more = snakemake(archive, "converted", config=config)
    assert more.status == 0, more.said
    assert more.jobs == {"converted": 1, "convert_series": 1}
    assert snakemake(archive, "verify_inputs", config=config).status == 0
    series = next(archive.glob("ADNI/*/*/*/*"))
    victim = sorted(series.iterdir())[3]
    victim.write_bytes(victim.read_bytes()[:-2] + b"\x01\x01")
    run = snakemake(archive, "verify_inputs", config=config)
    assert run.status != 0
    assert f"{victim.name} was replaced" in run.said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 4}, "config: unknown key resolution; did you mean resolution_mm?"),
        ({"resolution_mm": 5}, "config: resolution_mm is 5; allowed: 1, 2, 3, 4"),
        ({"max_failed": "few"}, "config: max_failed is 'few'; allowed: number"),
        ({"skull": {"tool": "bett"}}, "config: skull.tool is 'bett'; allowed: auto, bet, deepbet"),
        (
            {"cohorts": {"own": {"source": "adni", "images": "ADNI"}}},
            "config: cohorts.own.table is missing; source adni needs it",
        ),
        (
            {"cohorts": {"own": {"source": "adni", "table": "no.csv", "images": "ADNI"}}},
            "config: cohorts.own.table is no.csv, which does not exist",
        ),
        (
            {"cohorts": {"own": {"source": "adni", "table": "scans.csv", "images": "nowhere"}}},
            "config: cohorts.own.images has nowhere, which does not exist",
        ),
    ],
)
def test_a_bad_setting_stops_the_run_with_one_line(listed, change, message):
    run = snakemake(listed, "-n", config=archive_config(**change))
    assert run.status != 0
    assert "Traceback" not in run.said
    lines = [line for line in run.said.splitlines() if message in line]
    assert len(lines) == 1, run.said


def test_a_table_without_a_needed_column_stops_the_run_with_one_line(listed):
    rows = [{k: v for k, v in row.items() if k != "Group"} for row in rows_of(listed)]
    write_rows(listed, rows)
    run = snakemake(listed, "-n", config=archive_config())
    assert run.status != 0
    line = next(line for line in run.said.splitlines() if "scan table scans.csv lacks" in line)
    assert "diagnosis" in line
    assert "'Group'" in line
    assert "columns" in line


def test_a_plan_warns_about_scans_without_images(listed):
    assert "cannot be processed" not in snakemake(listed, "-n", config=archive_config()).said
    row = rows_of(listed)[0]
    (folder,) = listed.glob(f"ADNI/*/*/*/{row['Image Data ID']}")
    shutil.rmtree(folder)
    for max_failed, too_many in ((0.05, True), (0.5, False)):
        config = archive_config(max_failed=max_failed)
        run = snakemake(listed, "preprocessed", "-n", config=config)
        assert run.status == 0, run.said
        (message,) = [line for line in run.said.splitlines() if "cannot be processed" in line]
        assert message.startswith("Cohort own: 1 of 6 scans cannot be processed; the first is I")
        assert ("will stop before any training" in message) == too_many


@pytest.mark.slow
def test_bet_without_fsl_is_an_error_with_a_remedy(archive):
    config = archive_config(skull={"tool": "bet"})
    run = snakemake(archive, "results/own/tools.json", config=config, FSLDIR="")
    assert run.status != 0
    assert "FSL's bet is not installed" in run.said
    assert "https://fsl.fmrib.ox.ac.uk" in run.said
    assert "config: skull.tool is bet" in run.said and "choose deepbet or auto" in run.said


def test_the_papers_config_builds_its_dag_on_a_tree_of_this_form(listed):
    place = listed / "data"
    place.mkdir()
    (listed / "ADNI").rename(place / "ADNI")
    (listed / "scans.csv").rename(place / "adni1.csv")
    config = str(ROOT / "config/adni.yaml")
    run = snakemake(listed, "preprocessed", "-n", "--configfile", config)
    assert run.status == 0, run.said
    assert run.jobs["register_to_template"] == 6
    assert "simulate_scan" not in run.jobs


def test_a_class_without_scans_stops_the_run_before_any_job(listed):
    rows = rows_of(listed)
    write_rows(listed, [{**row, "Group": row["Group"].replace("CN", "fine")} for row in rows])
    run = snakemake(listed, "-n", config=archive_config())
    assert "cohort own has no scan of class NC to process (table scans.csv)" in run.said
    assert "'fine' (3)" in run.said and "`diagnosis_words`" in run.said
    write_rows(listed, [row for row in rows if row["Group"] != "CN"])
    run = snakemake(listed, "-n", config=archive_config())
    assert run.status != 0
    assert "cohort own has no scan of class NC to process (table scans.csv)" in run.said


@pytest.mark.slow
def test_the_simulated_archive_can_be_read_in_place(first_run):
    source = "results/tiny/source"
    cohort = {"source": "adni", "table": f"{source}/scans.csv", "images": f"{source}/ADNI"}
    run = snakemake(first_run, "-n", config=archive_config(cohorts={"own": cohort}))
    assert run.status == 0, run.said
    assert run.jobs["convert_series"] == 6
    assert "simulate_scan" not in run.jobs


@pytest.mark.slow
def test_a_scan_repaired_in_place_is_the_only_one_that_runs_again(archive):
    config = archive_config(max_failed=1.0)
    victim = sorted(next(archive.glob("ADNI/*/*/*/*")).iterdir())[3]
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-500])
    assert snakemake(archive, "converted", config=config).status == 0
    (empty,) = [
        path for path in archive.glob("results/own/**/*_T1w.nii.gz") if not path.stat().st_size
    ]
    victim.write_bytes(whole)
    run = snakemake(archive, "verify_inputs", config=config)
    assert run.status != 0
    assert f"{victim.name} was replaced" in run.said
    again = re.search(r"--forcerun (\S+)", run.said).group(1)
    assert archive / again == empty
    run = snakemake(archive, "converted", "--forcerun", again, config=config)
    assert run.status == 0, run.said
    assert run.jobs["convert_series"] == 1
    assert empty.stat().st_size > 0


def test_no_text_of_a_table_is_a_param_that_snakemakes_report_would_run(listed, tmp_path):
    """That report writes params into a script of its page as they are."""
    payload = "</script><script>document.title='ran'</script>"
    rows = rows_of(listed)
    for row in rows:
        row["Description"] += payload
    rows.append({**rows[0], "Image Data ID": "I999", "Group": payload, "Visit": payload})
    write_rows(listed, rows)
    run = plan(listed, "-n", config=archive_config(), jobs=str(tmp_path / "jobs.json"))
    assert run.status == 0, run.said
    jobs = json.loads((tmp_path / "jobs.json").read_text())
    of_report = {name for name, text in RULES.items() if re.search(r"\breport\(", text)}
    shown = [job for job in jobs if job["rule"] in of_report]
    assert {"collect_scans", "report_splits", "show_quality"} <= {job["rule"] for job in shown}
    assert [job["rule"] for job in shown if "<" in "".join(job["params"].values())] == []
    (collected,) = (job for job in shown if job["rule"] == "collect_scans")
    texts = json.dumps(unshield(ast.literal_eval(collected["params"]["rows"])))
    assert texts.count(payload) >= len(rows)
