"""Other networks and methods than Rieke's, other tasks, other cohorts, and new scans."""

import copy
import json
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from shared import made_once
from voxplain.models import MODELS, describe_model, plan_model
from voxplain.relevance import METHODS
from voxplain.relevance.combine import combine
from voxplain.training.networks import load_network
from workflow.conftest import ROOT, TINY, snakemake

GRID = (49, 58, 49)
OTHER = copy.deepcopy(TINY["cohorts"]["tiny"])
OTHER["train"] = False
OTHER["simulation"] |= {
    "seed": 4,
    "first_number": 1000,
    "groups": {
        "AD": {"patients": 1, "severity": [0.8, 1.0]},
        "CN": {"patients": 1, "severity": [0, 0]},
    },
}
# Every method on every network: tests/unit/test_methods_on_models.py. For the workflow all methods
# are alike: those with special inputs (areas, a layer, others' heatmaps) are here or in TINY.
NETWORKS = ["voxcnn", "voxresnet_shallow_gap"]
METHODS_HERE = [
    "cam",
    "lrp",
    "lrp_grad_cam_pp",
    "summary",
]
ALL = {
    **TINY,
    "cohorts": {**TINY["cohorts"], "other": OTHER},
    "splits": {**TINY["splits"], "external": [{"train": "tiny", "test": "other"}]},
    "models": {name: {"epochs": 1} for name in NETWORKS},
    "heatmaps": {"methods": METHODS_HERE},
    "cam": {"layer": {"voxcnn": "conv2b"}},
    # On Rieke's network only: test_faithfulness.py.
    "faithfulness": {"scans": 0, "randomised_scans": 0},
}


def table(path):
    return pd.read_csv(path, sep="\t", na_values="n/a", keep_default_na=False)


def methods_of(model):
    return [m for m in METHODS_HERE if not METHODS[m].models or model in METHODS[m].models]


@pytest.fixture(scope="session")
def all_run(first_run, tmp_path_factory, worker_id):
    """The first run, continued with more networks, methods, and a test on another cohort."""
    with made_once(tmp_path_factory, worker_id, "all") as (directory, empty):
        if empty:
            shutil.copytree(first_run, directory, symlinks=True)
            run = snakemake(directory, config=ALL)
            assert run.status == 0, run.said
            (directory / "said.log").write_text(run.said)
            (directory / "trained").write_text(str(run.jobs["train_network"]))
    return directory


@pytest.mark.slow
def test_every_network_gets_its_distance_table(all_run):
    for model in NETWORKS:
        folder = all_run / f"results/tiny/AD-NC/{model}/fixed/seed-1"
        rows = table(folder / "distances.tsv")
        methods = methods_of(model)
        assert set(rows["method_a"]) == set(methods)
        assert len(rows) == 2 * len(methods) ** 2
        assert set(rows["model"]) == {describe_model(model, GRID)}
        assert (folder / "mean_maps.png").stat().st_size > 10_000
    assert int((all_run / "trained").read_text()) == 4 * len(NETWORKS)


@pytest.mark.slow
@pytest.mark.parametrize("model", NETWORKS)
def test_heatmaps_lie_in_the_brain_and_have_sidecars(all_run, model):
    mask = nib.load(next(all_run.glob("results/template/*desc-brain_mask.nii.gz"))).get_fdata() > 0
    folder = all_run / f"results/tiny/AD-NC/{model}/fixed/seed-1"
    for method in methods_of(model):
        paths = sorted((folder / method).glob("scans/*/*_relevance.nii.gz"))
        assert len(paths) == 2
        for path in paths:
            heatmap = nib.load(path).get_fdata()
            assert np.isfinite(heatmap).all() and heatmap.min() >= 0
            assert not heatmap[~mask].any()
            sidecar = json.loads(path.with_suffix("").with_suffix(".json").read_text())
            assert sidecar["Method"] == method
            if "layer" in METHODS[method].options:
                expected = "conv2b" if model == "voxcnn" else plan_model(model, GRID).last_layer
                assert sidecar["Options"]["layer"] == expected


