"""The results of a real run of the tiny cohort: splits, networks, heatmaps, tables."""

import csv
import json
import re
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from matplotlib import pyplot as plt
from scipy import stats
from sklearn import metrics
from sklearn.linear_model import LogisticRegression

from voxplain.models import build_model
from voxplain.relevance import METHODS
from voxplain.store import Brain, write_scan
from workflow.conftest import FIRST, ROOT, TINY, read_scans, snakemake

pytestmark = pytest.mark.slow

TASK = "results/tiny/AD-NC"
FIXED = f"{TASK}/rieke/fixed/seed-1"
LABEL = "rieke (pools 2,2,2,1)"


def table(path):
    return pd.read_csv(path, sep="\t", na_values="n/a", keep_default_na=False)


def test_every_usable_scan_is_tested_once_and_no_patient_is_on_two_sides(tiny_run):
    splits = table(tiny_run / f"{TASK}/splits.tsv")
    assert set(splits["split"]) == {"repeat-1_fold-1", "repeat-1_fold-2", "fixed"}
    for _, split in splits.groupby("split"):
        sides = split.groupby("patient")["side"].nunique()
        assert (sides == 1).all()
    folds = splits[(splits["side"] == "test") & (splits["split"] != "fixed")]
    usable = [i for i, row in read_scans(tiny_run).items() if row["fate"] == "usable"]
    assert sorted(folds["image"]) == sorted(usable)
    fixed = splits[(splits["split"] == "fixed") & (splits["side"] == "test")]
    assert sorted(fixed["class"]) == ["AD", "NC"]
    counts = table(tiny_run / f"{TASK}/splits_counts.tsv")
    assert counts["scans"].sum() == len(splits)
    # Every patient of the simulation has a sex and an age.
    assert (counts["female"] + counts["male"] == counts["patients"]).all()
    scans = pd.DataFrame(read_scans(tiny_run)).T
    side = splits[(splits["split"] == "fixed") & (splits["side"] == "train")]
    training = counts[(counts["split"] == "fixed") & (counts["side"] == "train")].set_index("class")
    for group, members in side.groupby("class"):
        ages = scans.loc[members["image"], "age"].astype(float)
        row = training.loc[group]
        assert row["age_mean"] == pytest.approx(ages.mean(), abs=0.01)
        assert row["age_sd"] == pytest.approx(ages.std(), abs=0.01)
    audit = table(tiny_run / f"{TASK}/leakage_audit.tsv")
    assert (audit["patients_on_both_sides"] == 0).all()
    # Reported for every simulated cohort that has only one head.
    assert audit["heads_on_both_sides"].str.startswith("head packaged is on both sides").all()


def test_the_statistics_of_a_split_are_computed_on_its_training_scans(tiny_run):
    scans, splits = read_scans(tiny_run), table(tiny_run / f"{TASK}/splits.tsv")
    split = splits[splits["split"] == "repeat-1_fold-1"]
    training = split[split["side"] == "train"]["image"]
    volumes = np.stack(
        [
            nib.load(tiny_run / "results/tiny" / scans[i]["preprocessed"]).get_fdata()
            for i in training
        ]
    )
    place = tiny_run / f"{TASK}/splits"
    mean = nib.load(place / "repeat-1_fold-1_mean.nii.gz").get_fdata()
    sd = nib.load(place / "repeat-1_fold-1_sd.nii.gz").get_fdata()
    mask = nib.load(next(tiny_run.glob("results/template/*desc-brain_mask.nii.gz"))).get_fdata() > 0
    # Brain voxels are stored in 16 bits, with an error of at most half a step.
    half_a_step = np.ptp(volumes[:, mask], axis=1).max() / 131_068
    assert np.allclose(mean[mask], volumes.mean(0)[mask], rtol=1e-6, atol=1.1 * half_a_step)
    floor = 0.1 * np.median(volumes.std(0)[mask])
    expected = np.maximum(volumes.std(0), floor)[mask]
    assert np.allclose(sd[mask], expected, rtol=1e-6, atol=1.1 * half_a_step)
    assert not mean[~mask].any()
    sidecar = json.loads((place / "repeat-1_fold-1_statistics.json").read_text())
    assert sorted(sidecar["FittedOn"]) == sorted(training)


