"""Deletion and insertion of areas, randomised layers: by hand, and by other libraries."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.metrics import auc
from torch import nn

from voxplain.comparison.faithfulness import (
    CURVES,
    DIRECTIONS,
    RANDOM,
    areas_of_brain,
    mean_relevance,
    order_areas,
    rank_correlation,
    steps_of,
)
from voxplain.comparison.faithfulness_tables import (
    area_under,
    mean_curves,
    score_curves,
    summarise_correlations,
    summarise_scores,
    unmoved_classes,
)
from voxplain.faults import SetupFault
from voxplain.models import MODELS, build_model
from voxplain.relevance import deletion, explain
from voxplain.relevance.deletion import delete_and_insert
from voxplain.relevance.randomisation import layers_of, randomise_layers

# Along x: a voxel outside the brain, then areas of 1, 2, 4 and 3 voxels.
AREAS = np.array([0, 2, 3, 3, 4, 4, 4, 4, 1, 1, 1])[:, None, None]
MASK = AREAS > 0


def line(*values):
    return np.array(values, float)[:, None, None]


# --- areas and their order ------------------------------------------------------------------------


def test_voxels_outside_every_area_belong_to_the_nearest_one():
    labels = np.array([7, 5, 5, 0, 0, 0, 0, 0, 2, 0, 0])[:, None, None]
    numbers = areas_of_brain(labels, MASK)[:, 0, 0].tolist()
    # 7 is outside the brain. Areas: 2, 5, near 2, near 5; the fifth voxel after 5 is equally near.
    assert numbers[:5] == [0, 2, 2, 4, 4]
    assert numbers[5] in (3, 4)
    assert numbers[6:] == [3, 3, 1, 3, 3]
    assert areas_of_brain(0 * labels, MASK)[:, 0, 0].tolist() == [0] + [1] * 10
    rng = np.random.default_rng(0)
    labels = np.where(rng.random((6, 7, 8)) < 0.02, rng.integers(1, 117, (6, 7, 8)), 0)
    mask = rng.random(labels.shape) < 0.9
    areas = areas_of_brain(labels, mask)
    seeds = np.argwhere((labels > 0) & mask)
    seed_labels = labels[tuple(seeds.T)]
    assert len(np.unique(seed_labels)) == len(seed_labels)
    for place in np.argwhere(mask & (labels == 0)):
        away = ((seeds - place) ** 2).sum(1)
        close = seed_labels[away == away.min()]
        (around,) = np.unique(seed_labels)[areas[tuple(place)] - 1 - len(seed_labels) :][:1]
        assert around in close
    assert (areas > 0).sum() == mask.sum()


def test_an_areas_relevance_is_the_mean_over_its_voxels():
    heatmap = line(100, 5, 1, 3, 1, 1, 1, 2, 0, 0, 0.3)
    np.testing.assert_allclose(mean_relevance(heatmap, AREAS), [0.1, 5, 2, 1.25])


def test_areas_are_ordered_by_mean_relevance_and_ties_at_random():
    assert order_areas(np.array([0.1, 5, 2, 1.25]), 1, "I1").tolist() == [2, 3, 4, 1]
    relevance = np.array([0.0, 3, 0, 0, 0, 0, 4, 0])
    orders = np.array([order_areas(relevance, seed, "I1") for seed in range(400)])
    assert (orders[:, :2] == [7, 2]).all()
    # Each of the six others is third in one sixth of the draws.
    counts = np.bincount(orders[:, 2], minlength=9)[[1, 3, 4, 5, 6, 8]]
    assert counts.sum() == 400
    assert stats.chisquare(counts).pvalue > 0.001


def test_a_map_of_zeros_has_a_random_order_the_same_for_all_methods():
    nothing = np.zeros(30)
    order = order_areas(nothing, 1, "I1")
    assert sorted(order) == list(range(1, 31))
    assert (order == order_areas(nothing + 2, 1, "I1", draw=1)).all()
    other_arguments = [(2, "I1", 1), (1, "I2", 1), (1, "I1", 2)]
    assert all((order != order_areas(nothing, *arguments)).any() for arguments in other_arguments)


def test_steps_end_with_the_area_that_reaches_the_next_part_of_the_brain():
    # In this order the areas have 4, 1, 2 and 3 voxels of 10: they end at 4, 5, 7 and 10.
    order = np.array([4, 2, 3, 1])
    step_of_voxel, fraction = steps_of(AREAS, order, 2)
    assert fraction.tolist() == [0, 0.5, 1]
    assert step_of_voxel[:, 0, 0].tolist() == [0, 1, 2, 2, 1, 1, 1, 1, 2, 2, 2]
    # A step every 2.5 voxels: the first area covers two steps.
    step_of_voxel, fraction = steps_of(AREAS, order, 4)
    assert fraction.tolist() == [0, 0.4, 0.5, 1 - 0.3 + 0.3]
    step_of_voxel, fraction = steps_of(AREAS, order, 100)
    assert fraction.tolist() == [0, 0.4, 0.5, 0.7, 1]
    assert step_of_voxel[:, 0, 0].tolist() == [0, 2, 3, 3, 1, 1, 1, 1, 4, 4, 4]


def test_areas_are_deleted_whole_in_at_most_the_requested_steps():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 40, (9, 9, 9)) ** 2 // 40
    areas = areas_of_brain(labels, rng.random(labels.shape) < 0.7)
    for steps in (2, 5, 20):
        order = rng.permutation(areas.max()) + 1
        step_of_voxel, fraction = steps_of(areas, order, steps)
        assert step_of_voxel.max() == len(fraction) - 1 <= steps
        assert ((step_of_voxel > 0) == (areas > 0)).all()
        of_area = [np.unique(step_of_voxel[areas == area]) for area in order]
        assert all(len(steps_of_area) == 1 for steps_of_area in of_area)
        assert (np.diff(np.concatenate(of_area)) >= 0).all()
        done = [(step_of_voxel[areas > 0] <= step).mean() for step in range(len(fraction))]
        np.testing.assert_allclose(fraction, done)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: areas_of_brain(AREAS, MASK[1:]), "areas of shape"),
        (lambda: areas_of_brain(AREAS, np.zeros_like(MASK)), "no voxel"),
        (lambda: mean_relevance(line(*range(10)), AREAS), "a heatmap of shape"),
        (lambda: mean_relevance(np.full(AREAS.shape, np.nan), AREAS), "NaN or infinite"),
        (lambda: area_under([0, 0.5], [1, 1]), "rise from 0 to 1"),
        (lambda: area_under([0, 0.5, 0.5, 1], [1, 1, 1, 1]), "rise from 0 to 1"),
        (lambda: rank_correlation(line(1, 2), line(1, 2), MASK), "heatmaps of shapes"),
    ],
)
def test_invalid_arguments_are_refused(call, message):
    with pytest.raises(SetupFault, match=message):
        call()


# --- curves ---------------------------------------------------------------------------------------


class Weighted(nn.Module):
    """Logits 0 and the scan's weighted sum, so that the second probability is its sigmoid."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(torch.as_tensor(weights, dtype=torch.float64))

    def forward(self, scans):
        total = (scans[:, 0] * self.weights).sum((1, 2, 3))
        return torch.stack([torch.zeros_like(total), total], 1)


