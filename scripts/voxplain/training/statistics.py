"""Voxelwise mean and SD of the training scans, and normalisation of scans."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from voxplain.faults import DataFault, SetupFault
from voxplain.store import Brain, StoredScan, open_scan
from voxplain.volumes import Grid, read_array


class RunningMoments:
    """Mean and variance of every voxel over arrays that are added one at a time.

    Welford's algorithm (Technometrics 4, 1962) in float64: memory does not grow with the number of
    arrays, and there is no cancellation as in a sum of squares.

    Attributes
    ----------
    count
        Number of arrays so far.
    mean
        Float64, with the shape of the arrays. Before the first array it is a 0 without a shape.
    squares
        Sum of squared deviations from the mean; type and shape as ``mean``.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = np.zeros(())

    def add(self, array: np.ndarray) -> None:
        """Add an array; arrays returned by ``mean`` before are not modified.

        Raises
        ------
        SetupFault
            Its shape differs from that of the arrays before.
        """
        if self.count and np.shape(array) != self.mean.shape:
            raise SetupFault(
                f"an array of shape {np.shape(array)} among others of {self.mean.shape}"
            )
        self.count += 1
        step = array - self.mean
        self.mean = self.mean + step / self.count
        self.squares = self.squares + step * (array - self.mean)

    @property
    def variance(self) -> np.ndarray:
        """The unbiased variance (divided by n - 1) of every voxel, float64.

        Raises
        ------
        SetupFault
            There are fewer than two arrays.
        """
        if self.count < 2:
            raise SetupFault(f"a variance needs at least two arrays, there are {self.count}")
        return self.squares / (self.count - 1)


@dataclass(frozen=True)
class VoxelStatistics:
    """Mean and SD by which the scans of a split are normalised.

    Attributes
    ----------
    mean, sd
        ``[x, y, z]`` float32 over the training scans, in the units of the intensity scale; the SD
        is that of the population (divided by n), not below its floor. Outside the mask they are 0
        and the floor.
    mask
        ``[x, y, z]`` bool, the template's brain. Outside it a normalised scan is 0.
    grid
        Grid of the three volumes.
    fitted_on
        Indices of the scans they were fitted on among the given scans, in ascending order; empty if
        they were read from files.
    """

    mean: np.ndarray
    sd: np.ndarray
    mask: np.ndarray
    grid: Grid
    fitted_on: tuple[int, ...] = ()

    @cached_property
    def brain(self) -> Brain:
        """The voxels of the stored scans."""
        return Brain(self.mask)

    def normalise(self, scan: StoredScan) -> np.ndarray:
        """The scan minus the mean, divided by the SD; ``[x, y, z]`` float32, 0 outside the mask."""
        places = self.brain.places
        volume = np.zeros(self.mask.shape, np.float32)
        values = (scan.values() - self.mean.reshape(-1)[places]) / self.sd.reshape(-1)[places]
        volume.reshape(-1)[places] = values
        return volume


def fit_statistics(
    paths: Iterable[str | Path],
    mask: np.ndarray,
    grid: Grid,
    sd_floor: float,
    scans: int | None = None,
    seed: int = 0,
) -> VoxelStatistics:
    """Mean and SD of every voxel of the brain over scans that are read one at a time.

    Uses :class:`RunningMoments`: memory does not grow with the number of scans.

    Parameters
    ----------
    paths
        Stored training scans, see :mod:`voxplain.store`.
    mask
        ``[x, y, z]`` bool, the template's brain.
    sd_floor
        Smallest SD of a voxel, as a fraction of the median SD inside the mask. Without it, in
        voxels where the training scans hardly differ, a test scan could be many SDs from the mean
        (the published code of Rieke et al. adds 1e-10 to the SD, and such voxels explode).
    scans
        Number of scans to fit on, drawn at random without replacement (200 in the published code of
        Rieke et al. 2018), or all if there are fewer. By default all.
    seed
        Seed of that draw. With the same seed, a larger number of scans includes those of a smaller
        number.

    Returns
    -------
    The statistics; ``fitted_on`` lists the scans that were drawn.

    Raises
    ------
    DataFault
        As :func:`voxplain.store.open_scan`.
    SetupFault
        There are fewer than two scans, or they do not differ in most voxels.
    """
    brain = Brain(mask)
    drawn = None
    if scans is not None:
        paths = list(paths)
        drawn = set(np.random.default_rng(seed).permutation(len(paths))[:scans].tolist())
    fitted_on = []
    moments = RunningMoments()
    for place, path in enumerate(paths):
        if drawn is not None and place not in drawn:
            continue
        moments.add(open_scan(path, brain).values())
        fitted_on.append(place)
    count = moments.count
    if count < 2:
        raise SetupFault(f"voxel statistics need at least two training scans, there are {count}")
    sd = np.sqrt(moments.squares / count)
    floor = sd_floor * float(np.median(sd))
    if floor <= 0:
        raise SetupFault(
            "the training scans do not differ from each other in most voxels of the brain; "
            "are they copies of one scan?"
        )
    volumes = np.zeros(grid.shape, np.float32), np.full(grid.shape, floor, np.float32)
    for volume, values in zip(volumes, (moments.mean, np.maximum(sd, floor)), strict=True):
        volume[mask] = values
    return VoxelStatistics(*volumes, mask, grid, tuple(fitted_on))


def read_statistics(mean: str | Path, sd: str | Path, mask: str | Path) -> VoxelStatistics:
    """The statistics of a split, from the volumes of mean, SD and mask.

    Raises
    ------
    DataFault
        A volume cannot be read, is on another grid than the mask, or has voxels that are not
        finite.
    """
    inside, grid = read_array(mask, np.uint8)
    return VoxelStatistics(_read_on(mean, grid), _read_on(sd, grid), inside > 0, grid)


def _read_on(path: str | Path, grid: Grid) -> np.ndarray:
    volume, volume_grid = read_array(path)
    if not volume_grid.matches(grid):
        raise DataFault(
            f"volume {path} lies on another grid ({_describe_grid(volume_grid)}), expected "
            f"{_describe_grid(grid)}",
            "delete it and run again",
        )
    if not np.isfinite(volume).all():
        raise DataFault(
            f"volume {path} has voxels that are no finite number", "delete it and run again"
        )
    return volume


def _describe_grid(grid: Grid) -> str:
    voxels = "x".join(map(str, grid.shape))
    size = "x".join(f"{edge:g}" for edge in grid.voxel_size)
    origin = ", ".join(f"{x:g}" for x in grid.matrix[:3, 3])
    return f"{voxels} voxels of {size} mm from ({origin})"
