"""The template at the resolution of a run."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from voxplain.atlas import read_packaged_template, read_templateflow_template
from voxplain.volumes import Grid, resample, smooth_for

SOURCES = {"packaged": read_packaged_template, "templateflow": read_templateflow_template}


def make_template(source: str, resolution_mm: float) -> tuple[np.ndarray, np.ndarray, Grid]:
    """The template brain and its mask on a grid of ``resolution_mm``.

    Parameters
    ----------
    source
        ``packaged`` or ``templateflow``: the same brain, from an installed package or downloaded.
    resolution_mm
        1 gives 193x229x193 voxels, 2 97x115x97, 3 65x77x65, 4 49x58x49, all with the first voxel's
        centre at (-96, -132, -78) mm.

    Returns
    -------
    brain
        ``[x, y, z]`` float32, 0 outside the mask.
    mask
        ``[x, y, z]`` bool.
    grid
        Grid of both.
    """
    brain, fine = SOURCES[source]()
    grid = fine.coarsened(resolution_mm)
    whole = ndimage.binary_fill_holes(brain > 0).astype(np.float32)
    mask = resample(smooth_for(whole, fine, grid), fine, grid) > 0.5
    coarse = resample(smooth_for(brain, fine, grid), fine, grid)
    return np.where(mask, coarse, 0).astype(np.float32), mask, grid