def test_metrics_follow_from_the_predictions(tiny_run):
    for folder in tiny_run.glob(f"{TASK}/rieke/*/seed-1"):
        metrics = json.loads((folder / "metrics.json").read_text())
        predictions = table(folder / "predictions.tsv")
        assert metrics["model"] == LABEL
        assert metrics["scan"]["n"] == len(predictions)
        right = (predictions["class"] == predictions["predicted"]).mean()
        assert metrics["scan"]["accuracy"] == pytest.approx(right)
        both = predictions["probability_AD"] + predictions["probability_NC"]
        assert np.allclose(both, 1, atol=2e-6)
        assert len(table(folder / "history.tsv")) == TINY["models"]["rieke"]["epochs"]
    assert len(list(tiny_run.glob(f"{TASK}/rieke/*/seed-1/metrics.json"))) == 3


def test_the_cross_validation_has_its_folds_their_mean_and_the_pooled_value(tiny_run):
    rows = table(tiny_run / f"{TASK}/rieke/cross_validation.tsv")
    scans = rows[rows["level"] == "scan"].set_index("split")
    folds = scans.loc[["repeat-1_fold-1", "repeat-1_fold-2"], "accuracy"].astype(float)
    assert float(scans.loc["mean", "accuracy"]) == pytest.approx(folds.mean(), abs=1e-4)
    assert float(scans.loc["sd", "accuracy"]) == pytest.approx(folds.std(ddof=1), abs=1e-4)
    assert int(scans.loc["pooled", "n"]) == 6
    assert set(rows["model"]) == {LABEL}


def stored_network(tiny_run):
    """The network of the fixed split, and a function from an image to the network's input."""
    stored = torch.load(tiny_run / FIXED / "model.pt", weights_only=True)
    model = build_model(stored["model"], stored["grid_shape"], 2, **stored["options"])
    model.load_state_dict(stored["state_dict"])
    place = tiny_run / f"{TASK}/splits"
    mean, sd = (nib.load(place / f"fixed_{part}.nii.gz").get_fdata() for part in ("mean", "sd"))
    mask = nib.load(next(tiny_run.glob("results/template/*desc-brain_mask.nii.gz"))).get_fdata() > 0
    scans = read_scans(tiny_run)

    def scan_of(image):
        raw = nib.load(tiny_run / "results/tiny" / scans[image]["preprocessed"]).get_fdata()
        return np.where(mask, (raw - mean) / sd, 0).astype(np.float32)

    return model.eval(), scan_of, mask


def probability_of_ad(model, scan):
    with torch.no_grad():
        return float(torch.softmax(model(torch.from_numpy(scan)[None, None]).double(), 1)[0, 0])


def test_a_stored_network_gives_the_stored_predictions(tiny_run):
    model, scan_of, _ = stored_network(tiny_run)
    for row in table(tiny_run / FIXED / "predictions.tsv").itertuples():
        probability = probability_of_ad(model, scan_of(row.image))
        assert probability == pytest.approx(row.probability_AD, abs=1e-4)


