import itertools

import numpy as np
import pandas as pd
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from sklearn import metrics

from voxplain.comparison.localisation import (
    MEASURES,
    SCORES,
    bootstrap_mean,
    chance,
    precision_recall,
    replace_zero_map,
    score,
    score_regions,
    smooth_inside,
    smooth_to,
    summarise,
)
from voxplain.faults import SetupFault

# Ten voxels in one row: three of the first nine are the region; the tenth is outside the mask.
HEATMAP = np.array([9, 8, 7, 6, 5, 4, 3, 2, 0, 50], np.float32)[:, None, None]
REGION = np.array([0, 1, 1, 0, 0, 0, 1, 0, 0, 1], bool)[:, None, None]
MASK = np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 0], bool)[:, None, None]
SHAPE = (4, 3, 3)

masks = hnp.arrays(bool, SHAPE)
# Few values, so that most of them are tied.
tied_maps = hnp.arrays(np.float64, SHAPE, elements=st.integers(0, 6))


def row(*values):
    return np.array(values)[:, None, None]


def scored(heatmap, region):
    """Scores of voxels in a row that are all inside the mask."""
    region = row(*region).astype(bool)
    return score(row(*heatmap).astype(float), region, np.ones_like(region))


# --- one heatmap, one region ----------------------------------------------------------------------


def test_the_measures_are_as_counted_by_hand():
    scores = score(HEATMAP, REGION, MASK)
    assert tuple(scores) == MEASURES == ("average_precision", "mass", "rank", "pointing")
    assert scores["average_precision"] == pytest.approx((1 / 2 + 2 / 3 + 3 / 7) / 3)
    assert scores["mass"] == pytest.approx((8 + 7 + 3) / 44)
    assert scores["rank"] == pytest.approx(2 / 3)  # of 9, 8 and 7
    assert scores["pointing"] == 0
    assert all(isinstance(value, float) for value in scores.values())


def test_a_map_of_the_region_scores_best_and_a_map_of_the_rest_worst():
    assert score(REGION.astype(float), REGION, MASK) == dict.fromkeys(MEASURES, 1)
    worst = score((~REGION).astype(float), REGION, MASK)
    assert worst == {"average_precision": 3 / 9, "mass": 0, "rank": 0, "pointing": 0}


def test_tied_voxels_share_a_threshold():
    scores = scored([5, 5, 5, 2, 2, 1], [1, 0, 0, 1, 0, 1])
    assert scores["average_precision"] == pytest.approx((1 / 3 + 2 / 5 + 3 / 6) / 3)


def test_ties_at_the_border_count_by_their_expectation():
    # Of the three highest, 9 and 8 are in the region; the third is one of four, of which one is.
    scores = scored([9, 8, 3, 3, 3, 3, 1], [1, 1, 1, 0, 0, 0, 0])
    assert scores["rank"] == pytest.approx((2 + 1 / 4) / 3)
    # Three voxels are the highest, two of them in the region.
    scores = scored([9, 9, 9, 1, 0], [1, 1, 0, 0, 0])
    assert scores["pointing"] == pytest.approx(2 / 3)
    assert scores["rank"] == pytest.approx(2 * 2 / 3 / 2)


def orders(heatmap, region):
    """The rank and pointing scores of all orders in which ties of a map can be broken."""
    for order in itertools.permutations(range(len(heatmap))):
        ranked = sorted(order, key=lambda place: -heatmap[place])
        inside = [region[place] for place in ranked]
        size = sum(region)
        yield sum(inside[:size]) / size, inside[0]


@pytest.mark.parametrize(
    ("heatmap", "region"),
    [
        ([3, 3, 2, 2, 2, 0], [0, 1, 1, 1, 0, 0]),
        ([1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 1, 1]),
        ([4, 0, 0, 0, 0, 0], [0, 1, 0, 0, 1, 0]),
    ],
)
def test_the_expectation_is_the_mean_over_all_orders_of_the_ties(heatmap, region):
    rank, pointing = np.mean(list(orders(heatmap, region)), axis=0)
    scores = scored(heatmap, region)
    assert scores["rank"] == pytest.approx(rank)
    assert scores["pointing"] == pytest.approx(pointing)


