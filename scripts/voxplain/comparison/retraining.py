"""How far average heatmaps move when the network is only trained again.

Two networks that differ in nothing but the seed of their training predict alike and explain
differently. A distance between two methods tells of the methods as far as it exceeds what each
moves by this alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from voxplain.cohort.splits import SplitName
from voxplain.comparison.distance import normalise
from voxplain.faults import SetupFault

SEEDS, FOLDS = OVER = ("seeds", "folds")
Run = tuple[str, int]


def pairs_of_runs(runs: Sequence[Run], over: str) -> list[tuple[Run, Run]]:
    """Pairs of trained networks that differ in one thing.

    Parameters
    ----------
    runs
        Name of the split and seed of each network.
    over
        ``seeds``: networks of one split that differ in their seed. ``folds``: networks of one seed
        that were trained on other folds of one division of the patients, and explain others.

    Raises
    ------
    SetupFault
        ``over`` is neither word.
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
    """Distances between every two methods over several networks, above their noise floor.

    A method's own floor is the mean distance (:func:`voxplain.comparison.distance.distance`) of its
    average maps of two networks. The floor of a pair of methods is the larger of their own: if both
    methods showed the same but for independent noise, the mean square of their distance would be
    the mean of their two floors' squares, never more than the larger. It is the more cautious of
    the two: what passes it exceeds what either method moves by itself.

    Parameters
    ----------
    read
        Gives the average map of a method and network, none below 0, of one shape. Each is read
        twice, so that no more maps are held than there are methods, or networks.
    methods
        Two or more, or one.
    runs
        Split and seed of each network.
    pairs
        Those that are compared with each other, see :func:`pairs_of_runs`.

    Returns
    -------
    The whole matrix in long form, symmetric: ``method_a``, ``method_b``; ``n``, how many distances
    there are (of maps that are not 0 everywhere); ``distance_mean``, ``distance_sd`` (n - 1),
    ``distance_lowest`` and ``distance_highest``; ``floor``, ``times_floor`` (mean over floor) and
    ``within_noise``, whether the mean is not above the floor; ``rank_correlation_mean`` and
    ``rank_correlation_sd``, Spearman's, which knows no scale. Of two methods these are over
    networks, both maps of one network; where ``method_a`` is ``method_b``, over pairs of networks,
    the mean being the method's own floor, and ``within_noise`` is None. (A network is in several
    pairs: that SD is no error of the mean.) What cannot be told is nan, or None.
    """
    found: dict[tuple[str, str], list[tuple[float, float]]] = {
        pair: [] for pair in itertools.combinations_with_replacement(methods, 2)
    }
    for run in runs:
        maps = {method: _Map.of(read(method, run)) for method in methods}
        for a, b in itertools.combinations(methods, 2):
            found[a, b].append(maps[a].against(maps[b]))
    for method in methods:
        of_runs = {run: _Map.of(read(method, run)) for run in runs}
        found[method, method] = [of_runs[one].against(of_runs[other]) for one, other in pairs]
    measured = {pair: _describe(np.array(told).reshape(-1, 2)) for pair, told in found.items()}
    rows = []
    for a, b in itertools.product(methods, repeat=2):
        told = measured[(a, b) if (a, b) in measured else (b, a)]
        floors = [measured[method, method]["distance_mean"] for method in (a, b)]
        floor, mean = float(np.max(floors)), told["distance_mean"]
        known = a != b and np.isfinite([floor, mean]).all()
        rows.append(
            {
                "method_a": a,
                "method_b": b,
                **told,
                "floor": floor,
                "times_floor": mean / floor if known and floor > 0 else np.nan,
                "within_noise": bool(mean <= floor) if known else None,
            }
        )
    return rows


@dataclass(frozen=True)
class _Map:
    """A map as its two comparisons need it; None where it is 0, or the same, everywhere."""

    share: np.ndarray | None
    ranks: np.ndarray | None

    @classmethod
    def of(cls, heatmap: np.ndarray) -> _Map:
        ranks = stats.rankdata(heatmap, axis=None)
        ranks -= ranks.mean()
        length = np.linalg.norm(ranks)
        return cls(normalise(heatmap), (ranks / length).astype(np.float32) if length else None)

    def against(self, other: _Map) -> tuple[float, float]:
        """Distance and rank correlation; nan where there is none."""
        apart = alike = np.nan
        if self.share is not None and other.share is not None:
            apart = float(np.linalg.norm(self.share - other.share))
        if self.ranks is not None and other.ranks is not None:
            alike = float(np.clip(self.ranks @ other.ranks, -1, 1))
        return apart, alike


def _describe(told: np.ndarray) -> dict[str, float]:
    """What there is to say of ``[comparisons, 2]`` distances and rank correlations."""
    distances, correlations = (column[np.isfinite(column)] for column in told.T)
    none = not len(distances)
    return {
        "n": len(distances),
        "distance_mean": np.nan if none else float(distances.mean()),
        "distance_sd": _sd(distances),
        "distance_lowest": np.nan if none else float(distances.min()),
        "distance_highest": np.nan if none else float(distances.max()),
        "rank_correlation_mean": float(correlations.mean()) if len(correlations) else np.nan,
        "rank_correlation_sd": _sd(correlations),
    }


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else np.nan
