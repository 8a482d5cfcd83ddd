"""The areas of AAL in a head of its own space."""

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
    """Lay the areas of AAL into a head, through a quick SyN registration at 2 mm.

    Parameters
    ----------
    head_path, mask_path
        A T1-weighted head with its brain mask, on one grid.

    Returns
    -------
    The head with white matter at 1.
    """
    ants = import_ants()
    t1, own = read_array(head_path)
    mask = read_array(mask_path)[0]
    # The simulation works along the axes of space; an oblique head is turned into them here.
    if not own.is_axis_aligned:
        turned = own.straightened()
        t1, mask = (resample(array, own, turned) for array in (t1, mask))
        own = turned
    mask = mask > 0.5
    t1 = np.clip(t1, 0, None) / white_matter_level(t1[mask])
    template, _, grid = make_template("packaged", 2)
    aal = read_aal()
    with tempfile.TemporaryDirectory() as scratch:
        brain = np.where(mask, t1, 0)
        _, inverse = run_ants(template, grid, brain, own, "syn_quick", seed, scratch)
        areas = ants.apply_transforms(
            as_ants(t1, own),
            as_ants(aal.labels, aal.grid),
            transformlist=[inverse],
            interpolator="nearestNeighbor",
        ).numpy()
    return Head(t1.astype(np.float32), mask, np.where(mask, areas, 0).astype(np.uint8), own)