@given(heatmap=tied_maps, region=masks, mask=masks)
def test_average_precision_agrees_with_scikit_learn(heatmap, region, mask):
    precision = score(heatmap, region, mask)["average_precision"]
    true, values = region[mask], heatmap[mask]
    if true.any() and not true.all() and values.any():
        assert precision == pytest.approx(metrics.average_precision_score(true, values))
    else:
        assert np.isnan(precision)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_average_precision_of_many_voxels_agrees_with_scikit_learn(dtype):
    rng = np.random.default_rng(1)
    heatmap = (rng.gamma(0.5, 40, (20, 30, 25))).astype(dtype)
    region = rng.random(heatmap.shape) < 0.02
    mask = rng.random(heatmap.shape) < 0.7
    precision = score(heatmap, region, mask)["average_precision"]
    expected = metrics.average_precision_score(region[mask], heatmap[mask])
    assert precision == pytest.approx(expected, rel=1e-12)


@given(region=masks, mask=masks, level=st.floats(1e-30, 1e30))
def test_a_constant_map_is_at_chance_in_every_measure(region, mask, level):
    scores = score(np.full(SHAPE, level), region, mask)
    inside, voxels = (region & mask).sum(), mask.sum()
    if 0 < inside < voxels:
        assert chance(region, mask) == inside / voxels
        np.testing.assert_allclose(list(scores.values()), inside / voxels, rtol=1e-12)
    else:
        assert np.isnan(list(scores.values())).all()


def test_chance_is_the_mean_over_all_orders_except_for_average_precision():
    heatmap, region = [8, 5, 4, 3, 1, 0], [1, 1, 0, 0, 0, 0]
    table = pd.DataFrame(scored(order, region) for order in itertools.permutations(heatmap))
    expected = table.mean()
    np.testing.assert_allclose(expected[["mass", "rank", "pointing"]], 2 / 6)
    # Bestgen 2015, equation of the expected average precision.
    harmonic = sum(1 / place for place in range(1, 7))
    bestgen = (2 - 1) / (6 - 1) * (6 - harmonic) / 6 + harmonic / 6
    assert expected["average_precision"] == pytest.approx(bestgen)
    assert 2 / 6 < bestgen < 2 / 6 + harmonic / 6


@given(
    heatmap=tied_maps, region=masks, mask=masks, other=hnp.arrays(np.float64, SHAPE), flips=masks
)
def test_voxels_outside_the_mask_have_no_influence(heatmap, region, mask, other, flips):
    changed = np.where(mask, heatmap, other)  # also negative, infinite or NaN values
    anywhere = np.where(mask, region, flips)
    np.testing.assert_equal(score(changed, anywhere, mask), score(heatmap, region, mask))
    np.testing.assert_equal(chance(anywhere, mask), chance(region, mask))
    np.testing.assert_equal(
        precision_recall(changed, anywhere, mask, 5), precision_recall(heatmap, region, mask, 5)
    )


@given(heatmap=tied_maps, region=masks, factor=st.floats(1e-6, 1e6))
def test_no_measure_depends_on_the_heatmaps_scale(heatmap, region, factor):
    mask = np.ones(SHAPE, bool)
    before, after = score(heatmap, region, mask), score(heatmap * factor, region, mask)
    np.testing.assert_allclose(list(after.values()), list(before.values()), rtol=1e-12)


def test_without_a_region_or_without_relevance_there_is_no_score():
    nothing, everything = np.zeros_like(MASK), np.ones_like(MASK)
    outside_only = ~MASK
    for heatmap, region, mask in (
        (HEATMAP, nothing, MASK),
        (HEATMAP, outside_only, MASK),
        (HEATMAP, MASK, MASK),
        (HEATMAP, everything, MASK),
        (HEATMAP, REGION, nothing),
        (np.where(MASK, 0, HEATMAP), REGION, MASK),
    ):
        scores = score(heatmap, region, mask)
        assert set(scores) == set(MEASURES)
        assert np.isnan(list(scores.values())).all()
        recall, precision = precision_recall(heatmap, region, mask, 3)
        assert recall.tolist() == [0, 0.5, 1]
        assert np.isnan(precision).all()
    assert np.isnan(chance(nothing, MASK)) and np.isnan(chance(outside_only, MASK))
    assert np.isnan(chance(REGION, nothing))
    assert chance(everything, MASK) == 1


