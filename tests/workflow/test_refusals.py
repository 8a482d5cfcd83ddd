"""Settings that cannot be: refused with one line, by the targets that need them, and no others."""

import pytest
import torch

from workflow.conftest import TINY, snakemake
from workflow.plans import jobs_of, reruns

FAULTS = {
    "splits": ({"splits": {**TINY["splits"], "folds": 9}}, "config: splits.folds is 9"),
    "networks": ({"cam": {"layer": "nowhere"}}, "config: cam.layer is 'nowhere'"),
    "device": ({"device": "cuda"}, "config: device is cuda"),
}


def folder(tmp_path, name):
    """A working directory whose name is also a target's; the name must have no effect."""
    place = tmp_path / name
    place.mkdir()
    return place


def skip_with_a_gpu(config):
    if config.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "target", ["all", "estimate", "results/tiny/AD-NC/rieke/fixed/seed-1/model.pt"]
)
def test_what_needs_it_is_refused_with_one_line(tmp_path, fault, target):
    change, message = FAULTS[fault]
    skip_with_a_gpu(change)
    run = snakemake(folder(tmp_path, "preprocessed"), "-n", target, config={**TINY, **change})
    assert run.status != 0
    last = run.said.strip().splitlines()[-1]
    assert message in last, run.said
    assert "Traceback" not in run.said


@pytest.mark.slow
def test_a_real_run_ends_with_the_same_line_and_leaves_no_lock(tmp_path):
    """The others here are forks of a process that has Snakemake at hand."""
    run = snakemake(tmp_path, config={**TINY, **FAULTS["splits"][0]})
    assert run.status == 1
    assert run.said.strip().splitlines()[-1].startswith("config: splits.folds is 9")
    assert "Traceback" not in run.said
    assert not list((tmp_path / ".snakemake/locks").glob("*"))
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("fault", FAULTS)
def test_scans_are_preprocessed_all_the_same(tmp_path, fault):
    config = {**TINY, **FAULTS[fault][0]}
    run = snakemake(folder(tmp_path, "all"), "-n", "preprocessed", config=config)
    assert run.status == 0, run.said
    assert run.jobs["register_to_template"] == 6
    assert "train_network" not in run.jobs
    assert not reruns(jobs_of(TINY, "preprocessed"), jobs_of(config, "preprocessed"))


def test_a_folder_called_apply_asks_for_nothing_to_be_applied(tmp_path):
    run = snakemake(folder(tmp_path, "my_apply"), "-n", config=TINY)
    assert run.status == 0, run.said
    assert run.jobs["train_network"] == 3


def test_apply_without_networks_is_refused_with_one_line(tmp_path):
    run = snakemake(tmp_path, "-n", "apply", config=TINY)
    assert run.status != 0
    last = run.said.strip().splitlines()[-1]
    assert last == "config: apply.networks is empty; `snakemake apply` needs it"


def test_a_scan_to_keep_that_no_table_names_is_refused_whatever_is_asked_for(tmp_path):
    config = {**TINY, "quality": {"keep": ["I1"]}}
    run = snakemake(tmp_path, "-n", "preprocessed", config=config)
    assert run.status != 0
    assert "config: quality.keep has 'I1', which no cohort's table names" in run.said


