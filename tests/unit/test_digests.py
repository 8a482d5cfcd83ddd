"""What was damaged or deleted after its job wrote it is found, and nothing else."""

from pathlib import Path

import pytest

from voxplain_workflow.jobs.digests import (
    Damage,
    changed_inputs,
    find_damage,
    record_of,
    record_outputs,
)

MEAN, CHUNK = "results/c/run/mean_AD.nii.gz", "results/c/run/scans/chunk-1"
MAP = f"{CHUNK}/sub-1_relevance.nii.gz"
MASK = "results/c/derivatives/sub-1/sub-1_desc-brain_mask.nii.gz"


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Outputs of three jobs: files, a folder, and a file that Snakemake may remove."""
    monkeypatch.chdir(tmp_path)
    for path in (MEAN, MAP, MASK):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(f"content of {path}")
    record_outputs([MEAN, "elsewhere/file.txt"])
    record_outputs([CHUNK])
    record_outputs([MASK])
    (Path(CHUNK) / ".snakemake_timestamp").touch()


def problems(*temporary):
    return {(damage.path, damage.output, damage.problem) for damage in find_damage(temporary)[0]}


def test_results_that_are_whole_are_counted(made):
    assert find_damage() == ([], 3)


def test_what_changed_or_vanished_is_named_with_the_output_to_make_again(made):
    Path(MEAN).unlink()
    Path(MAP).write_text("content of")
    assert problems() == {(MEAN, MEAN, "missing"), (MAP, CHUNK, "changed")}
    Path(MAP).unlink()
    assert problems() == {(MEAN, MEAN, "missing"), (MAP, CHUNK, "missing")}


def test_a_file_that_snakemake_removes_may_be_missing_and_not_changed(made):
    pattern = "results/{cohort}/derivatives/sub-{subject}/sub-{subject}_desc-brain_mask.nii.gz"
    Path(MASK).write_text("half")
    assert problems(pattern) == {(MASK, MASK, "changed")}
    Path(MASK).unlink()
    assert problems(pattern) == set()
    assert problems("results/{cohort}/other") == {(MASK, MASK, "missing")}


def test_what_was_removed_with_its_folder_is_no_damage(made):
    for path in (MAP, f"{CHUNK}/.snakemake_timestamp"):
        Path(path).unlink()
    Path(CHUNK).rmdir()
    assert problems() == {(MAP, CHUNK, "missing")}, "its folder is there"
    Path(CHUNK).parent.rmdir()
    assert problems() == set()


def test_a_job_that_ran_again_counts_and_not_the_record_of_before(made):
    Path(MEAN).write_text("another")
    record_outputs([MEAN])
    assert problems() == set()
    # Of another rule, which made the same file under its first output's name in an older version.
    Path(MEAN).write_text("a third")
    record_outputs(["results/c/run/first.tsv", MEAN])
    assert problems() == set()


def test_inputs_are_compared_with_what_was_written(made):
    assert changed_inputs([MEAN, CHUNK, "data/scan.dcm"]) == []
    Path(MAP).write_text("")
    Path(MASK).unlink()
    assert changed_inputs([MEAN, CHUNK]) == [MAP]
    assert changed_inputs([MEAN, MASK]) == [MASK]
    assert changed_inputs(["data/scan.dcm"]) == []


def test_a_damaged_record_says_nothing_of_the_results(made):
    record_of("results/c/run/mean_AD.nii.gz").write_text("{")
    assert find_damage() == ([], 2)
    assert Damage(MEAN, MEAN, "changed") not in find_damage()[0]