@pytest.mark.parametrize("place", [0, 29_999])
def test_small_values_are_not_lost_beside_large_ones(place):
    small = float(np.float32(1.1))
    heatmap = np.full((30_000, 1, 1), small, np.float32)
    heatmap[place] = 1e8  # in float32, 1e8 + 1 is 1e8
    region = np.arange(30_000)[:, None, None] >= 20_000
    mass = score(heatmap, region, np.ones_like(region))["mass"]
    inside = 10_000 * small if place == 0 else 1e8 + 9999 * small
    assert mass == pytest.approx(inside / (1e8 + 29_999 * small), rel=1e-10)


@pytest.mark.parametrize("wrong", [-1e-9, np.nan, np.inf])
def test_a_heatmap_with_negative_values_or_nan_is_refused(wrong):
    heatmap = HEATMAP.copy()
    heatmap[4] = wrong
    for call in (
        lambda: score(heatmap, REGION, MASK),
        lambda: precision_recall(heatmap, REGION, MASK),
        lambda: smooth_inside(heatmap, MASK, 2, (1, 1, 1)),
    ):
        with pytest.raises(SetupFault, match="negative, NaN or infinite"):
            call()


def test_arrays_of_different_shapes_are_refused():
    with pytest.raises(SetupFault, match=r"heatmap of shape \(9, 1, 1\) and a mask of \(10, 1, 1"):
        score(HEATMAP[1:], REGION, MASK)
    with pytest.raises(SetupFault, match=r"region of shape \(9, 1, 1\) and a mask of \(10, 1, 1"):
        score(HEATMAP, REGION[1:], MASK)
    with pytest.raises(SetupFault, match="region of shape"):
        chance(REGION[1:], MASK)
    with pytest.raises(SetupFault, match="heatmap of shape"):
        smooth_inside(HEATMAP[1:], MASK, 2, (1, 1, 1))


def test_numbers_for_a_mask_are_refused():
    # As an index, numbers would be positions.
    with pytest.raises(SetupFault, match="the mask is uint8, expected bool"):
        score(HEATMAP, REGION, MASK.astype(np.uint8))
    with pytest.raises(SetupFault, match="the region is float32, expected bool"):
        chance(REGION.astype(np.float32), MASK)
    with pytest.raises(SetupFault, match="the mask is int64, expected bool"):
        smooth_inside(HEATMAP, MASK.astype(np.int64), 2, (1, 1, 1))


# --- the curve ------------------------------------------------------------------------------------


def test_the_curve_is_as_counted_by_hand():
    recall, precision = precision_recall(HEATMAP, REGION, MASK, 7)
    np.testing.assert_allclose(recall, np.arange(7) / 6)
    np.testing.assert_allclose(precision, [0, 1 / 2, 1 / 2, 2 / 3, 2 / 3, 3 / 7, 3 / 7])


def test_the_precision_is_not_interpolated():
    # Precision rises with recall: interpolated, it would be 3/4 everywhere.
    heatmap, region = row(9.0, 8, 7, 6, 0), row(0, 1, 1, 1, 0).astype(bool)
    _, precision = precision_recall(heatmap, region, np.ones_like(region), 4)
    np.testing.assert_allclose(precision, [0, 1 / 2, 2 / 3, 3 / 4])


