"""The heatmaps of single scans, and the average of a class."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from voxplain.faults import SetupFault
from voxplain.volumes import Grid, read_array


def find_maps(folders: Iterable[str | Path]) -> list[dict[str, Any]]:
    """The heatmaps in some folders: what stands in the sidecar of each, and its ``path``."""
    return [
        {
            **json.loads(sidecar.read_text(encoding="utf-8")),
            "path": sidecar.with_suffix(".nii.gz"),
        }
        for folder in folders
        for sidecar in sorted(Path(folder).glob("*_relevance.json"))
    ]


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
