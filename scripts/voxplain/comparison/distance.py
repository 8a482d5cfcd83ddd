"""Distances between the average heatmaps of methods."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np


def normalise(heatmap: np.ndarray) -> np.ndarray | None:
    """A heatmap divided by its sum, float64; None if the sum is 0."""
    total = heatmap.sum(dtype=np.float64)
    return heatmap / total if total > 0 else None


def distance(first: np.ndarray, second: np.ndarray) -> float | None:
    """Euclidean distance of two heatmaps, each divided by its sum before.

    ``sqrt(sum_i (A_i - B_i)^2)``, Rieke et al. 2018, table 2.

    Parameters
    ----------
    first, second
        Average maps of the same shape, no value below 0.

    Returns
    -------
    Between 0 and sqrt(2); None if a map is 0 everywhere, since its distance is undefined.
    """
    one, other = normalise(first), normalise(second)
    if one is None or other is None:
        return None
    return float(np.sqrt(((one - other) ** 2).sum()))


def distance_rows(maps: Mapping[str, Mapping[str, np.ndarray]]) -> list[dict[str, object]]:
    """Rows with the distance between every two methods, for each class.

    Parameters
    ----------
    maps
        Class to method to average map.

    Returns
    -------
    Rows with ``class``, ``method_a``, ``method_b`` and ``distance``: the whole matrix in long form,
    symmetric, with 0 on the diagonal. ``distance`` is None if a map is 0 everywhere.
    """
    rows = []
    for group, of_methods in maps.items():
        for a, b in itertools.product(of_methods, repeat=2):
            apart = distance(of_methods[a], of_methods[b])
            rows.append({"class": group, "method_a": a, "method_b": b, "distance": apart})
    return rows