@given(heatmap=tied_maps, region=masks, mask=masks, points=st.integers(2, 30))
def test_the_curve_is_scikit_learns_first_precision_at_each_recall(heatmap, region, mask, points):
    _, curve = precision_recall(heatmap, region, mask, points)
    true, values = region[mask], heatmap[mask]
    if not true.any() or true.all() or not values.any():
        assert np.isnan(curve).all()
        return
    precision, recall, _ = metrics.precision_recall_curve(true, values)
    precision, recall = precision[-2::-1], recall[-2::-1]  # highest threshold first, no added end
    hits = np.rint(recall * true.sum())
    expected = [
        precision[np.flatnonzero(hits * (points - 1) >= place * true.sum())[0]]
        for place in range(points)
    ]
    np.testing.assert_allclose(curve, expected)
    assert curve[0] == pytest.approx(score(heatmap, region, mask)["pointing"])
    assert curve[-1] == pytest.approx(precision[np.argmax(hits == true.sum())])


def test_rounding_of_a_recall_does_not_add_a_voxel():
    region = np.arange(200) < 100
    heatmap = np.where(region, 300 - np.arange(200), 0.5)
    # After each voxel of the region comes one of the rest: precision shows how many were counted.
    heatmap[100:199] = heatmap[:99] - 0.5
    recall, precision = precision_recall(row(*heatmap), row(*region), row(*(region | True)))
    assert len(recall) == 101
    counts = np.arange(1, 101)
    np.testing.assert_allclose(precision[1:], counts / (2 * counts - 1))


def test_the_area_under_a_fine_curve_is_the_average_precision():
    rng = np.random.default_rng(5)
    region = rng.random((6, 7, 8)) < 0.2
    heatmap = rng.random(region.shape) + 0.5 * region
    mask = np.ones_like(region)
    _, precision = precision_recall(heatmap, region, mask, region.sum() + 1)
    expected = score(heatmap, region, mask)["average_precision"]
    assert precision[1:].mean() == pytest.approx(expected)


@pytest.mark.parametrize("points", [1, 0])
def test_a_curve_of_one_point_is_refused(points):
    with pytest.raises(SetupFault, match=f"at least 2 points, not {points}"):
        precision_recall(HEATMAP, REGION, MASK, points)


# --- smoothing ------------------------------------------------------------------------------------


