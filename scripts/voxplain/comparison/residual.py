"""What preprocessing leaves of a simulated atrophy: a scan against its healthy twin."""

from __future__ import annotations

import numpy as np

from voxplain.faults import SetupFault


def residual(scan: np.ndarray, twin: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Where a preprocessed scan differs from its healthy twin, and by how much.

    A registration undoes part of a contraction and moves tissue that lost nothing, and both brains
    were stripped, corrected and scaled for themselves: this is all that a network can see of the
    disease, wherever it comes from.

    Parameters
    ----------
    scan, twin
        ``[x, y, z]`` on the template's grid, each registered by itself, in units of the brain's own
        intensity scale; 0 outside its brain.
    mask
        ``[x, y, z]`` bool, the template's brain.

    Returns
    -------
    ``[x, y, z]`` float32, the absolute difference, 0 outside the mask.

    Raises
    ------
    SetupFault
        The shapes differ, the mask is not bool, or a voxel inside it is no number.
    """
    if not scan.shape == twin.shape == mask.shape:
        raise SetupFault(
            f"a scan of shape {scan.shape}, its twin of {twin.shape} and a mask of {mask.shape}"
        )
    if mask.dtype != bool:
        raise SetupFault(f"the mask is {mask.dtype}, expected bool")
    # In double precision: two nearly equal brains leave little of a float's digits.
    difference = np.abs(scan[mask].astype(np.float64) - twin[mask])
    if not np.isfinite(difference).all():
        raise SetupFault("the scan or its twin has voxels in the mask that are no number")
    left = np.zeros(mask.shape, np.float32)
    left[mask] = difference
    return left
