"""Relevance by brain area."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

SHARE_OF = ("brain", "atlas")


def area_rows(
    heatmap: np.ndarray,
    labels: np.ndarray,
    names: Mapping[int, str],
    mask: np.ndarray,
    share_of: str = "brain",
) -> pd.DataFrame:
    """Relevance of every area in one heatmap.

    Parameters
    ----------
    heatmap
        ``[x, y, z]``, no value below 0.
    labels
        ``[x, y, z]``, the area of each voxel, 0 for no area; only voxels inside the mask count.
    names
        Label to area.
    mask
        ``[x, y, z]`` bool, the template's brain.
    share_of
        Denominator of the share: the sum in the ``brain``, or in all areas of the ``atlas`` (as
        in the published code of Rieke et al. 2018).

    Returns
    -------
    One row an area: ``area``, ``voxels``, ``sum``, ``share`` (0 to 1) and ``density`` (relevance
    per voxel, as a multiple of the mean over the brain: 1 is average). Share and density are
    missing if the heatmap is 0 everywhere, density also if an area has no voxel.
    """
    labels = np.where(mask, labels, 0)
    size = max(names) + 1
    sums = np.bincount(labels.ravel(), heatmap.ravel().astype(np.float64), size)
    voxels = np.bincount(labels.ravel(), minlength=size)
    values = sorted(names)
    table = pd.DataFrame(
        {
            "area": [names[value] for value in values],
            "voxels": voxels[values],
            "sum": sums[values],
        }
    )
    in_brain = float(heatmap[mask].sum(dtype=np.float64))
    return add_shares(table, in_brain, int(mask.sum()), share_of)


def add_shares(
    table: pd.DataFrame, in_brain: float, brain_voxels: int, share_of: str
) -> pd.DataFrame:
    """Add ``share`` and ``density`` to a table of ``voxels`` and ``sum``; see :func:`area_rows`."""
    whole = in_brain if share_of == "brain" else table["sum"].sum()
    mean = in_brain / brain_voxels if brain_voxels else 0.0
    table = table.copy()
    table["share"] = table["sum"] / whole if whole > 0 else np.nan
    filled = table["voxels"].where(table["voxels"] > 0)
    table["density"] = table["sum"] / filled / mean if mean > 0 else np.nan
    return table


def both_sides(table: pd.DataFrame) -> pd.DataFrame:
    """Table with the left and the right part of each area added up.

    ``voxels``, ``sum`` and ``share`` are sums, ``density`` is the mean weighted by voxels.
    ``Temporal_Mid_L`` and ``_R`` become ``Temporal_Mid`` (``TemporalMid`` in Rieke et al. 2018).
    """
    plain = table.assign(area=[plain_name(name) for name in table["area"]])
    # Density is a mean over voxels, so each side is weighted by its number of voxels.
    plain["weighted"] = plain["density"] * plain["voxels"]
    added = plain.groupby("area", sort=False)[["voxels", "sum", "share", "weighted"]].sum(
        min_count=1
    )
    added["density"] = added["weighted"] / added["voxels"].where(added["voxels"] > 0)
    return added.drop(columns="weighted").reset_index()


def plain_name(area: str) -> str:
    """An area's name without its side: ``Temporal_Mid_L`` becomes ``Temporal_Mid``."""
    return re.sub(r"(?<=.)_[LR]$", "", area)


def top_areas(table: pd.DataFrame, count: int, least_voxels: int = 1) -> list[dict[str, object]]:
    """Rows of the areas with most relevance, by sum and by density.

    Parameters
    ----------
    table
        From :func:`both_sides`.
    count
        Number of areas in each ranking.
    least_voxels
        Smaller areas are left out of the ranking by density, since the mean over a few voxels is
        mostly chance.

    Returns
    -------
    Rows with ``by`` (sum, density), ``rank`` from 1, ``area``, ``share`` and ``density``; an empty
    list if the map is 0 everywhere.
    """
    rows = []
    for by, column in (("sum", "share"), ("density", "density")):
        ranked = table[table["voxels"] >= least_voxels] if by == "density" else table
        # An area without relevance is not a top area.
        ranked = ranked[ranked[column] > 0].sort_values(column, ascending=False, kind="stable")
        for rank, row in enumerate(ranked.head(count).itertuples(), start=1):
            rows.append(
                {
                    "by": by,
                    "rank": rank,
                    "area": row.area,
                    "share": row.share,
                    "density": row.density,
                }
            )
    return rows


def measure_areas(
    values: np.ndarray, labels: np.ndarray, names: dict[int, str]
) -> dict[str, float]:
    """Mean intensity of each area that has a voxel, by the name of the area.

    Parameters
    ----------
    values
        ``[voxels]``, in the units of the scan's intensity scale.
    labels
        ``[voxels]``, the area of each; 0 is no area.
    names
        Label value to area name.
    """
    most = max(names) + 1
    counts = np.bincount(labels, minlength=most)
    sums = np.bincount(labels, weights=values, minlength=most)
    return {name: float(sums[n] / counts[n]) for n, name in names.items() if counts[n]}
