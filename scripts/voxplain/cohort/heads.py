"""Heads for the simulation: the packaged brain with a head built around it, or the user's heads.

A head has three volumes on one grid: the T1 volume, the brain mask, and the AAL areas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from voxplain.atlas import read_aal, read_packaged_template
from voxplain.volumes import Grid, axis_aligned_grid, read_array, white_matter_level, write_array

# Shells around the brain: outer distance from the brain's hull in mm, and T1 brightness relative to
# white matter. CSF is 2-3 mm thick, the skull 6 mm (two tables, marrow between), the scalp 3-4 mm.
_SHELLS = ((2.5, 0.20), (4.5, 0.06), (6.5, 0.35), (8.5, 0.06), (10.5, 0.45), (14.0, 0.95))
_MUSCLE = 0.32


@dataclass(frozen=True)
class Head:
    """A head to simulate scans of.

    Attributes
    ----------
    t1
        ``[x, y, z]`` float32, white matter near 1, air 0.
    brain
        ``[x, y, z]`` bool.
    areas
        ``[x, y, z]`` uint8, label values of AAL, 0 outside.
    grid
        Grid of the three volumes.
    """

    t1: np.ndarray
    brain: np.ndarray
    areas: np.ndarray
    grid: Grid


def write_head(head: Head, files: Any) -> None:
    """Write a head to the paths ``files.t1``, ``files.brain`` and ``files.areas``."""
    write_array(files.t1, head.t1, head.grid, np.float32)
    write_array(files.brain, head.brain, head.grid, np.uint8)
    write_array(files.areas, head.areas, head.grid, np.uint8)


def read_head(files: Any) -> Head:
    """Read a head from the paths ``files.t1``, ``files.brain`` and ``files.areas``.

    Raises
    ------
    ValueError
        The three volumes are on different grids.
    """
    t1, grid = read_array(files.t1)
    brain, brain_grid = read_array(files.brain, np.uint8)
    areas, areas_grid = read_array(files.areas, np.uint8)
    if not (grid.matches(brain_grid) and grid.matches(areas_grid)):
        raise ValueError(f"{files.t1}, {files.brain} and {files.areas} lie on different grids")
    return Head(t1, brain > 0, areas, grid)


def build_packaged_head() -> Head:
    """A whole head around the ICBM152 2009c brain, which is distributed without a head.

    Cerebrospinal fluid, skull and scalp are shells at increasing distance from the brain's closed
    hull; below are a neck and the soft tissue of a face. The head is not anatomically exact: it
    gives skull stripping a skull to remove.
    """
    brain, brain_grid = read_packaged_template()
    low = np.array([-100.0, -130.0, -130.0])
    grid = axis_aligned_grid((201, 246, 236), (1, 1, 1), low)
    t1 = np.zeros(grid.shape, np.float32)
    start = np.round(np.array(brain_grid.matrix[:3, 3]) - low).astype(int)
    inside = _overlap(start, brain.shape, grid.shape)
    t1[inside.target] = brain[inside.source] / white_matter_level(brain)
    mask = t1 > 0

    hull = ndimage.binary_fill_holes(_closed(mask, 8.0))
    distance = ndimage.distance_transform_edt(~hull).astype(np.float32)
    # The thickness of the shells varies by about 20 % over a few centimetres.
    distance *= 1 + 0.2 * _texture(grid.shape, 25.0, seed=1)
    tissue = 1 + 0.12 * _texture(grid.shape, 2.5, seed=2)

    x, y, z = np.ogrid[: grid.shape[0], : grid.shape[1], : grid.shape[2]]
    x, y, z = x + low[0], y + low[1], z + low[2]
    neck = ((x / 52) ** 2 + ((y + 42) / 56) ** 2 < 1) & (z < -40)
    face = ((x / 62) ** 2 + ((y - 42) / 52) ** 2 + ((z + 72) / 62) ** 2) < 1
    airway = ((x / 16) ** 2 + ((y - 42) / 38) ** 2 + ((z + 72) / 26) ** 2) < 1
    below = ndimage.gaussian_filter((neck | face).astype(np.float32), 2.0)
    skin = ndimage.distance_transform_edt(below > 0.5) < 4
    head = np.where(below > 0.5, np.where(skin, 0.9, _MUSCLE), 0).astype(np.float32)
    head[airway] = 0

    for outer, level in reversed(_SHELLS):
        head[distance <= outer] = level
    head = ndimage.gaussian_filter(head * tissue, 0.6)
    t1 = np.where(mask, t1, head)

    aal = read_aal().on_grid(grid)
    return Head(t1, mask, np.where(mask, aal.labels, 0).astype(np.uint8), grid)


@dataclass(frozen=True)
class _Overlap:
    source: tuple[slice, ...]
    target: tuple[slice, ...]


def _overlap(start: np.ndarray, source: tuple[int, ...], target: tuple[int, ...]) -> _Overlap:
    """The overlap of a block of shape ``source`` at ``start`` with a volume of shape ``target``."""
    first = np.maximum(start, 0)
    last = np.minimum(start + np.array(source), target)
    return _Overlap(
        tuple(slice(a - s, b - s) for a, b, s in zip(first, last, start, strict=True)),
        tuple(slice(a, b) for a, b in zip(first, last, strict=True)),
    )


def _closed(mask: np.ndarray, radius: float) -> np.ndarray:
    """Morphological closing by a ball of ``radius`` voxels, through distance transforms."""
    grown = ndimage.distance_transform_edt(~mask) <= radius
    return ndimage.distance_transform_edt(grown) > radius


def _texture(shape: tuple[int, ...], sigma: float, seed: int) -> np.ndarray:
    """Smooth random texture with mean 0 and SD 1, float32."""
    noise = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    smooth = ndimage.gaussian_filter(noise, sigma)
    return smooth / smooth.std()
