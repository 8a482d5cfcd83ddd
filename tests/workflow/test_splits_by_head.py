"""Splits that keep the patients of one head together, in the plan of the workflow."""

import copy
import re

import pytest

from workflow.conftest import TINY, snakemake
from workflow.test_rerun import SIMULATION, changed


def by_head(heads, **splits):
    config = changed(f"{SIMULATION}.heads", heads)
    return {**config, "splits": {**TINY["splits"], "group_by": "head", **splits}}


def head_of(image):
    """The number of a patient's head: each group's patients get the two heads in turn."""
    patient = (int(image[1:]) - 1_000_000) // 1000
    return (patient - 1) // 10 % 2


@pytest.fixture
def heads(tmp_path):
    names = ["a.nii.gz", "b.nii.gz"]
    for name in names:
        (tmp_path / name).touch()
    return names


def test_every_split_trains_on_one_of_two_heads_and_tests_on_the_other(tmp_path, heads):
    run = snakemake(tmp_path, "-n", config=by_head(heads))
    assert run.status == 0, run.said
    training = {}
    for block in re.findall(r"^rule fit_statistics:\n((?: +.*\n)+)", run.said, re.M):
        split = re.search(r"split=(\S+)", block)[1]
        images = set(re.findall(r"acq-(I\d+)_", block))
        training[split] = {head_of(image) for image in images}
    assert training.keys() == {"repeat-1_fold-1", "repeat-1_fold-2", "fixed"}
    assert all(len(heads_of_split) == 1 for heads_of_split in training.values())
    assert training["repeat-1_fold-1"] != training["repeat-1_fold-2"]


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ({"folds": 3}, ("splits.folds is 3", "from 2 heads", "at least 3 heads")),
        # The head with one patient of each class comes first, but is not enough.
        (
            {"fixed_test_patients": 2, "seed": 2},
            ("splits.fixed_test_patients is 2", "none of the 2 heads"),
        ),
        ({"fixed_draw": "as_published"}, ("splits.fixed_draw is as_published", "with heads: hash")),
    ],
)
def test_settings_that_need_more_heads_are_refused_by_key(tmp_path, heads, change, messages):
    run = snakemake(tmp_path, "-n", config=by_head(heads, **change))
    assert run.status != 0
    for words in ("splits.group_by is head", "cohort tiny, task AD-NC", *messages):
        assert words in run.said


def test_the_packaged_head_alone_cannot_be_split(tmp_path):
    run = snakemake(tmp_path, "-n", config=by_head([]))
    assert run.status != 0
    assert "made from 1 heads" in run.said
    assert "splits.group_by to patient" in run.said


def test_the_heads_of_real_scans_are_unknown(tmp_path):
    lines = ["Image Data ID,Subject,Group,Visit"]
    for number in range(6):
        subject = f"011_S_000{number}"
        (tmp_path / f"ADNI/{subject}/MP-RAGE/2005-09-12_10_11_12.0/I{number}").mkdir(parents=True)
        lines.append(f"I{number},{subject},{('AD', 'CN')[number % 2]},sc")
    (tmp_path / "scans.csv").write_text("\n".join(lines))
    config = copy.deepcopy(TINY)
    config["cohorts"] = {
        "own": {
            "source": "adni",
            "table": str(tmp_path / "scans.csv"),
            "images": str(tmp_path / "ADNI"),
        }
    }
    assert snakemake(tmp_path, "-n", config=config).status == 0
    config["splits"]["group_by"] = "head"
    run = snakemake(tmp_path, "-n", config=config)
    assert run.status != 0
    assert "splits.group_by is head, but of the scans of cohort own no head is known" in run.said
    assert "allowed for scans that are not simulated: patient" in run.said


def test_an_external_test_leaves_out_the_training_heads(tmp_path, heads):
    (tmp_path / "c.nii.gz").touch()
    config = by_head(heads, external=[{"train": "tiny", "test": "other"}])
    other = copy.deepcopy(config["cohorts"]["tiny"])
    # Other patients, the first half of whom are made from a head of the training cohort.
    heads = ["b.nii.gz", "c.nii.gz"]
    other["simulation"] |= {"heads": heads, "first_number": 500, "seed": 4}
    config["cohorts"]["other"] = {**other, "train": False}
    config["heatmaps"] = {"methods": ["sensitivity"], "splits": "external"}
    run = snakemake(tmp_path, "-n", config=config)
    assert run.status == 0, run.said
    (block,) = re.findall(r"^rule explain_scans:\n((?: +.*\n)+)", run.said, re.M)
    assert "split=external-other" in block
    tested = set(re.findall(r"results/other/\S+acq-(I\d+)_", block))
    assert {head_of(image) for image in tested} == {1}, "made from c"
    assert len(tested) == 2, "a patient of each class"
