"""Simulated atrophy after preprocessing: difference between a scan and its healthy twin."""

from __future__ import annotations

import numpy as np

from voxplain.faults import SetupFault


def residual(scan: np.ndarray, twin: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Absolute difference between a preprocessed scan and its healthy twin.

    Registration undoes part of a contraction and also moves tissue without loss. Both brains were
    skull-stripped, bias-corrected and scaled separately. The difference contains all that a network
    can see of the disease, whatever its origin.

    Parameters
    ----------
    scan, twin
        ``[x, y, z]`` on the template's grid, registered separately, in units of each brain's
        intensity scale; 0 outside the brain.
    mask
        ``[x, y, z]`` bool, the template's brain.

    Returns
    -------
    ``[x, y, z]`` float32, the absolute difference, 0 outside the mask.

    Raises
    ------
    SetupFault
        The shapes differ, the mask is not bool, or a voxel inside it is NaN or infinite.
    """
    if not scan.shape == twin.shape == mask.shape:
        raise SetupFault(
            f"a scan of shape {scan.shape}, its twin of {twin.shape} and a mask of {mask.shape}"
        )
    if mask.dtype != bool:
        raise SetupFault(f"the mask is {mask.dtype}, expected bool")
    # Double precision: the difference of nearly equal brains has few digits left in float32.
    difference = np.abs(scan[mask].astype(np.float64) - twin[mask])
    if not np.isfinite(difference).all():
        raise SetupFault("the scan or its twin has NaN or infinite voxels inside the mask")
    left = np.zeros(mask.shape, np.float32)
    left[mask] = difference
    return left