def sigmoid(value):
    return 1 / (1 + np.exp(-np.asarray(value, float)))


SCAN = line(8, 1, 1, 2, -1, -1, 0, 0, 0.5, 0, 0)
WEIGHTS = line(0.1, 2, 0.5, 0.5, 1, 0, 0, 0, 1, 0, 0)
# What each area gives the logit, the first voxel 0.8: areas 1 to 4 0.5, 2, 1.5, -1.
GIVEN = np.array([0.5, 2, 1.5, -1])
MODEL = Weighted(WEIGHTS).eval()


def curves_of(relevance, steps=100, model=MODEL, image="I1"):
    order = order_areas(np.asarray(relevance, float), 1, image)
    step_of_voxel, fraction = steps_of(AREAS, order, steps)
    return fraction, *delete_and_insert(model, SCAN, 1, step_of_voxel)


def test_curves_of_a_linear_network_are_the_sigmoid_of_the_remaining_sum():
    """The voxel outside the brain is never changed: 0.8 in every sum."""
    fraction, deleted, inserted = curves_of(GIVEN)
    np.testing.assert_allclose(fraction, [0, 0.1, 0.3, 0.6, 1])
    np.testing.assert_allclose(deleted, sigmoid(0.8 + np.array([3, 1, -0.5, -1, 0])))
    np.testing.assert_allclose(inserted, sigmoid(0.8 + np.array([0, 2, 3.5, 4, 3])))
    step_of_voxel, _ = steps_of(AREAS, np.array([2, 3, 1, 4]), 100)
    np.testing.assert_allclose(
        delete_and_insert(MODEL, torch.as_tensor(SCAN), 0, step_of_voxel)[0], 1 - deleted
    )
    # The same one by one as in batches.
    one_by_one = [
        torch.softmax(MODEL(torch.as_tensor(np.where(hidden, 0, SCAN))[None, None]), 1)[0, 1].item()
        for hidden in ((step_of_voxel > 0) & (step_of_voxel <= at) for at in range(5))
    ]
    np.testing.assert_allclose(deleted, one_by_one)


