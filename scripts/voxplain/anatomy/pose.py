"""Rough pose of a brain relative to the template, from which its registration starts.

ANTs lays the centres of mass onto each other and leaves the rotation to its coarsest level. In a
head that is turned far, this level can take a wrong optimum, from which the finer levels do not
return: with a template at 4 mm often, at 2 mm less often (its coarsest voxels have 32 and 16 mm).
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from voxplain.anatomy.quality import correlation
from voxplain.volumes import Grid, centres_mm, resample, smooth_for

_COARSE_MM = 8.0
# About each axis. Starts of 90 degrees and more are left out on purpose: a scan whose file mirrors
# it from front to back fits the template after half a turn, with its sides swapped; as it stands,
# it does not fit, and quality control excludes it.
_TURNS_DEG = (-40.0, 0.0, 40.0)
_GAIN = 0.03  # of the correlation; a head that is turned by less than about 20 degrees gains less
_DARK = 0.1  # of the template's maximum; its voxels below are not compared


def find_start(
    template: np.ndarray, grid: Grid, brain: np.ndarray, brain_grid: Grid
) -> np.ndarray | None:
    """The rigid transform from which to start, or None to start from the centres of mass alone.

    The template is compared with the brain in 27 poses, at 8 mm.

    Parameters
    ----------
    template, brain
        ``[x, y, z]`` without skull, on ``grid`` and ``brain_grid``.

    Returns
    -------
    ``(4, 4)``, from points of the template to points of the scan, both in mm (RAS+).
    """
    known, known_grid = _coarsen(template, grid)
    moving, moving_grid = _coarsen(brain, brain_grid)
    inside = known > _DARK * known.max()
    points = centres_mm(known_grid)[:, inside].astype(np.float64)
    middle, moving_middle = _centre(known, known_grid), _centre(moving, moving_grid)
    to_voxels = np.linalg.inv(moving_grid.matrix)
    starts, fits = [], []
    for degrees in itertools.product(_TURNS_DEG, repeat=3):
        start = np.eye(4)
        start[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
        start[:3, 3] = moving_middle - start[:3, :3] @ middle
        through = to_voxels @ start
        places = through[:3, :3] @ points + through[:3, 3:]
        fits.append(correlation(ndimage.map_coordinates(moving, places, order=1), known[inside]))
        starts.append(start)
    best, plain = int(np.argmax(fits)), len(fits) // 2
    return starts[best] if fits[best] > fits[plain] + _GAIN else None


def _coarsen(array: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
    coarse = grid.coarsened(max(_COARSE_MM, *grid.voxel_size))
    return resample(smooth_for(array, grid, coarse), grid, coarse), coarse


def _centre(array: np.ndarray, grid: Grid) -> np.ndarray:
    """The centre of mass in mm."""
    index = ndimage.center_of_mass(np.clip(array, 0, None).astype(np.float64))
    return grid.matrix[:3, :3] @ index + grid.matrix[:3, 3]