@pytest.mark.slow
def test_a_summary_is_the_mean_of_the_other_methods_normalised_maps(all_run):
    folder = all_run / "results/tiny/AD-NC/voxcnn/fixed/seed-1"
    for path in (folder / "summary").glob("scans/*/*_relevance.json"):
        sidecar = json.loads(path.read_text())
        methods = [method for method in methods_of("voxcnn") if method != "summary"]
        assert sidecar["Options"] == {"methods": methods, "normalise": "sum"}
        maps = []
        for method in methods:
            for one in (folder / method).glob("scans/*/*_relevance.json"):
                if json.loads(one.read_text())["Image"] == sidecar["Image"]:
                    maps.append(nib.load(one.with_suffix(".nii.gz")).get_fdata())
        assert len(maps) == len(methods)
        filled = [one / one.sum() for one in maps if one.sum()]
        summary = nib.load(path.with_suffix(".nii.gz")).get_fdata()
        np.testing.assert_allclose(summary, np.mean(filled, axis=0), rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(summary, combine(maps), rtol=1e-4, atol=1e-9)


@pytest.mark.slow
def test_the_summary_has_a_row_for_every_network_and_evaluation(all_run):
    rows = table(all_run / "results/summary.tsv")
    per_scan = rows[rows["level"] == "scan"]
    baselines = per_scan[per_scan["kind"] == "baseline"]
    assert len(per_scan) - len(baselines) == 3 * len(NETWORKS)
    # Also of the other cohort, with its own areas, ages and sexes.
    assert len(baselines) == 3 * 2
    assert (baselines.groupby("evaluation")["tested_on"].first()["external test"]) == "other"
    assert set(per_scan["evaluation"]) == {"cross-validation", "fixed split", "external test"}
    for model in NETWORKS:
        label = describe_model(model, GRID)
        of_model = per_scan[per_scan["model"] == label].set_index("evaluation")
        folds = table(all_run / f"results/tiny/AD-NC/{model}/cross_validation.tsv")
        mean = folds[(folds["level"] == "scan") & (folds["split"] == "mean")]["accuracy"].item()
        assert of_model.loc["cross-validation", "accuracy_mean"] == pytest.approx(mean, abs=1e-3)
        assert of_model.loc["cross-validation", "networks"] == 2
        assert of_model.loc["external test", "tested_on"] == "other"
    assert (all_run / "results/summary.png").read_bytes()[:4] == b"\x89PNG"
    assert "All networks and baselines, per scan (mean ± SD" in (all_run / "said.log").read_text()


@pytest.mark.slow
def test_an_external_test_trains_on_one_cohort_and_tests_on_the_other(all_run):
    members = table(all_run / "results/tiny/AD-NC/splits/external-other_members.tsv")
    assert len(members[members["side"] == "train"]) == 6
    test = members[members["side"] == "test"]
    assert sorted(test["class"]) == ["AD", "NC"]
    assert test["path"].str.startswith("results/other/").all()
    statistics = json.loads(
        (all_run / "results/tiny/AD-NC/splits/external-other_statistics.json").read_text()
    )
    assert sorted(statistics["FittedOn"]) == sorted(members[members["side"] == "train"]["image"])
    # Nothing is trained on the test cohort.
    assert not (all_run / "results/other/AD-NC").exists()


@pytest.mark.slow
def test_a_finished_run_has_no_jobs_left(all_run):
    assert "Nothing to be done" in snakemake(all_run, "-n", config=ALL).said


# --- new scans ------------------------------------------------------------------------------------


def applied(all_run, **more):
    network = "results/tiny/AD-NC/voxresnet_shallow_gap/fixed/seed-1/model.pt"
    return {
        **TINY,
        "cohorts": {"other": OTHER},
        "heatmaps": {"methods": ["cam", "sensitivity", "summary"]},
        "apply": {"networks": {"shallow": str(all_run / network)}, "cohorts": ["other"]},
        **more,
    }


@pytest.mark.slow
def test_a_trained_network_is_applied_to_new_scans_and_nothing_is_trained(all_run, tmp_path):
    shutil.copytree(all_run / "results/other", tmp_path / "results/other", symlinks=True)
    shutil.copytree(all_run / "results/template", tmp_path / "results/template", symlinks=True)
    config = applied(all_run)
    run = snakemake(tmp_path, "apply", config=config)
    assert run.status == 0, run.said
    assert not {"train_network", "fit_statistics", "audit_split"} & run.rules
    folder = tmp_path / "results/other/applied/shallow"
    predictions = table(folder / "predictions.tsv")
    assert len(predictions) == 2
    assert set(predictions["trained_on"]) == {"no"}
    # The network's prediction, computed by hand.
    network = load_network(config["apply"]["networks"]["shallow"])
    scans = table(tmp_path / "results/other/scans.tsv").set_index("image")
    for row in predictions.itertuples():
        raw = nib.load(tmp_path / "results/other" / scans.loc[row.image, "preprocessed"])
        stored = network.statistics
        scan = np.where(stored.mask, (raw.get_fdata() - stored.mean) / stored.sd, 0).astype(
            np.float32
        )
        with torch.no_grad():
            logits = network.model(torch.from_numpy(scan)[None, None]).double()
        probability = float(torch.softmax(logits, 1)[0, 0])
        assert probability == pytest.approx(row.probability_AD, abs=1e-3)
    for method in ("cam", "sensitivity", "summary"):
        assert len(list(folder.glob(f"{method}/scans/chunk-1/*_relevance.nii.gz"))) == 2
        assert len(table(folder / f"{method}/areas.tsv")) == 2 * 116
    again = snakemake(tmp_path, "apply", "-n", config=config)
    assert "Nothing to be done" in again.said, again.said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"bias_correction": "auto"}, "preprocessed with bias_correction: never"),
        ({"apply": {"cohorts": ["other"]}}, "config: apply.networks is empty"),
        (
            {"apply": {"cohorts": ["other"], "networks": {"a": "nowhere.pt"}}},
            "config: apply.networks.a is nowhere.pt, which does not exist",
        ),
        (
            {"apply": {"cohorts": ["another"], "networks": {"a": "nowhere.pt"}}},
            "config: apply.cohorts has 'another'; allowed: other",
        ),
    ],
)
def test_networks_that_cannot_be_applied_are_refused(all_run, tmp_path, more, message):
    for name in ("other", "template"):
        shutil.copytree(all_run / f"results/{name}", tmp_path / f"results/{name}", symlinks=True)
    target = "results/other/applied/shallow/predictions.tsv" if "apply" not in more else "apply"
    config = applied(all_run, **more)
    rules = ["--allowed-rules", "apply_network"] if "apply" not in more else ["-n"]
    run = snakemake(tmp_path, target, "--retries", "0", *rules, config=config)
    assert run.status != 0
    assert message in run.said