def ball(shape, radius):
    places = np.indices(shape) - (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2
    return (places**2).sum(0) < radius**2


@given(
    mask=hnp.arrays(bool, (5, 6, 4)),
    fwhm_mm=st.floats(0, 20),
    level=st.floats(1e-20, 1e20),
)
def test_a_constant_map_is_unchanged_inside_the_mask(mask, fwhm_mm, level):
    smooth = smooth_inside(np.full(mask.shape, level), mask, fwhm_mm, (1, 2, 1.5))
    np.testing.assert_allclose(smooth[mask], level, rtol=1e-12)
    assert (smooth[~mask] == 0).all()


def test_without_a_width_a_map_is_only_masked():
    smooth = smooth_inside(HEATMAP, MASK, 0, (1, 1, 1))
    np.testing.assert_array_equal(smooth, np.where(MASK, HEATMAP, 0))
    assert smooth.dtype == np.float64


def test_a_point_gets_the_requested_width_along_every_axis():
    heatmap = np.zeros((31, 25, 21))
    heatmap[15, 12, 10] = 1
    mask, sizes = np.ones(heatmap.shape, bool), np.array([1.0, 1.5, 2.0])
    smooth = smooth_inside(heatmap, mask, 6, sizes)
    # Half of the height at half of the width from the point: 3 mm are 3, 2 and 1.5 voxels.
    height = smooth[15, 12, 10]
    assert smooth[18, 12, 10] / height == pytest.approx(0.5, abs=0.01)
    assert smooth[15, 14, 10] / height == pytest.approx(0.5, abs=0.01)
    assert np.sqrt(smooth[15, 12, 11] * smooth[15, 12, 12]) / height == pytest.approx(
        np.exp(-np.log(2) * (2**2 + 4**2) / 2 / 3**2), abs=0.01
    )


def test_smoothing_divides_the_smoothed_map_by_the_smoothed_mask():
    rng = np.random.default_rng(3)
    heatmap, mask = rng.random((14, 12, 13)), ball((14, 12, 13), 4.5)
    sigma = 5 / np.sqrt(8 * np.log(2)) / np.array([1, 2, 1.5])
    whole = ndimage.gaussian_filter(heatmap * mask, sigma, mode="constant")
    weight = ndimage.gaussian_filter(mask.astype(float), sigma, mode="constant")
    smooth = smooth_inside(heatmap, mask, 5, (1, 2, 1.5))
    np.testing.assert_allclose(smooth[mask], (whole / weight)[mask], rtol=1e-10)


def test_the_total_is_kept_away_from_the_border():
    mask = ball((33, 33, 33), 15)
    heatmap = np.random.default_rng(2).random(mask.shape) * ball(mask.shape, 6)
    smooth = smooth_inside(heatmap, mask, 4, (1, 1, 1))
    assert smooth.sum() == pytest.approx(heatmap.sum(), rel=1e-3)
    assert smooth.std() < 0.8 * heatmap.std()


@given(heatmap=tied_maps, mask=masks, fwhm_mm=st.floats(0.5, 9))
def test_smoothing_stays_within_the_range_and_ignores_voxels_outside(heatmap, mask, fwhm_mm):
    smooth = smooth_inside(heatmap, mask, fwhm_mm, (1, 1, 1))
    outside = smooth_inside(np.where(mask, heatmap, np.nan), mask, fwhm_mm, (1, 1, 1))
    np.testing.assert_array_equal(smooth, outside)
    if mask.any():
        assert smooth[mask].max() <= heatmap[mask].max() * (1 + 1e-12)
        assert smooth[mask].min() >= heatmap[mask].min() * (1 - 1e-12)


def test_smoothing_does_not_change_its_input():
    heatmap, before = HEATMAP.copy(), HEATMAP.copy()
    smooth_inside(heatmap, MASK, 3, (1, 1, 1))
    np.testing.assert_array_equal(heatmap, before)


@pytest.mark.parametrize("fwhm_mm", [-1, np.nan, np.inf])
def test_an_invalid_width_is_refused(fwhm_mm):
    with pytest.raises(SetupFault, match="width of 0 mm or more"):
        smooth_inside(HEATMAP, MASK, fwhm_mm, (1, 1, 1))


@pytest.mark.parametrize("size", [(1, 1), (1, 0, 1), (1, 1, np.nan), 2.0])
def test_voxel_sizes_that_are_not_three_positive_numbers_are_refused(size):
    with pytest.raises(SetupFault, match="three edges"):
        smooth_inside(HEATMAP, MASK, 2, size)


# --- means over patients --------------------------------------------------------------------------


def test_every_patient_counts_once_and_scans_without_a_value_do_not():
    values = [0, 0.2, 0.4, np.nan, 0.8, np.nan]
    patients = ["a", "a", "a", "a", "b", "c"]
    mean, low, high = bootstrap_mean(values, patients)
    assert mean == pytest.approx((0.2 + 0.8) / 2)
    # Of two patients, a draw has one of them twice, both, or the other twice.
    assert (low, high) == (pytest.approx(0.2), pytest.approx(0.8))


def test_one_patient_has_no_interval_and_none_has_no_mean():
    mean, low, high = bootstrap_mean([0.2, 0.4], ["a", "a"])
    assert mean == pytest.approx(0.3) and np.isnan([low, high]).all()
    assert np.isnan(bootstrap_mean([], [])).all()
    assert np.isnan(bootstrap_mean([np.nan, np.nan], ["a", "b"])).all()


def test_equal_patients_have_an_interval_of_width_zero():
    assert bootstrap_mean([0.25] * 6, range(6)) == (0.25, 0.25, 0.25)


def naive_bootstrap(values, patients, draws, level, seed):
    rng = np.random.default_rng(seed)
    names = sorted(set(patients))
    means = []
    for _ in range(draws):
        drawn = [names[place] for place in rng.integers(0, len(names), len(names))]
        scans = [[v for v, p in zip(values, patients, strict=True) if p == name] for name in drawn]
        means.append(np.mean([np.mean(of_one) for of_one in scans]))
    return np.percentile(means, [50 * (1 - level), 50 * (1 + level)])


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_interval_agrees_with_a_naive_loop(level):
    rng = np.random.default_rng(4)
    patients = rng.integers(0, 12, 40)
    values = rng.random(12)[patients] + 0.1 * rng.random(40)
    mean, *ends = bootstrap_mean(values, patients, 20_000, level, seed=1)
    error = pd.Series(values).groupby(patients).mean().std() / np.sqrt(12)
    np.testing.assert_allclose(
        ends, naive_bootstrap(values, patients, 2000, level, seed=2), atol=0.12 * error
    )
    assert ends[0] < mean < ends[1]


def test_with_one_scan_a_patient_the_interval_agrees_with_scipys_bootstrap():
    values = np.random.default_rng(6).gamma(1, 1, 25)
    estimate = bootstrap_mean(values, range(25), 20_000, 0.9, seed=3)
    expected = scipy.stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=20_000,
        confidence_level=0.9,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(8),
    ).confidence_interval
    error = values.std() / 5
    assert estimate[0] == pytest.approx(values.mean())
    np.testing.assert_allclose(estimate[1:], expected, atol=0.06 * error)


