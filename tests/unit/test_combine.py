import doctest

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata
from torch import nn

from voxplain.faults import SetupFault
from voxplain.relevance import combine as module
from voxplain.relevance import explain
from voxplain.relevance.combine import NORMALISATIONS, combine, summary

LINE = (4, 1, 1)


def line(*values):
    return np.array(values, np.float32).reshape(LINE)


def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 4 * 3 * 5, 2))
    return model.eval()


@pytest.fixture
def scan():
    return np.random.default_rng(1).normal(size=(5, 4, 6)).astype(np.float32)


# --- by hand --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("normalise", "expected"),
    [
        # 1 3 0 4 of 8, and 2 0 0 2 of 4.
        ("sum", [(1 / 8 + 1 / 2) / 2, 3 / 16, 0, (1 / 2 + 1 / 2) / 2]),
        ("max", [(1 / 4 + 1) / 2, 3 / 8, 0, 1]),
        # Rank: 1, 2, -, 3 of 4; and 2.5 for the two tied values.
        ("rank", [(1 + 2.5) / 8, 2 / 8, 0, (3 + 2.5) / 8]),
    ],
)
def test_two_maps_by_hand(normalise, expected):
    combined = combine([line(1, 3, 0, 4), line(2, 0, 0, 2)], normalise)
    assert combined.dtype == np.float32
    np.testing.assert_allclose(combined.ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("normalise", "expected"),
    [("sum", [1 / 4, 3 / 4, 0, 0]), ("max", [1 / 3, 1, 0, 0]), ("rank", [1 / 3, 2 / 3, 0, 0])],
)
def test_voxels_outside_the_mask_are_zero(normalise, expected):
    mask = np.array([True, True, True, False]).reshape(LINE)
    combined = combine([line(1, 3, 0, 40)], normalise, mask)
    np.testing.assert_allclose(combined.ravel(), expected, rtol=1e-6)


@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_maps_that_are_zero_everywhere_are_left_out(normalise):
    one, zeros = line(1, 3, 0, 4), line(0, 0, 0, 0)
    expected = combine([one], normalise)
    np.testing.assert_array_equal(combine([zeros, one, zeros], normalise), expected)
    assert not combine([zeros, zeros], normalise).any()
    mask = (one == 0).reshape(LINE)
    assert not combine([one], normalise, mask).any()
    assert not combine([one], normalise, np.zeros(LINE, bool)).any()


# --- laws -----------------------------------------------------------------------------------------


relevance = arrays(np.float32, (3, 2, 2), elements=st.sampled_from([0, 0, 0.5, 1, 2, 7]))


@given(st.lists(relevance, min_size=1, max_size=4), arrays(bool, (3, 2, 2)))
def test_ranks_agree_with_scipy(maps, mask):
    counted = [heatmap[mask] for heatmap in maps if heatmap[mask].any()]
    expected = np.zeros((3, 2, 2))
    for values in counted:
        ranks = (rankdata(values, "min") + rankdata(values, "max")) / 2 - 1
        expected[mask] += np.where(values > 0, ranks / len(values), 0) / len(counted)
    np.testing.assert_allclose(combine(maps, "rank", mask), expected, rtol=1e-6, atol=1e-7)


@given(st.lists(relevance, min_size=1, max_size=4), st.sampled_from(NORMALISATIONS))
def test_neither_the_order_nor_the_unit_of_a_map_matters(maps, normalise):
    expected = combine(maps, normalise)
    scaled = [heatmap * 8.0**place for place, heatmap in enumerate(maps)]
    np.testing.assert_allclose(combine(scaled[::-1], normalise), expected, rtol=1e-6, atol=1e-7)


@given(st.lists(relevance, min_size=1, max_size=4))
def test_a_map_combined_by_sum_sums_to_1_and_by_maximum_is_at_most_1(maps):
    if any(heatmap.any() for heatmap in maps):
        assert combine(maps, "sum").sum() == pytest.approx(1, rel=1e-5)
        assert combine(maps, "max").max() <= 1


def test_the_largest_float_does_not_overflow():
    largest = np.finfo(np.float64).max
    combined = combine([np.array([largest, largest, 0, 0]).reshape(LINE)], "sum")
    np.testing.assert_allclose(combined.ravel(), [0.5, 0.5, 0, 0])


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "no heatmap to combine; give at least one"),
        (([line(1, 2, 3, 4)], "mean"), "no normalisation 'mean'; allowed: sum, max, rank"),
        (([line(1, 2, 3, 4), np.ones((2, 2, 1))], "sum"), r"heatmap 2 of 2 has shape \(2, 2, 1\)"),
        (([line(1, 2, 3, 4)], "sum", np.ones((2, 2, 1), bool)), r"the mask has shape \(2, 2, 1\)"),
        (([line(1, 2, 3, -1)],), "heatmap 1 of 1 has values below 0"),
        (([line(1, 2, 3, 4), line(1, 2, 3, np.nan)],), "heatmap 2 of 2 .* no finite number"),
        (([line(1, 2, 3, np.inf)],), "no finite number"),
    ],
)
def test_maps_that_cannot_be_combined_are_refused(arguments, message):
    with pytest.raises(SetupFault, match=message):
        combine(*arguments)


# --- summary --------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_the_summary_combines_the_maps_of_its_methods(scan, normalise):
    model, methods = (
        network(),
        {"sensitivity": {}, "occlusion": {"size": 3, "stride": 2}, "lrp": {}},
    )
    maps = [explain(name, model, scan, 1, **options) for name, options in methods.items()]
    mask = scan > -1
    combined = summary(model, scan, 1, methods, normalise, mask)
    np.testing.assert_allclose(combined, combine(maps, normalise, mask), rtol=1e-6)
    assert combined.max() > 0


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({}, "no methods to combine; name at least one"),
        ({"sensitivity": {}, "summary": {}}, "summary cannot be one of the methods"),
        ({"sensitivity": {}, "guess": {}}, "no method 'guess'"),
    ],
)
def test_a_summary_of_no_method_of_itself_or_of_an_unknown_one_is_refused(scan, methods, message):
    with pytest.raises(SetupFault, match=message):
        summary(network(), scan, 0, methods)


def test_an_unknown_normalisation_is_refused_before_any_map_is_made(scan):
    with pytest.raises(SetupFault, match="no normalisation 'median'"):
        summary(network(), scan, 0, {"occlusion": {"size": "no size"}}, "median")


def test_the_example_in_the_documentation_runs():
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
