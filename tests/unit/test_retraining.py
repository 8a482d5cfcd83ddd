import numpy as np
import pytest
from scipy import stats

from voxplain.comparison.distance import distance
from voxplain.comparison.retraining import pairs_of_runs, spread_rows
from voxplain.faults import SetupFault

RUNS = [("fixed", 0), ("fixed", 1), ("fixed", 2)]


def reader(maps):
    """``maps[method][run]`` as a function that reads them."""
    return lambda method, run: np.asarray(maps[method][RUNS.index(run)], float)


def spread_of(maps, runs=RUNS):
    rows = spread_rows(reader(maps), list(maps), runs, pairs_of_runs(runs, "seeds"))
    return {(row["method_a"], row["method_b"]): row for row in rows}


# Shares of two voxels, so that a distance is sqrt(2) times the difference of their first.
HAND = {
    "steady": [[0.5, 0.5], [1.0, 1.0], [0.5, 0.5]],
    "shaky": [[0.8, 0.2], [0.6, 0.4], [0.7, 0.3]],
    "far": [[0.0, 1.0], [0.1, 0.9], [0.0, 2.0]],
}


def test_distances_and_floors_are_as_computed_by_hand():
    rows = spread_of(HAND)
    root = np.sqrt(2)
    # Off the diagonal: 0.3, 0.1, 0.2 over the three seeds.
    row = rows["steady", "shaky"]
    assert row["n"] == 3
    assert row["distance_mean"] == pytest.approx(0.2 * root)
    assert row["distance_sd"] == pytest.approx(0.1 * root)
    assert row["distance_lowest"] == pytest.approx(0.1 * root)
    assert row["distance_highest"] == pytest.approx(0.3 * root)
    # The floor of a method is the mean over pairs of seeds: 0.2, 0.1 and 0.1; 0.1, 0 and 0.1.
    assert rows["steady", "steady"]["distance_mean"] == 0
    assert rows["shaky", "shaky"]["distance_mean"] == pytest.approx(0.4 / 3 * root)
    assert rows["far", "far"]["distance_mean"] == pytest.approx(0.2 / 3 * root)
    # The floor of two methods is the larger one.
    assert row["floor"] == rows["shaky", "steady"]["floor"] == rows["shaky", "far"]["floor"]
    assert row["floor"] == pytest.approx(0.4 / 3 * root)
    assert rows["steady", "far"]["floor"] == pytest.approx(0.2 / 3 * root)
    assert row["times_floor"] == pytest.approx(1.5)
    assert row["within_noise"] is False


def test_a_distance_is_within_noise_up_to_the_floor():
    # Pairs of seeds of either are 0.4, 0 and 0.4 apart, the methods 0, 0.4 and 0.
    maps = {"a": [[0.7, 0.3], [0.3, 0.7], [0.3, 0.7]], "b": [[0.7, 0.3], [0.7, 0.3], [0.3, 0.7]]}
    row = spread_of(maps)["a", "b"]
    assert row["floor"] == pytest.approx(np.sqrt(2) * 0.8 / 3)
    assert row["distance_mean"] == pytest.approx(np.sqrt(2) * 0.4 / 3)
    assert row["within_noise"] is True
    assert row["times_floor"] == pytest.approx(0.5)


def test_the_matrix_is_symmetric_and_its_diagonal_is_not_judged():
    rows = spread_of(HAND)
    assert len(rows) == 9
    for a, b in rows:
        one, other = ({**rows[pair]} for pair in ((a, b), (b, a)))
        for row in (one, other):
            row.pop("method_a"), row.pop("method_b")
        assert str(one) == str(other)
        assert (rows[a, b]["within_noise"] is None) == (a == b)


def test_equal_networks_have_no_noise():
    draw = np.random.default_rng(0)
    a, b = draw.random((2, 50))
    rows = spread_of({"a": [a] * 3, "b": [b] * 3, "again": [2 * a] * 3})
    assert rows["a", "a"]["distance_mean"] == rows["b", "b"]["floor"] == 0
    assert rows["a", "a"]["rank_correlation_mean"] == pytest.approx(1)
    assert rows["a", "b"]["within_noise"] is False
    assert np.isnan(rows["a", "b"]["times_floor"])
    # Distance 0 is not above noise 0.
    assert rows["a", "again"]["within_noise"] is True