def test_intervals_cover_the_truth_at_their_level():
    rng = np.random.default_rng(7)
    patients = np.repeat(np.arange(30), 2)
    held, by_scans = 0, 0
    for seed in range(400):
        # Scans of one patient hardly differ: drawn one by one, the interval would be too narrow.
        values = np.repeat(rng.normal(size=30), 2) + 0.1 * rng.normal(size=60)
        _, low, high = bootstrap_mean(values, patients, 300, 0.9, seed)
        held += low < 0 < high
        _, low, high = bootstrap_mean(values, range(60), 300, 0.9, seed)
        by_scans += low < 0 < high
    assert 0.84 < held / 400 < 0.94
    assert by_scans / 400 < 0.82


def test_draws_are_the_same_with_a_seed_whatever_the_order_of_scans():
    rng = np.random.default_rng(9)
    values, patients = rng.random(20), np.array([f"p{place}" for place in range(20)])
    first = bootstrap_mean(values, patients, seed=5)
    assert bootstrap_mean(values, patients, seed=5) == first
    assert bootstrap_mean(values, patients, seed=6) != first
    order = rng.permutation(20)
    assert bootstrap_mean(values[order], patients[order], seed=5) == pytest.approx(first)


def test_arguments_that_allow_no_bootstrap_are_refused():
    with pytest.raises(SetupFault, match="3 values of 2"):
        bootstrap_mean([1, 2, 3], ["a", "b"])
    with pytest.raises(SetupFault, match="needs draws, not 0"):
        bootstrap_mean([1, 2], ["a", "b"], draws=0)
    for level in (0, 1, 95):
        with pytest.raises(SetupFault, match=f"not {level}$"):
            bootstrap_mean([1, 2], ["a", "b"], level=level)


# --- the table ------------------------------------------------------------------------------------


def table_of(rows):
    columns = ["method", "patient", "measure", "value", "chance"]
    return pd.DataFrame(rows, columns=columns)


TABLE = table_of(
    [
        ("occlusion", "p1", "mass", 0.2, 0.1),
        ("occlusion", "p1", "mass", 0.4, 0.1),
        ("occlusion", "p2", "mass", 0.5, 0.3),
        ("occlusion", "p3", "mass", np.nan, 0.9),
        ("gradient", "p1", "mass", 0.6, 0.1),
        ("occlusion", "p1", "rank", 0.1, 0.1),
        ("gradient", "p3", "rank", np.nan, np.nan),
    ]
)


