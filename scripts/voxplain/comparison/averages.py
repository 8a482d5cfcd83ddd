"""The average heatmap of a class."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from voxplain.faults import SetupFault
from voxplain.volumes import Grid, read_array


def average_maps(paths: Iterable[str | Path], grid: Grid) -> tuple[np.ndarray, int]:
    """Mean of heatmaps that are read one at a time.

    Parameters
    ----------
    paths
        Volumes on ``grid``.

    Returns
    -------
    mean
        ``[x, y, z]`` float64, 0 where there is no heatmap at all.
    count
        How many there were.

    Raises
    ------
    SetupFault
        One lies on another grid, or has voxels below 0 or that are no number.
    """
    total, count = np.zeros(grid.shape), 0
    for path in paths:
        heatmap, its_grid = read_array(path)
        if not its_grid.matches(grid):
            raise SetupFault(
                f"heatmap {path} does not lie on this run's grid; delete it and run again"
            )
        if not (np.isfinite(heatmap) & (heatmap >= 0)).all():
            raise SetupFault(f"heatmap {path} has voxels below 0 or that are no number")
        total += heatmap
        count += 1
    return total / max(count, 1), count
