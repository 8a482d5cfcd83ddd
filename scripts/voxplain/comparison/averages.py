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
    """Contents of the sidecar of each heatmap in some folders, with its ``path``."""
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
        ``[x, y, z]`` float64; 0 everywhere if there is no heatmap.
    count
        Number of heatmaps.

    Raises
    ------
    SetupFault
        A heatmap lies on another grid, or has voxels that are negative or not finite.
    """
    total, count = np.zeros(grid.shape), 0
    for path in paths:
        heatmap, map_grid = read_array(path)
        if not map_grid.matches(grid):
            raise SetupFault(
                f"heatmap {path} does not lie on this run's grid; delete it and run again"
            )
        if not (np.isfinite(heatmap) & (heatmap >= 0)).all():
            raise SetupFault(f"heatmap {path} has negative, NaN or infinite voxels")
        total += heatmap
        count += 1
    return total / max(count, 1), count
