"""The estimate counts the jobs that Snakemake plans; intermediate volumes are deleted."""

import copy
import re
import shutil
from collections import Counter

import pytest
import yaml

from voxplain.models import MODELS
from voxplain.relevance import METHODS
from voxplain_workflow.planning.plan import Plan
from voxplain_workflow.planning.work import count_work
from voxplain_workflow.running.estimate import INTERMEDIATE
from workflow.conftest import FIRST, ROOT, TINY, snakemake
from workflow.plans import jobs_of
from workflow.test_rerun import SIMULATION, changed

OTHER = copy.deepcopy(TINY["cohorts"]["tiny"])
CONFIGS = {
    "tiny": TINY,
    "more folds": changed("splits.folds", 3),
    "more repeats": changed("splits.repeats", 2),
    "more seeds": changed("training.seeds", [1, 2]),
    "logs for TensorBoard": changed("training.tensorboard", True),
    "heatmaps of all splits": changed("heatmaps.splits", "all"),
    "one scan a chunk": changed("heatmaps.chunk_size", 1),
    "two methods": changed("heatmaps.methods", ["sensitivity", "occlusion"]),
    "three classes": changed("tasks", [["AD", "NC", "MCI"]]),
    "two tasks": changed("tasks", [["AD", "NC"], ["AD", "NC", "MCI"]]),
    "one class": changed("tasks", [["AD"]]),
    "every network and method": {
        **changed("models", {name: {} for name in MODELS}),
        "heatmaps": {"methods": list(METHODS), "splits": "all"},
    },
    "more visits": changed(f"{SIMULATION}.visits", {"sc": 1.0, "m12": 1.0}),
    "own heads": changed(f"{SIMULATION}.heads", ["head.nii.gz"]),
    "healthy twins": {
        **changed("heatmaps.splits", "all"),
        "localisation": {"residual": True},
    },
    "two cohorts": {**TINY, "cohorts": {**TINY["cohorts"], "other": OTHER}},
    "a network of one cohort": {
        **changed("models", {"rieke": {}, "voxcnn": {}}),
        "cohorts": {**TINY["cohorts"], "other": {**OTHER, "models": ["voxcnn"]}},
    },
    # The configuration of the main question; the large one has no further features.
    "benchmark_small": yaml.safe_load((ROOT / "config/benchmark_small.yaml").read_text()),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_job_counts_agree_with_snakemake(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "head.nii.gz").touch()
    work = count_work(Plan.build(CONFIGS[name]))
    counted = {rule: share.jobs for rule, share in work.items()}
    planned = Counter(job["rule"] for job in jobs_of(CONFIGS[name]))
    del planned["all"]
    assert counted == planned


@pytest.mark.slow
def test_the_estimate_is_printed_and_logged(tmp_path):
    run = snakemake(tmp_path, "estimate", "--quiet", "all", config=TINY)
    assert run.status == 0, run.said
    rows = re.findall(r"^(\w+) +([\d,]+) +[\d.,]+ +(?:-|[\d.,]+) +[\d.,]+$", run.said, re.M)
    printed = {rule: int(jobs.replace(",", "")) for rule, jobs in rows}
    assert printed.pop("total") == sum(printed.values())
    planned = Counter(job["rule"] for job in jobs_of(TINY))
    assert {**printed, "all": 1} == planned
    assert (tmp_path / "logs/estimate.log").read_text().strip() in run.said


def test_only_the_networks_that_a_cohort_names_are_trained_on_it():
    jobs = jobs_of(CONFIGS["a network of one cohort"])
    trained = [job["wildcards"] for job in jobs if job["rule"] == "train_network"]
    assert {(training["cohort"], training["model"]) for training in trained} == {
        *(("tiny", "rieke"), ("tiny", "voxcnn"), ("other", "voxcnn"))
    }


@pytest.mark.slow
def test_only_intermediate_volumes_are_deleted(finished):
    def files():
        paths = (finished / "results/tiny/derivatives").rglob("*")
        return {path for path in paths if path.is_file()}

    before = files()
    scan = sorted((finished / "results/tiny/derivatives").glob("sub-*/ses-*"))[0]
    shutil.rmtree(scan)
    (finished / "results/tiny/scans.tsv").unlink()
    config = {**FIRST, "keep_intermediates": False}
    run = snakemake(finished, "preprocessed", config=config)
    assert run.status == 0, run.said
    assert run.jobs["register_to_template"] == 1
    deleted = before - files()
    assert {INTERMEDIATE.search(path.name).group(1).split("_to-")[0] for path in deleted} == {
        "T1w.nii.gz",
        "desc-brain_mask.nii.gz",
        "desc-corrected_T1w.nii.gz",
        "from-T1w",
    }
    assert len(deleted) == 4
    assert files() < before
    assert not [path for path in scan.rglob("*") if INTERMEDIATE.search(path.name)]
    # They are not needed again, not even when more scans are explained later.
    again = snakemake(finished, "preprocessed", "-n", config=config)
    assert "Nothing to be done" in again.said, again.said
    for path in (finished / "results/tiny/derivatives").rglob("*"):
        if INTERMEDIATE.search(path.name):
            path.unlink()
    config = {**changed("heatmaps.splits", "all", FIRST), "keep_intermediates": False}
    more = snakemake(finished, "-n", config=config)
    assert "register_to_template" not in more.rules, more.said