def test_methods_that_differ_by_noise_alone_are_as_far_apart_as_their_noise():
    """Of n voxels with noise of variance v, two maps are sqrt(2 n v) apart."""
    draw = np.random.default_rng(1)
    truth, n, sd = draw.uniform(1, 2, 40_000), 40_000, 0.1
    noisy = {m: [truth + draw.normal(0, sd, n) for _ in RUNS] for m in ("a", "b")}
    noisy["c"] = [truth[::-1] + draw.normal(0, sd, n) for _ in RUNS]
    rows = spread_of(noisy)
    expected = np.sqrt(2 * n) * sd / truth.sum()
    assert rows["a", "a"]["distance_mean"] == pytest.approx(expected, rel=0.02)
    assert rows["a", "b"]["distance_mean"] == pytest.approx(expected, rel=0.02)
    assert rows["a", "b"]["times_floor"] == pytest.approx(1, abs=0.02)
    # Two independent uniform maps, one reversed: their variances are added.
    further = np.sqrt(2 * n * (sd**2 + 1 / 12)) / truth.sum()
    assert rows["a", "c"]["distance_mean"] == pytest.approx(further, rel=0.02)
    assert rows["a", "c"]["within_noise"] is False


def test_every_number_agrees_with_other_code_on_the_pairs():
    draw = np.random.default_rng(2)
    maps = {m: list(np.round(draw.random((3, 200)), 1)) for m in ("a", "b")}
    rows = spread_of(maps)
    distances = [distance(a, b) for a, b in zip(maps["a"], maps["b"], strict=True)]
    correlations = [
        stats.spearmanr(a, b).statistic for a, b in zip(maps["a"], maps["b"], strict=True)
    ]
    row = rows["a", "b"]
    assert row["distance_mean"] == pytest.approx(np.mean(distances))
    assert row["distance_sd"] == pytest.approx(np.std(distances, ddof=1))
    assert row["rank_correlation_mean"] == pytest.approx(np.mean(correlations), abs=1e-6)
    assert row["rank_correlation_sd"] == pytest.approx(np.std(correlations, ddof=1), abs=1e-6)
    within = [
        stats.spearmanr(maps["a"][s], maps["a"][t]).statistic for s, t in ((0, 1), (0, 2), (1, 2))
    ]
    assert rows["a", "a"]["rank_correlation_mean"] == pytest.approx(np.mean(within), abs=1e-6)


def test_a_map_of_zeros_is_ignored():
    maps = {"a": [[1, 2, 3], [0, 0, 0], [1, 2, 4]], "b": [[3, 2, 1]] * 3, "c": [[0, 0, 0]] * 3}
    rows = spread_of(maps)
    assert rows["a", "b"]["n"] == 2
    assert rows["a", "a"]["n"] == 1
    assert rows["a", "a"]["distance_mean"] == pytest.approx(distance(*np.array(maps["a"])[[0, 2]]))
    assert np.isnan(rows["a", "a"]["distance_sd"])
    for other in ("a", "b", "c"):
        row = rows["c", other]
        assert row["n"] == 0
        assert np.isnan([row["distance_mean"], row["floor"], row["rank_correlation_mean"]]).all()
        assert row["within_noise"] is None


def test_pairs_differ_in_the_seed_or_in_the_fold():
    folds = [(f"repeat-{r}_fold-{f}", s) for r in (1, 2) for f in (1, 2) for s in (0, 1)]
    assert pairs_of_runs(RUNS, "seeds") == [
        (RUNS[0], RUNS[1]),
        (RUNS[0], RUNS[2]),
        (RUNS[1], RUNS[2]),
    ]
    assert pairs_of_runs(folds, "folds") == [
        ((f"repeat-{r}_fold-1", s), (f"repeat-{r}_fold-2", s)) for r in (1, 2) for s in (0, 1)
    ]
    with pytest.raises(SetupFault, match="over 'days'; allowed: seeds, folds"):
        pairs_of_runs(RUNS, "days")