def test_the_batch_size_does_not_change_the_curves(monkeypatch):
    whole = curves_of(GIVEN)
    monkeypatch.setitem(deletion._VOXELS_A_BATCH, "cpu", 3 * SCAN.size)
    for one, other in zip(whole, curves_of(GIVEN), strict=True):
        np.testing.assert_allclose(one, other)


def test_a_network_in_training_mode_or_an_unknown_class_is_refused():
    step_of_voxel = np.where(MASK, 1, 0)
    with pytest.raises(SetupFault, match="the target is class 2"):
        delete_and_insert(MODEL, SCAN, 2, step_of_voxel)
    with pytest.raises(SetupFault, match="training mode"):
        delete_and_insert(copy.deepcopy(MODEL).train(), SCAN, 1, step_of_voxel)
    with pytest.raises(ValueError, match="lie not on the scan's grid"):
        delete_and_insert(MODEL, SCAN, 1, step_of_voxel[1:])


def test_a_network_without_finite_probabilities_has_no_curve():
    damaged = copy.deepcopy(MODEL)
    next(damaged.parameters()).data.view(-1)[0] = torch.nan
    with pytest.raises(SetupFault, match="no finite numbers"):
        delete_and_insert(damaged, SCAN, 1, np.where(MASK, 1, 0))


def test_the_area_under_a_curve_agrees_with_scikit_learn():
    assert area_under([0, 0.25, 1], [1, 0.5, 0]) == pytest.approx(0.25 * 0.75 + 0.75 * 0.25)
    rng = np.random.default_rng(1)
    at = np.sort(np.concatenate([[0, 1], rng.random(20)]))
    values = rng.random(22)
    assert area_under(at, values) == pytest.approx(auc(at, values))


def rows_of(method, relevance, draw=0, image="I1", patient="P1", group="AD"):
    fraction, *both = curves_of(relevance, image=image)
    return pd.concat(
        [
            pd.DataFrame(
                dict(zip(CURVES, [method, draw, image, patient, group, direction], strict=False))
                | {"step": range(len(curve)), "fraction": fraction, "probability": curve}
            )
            for direction, curve in zip(DIRECTIONS, both, strict=True)
        ]
    )


def random_rows(image="I1", patient="P1", draws=5, group="AD"):
    rng = np.random.default_rng(3)
    return [
        rows_of(RANDOM, rng.permutation(4), draw, image, patient, group)
        for draw in range(1, draws + 1)
    ]


def values_of(scores, method):
    rows = scores[scores["method"] == method]
    return rows.set_index("measure")["value"].to_dict()


def test_the_true_contributions_beat_their_reverse_and_random_orders_lie_between():
    table = pd.concat([rows_of("true", GIVEN), rows_of("reverse", -GIVEN), *random_rows()])
    scores = score_curves(table.sample(frac=1, random_state=1))
    true, reverse = values_of(scores, "true"), values_of(scores, "reverse")
    at, kept = [0, 0.1, 0.3, 0.6, 1], sigmoid(0.8 + np.array([3, 1, -0.5, -1, 0]))
    assert true["deletion"] == pytest.approx(auc(at, kept))
    assert true["insertion"] == pytest.approx(auc(at, sigmoid([0.8, 2.8, 4.3, 4.8, 3.8])))
    assert true["faithfulness"] == pytest.approx(true["insertion"] - true["deletion"])
    drawn = scores[(scores["method"] == RANDOM) & (scores["measure"] == "faithfulness")]["value"]
    assert len(drawn) == 5
    assert true["gain"] == pytest.approx(true["faithfulness"] - drawn.mean())
    assert reverse["faithfulness"] < drawn.min() <= drawn.max() < true["faithfulness"]
    assert true["faithfulness"] == pytest.approx(-reverse["faithfulness"], abs=0.05)
    chances = scores.groupby("measure")["chance"].unique()
    assert chances["faithfulness"] == pytest.approx([drawn.mean()])
    assert chances["gain"] == pytest.approx([0])


def test_a_map_of_zeros_is_a_random_order():
    nothing = np.zeros(4)
    order = order_areas(nothing, 1, "I1", draw=1)
    table = pd.concat([rows_of("silent", nothing), rows_of(RANDOM, nothing, draw=1)])
    scores = score_curves(table)
    assert sorted(order) == [1, 2, 3, 4]
    assert values_of(scores, "silent")["gain"] == pytest.approx(0)


