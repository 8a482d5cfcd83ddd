"""The faithfulness of heatmaps in a real run."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from sklearn import metrics
from torch import nn

from voxplain.models import build_model
from voxplain.relevance import explain
from workflow.conftest import TINY, snakemake
from workflow.test_comparison import FIXED, LABEL, probability_of_ad, stored_network, table

pytestmark = pytest.mark.slow

SETTINGS = TINY["faithfulness"]
METHODS = TINY["heatmaps"]["methods"]


def heatmap_of(tiny_run, method, image):
    for path in (tiny_run / FIXED / method).glob("scans/*/*.json"):
        if json.loads(path.read_text())["Image"] == image:
            return nib.load(path.with_suffix(".nii.gz")).get_fdata()
    raise AssertionError(f"no heatmap of {image} by {method}")


def test_every_method_and_random_order_has_both_curves_of_each_scan(tiny_run):
    curves = table(tiny_run / FIXED / "area_changes.tsv")
    assert sorted(curves.groupby("image")["class"].first()) == ["AD", "NC"]
    assert set(curves["method"]) == {*METHODS, "random"}
    drawn = curves[curves["method"] == "random"]
    assert set(drawn["draw"]) == set(range(1, SETTINGS["random_orders"] + 1))
    of_scan = curves.pivot_table(
        index=["method", "draw", "image"], columns="direction", aggfunc="first", values="fraction"
    )
    assert len(of_scan) == 2 * (len(METHODS) + SETTINGS["random_orders"])
    assert of_scan.notna().all(axis=None)
    assert curves["step"].max() <= SETTINGS["steps"]


@pytest.mark.parametrize("method", ["sensitivity", "area_occlusion"])
def test_a_curve_is_the_networks_probability_without_the_first_areas(tiny_run, method):
    """With passes of the stored network: before, after the first step, and at the end."""
    model, scan_of, mask = stored_network(tiny_run)
    labels = nib.load(next(tiny_run.glob("results/template/*AAL_dseg.nii.gz"))).get_fdata()
    labels = np.where(mask, labels, 0)
    curves = table(tiny_run / FIXED / "area_changes.tsv")
    curves = curves[curves["method"] == method]
    for image, of_image in curves.groupby("image"):
        heatmap, scan = heatmap_of(tiny_run, method, image), scan_of(image)
        by_direction = {
            name: curve.sort_values("step").set_index("step")
            for name, curve in of_image.groupby("direction")
        }
        for curve in by_direction.values():
            assert curve["fraction"].iloc[0] == 0
            assert curve["fraction"].iloc[-1] == 1
        deleted, inserted = (
            by_direction[name]["probability"] for name in ("deletion", "insertion")
        )
        nothing = np.where(mask, 0, scan)
        assert deleted.iloc[0] == inserted.iloc[-1]
        assert deleted.iloc[0] == pytest.approx(probability_of_ad(model, scan), abs=1e-5)
        assert deleted.iloc[-1] == inserted.iloc[0]
        assert deleted.iloc[-1] == pytest.approx(probability_of_ad(model, nothing), abs=1e-5)
        first = first_step(labels, mask, heatmap, by_direction["deletion"]["fraction"].iloc[1])
        if first is None:
            continue
        without, only = np.where(first, 0, scan), np.where(first | ~mask, scan, 0)
        assert deleted.iloc[1] == pytest.approx(probability_of_ad(model, without), abs=1e-5)
        assert inserted.iloc[1] == pytest.approx(probability_of_ad(model, only), abs=1e-5)


def first_step(labels, mask, heatmap, fraction):
    """Voxels of the first step: areas, with the voxels nearest to each, until the step is full.

    None if the choice among areas of equal relevance would matter.
    """
    nearest = ndimage.distance_transform_edt(
        labels == 0, return_distances=False, return_indices=True
    )
    parts = np.where(labels > 0, labels, labels[tuple(nearest)] + 1000)
    values = np.unique(parts[mask])
    means = ndimage.mean(heatmap, np.where(mask, parts, 0), values)
    chosen = np.zeros(mask.shape, bool)
    for rank in np.argsort(-means):
        if (means == means[rank]).sum() > 1:
            return None
        chosen |= mask & (parts == values[rank])
        if chosen[mask].mean() >= 1 / SETTINGS["steps"]:
            break
    assert chosen[mask].mean() == pytest.approx(fraction)
    return chosen


def test_faithfulness_is_the_area_between_the_curves_beside_random_orders(tiny_run):
    curves = table(tiny_run / FIXED / "area_changes.tsv")
    rows = table(tiny_run / FIXED / "faithfulness.tsv")
    assert set(rows["model"]) == {LABEL}
    assert list(rows["method"].unique()) == METHODS
    under = {
        key: metrics.auc(curve["fraction"], curve["probability"])
        for key, curve in curves.groupby(["class", "method", "draw", "direction"])
    }
    draws = range(1, SETTINGS["random_orders"] + 1)
    for row in rows.to_dict("records"):
        group = row["class"]

        def faithfulness(method, draw, group=group):
            return under[group, method, draw, "insertion"] - under[group, method, draw, "deletion"]

        chance = np.mean([faithfulness("random", draw) for draw in draws])
        expected = {
            "deletion": under[group, row["method"], 0, "deletion"],
            "insertion": under[group, row["method"], 0, "insertion"],
            "faithfulness": faithfulness(row["method"], 0),
            "gain": faithfulness(row["method"], 0) - chance,
        }
        assert row["mean"] == pytest.approx(expected[row["measure"]], abs=1e-6)
        assert (row["scans"], row["patients"]) == (1, 1)
        if row["measure"] == "faithfulness":
            assert row["chance"] == pytest.approx(chance, abs=1e-6)


def test_the_last_map_is_that_of_an_untrained_network(tiny_run):
    model, scan_of, mask = stored_network(tiny_run)
    stored = torch.load(tiny_run / FIXED / "model.pt", weights_only=True)
    torch.manual_seed(1)
    untrained = build_model(stored["model"], stored["grid_shape"], 2, **stored["options"]).eval()
    rows = table(tiny_run / FIXED / "sensitivity/randomisation.tsv")
    weighty = [
        name for name, layer in model.named_modules() if isinstance(layer, nn.Conv3d | nn.Linear)
    ]
    assert list(rows["layer"]) == weighty[::-1]
    (image,) = rows["image"].unique()
    original = heatmap_of(tiny_run, "sensitivity", image)
    remade = np.where(mask, explain("sensitivity", untrained, scan_of(image), 0), 0)
    expected = stats.spearmanr(original[mask], remade[mask]).statistic
    assert rows["rank_correlation"].iloc[-1] == pytest.approx(expected, abs=1e-3)
    # After the first step only the output layer is randomised.
    forgetting = model
    with torch.no_grad():
        for name in ("weight", "bias"):
            new = getattr(untrained.get_submodule(weighty[-1]), name)
            getattr(forgetting.get_submodule(weighty[-1]), name).copy_(new)
    remade = np.where(mask, explain("sensitivity", forgetting, scan_of(image), 0), 0)
    expected = stats.spearmanr(original[mask], remade[mask]).statistic
    assert rows["rank_correlation"].iloc[0] == pytest.approx(expected, abs=1e-3)
    summary = table(tiny_run / FIXED / "randomisation.tsv")
    assert list(summary["method"].unique()) == SETTINGS["randomise"]
    of_method = summary[summary["method"] == "sensitivity"]
    assert list(of_method["mean"]) == pytest.approx(list(rows["rank_correlation"]), abs=1e-6)


def test_without_scans_only_the_page_on_trust_is_made(tiny_run):
    off = {**SETTINGS, "scans": 0, "randomised_scans": 0}
    run = snakemake(tiny_run, "-n", config={**TINY, "faithfulness": off})
    assert run.rules == {"report_trust"}, run.said
