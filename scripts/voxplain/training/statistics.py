"""Voxelwise mean and SD of the training scans, and the normalisation by them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxplain.faults import DataFault, SetupFault
from voxplain.volumes import Grid, read_array


@dataclass(frozen=True)
class VoxelStatistics:
    """What a split's scans are normalised by.

    Attributes
    ----------
    mean, sd
        ``[x, y, z]`` float32 over the training scans, in the units of the intensity scale; the SD
        is the population's (divided by n) and has its floor already.
    mask
        ``[x, y, z]`` bool, the template's brain. Outside it a normalised scan is 0.
    grid
        Where they lie.
    """

    mean: np.ndarray
    sd: np.ndarray
    mask: np.ndarray
    grid: Grid

    def normalise(self, volume: np.ndarray) -> np.ndarray:
        """Each voxel minus its mean over its SD, ``[x, y, z]`` float32, 0 outside the mask."""
        return np.where(self.mask, (volume - self.mean) / self.sd, 0).astype(np.float32)


def read_scan(path: str | Path, grid: Grid) -> np.ndarray:
    """Read one preprocessed volume ``[x, y, z]`` float32 and see that it lies on the grid.

    Raises
    ------
    DataFault
        It cannot be read, lies on another grid, or has voxels that are no finite number.
    """
    volume, its_grid = read_array(path)
    if not its_grid.matches(grid):
        raise DataFault(
            f"volume {path} lies on another grid ({_told(its_grid)}), expected {_told(grid)}",
            "delete it and run again, so that it is registered to this run's template",
        )
    if not np.isfinite(volume).all():
        raise DataFault(
            f"volume {path} has voxels that are no finite number", "delete it and run again"
        )
    return volume


def _told(grid: Grid) -> str:
    voxels = "x".join(map(str, grid.shape))
    size = "x".join(f"{edge:g}" for edge in grid.voxel_size)
    origin = ", ".join(f"{x:g}" for x in grid.matrix[:3, 3])
    return f"{voxels} voxels of {size} mm from ({origin})"


def fit_statistics(
    paths: Iterable[str | Path], mask: np.ndarray, grid: Grid, sd_floor: float
) -> VoxelStatistics:
    """Mean and SD of every voxel over scans that are read one at a time.

    Welford's algorithm (Technometrics 4, 1962) in float64: memory does not grow with the number of
    scans, and nothing cancels as in a sum of squares.

    Parameters
    ----------
    paths
        Volumes of the training scans.
    mask
        ``[x, y, z]`` bool, the template's brain.
    sd_floor
        Least SD of a voxel, as a fraction of the median SD inside the mask: where the training
        scans hardly differ, a test scan that does would otherwise be many SDs away (the published
        code of Rieke et al. adds 1e-10 to the SD, and such voxels explode).

    Raises
    ------
    DataFault
        As :func:`read_scan`.
    SetupFault
        There are fewer than two scans, or they do not differ anywhere.
    """
    count = 0
    mean = np.zeros(grid.shape)
    squares = np.zeros(grid.shape)
    for path in paths:
        volume = read_scan(path, grid)
        count += 1
        step = volume - mean
        mean += step / count
        squares += step * (volume - mean)
    if count < 2:
        raise SetupFault(f"voxel statistics need at least two training scans, there are {count}")
    sd = np.sqrt(squares / count)
    floor = sd_floor * float(np.median(sd[mask]))
    if floor <= 0:
        raise SetupFault(
            "the training scans do not differ from each other in most voxels of the brain; "
            "are they copies of one scan?"
        )
    return VoxelStatistics(
        mean.astype(np.float32), np.maximum(sd, floor).astype(np.float32), mask, grid
    )


def read_statistics(mean: str | Path, sd: str | Path, mask: str | Path) -> VoxelStatistics:
    """Read the statistics of a split from the volumes they were written to.

    Raises
    ------
    DataFault
        One of them cannot be read or lies on another grid.
    """
    inside, grid = read_array(mask, np.uint8)
    return VoxelStatistics(read_scan(mean, grid), read_scan(sd, grid), inside > 0, grid)