def test_a_table_has_a_row_for_each_method_and_measure():
    summary = summarise(TABLE, ["method"], 200, 1)
    assert summary.columns.tolist() == [
        *("method", "measure", "mean", "low", "high", "chance", "times_chance"),
        *("scans", "patients"),
    ]
    assert list(zip(summary["method"], summary["measure"], strict=True)) == [
        ("occlusion", "mass"),
        ("gradient", "mass"),
        ("occlusion", "rank"),
        ("gradient", "rank"),
    ]
    np.testing.assert_allclose(summary["mean"], [0.4, 0.6, 0.1, np.nan])
    # Of the scans with a value only; each patient counts once.
    np.testing.assert_allclose(summary["chance"], [0.2, 0.1, 0.1, np.nan])
    np.testing.assert_allclose(summary["times_chance"], [2, 6, 1, np.nan])
    np.testing.assert_allclose(summary["low"], [0.3, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(summary["high"], [0.5, np.nan, np.nan, np.nan])
    assert summary["scans"].tolist() == [3, 1, 1, 0]
    assert summary["patients"].tolist() == [2, 1, 1, 0]


def test_rows_are_grouped_by_the_requested_columns():
    whole = summarise(TABLE, [], 50, 1)
    assert whole["measure"].tolist() == ["mass", "rank"]
    assert whole["mean"].iloc[0] == pytest.approx(((0.2 + 0.4 + 0.6) / 3 + 0.5) / 2)
    both = pd.concat([TABLE.assign(group=group) for group in ("AD", "NC")])
    summary = summarise(both, ["group", "method"], 50, 1)
    assert summary.groupby("group").size().tolist() == [4, 4]
    halves = [
        half.drop(columns="group").reset_index(drop=True) for _, half in summary.groupby("group")
    ]
    pd.testing.assert_frame_equal(*halves)
    pd.testing.assert_frame_equal(halves[0], summarise(TABLE, ["method"], 50, 1))


def test_intervals_agree_with_the_bootstrap():
    rng = np.random.default_rng(2)
    rows = [("cam", f"p{place % 9}", "rank", rng.random(), 0.1) for place in range(30)]
    summary = summarise(table_of(rows), ["method"], 70, 4).iloc[0]
    expected = bootstrap_mean([row[3] for row in rows], [row[1] for row in rows], 70, seed=4)
    assert (summary["mean"], summary["low"], summary["high"]) == pytest.approx(expected)


def test_no_scores_give_no_rows_but_all_columns():
    summary = summarise(TABLE.iloc[:0], ["method"])
    assert summary.empty
    assert summary.columns.equals(summarise(TABLE, ["method"]).columns)


def test_missing_columns_are_named():
    with pytest.raises(SetupFault, match="without the columns chance, class"):
        summarise(TABLE.drop(columns="chance"), ["method", "class"])


# --- several regions and resolutions --------------------------------------------------------------


def test_every_region_is_scored_at_every_resolution():
    regions = {"truth": REGION, "other": ~REGION}
    maps = smooth_to(HEATMAP, MASK, [0, 3], (1, 1, 1))
    rows = pd.DataFrame(score_regions(maps, regions, MASK))
    assert tuple(rows.columns) == SCORES
    assert len(rows) == 2 * 2 * len(MEASURES)
    values = rows.set_index(["region", "smoothing_mm", "measure"])["value"]
    for measure, value in score(HEATMAP, ~REGION, MASK).items():
        assert values["other", 0, measure] == value
    smooth = smooth_inside(HEATMAP, MASK, 3, (1, 1, 1))
    for measure, value in score(smooth, REGION, MASK).items():
        assert values["truth", 3, measure] == value
    assert set(rows[rows["region"] == "truth"]["chance"]) == {chance(REGION, MASK)}


def test_a_map_of_zeros_scores_at_chance_and_other_maps_are_unchanged():
    silent = np.where(MASK, 0, HEATMAP)
    maps = smooth_to(replace_zero_map(silent, MASK), MASK, [0, 3], (1, 1, 1))
    rows = pd.DataFrame(score_regions(maps, {"truth": REGION}, MASK))
    np.testing.assert_allclose(rows["value"], chance(REGION, MASK))
    assert replace_zero_map(HEATMAP, MASK) is HEATMAP
