"""The areas of AAL in the space of a head."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from voxplain.anatomy.itk import as_ants, import_ants
from voxplain.anatomy.register import run_ants
from voxplain.anatomy.template import make_template
from voxplain.atlas import read_aal
from voxplain.cohort.heads import Head
from voxplain.volumes import read_array, resample, white_matter_level


def label_head(head_path: str | Path, mask_path: str | Path, seed: int) -> Head:
    """A head with the areas of AAL, transferred by a quick SyN registration at 2 mm.

    Parameters
    ----------
    head_path, mask_path
        A T1-weighted head and its brain mask, on the same grid.

    Returns
    -------
    The head, scaled to white matter at 1.
    """
    ants = import_ants()
    t1, head_grid = read_array(head_path)
    mask = read_array(mask_path)[0]
    # The simulation needs axis-aligned grids; an oblique head is resampled here.
    if not head_grid.is_axis_aligned:
        aligned = head_grid.straightened()
        t1, mask = (resample(array, head_grid, aligned) for array in (t1, mask))
        head_grid = aligned
    mask = mask > 0.5
    t1 = np.clip(t1, 0, None) / white_matter_level(t1[mask])
    template, _, grid = make_template("packaged", 2)
    aal = read_aal()
    with tempfile.TemporaryDirectory() as scratch:
        brain = np.where(mask, t1, 0)
        _, inverse = run_ants(template, grid, brain, head_grid, "syn_quick", seed, scratch)
        areas = ants.apply_transforms(
            as_ants(t1, head_grid),
            as_ants(aal.labels, aal.grid),
            transformlist=[inverse],
            interpolator="nearestNeighbor",
        ).numpy()
    return Head(t1.astype(np.float32), mask, np.where(mask, areas, 0).astype(np.uint8), head_grid)