def test_means_are_over_patients_and_chance_has_its_spread():
    parts = []
    for image, patient in (("I1", "P1"), ("I2", "P1"), ("I3", "P2")):
        parts += [rows_of("true", GIVEN, image=image, patient=patient)]
        parts += random_rows(image, patient, draws=3)
    parts += [
        rows_of("true", GIVEN, image="I4", patient="P3", group="NC"),
        *random_rows("I4", "P3", group="NC"),
    ]
    scores = score_curves(pd.concat(parts))
    table = summarise_scores(scores, ["true", "absent"])
    assert list(table["class"].unique()) == ["AD", "NC"]
    assert set(table["method"]) == {"true"}
    row = table[(table["class"] == "AD") & (table["measure"] == "faithfulness")].iloc[0]
    assert (row["scans"], row["patients"]) == (3, 2)
    # The three scans are equal.
    assert row["mean"] == pytest.approx(
        values_of(scores[scores["image"] == "I1"], "true")["faithfulness"]
    )
    drawn = scores[
        (scores["image"] == "I1")
        & (scores["method"] == RANDOM)
        & (scores["measure"] == "faithfulness")
    ]["value"]
    assert row["chance"] == pytest.approx(drawn.mean())
    assert row["chance_sd"] == pytest.approx(drawn.std())
    assert row["chance_sd"] > 0.01


def test_methods_are_in_the_requested_order():
    table = pd.concat([rows_of("a", GIVEN), rows_of("b", -GIVEN), *random_rows()])
    summary = summarise_scores(score_curves(table), ["b", "a"])
    assert list(summary["method"].unique()) == ["b", "a"]
    assert summary["low"].isna().all(), "one patient"


def test_no_scans_give_no_rows():
    nothing = pd.DataFrame(columns=list(CURVES))
    scores = score_curves(nothing)
    assert scores.empty
    assert summarise_scores(scores, ["a"]).empty
    assert mean_curves(nothing).empty


def test_the_mean_curve_is_interpolated_and_counts_a_patient_once():
    def row(patient, image, values):
        return pd.DataFrame(
            dict(zip(CURVES, ["a", 0, image, patient, "AD", "deletion"], strict=False))
            | {"step": range(len(values)), "fraction": [0, 0.5, 1], "probability": values}
        )

    table = pd.concat(
        [row("P1", "I1", [1, 0, 0]), row("P1", "I2", [0, 0, 0]), row("P2", "I3", [1, 1, 0])]
    )
    mean = mean_curves(table, points=5)
    assert mean["fraction"].tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert mean["probability"].tolist() == [0.75, 0.625, 0.5, 0.25, 0]


# --- rank correlation -----------------------------------------------------------------------------


def test_rank_correlation_agrees_with_scipy_on_absolute_values_in_the_brain():
    rng = np.random.default_rng(2)
    one, other = rng.normal(size=(2, 6, 7, 8)).round(1)
    mask = rng.random(one.shape) < 0.5
    expected = stats.spearmanr(abs(one[mask]), abs(other[mask])).statistic
    assert rank_correlation(one, other, mask) == pytest.approx(expected)
    assert rank_correlation(one, np.exp(abs(one)), mask) == pytest.approx(1)
    # By hand, ranks 1, 2.5, 2.5, 4 and 2, 1, 3, 4; the last voxel lies outside.
    correlation = rank_correlation(
        line(1, 2, -2, 3, 9), line(2, 1, 3, 4, 0), line(1, 1, 1, 1, 0) > 0
    )
    assert correlation == pytest.approx(3 / np.sqrt(4.5 * 5))


def test_a_constant_map_has_no_rank_correlation():
    assert np.isnan(rank_correlation(line(0, 0, 0), line(1, 2, 3), line(1, 1, 1) > 0))


def test_correlations_are_means_over_patients():
    rows = [
        ("a", "I1", "P1", 1, "fc", 1.0),
        ("a", "I2", "P1", 1, "fc", 0.0),
        ("a", "I3", "P2", 1, "fc", 0.0),
        ("a", "I1", "P1", 2, "conv", np.nan),
    ]
    columns = ["method", "image", "patient", "step", "layer", "rank_correlation"]
    summary = summarise_correlations(pd.DataFrame(rows, columns=columns)).to_dict("records")
    assert summary[0]["mean"] == 0.25
    assert [(row["step"], row["layer"], row["scans"], row["patients"]) for row in summary] == [
        (1, "fc", 3, 2),
        (2, "conv", 0, 0),
    ]
    assert np.isnan(summary[1]["mean"])


