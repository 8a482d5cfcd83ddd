"""Change of average heatmaps when the network is only trained again.

Two networks that differ only in the seed of their training predict alike but have different
heatmaps. A distance between two methods is informative only if it exceeds this noise of each
method.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from voxplain.cohort.split_names import SplitName
from voxplain.comparison.distance import normalise
from voxplain.faults import SetupFault

SEEDS, FOLDS = OVER = ("seeds", "folds")
Run = tuple[str, int]


def pairs_of_runs(runs: Sequence[Run], over: str) -> list[tuple[Run, Run]]:
    """Pairs of trained networks that differ in the seed or in the fold only.

    Parameters
    ----------
    runs
        Name of the split and seed of each network.
    over
        ``seeds``: networks of the same split with different seeds. ``folds``: networks of the same
        seed and the same division of the patients, trained on different folds; they also explain
        different patients.

    Raises
    ------
    SetupFault
        ``over`` is neither ``seeds`` nor ``folds``.
    """
    if over not in OVER:
        raise SetupFault(f"networks are compared over {over!r}; allowed: {', '.join(OVER)}")

    def alike(run: Run) -> object:
        split, seed = run
        return split if over == SEEDS else (SplitName.parse(split).repeat, seed)

    pairs = itertools.combinations(runs, 2)
    return [(one, other) for one, other in pairs if alike(one) == alike(other)]


def spread_rows(
    read: Callable[[str, Run], np.ndarray],
    methods: Sequence[str],
    runs: Sequence[Run],
    pairs: Sequence[tuple[Run, Run]],
) -> list[dict[str, object]]:
    """Rows with the distance between every two methods over several networks, and its noise floor.

    The floor of a method is the mean distance (:func:`voxplain.comparison.distance.distance`)
    between its average maps of two networks. The floor of a pair of methods is the larger of their
    two floors. If both methods showed the same map plus independent noise, the mean square of their
    distance would be the mean of the squares of the two floors, which is at most the square of the
    larger. The larger one is the more cautious choice: a distance above it exceeds the noise of
    both methods.

    Parameters
    ----------
    read
        Function from method and network to the average map, no value below 0, all of the same
        shape. Each map is read twice, so that memory holds at most one map for each method, or
        one for each network.
    methods
        One or more.
    runs
        Split and seed of each network.
    pairs
        Networks to compare with each other, see :func:`pairs_of_runs`.

    Returns
    -------
    The whole matrix in long form, symmetric: ``method_a``, ``method_b``; ``n``, the number of
    distances (of maps that are not 0 everywhere); ``distance_mean``, ``distance_sd`` (n - 1),
    ``distance_lowest`` and ``distance_highest``; ``floor``, ``times_floor`` (mean divided by floor)
    and ``within_noise``, whether the mean is at most the floor; ``rank_correlation_mean`` and
    ``rank_correlation_sd``, Spearman's, which does not depend on scale. For two methods the values
    are over networks, both maps from the same network. If ``method_a`` is ``method_b``, they are
    over pairs of networks, the mean is the floor of the method, and ``within_noise`` is None. (A
    network is in several pairs, so this SD does not give a standard error.) Undefined values are
    nan or None.
    """
    comparisons: dict[tuple[str, str], list[tuple[float, float]]] = {
        pair: [] for pair in itertools.combinations_with_replacement(methods, 2)
    }
    for run in runs:
        maps = {method: _Map.of(read(method, run)) for method in methods}
        for a, b in itertools.combinations(methods, 2):
            comparisons[a, b].append(maps[a].against(maps[b]))
    for method in methods:
        of_runs = {run: _Map.of(read(method, run)) for run in runs}
        comparisons[method, method] = [of_runs[one].against(of_runs[other]) for one, other in pairs]
    measured = {
        pair: _describe(np.array(values).reshape(-1, 2)) for pair, values in comparisons.items()
    }
    rows = []
    for a, b in itertools.product(methods, repeat=2):
        summary = measured[(a, b) if (a, b) in measured else (b, a)]
        floors = [measured[method, method]["distance_mean"] for method in (a, b)]
        floor, mean = float(np.max(floors)), summary["distance_mean"]
        known = a != b and np.isfinite([floor, mean]).all()
        rows.append(
            {
                "method_a": a,
                "method_b": b,
                **summary,
                "floor": floor,
                "times_floor": mean / floor if known and floor > 0 else np.nan,
                "within_noise": bool(mean <= floor) if known else None,
            }
        )
    return rows


@dataclass(frozen=True)
class _Map:
    """A map prepared for both comparisons; ``share`` is None if it is 0, ``ranks`` if constant."""

    share: np.ndarray | None
    ranks: np.ndarray | None

    @classmethod
    def of(cls, heatmap: np.ndarray) -> _Map:
        ranks = stats.rankdata(heatmap, axis=None)
        ranks -= ranks.mean()
        length = np.linalg.norm(ranks)
        return cls(normalise(heatmap), (ranks / length).astype(np.float32) if length else None)

    def against(self, other: _Map) -> tuple[float, float]:
        """Distance and rank correlation with another map; nan if undefined."""
        apart = alike = np.nan
        if self.share is not None and other.share is not None:
            apart = float(np.linalg.norm(self.share - other.share))
        if self.ranks is not None and other.ranks is not None:
            alike = float(np.clip(self.ranks @ other.ranks, -1, 1))
        return apart, alike


def _describe(comparisons: np.ndarray) -> dict[str, float]:
    """Summary of ``[comparisons, 2]`` distances and rank correlations."""
    distances, correlations = (column[np.isfinite(column)] for column in comparisons.T)
    empty = not len(distances)
    return {
        "n": len(distances),
        "distance_mean": np.nan if empty else float(distances.mean()),
        "distance_sd": _sd(distances),
        "distance_lowest": np.nan if empty else float(distances.min()),
        "distance_highest": np.nan if empty else float(distances.max()),
        "rank_correlation_mean": float(correlations.mean()) if len(correlations) else np.nan,
        "rank_correlation_sd": _sd(correlations),
    }


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else np.nan