# --- tasks ----------------------------------------------------------------------------------------


def test_several_groups_at_once_and_labels_derived_over_time(tmp_path):
    """Dry run only: three classes, and MCI that does or does not progress to AD."""
    config = copy.deepcopy(TINY)
    config["tasks"] = [["AD", "MCI", "NC"], ["pMCI", "sMCI"]]
    simulation = config["cohorts"]["tiny"]["simulation"]
    simulation["groups"]["MCI"] = {"patients": 12, "severity": [0.3, 0.6], "converts": 0.5}
    simulation["visits"] = {"sc": 1.0, "m36": 1.0}
    run = snakemake(tmp_path, "-n", config=config)
    assert run.status == 0, run.said
    assert run.jobs["train_network"] == 6
    assert run.jobs["evaluate_folds"] == 2
    for task in ("AD-MCI-NC", "pMCI-sMCI"):
        assert f"results/tiny/{task}/rieke/fixed/seed-1/model.pt" in run.said


def test_the_tour_plans_every_network_with_every_method_that_applies(tmp_path):
    config = yaml.safe_load((ROOT / "config/all_methods.yaml").read_text())
    assert config["models"].keys() == MODELS.keys()
    assert set(config["heatmaps"]["methods"]) == METHODS.keys()
    run = snakemake(tmp_path, "-n", config=config)
    assert run.status == 0, run.said
    assert run.jobs["train_network"] == 4 * len(MODELS)
    assert run.jobs["compare_methods"] == len(MODELS)