# --- randomised layers ----------------------------------------------------------------------------

GRID_SHAPE = (40, 44, 40)


def network(name="rieke", seed=0):
    torch.manual_seed(seed)
    model = build_model(name, GRID_SHAPE, 2)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm3d | nn.BatchNorm1d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 2)
    return model.eval()


def a_scan():
    return np.random.default_rng(5).normal(size=GRID_SHAPE).astype(np.float32)


def test_layers_are_in_the_order_of_their_calls_with_their_norms():
    assert layers_of(network(), a_scan()) == [
        *([f"features.{conv}", f"features.{conv + 1}"] for conv in (0, 4, 8, 12)),
        ["classifier.2"],
        ["classifier.4"],
        ["classifier.6"],
    ]


def test_a_layer_that_is_called_first_comes_first_whatever_the_order_of_names():
    class Swapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(8, 2), nn.Conv3d(1, 1, 1)
            self.norm = nn.BatchNorm3d(1)

        def forward(self, scans):
            return self.last(self.first(self.norm(scans)).flatten(1))

    assert layers_of(Swapped().eval(), np.ones((2, 2, 2), np.float32)) == [
        ["first", "norm"],
        ["last"],
    ]


def test_weights_used_outside_their_modules_call_are_refused():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 2)

        def forward(self, scans):
            return nn.functional.linear(scans.flatten(1), self.fc.weight)

    with pytest.raises(SetupFault, match="the layer 'fc' has weights"):
        layers_of(Hidden().eval(), np.ones((2, 2, 2), np.float32))


@pytest.mark.parametrize("name", ["rieke", "voxresnet_shallow_gap"])
def test_layers_are_randomised_one_after_another_and_the_others_are_unchanged(name):
    model, untrained, scan = network(name), network(name, seed=1), a_scan()
    before = copy.deepcopy(model.state_dict())
    blocks = layers_of(model, scan)
    anew, seen = set(), []
    for block, (layer, forgetting) in zip(
        reversed(blocks), randomise_layers(model, untrained, scan), strict=True
    ):
        anew |= set(block)
        seen.append(layer)
        assert not any(module.training for module in forgetting.modules())
        first = untrained.state_dict()
        for key, value in forgetting.state_dict().items():
            source = first if key.rsplit(".", 1)[0] in anew else before
            assert torch.equal(value, source[key]), key
        weights = f"{layer}.weight"
        assert not torch.equal(forgetting.state_dict()[weights], before[weights])
    assert seen == [block[0] for block in reversed(blocks)]
    assert all(torch.equal(forgetting.state_dict()[key], value) for key, value in first.items())
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_a_map_that_ignores_the_network_is_unchanged_and_a_gradient_changes():
    scan = a_scan()
    model, untrained = network(), network(seed=1)
    mask = np.ones(GRID_SHAPE, bool)
    original = {"edges": abs(scan), "sensitivity": explain("sensitivity", model, scan, 0)}
    correlations = {"edges": [], "sensitivity": []}
    for _, forgetting in randomise_layers(model, untrained, scan):
        remade = {"edges": abs(scan), "sensitivity": explain("sensitivity", forgetting, scan, 0)}
        for name, heatmap in remade.items():
            correlations[name].append(rank_correlation(original[name], heatmap, mask))
    assert correlations["edges"] == pytest.approx([1] * 7)
    assert correlations["sensitivity"][-1] < 0.8 < 1 - 1e-6
    assert correlations["sensitivity"][-1] < correlations["sensitivity"][0] < 1


@pytest.mark.parametrize("name", MODELS)
def test_the_registry_has_the_number_of_layers(name):
    assert MODELS[name].layers == len(layers_of(network(name), a_scan()))


def test_classes_whose_probability_does_not_change_are_found():
    rows = [
        (method, group, measure, mean, chance)
        for method in ("lrp", "occlusion")
        for group, mean, chance in (("AD", 0.998, 1.0), ("NC", 0.9, 0.4))
        for measure in ("deletion", "insertion")
    ]
    rows.append(("lrp", "AD", "gain", -0.5, 0.0))  # a difference, not a probability
    table = pd.DataFrame(rows, columns=["method", "class", "measure", "mean", "chance"])
    assert unmoved_classes(table) == {"AD": pytest.approx(0.999)}
    assert unmoved_classes(table, least=0.6).keys() == {"AD", "NC"}
    assert unmoved_classes(table.assign(mean=np.nan, chance=np.nan)) == {}