def bad(**settings):
    return {**TINY, **settings}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            bad(splits={"folds": 5, "fixed_test_patients": 1}),
            "config: splits.folds is 5, but class AD has 3 patients",
        ),
        (
            bad(splits={"folds": 2}),
            "config: splits.fixed_test_patients is 30, but class AD has 3 patients",
        ),
        (
            bad(models={"rieke": {"pools": [2, 3, 2, 3]}}),
            "config: models.rieke.pools is 2,3,2,3, with which model rieke does not fit a grid of "
            "49x58x49 voxels",
        ),
        (bad(models={"riecke": {}}), "config: unknown key models.riecke; did you mean rieke?"),
        (
            bad(tasks=[["AD", "NC", "MCI"]], models={"voxcnn": {"batch_size": 2}}),
            "config: models.voxcnn.batch_size is 2, too few for a scan of each of 3 classes",
        ),
        (
            bad(cam={"layer": "conv9"}),
            "config: cam.layer is 'conv9', but model rieke has no such layer; allowed: auto, "
            "features.0",
        ),
        (
            bad(heatmaps={"methods": ["cam"]}),
            "config: heatmaps.methods has cam, which applies to voxresnet_gap",
        ),
        (
            bad(summary={"methods": ["cam"]}),
            "config: summary.methods has 'cam'; allowed: the other heatmaps.methods",
        ),
        (
            bad(splits={**TINY["splits"], "external": [{"train": "tiny", "test": "big"}]}),
            "config: splits.external.0.test is 'big'; allowed: tiny",
        ),
        (
            bad(tasks=[["MCI", "sMCI"]]),
            "config: tasks.0 is MCI, sMCI, which has sMCI beside MCI, so that a scan could be in",
        ),
        (
            bad(heatmaps={"methods": ["oclusion"]}),
            "config: heatmaps.methods.0 is 'oclusion'; allowed: occlusion",
        ),
        (
            bad(
                cohorts={name: TINY["cohorts"]["tiny"] for name in ("tiny", "twin")},
                splits={**TINY["splits"], "external": [{"train": "tiny", "test": "twin"}]},
            ),
            "cohorts tiny and twin have the same simulation.seed (3), so that their patients are",
        ),
        (
            bad(
                cohorts={
                    "tiny": TINY["cohorts"]["tiny"],
                    "other": {**TINY["cohorts"]["tiny"], "train": False},
                },
                heatmaps={"cohorts": ["other"]},
            ),
            "config: heatmaps.cohorts has other, which has train: false",
        ),
        (
            bad(heatmaps={"cohorts": ["big"]}),
            "config: heatmaps.cohorts has 'big'; allowed: all, or a list of tiny",
        ),
        (
            bad(cohorts={"tiny": {**TINY["cohorts"]["tiny"], "models": ["voxcnn"]}}),
            "config: cohorts.tiny.models has 'voxcnn', which is not among the models; "
            "allowed: all, or a list of rieke",
        ),
        (
            bad(heatmaps={"target": "MCI"}),
            "config: heatmaps.target is 'MCI'; allowed: disease, predicted, true, AD, NC",
        ),
        (bad(tasks=[["AD", "ND"]]), "config: tasks.0.1 is 'ND'; allowed: AD, NC, MCI"),
        (
            bad(device="cuda"),
            "config: device is cuda, but this machine has no NVIDIA driver or no GPU",
        ),
        (
            bad(occlusion={"size": 40}),
            "config: unknown key occlusion.size; did you mean size_mm?",
        ),
    ],
)
def test_bad_settings_stop_the_run_with_one_line_before_any_job(tmp_path, config, message):
    skip_with_a_gpu(config)
    run = snakemake(tmp_path, "-n", config=config)
    assert run.status != 0
    assert "Traceback" not in run.said
    assert len([line for line in run.said.splitlines() if message in line]) == 1, run.said


def test_a_job_on_a_clusters_node_without_a_gpu_finds_its_splits(tmp_path):
    """What a login node sends there reads the workflow once more; it may need no GPU."""
    target = "results/tiny/AD-NC/rieke/cross_validation.tsv"
    config = {**TINY, "device": "cuda"}
    run = snakemake(tmp_path, target, "-n", "--mode", "remote", config=config)
    assert run.status == 0, run.said
    assert run.jobs["evaluate_folds"] == 1


@pytest.mark.parametrize("given", [False, True], ids=["in the folder", "by --configfile"])
def test_a_key_that_stands_twice_is_refused_wherever_the_file_comes_from(tmp_path, given):
    path = tmp_path / ("mine.yaml" if given else "config.yaml")
    path.write_text("cohorts: {demo: {source: simulated}}\nmax_failed: 0.1\nmax_failed: 0.2\n")
    run = snakemake(tmp_path, "-n", *(["--configfile", str(path)] if given else []))
    assert run.status != 0
    assert "key max_failed stands in lines 2 and 3; keep one" in run.said
    assert "Traceback" not in run.said


def test_a_file_in_another_encoding_is_refused_before_snakemake_reads_it(tmp_path):
    (tmp_path / "config.yaml").write_bytes("# M\xfcller\n".encode("latin-1"))
    run = snakemake(tmp_path, "-n")
    assert run.status != 0
    assert "config.yaml is not UTF-8 (byte 0xfc in line 1)" in run.said
    assert "Traceback" not in run.said