def test_voxel_occlusion_is_the_change_by_a_cube_around_the_voxel(tiny_run):
    """By full forward passes, in the middle and at the surface of the brain."""
    model, scan_of, mask = stored_network(tiny_run)
    places = np.argwhere(mask)[:: mask.sum() // 12]
    half = TINY["voxel_occlusion"]["size_voxels"] // 2
    largest = 0
    for path in (tiny_run / FIXED / "voxel_occlusion").glob("scans/*/*.json"):
        scan = scan_of(json.loads(path.read_text())["Image"])
        heatmap = nib.load(path.with_suffix(".nii.gz")).get_fdata()
        for place in places:
            occluded = scan.copy()
            occluded[tuple(slice(at - half, at + half + 1) for at in place)] = 0
            change = probability_of_ad(model, scan) - probability_of_ad(model, occluded)
            assert heatmap[tuple(place)] == pytest.approx(abs(change), abs=1e-6)
        largest = max(largest, heatmap.max())
    assert largest > 1e-5


@pytest.mark.parametrize("method", TINY["heatmaps"]["methods"])
def test_the_average_of_a_method_is_over_its_scans_and_lies_in_the_brain(tiny_run, method):
    folder = tiny_run / FIXED / method
    mask = nib.load(next(tiny_run.glob("results/template/*desc-brain_mask.nii.gz"))).get_fdata() > 0
    for group in ("AD", "NC"):
        mean = nib.load(folder / f"mean_{group}.nii.gz")
        sidecars = [json.loads(p.read_text()) for p in folder.glob("scans/chunk-*/*.json")]
        volumes = [p.with_suffix("").with_suffix(".nii.gz") for p in folder.glob("scans/*/*.json")]
        of_class = [
            nib.load(volume).get_fdata()
            for volume, sidecar in zip(volumes, sidecars, strict=True)
            if sidecar["Class"] == group
        ]
        assert len(of_class) == 1
        assert np.allclose(mean.get_fdata(), np.mean(of_class, axis=0), rtol=1e-5, atol=1e-12)
        assert np.allclose(mean.affine[:3, 3], (-96, -132, -78))
        assert (mean.get_fdata()[~mask] == 0).all()
        assert (mean.get_fdata() >= 0).all()
        sidecar = json.loads((folder / f"mean_{group}.json").read_text())
        explained = METHODS[method].explains
        assert method == "summary" or sidecar["Explains"] == [f"{explained} of AD"]
        assert sidecar["Model"] == LABEL


def test_areas_and_distances_follow_from_the_average_maps(tiny_run):
    folder = tiny_run / FIXED
    rows = table(folder / "distances.tsv")
    assert list(rows.columns[:4]) == ["class", "method_a", "method_b", "distance"]
    methods = TINY["heatmaps"]["methods"]
    assert len(rows) == 2 * len(methods) ** 2
    maps = {}
    for method in methods:
        mean = nib.load(folder / method / "mean_AD.nii.gz").get_fdata()
        maps[method] = mean / mean.sum() if mean.sum() else None
    for row in rows[rows["class"] == "AD"].itertuples():
        one, other = maps[row.method_a], maps[row.method_b]
        if one is not None and other is not None:
            expected = np.sqrt(((one - other) ** 2).sum())
            assert float(row.distance) == pytest.approx(expected, rel=1e-4, abs=1e-9)
    labels = nib.load(next(tiny_run.glob("results/template/*AAL_dseg.nii.gz"))).get_fdata()
    names = table(next(tiny_run.glob("results/template/*AAL_dseg.tsv"))).set_index("name")["index"]
    assert len(names) == 116
    tops = table(folder / "top_areas.tsv")
    first = tops[(tops["method"] == "sensitivity") & (tops["class"] == "AD")].iloc[0]
    assert (first["by"], first["rank"]) == ("sum", 1)
    sides = [v for n, v in names.items() if re.sub("_[LR]$", "", n) == first["area"]]
    share = maps["sensitivity"][np.isin(labels, sides)].sum()
    assert float(first["share"]) == pytest.approx(share, rel=1e-4)
    areas = table(folder / "sensitivity/areas.tsv")
    assert set(areas.groupby("image").size()) == {116}


def truth_of(tiny_run, image):
    """Path and volume of a scan's true atrophy in template space."""
    (path,) = (tiny_run / "results/tiny/derivatives").rglob(f"*_acq-{image}_*truth_probseg.nii.gz")
    return path, nib.load(path).get_fdata()


def test_the_truth_of_a_diseased_test_scan_lies_in_the_areas_that_lost_tissue(tiny_run):
    splits = table(tiny_run / f"{TASK}/splits.tsv")
    tested = splits[(splits["split"] == "fixed") & (splits["side"] == "test")]
    (image,) = tested[tested["class"] == "AD"]["image"]
    carried = list((tiny_run / "results/tiny/derivatives").rglob("*truth_probseg.nii.gz"))
    path, truth = truth_of(tiny_run, image)
    assert path in carried and len(carried) == 3, "of the scans with a disease"
    assert np.allclose(nib.load(path).affine[:3, 3], (-96, -132, -78))
    assert 0.15 < truth.max() <= 0.3
    labels = nib.load(next(tiny_run.glob("results/template/*AAL_dseg.nii.gz"))).get_fdata()
    names = table(next(tiny_run.glob("results/template/*AAL_dseg.tsv"))).set_index("name")["index"]
    # The simulation's default.
    diseased = ("Hippocampus", "ParaHippocampal", "Amygdala", "Temporal_Mid", "Temporal_Inf")
    values = [value for name, value in names.items() if name[:-2] in diseased]
    inside = np.isin(labels, values)
    assert truth[inside].mean() > 8 * truth[~inside & (labels > 0)].mean()
    assert np.corrcoef((truth > 0.05).ravel(), inside.ravel())[0, 1] > 0.6


def test_localisation_agrees_with_scikit_learn(tiny_run):
    mask = nib.load(next(tiny_run.glob("results/template/*desc-brain_mask.nii.gz"))).get_fdata() > 0
    regions = nib.load(next(tiny_run.glob("results/template/*regions_dseg.nii.gz"))).get_fdata()
    means = table(tiny_run / FIXED / "localisation.tsv")
    summary = means[(means["measure"] == "average_precision") & (means["smoothing_mm"] == 0)]
    for method in ("sensitivity", "occlusion"):
        rows = table(tiny_run / FIXED / method / "localisation.tsv")
        assert set(rows["smoothing_mm"]) == {0, 12}
        rows = rows[(rows["measure"] == "average_precision") & (rows["smoothing_mm"] == 0)]
        by_region = {}
        for path in (tiny_run / FIXED / method).glob("scans/*/*.json"):
            scan = json.loads(path.read_text())
            heatmap = nib.load(path.with_suffix(".nii.gz")).get_fdata()[mask]
            regions_of_scan = {"hippocampus": regions == 2}
            if scan["Class"] == "AD":
                regions_of_scan["truth"] = truth_of(tiny_run, scan["Image"])[1] > 0.05
            for name, region in regions_of_scan.items():
                expected = metrics.average_precision_score(region[mask], heatmap)
                (row,) = rows[(rows["image"] == scan["Image"]) & (rows["region"] == name)].to_dict(
                    "records"
                )
                assert row["value"] == pytest.approx(expected, rel=1e-4)
                assert row["chance"] == pytest.approx(region[mask].mean(), rel=1e-4)
                by_region.setdefault(name, []).append(expected)
        assert set(rows[rows["region"] == "truth"]["class"]) == {"AD"}
        for name, values in by_region.items():
            (row,) = summary[(summary["method"] == method) & (summary["region"] == name)].to_dict(
                "records"
            )
            assert row["mean"] == pytest.approx(np.mean(values), rel=1e-4)
            assert row["patients"] == len(values)


def test_the_group_difference_is_the_t_of_the_training_scans(tiny_run):
    scans, splits = read_scans(tiny_run), table(tiny_run / f"{TASK}/splits.tsv")
    training = splits[(splits["split"] == "fixed") & (splits["side"] == "train")]
    groups = [
        np.stack(
            [
                nib.load(tiny_run / "results/tiny" / scans[image]["preprocessed"]).get_fdata()
                for image in training[training["class"] == group]["image"]
            ]
        )
        for group in ("AD", "NC")
    ]
    t = nib.load(tiny_run / f"{TASK}/splits/fixed_group_difference.nii.gz").get_fdata()
    mask = nib.load(next(tiny_run.glob("results/template/*desc-brain_mask.nii.gz"))).get_fdata() > 0
    # Where the scans differ by more than rounding.
    error = np.sqrt(sum(group.var(0, ddof=1) / len(group) for group in groups))
    sure = mask & (np.minimum(groups[0].std(0), groups[1].std(0)) > 0.01)
    sure &= error > 0.55 * np.median(error[mask])
    assert sure.sum() > 0.4 * mask.sum()
    expected = stats.ttest_ind(*groups, equal_var=False).statistic
    np.testing.assert_allclose(t[sure], expected[sure], rtol=0.02, atol=0.02)
    assert not t[~mask].any()
    rows = table(tiny_run / FIXED / "localisation.tsv")
    assert "group_difference" in set(rows["method"])
    assert list(rows["region"].unique()) == [
        "truth",
        "cortex",
        "hippocampus",
        "lateral_ventricle",
    ]


def test_scans_of_unknown_atrophy_are_localised_by_region_only(finished):
    """The simulated archive as a user's own download; its finished volumes are kept."""
    cohort = {
        "source": "adni",
        "table": "results/tiny/source/scans.csv",
        "images": "results/tiny/source/ADNI",
    }
    # The folders are relative to the run's.
    config = {**FIRST, "cohorts": {"tiny": cohort}}
    (finished / "config.yaml").write_text(yaml.safe_dump(config))
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    words += ["--workflow-profile", str(ROOT / "profiles/default"), "--cores", "2"]
    words += [f"{FIXED}/localisation.tsv", "--rerun-triggers", "mtime"]
    words += ["--forcerun", "localise_heatmaps", "localise_difference"]
    run = subprocess.run(words, cwd=finished, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "Finding what was simulated" not in run.stdout + run.stderr
    rows = table(finished / FIXED / "localisation.tsv")
    assert set(rows["region"]) == {"cortex", "hippocampus", "lateral_ventricle"}
    assert set(rows["method"]) == {"sensitivity", "occlusion", "group_difference"}
    assert (rows["patients"] == 2).all()


def test_the_noise_of_retraining_is_computed_from_the_maps_of_two_seeds(finished):
    """The maps of a second seed: the first seed's, plus a tenth of another method's."""
    methods = FIRST["heatmaps"]["methods"]
    config = {**FIRST, "training": {"seeds": [1, 2]}}
    mask = nib.load(next(finished.glob("results/template/*desc-brain_mask.nii.gz")))
    inside = mask.get_fdata() > 0
    shares = {}
    for group in ("AD", "NC"):
        for method, other in zip(methods, methods[::-1], strict=True):
            one, two = (
                nib.load(finished / FIXED / name / f"mean_{group}.nii.gz").get_fdata()
                for name in (method, other)
            )
            again = one / one.sum() + 0.1 * two / two.sum()
            path = finished / FIXED.replace("seed-1", "seed-2") / method / f"mean_{group}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(again.astype(np.float32), mask.affine), path)
            shutil.copyfile(
                finished / FIXED / method / f"mean_{group}.json",
                path.with_name(f"mean_{group}.json"),
            )
            shares[group, method, 1] = (one / one.sum())[inside]
            shares[group, method, 2] = (again / again.sum())[inside]
    target = f"{TASK}/rieke/fixed/retraining.png"
    run = snakemake(finished, target, "--allowed-rules", "compare_runs", config=config)
    assert run.status == 0, run.said
    assert run.jobs == {"compare_runs": 1}
    rows = table(finished / TASK / "rieke/fixed/retraining.tsv")
    assert len(rows) == 2 * 4
    for row in rows.to_dict("records"):
        a, b = (
            [shares[row["class"], row[f"method_{which}"], seed] for seed in (1, 2)]
            for which in "ab"
        )
        same_method = row["method_a"] == row["method_b"]
        pairs = [(a[0], a[1])] if same_method else list(zip(a, b, strict=True))
        distances = [np.linalg.norm(one - other) for one, other in pairs]
        correlations = [stats.spearmanr(one, other).statistic for one, other in pairs]
        assert row["distance_mean"] == pytest.approx(np.mean(distances), rel=1e-4)
        assert row["rank_correlation_mean"] == pytest.approx(np.mean(correlations), abs=1e-4)
        floor = max(np.linalg.norm(maps[0] - maps[1]) for maps in (a, b))
        assert row["floor"] == pytest.approx(floor, rel=1e-4)
        # A tenth of the way to the other method is less than the distance to it.
        assert same_method or str(row["within_noise"]) == "False"
        assert row["model"] == LABEL


def test_baselines_are_fitted_on_each_splits_training_scans(tiny_run):
    scans, splits = read_scans(tiny_run), table(tiny_run / f"{TASK}/splits.tsv")
    areas = table(tiny_run / f"{TASK}/baselines/areas.tsv").set_index("image")
    assert set(areas.pop("cohort")) == {"tiny"}
    assert sorted(areas.index) == sorted(scans_of_the_task(scans))
    labels = nib.load(next(tiny_run.glob("results/template/*AAL_dseg.nii.gz"))).get_fdata()
    names = table(next(tiny_run.glob("results/template/*AAL_dseg.tsv"))).set_index("name")["index"]
    mask = nib.load(next(tiny_run.glob("results/template/*desc-brain_mask.nii.gz"))).get_fdata() > 0
    image = areas.index[0]
    volume = nib.load(tiny_run / "results/tiny" / scans[image]["preprocessed"]).get_fdata()
    for area in ("Hippocampus_L", "Hippocampus_R", "Temporal_Mid_L"):
        expected = volume[mask & (labels == names[area])].mean()
        assert areas.loc[image, area] == pytest.approx(expected, rel=1e-4)
    people = pd.DataFrame(
        {i: [float(scans[i]["age"]), scans[i]["sex"] == "M"] for i in areas.index}
    ).T.astype(float)
    for baseline, features in (("areas", areas), ("age_sex", people)):
        folder = tiny_run / f"{TASK}/baselines/{baseline}"
        predictions = table(folder / "predictions.tsv")
        assert set(predictions["split"]) == set(splits["split"])
        for split, rows in splits.groupby("split"):
            train, test = (rows[rows["side"] == side] for side in ("train", "test"))
            values = features.loc[train["image"]].to_numpy()
            mean, sd = values.mean(0), values.std(0)
            sd[sd == 0] = 1
            model = LogisticRegression().fit((values - mean) / sd, train["class"])
            tested = (features.loc[test["image"]].to_numpy() - mean) / sd
            rows_of_split = predictions[predictions["split"] == split]
            assert list(rows_of_split["image"]) == list(test["image"])
            expected = model.predict_proba(tested)[:, 0]
            np.testing.assert_allclose(rows_of_split["probability_AD"], expected, atol=1e-4)
        rows = table(folder / "cross_validation.tsv")
        assert list(rows["split"][:5]) == [
            *("repeat-1_fold-1", "repeat-1_fold-2", "pooled", "mean", "sd")
        ]
    summary = table(tiny_run / "results/summary.tsv")
    assert list(summary["model"].unique()) == [
        *(LABEL, "baseline: age and sex", "baseline: mean of areas")
    ]
    against = table(tiny_run / "results/against_baselines.tsv")
    means = summary.set_index(["model", "level", "evaluation"])["roc_auc_mean"]
    assert len(against) == 2 * 2 * 2
    for row in against.to_dict("records"):
        at = (row["level"], row["evaluation"])
        expected = means[(LABEL, *at)] - means[(row["baseline"], *at)]
        assert row["roc_auc"] == pytest.approx(expected, abs=1e-3)


def scans_of_the_task(scans):
    return [image for image, row in scans.items() if row["group"] in ("AD", "NC", "CN")]


def test_the_truth_is_drawn_if_its_scan_is_in_any_chunk(finished):
    """With one scan per chunk, the first chunk may hold a healthy scan."""
    config = {**FIRST, "heatmaps": {**FIRST["heatmaps"], "chunk_size": 1}}
    run = snakemake(finished, f"{FIXED}/truth.png", config=config)
    assert run.status == 0, run.said
    assert run.jobs["explain_scans"] == 2, "the diseased scan's chunk of each method"
    height, width = plt.imread(finished / FIXED / "truth.png").shape[:2]
    assert height > width / 3, "rows for the truth and each method, not a line of text"


def test_all_pictures_exist(tiny_run):
    for path in (
        f"{TASK}/rieke/learning_curves.png",
        f"{TASK}/rieke/roc.png",
        f"{TASK}/rieke/confusion.png",
        *(f"{FIXED}/{name}.png" for name in ("mean_maps", "distances", "area_distribution")),
        *(f"{FIXED}/{name}.png" for name in ("localisation", "precision_recall", "truth")),
    ):
        assert (tiny_run / path).read_bytes()[:4] == b"\x89PNG", path


def test_the_end_of_the_run_prints_both_tables_and_their_paths(finished):
    run = snakemake(finished, "--forcerun", "compare_methods", config=FIRST)
    assert run.status == 0, run.said
    assert f"Distances of the methods' average heatmaps, AD / NC in 1e-4 ({LABEL}" in run.said
    # (Of many methods the nearest and the farthest: tests/unit/test_summary.py.)
    assert re.search(r"^  sensitivity +0\.00 / 0\.00 +\S+ / \S+$", run.said, re.M)
    assert "Areas with most relevance by density" in run.said
    assert f"files: {FIXED}/" in run.said
    assert run.jobs["compare_methods"] == 1


def test_the_report_is_made_without_a_network(finished):
    path = finished / "results/snakemake_report.html"
    run = snakemake(finished, "--report", str(path), config=FIRST)
    assert run.status == 0, run.said
    text = path.read_text()
    for caption in ("Euclidean distances between", "Average heatmaps of the test scans", "leakage"):
        assert caption in text
    for category in ("Cross-validation", "Heatmaps", "Cohort", "Quality control"):
        assert category in text


def test_single_heatmaps_can_be_left_out(tiny_run, tmp_path):
    """The averages are the same, and the folders of single heatmaps are deleted."""
    config = {**TINY, "heatmaps": {"keep_scans": False, "methods": ["sensitivity"]}}
    run = snakemake(tiny_run, "-n", config=config)
    assert "explain_scans" not in run.jobs


def test_a_killed_training_continues(finished):
    """Killed after an epoch, the training gives the network of an uninterrupted one."""
    folder = finished / FIXED
    before = torch.load(folder / "model.pt", weights_only=True)["state_dict"]
    (folder / "model.pt").unlink()
    script = (
        "import os, voxplain.training.loop as loop\n"
        "save = loop._save\n"
        "def killed(*arguments):\n"
        "    save(*arguments)\n"
        "    os._exit(137)\n"
        "loop._save = killed\n"
    )
    hook = finished / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import sys, os\n"
        "if 'train_network' in ' '.join(sys.orig_argv):\n"
        "    sys.path.insert(0, os.environ['VOXPLAIN_SCRIPTS'])\n"
        + "".join(f"    {line}\n" for line in script.splitlines())
    )
    environment = {"PYTHONPATH": str(hook), "VOXPLAIN_SCRIPTS": str(ROOT / "scripts")}
    model = f"{FIXED}/model.pt"
    run = snakemake(finished, model, "--retries", "0", config=FIRST, **environment)
    assert run.status != 0
    assert len(list(folder.glob(".checkpoint-*.pt"))) == 1
    run = snakemake(finished, model, config=FIRST)
    assert run.status == 0, run.said
    log = (finished / "logs/train_network/tiny/AD-NC/rieke/seed-1/fixed.log").read_text()
    assert "going on after epoch 1 of 2" in log
    after = torch.load(folder / "model.pt", weights_only=True)["state_dict"]
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not list(folder.glob(".checkpoint-*"))


def test_the_same_image_under_two_patients_stops_the_run_before_training(finished):
    """Two scans with the same voxels: the audit of every split that holds both names them."""
    paths = sorted(finished.glob("results/tiny/derivatives/*/*/anat/*_desc-quality_T1w.json"))
    first, second = paths[:2]
    digest = json.loads(first.read_text())["SourceVoxelDataSha256"]
    metadata = json.loads(second.read_text())
    second.write_text(json.dumps({**metadata, "SourceVoxelDataSha256": digest}))
    target = f"{TASK}/splits.tsv"
    run = snakemake(
        finished,
        target,
        "--rerun-triggers",
        "mtime",
        "--retries",
        "0",
        "--forcerun",
        "audit_split",
        config=FIRST,
    )
    assert run.status != 0
    images = [re.search(r"acq-(I\d+)", path.name).group(1) for path in (first, second)]
    (line, *_) = [x for x in run.said.splitlines() if "are the same" in x]
    assert all(image in line for image in images)
    assert line.strip().startswith("audit_split: split ")
    assert "train_network" not in run.rules


def test_a_failed_scan_is_left_out_and_the_others_are_processed(finished):
    """Excluded by quality control: tables, statistics and heatmaps of its split do not use it."""
    splits = table(finished / f"{TASK}/splits.tsv")
    fixed = splits[(splits["split"] == "fixed") & (splits["class"] == "NC")]
    victim = fixed[fixed["side"] == "test"]["image"].item()
    two = {**FIRST, "max_failed": 0.5, "faithfulness": TINY["faithfulness"]}
    (quality,) = finished.glob(f"results/tiny/derivatives/*/*/anat/*acq-{victim}_desc-quality*")
    metadata = json.loads(quality.read_text())
    fate = {"status": "excluded", "stage": "quality", "reason": "by hand", "remedy": ""}
    quality.write_text(json.dumps({**metadata, "Fate": fate}))
    target = f"{FIXED}/distances.tsv"
    more_targets = [f"{FIXED}/{name}.tsv" for name in ("localisation", "faithfulness")]
    run = snakemake(finished, target, *more_targets, config=two)
    assert run.status == 0, run.said
    members = table(finished / f"{TASK}/splits/fixed_members.tsv")
    assert victim not in set(members["image"])
    assert len(members) == 5
    # No control is left to explain: the average of no maps is 0 and has no distance.
    assert nib.load(finished / FIXED / "occlusion/mean_NC.nii.gz").get_fdata().max() == 0
    rows = table(finished / target)
    assert rows[rows["class"] == "NC"]["distance"].isna().all()
    assert rows[rows["class"] == "AD"]["distance"].notna().any()
    localisation = table(finished / FIXED / "localisation.tsv")
    assert (localisation["patients"] == 1).all()
    assert "truth" in set(localisation["region"])
    assert set(table(finished / FIXED / "faithfulness.tsv")["class"]) == {"AD"}


def test_a_scan_of_another_grid_is_named(finished):
    """As left by a run at another resolution."""
    stored = next(finished.glob("results/tiny/derivatives/sub-*/**/*desc-preproc_T1w.npy"))
    write_scan(stored, np.ones((48, 58, 49)), Brain(np.ones((48, 58, 49), bool)))
    run = snakemake(
        finished,
        f"{TASK}/rieke/cross_validation.tsv",
        "--retries",
        "0",
        "--allowed-rules",
        "fit_statistics",
        "train_network",
        "evaluate_folds",
        config=FIRST,
    )
    assert run.status != 0
    assert f"{stored.name} was stored for another brain mask (136,416 voxels" in run.said
    assert "Traceback" not in run.said


def test_the_papers_config_builds_its_dag_for_the_papers_cohort(tmp_path):
    """969 scans of 344 patients (Rieke et al. 2018), in the archive's tree; a dry run only."""
    rows, patients = [], 0
    for group, n_patients, n_scans in (("AD", 193, 475), ("CN", 151, 494)):
        for index in range(n_patients):
            patients += 1
            subject = f"{patients % 60:03d}_S_{patients:04d}"
            # Three scans for each of the first patients, the remaining scans for the others.
            many = n_scans // n_patients + (index < n_scans % n_patients)
            for visit in range(many):
                image = f"I{patients * 10 + visit}"
                moment = f"{2005 + visit}-09-12_10_11_12.0"
                (tmp_path / "data/ADNI" / subject / "MP-RAGE" / moment / image).mkdir(parents=True)
                rows.append(
                    {
                        "Image Data ID": image,
                        "Subject": subject,
                        "Group": group,
                        "Visit": ("sc", "m12", "m24", "m36")[visit],
                        "Description": "MP-RAGE",
                    }
                )
    assert (len(rows), patients) == (969, 344)
    with open(tmp_path / "data/adni1.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    run = snakemake(tmp_path, "-n", "-q", "rules", "--configfile", str(ROOT / "config/adni.yaml"))
    assert run.status == 0, run.said
    assert run.jobs["register_to_template"] == 969
    assert run.jobs["train_network"] == run.jobs["audit_split"] == 6
    explained = run.jobs["explain_scans"] / 4
    assert 8 <= explained <= 25, "60 patients' scans in chunks of ten"
