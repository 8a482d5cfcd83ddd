"""Voxelwise difference between two groups of scans, without a network."""

from __future__ import annotations

import numpy as np

from voxplain.faults import SetupFault


def welch_t(
    mean_a: np.ndarray,
    var_a: np.ndarray,
    n_a: int,
    mean_b: np.ndarray,
    var_b: np.ndarray,
    n_b: int,
    floor: float = 0.0,
) -> np.ndarray:
    """Welch's t of two groups of scans for each voxel (Biometrika 34, 1947).

    Parameters
    ----------
    mean_a, var_a, mean_b, var_b
        Mean and unbiased variance of the groups' voxels, of one shape, from
        :class:`voxplain.training.statistics.RunningMoments`.
    n_a, n_b
        Number of scans in each group, at least 2.
    floor
        Smallest standard error of a voxel, as a fraction of the median of those above 0. With few
        scans, some voxels have almost no variance by chance; without a floor their t would exceed
        all other values (Tusher, Tibshirani and Chu 2001 add a constant for the same reason).

    Returns
    -------
    Float64, above 0 where the mean of group a is larger; 0 where both variances are 0 (as outside
    the brain). Unlike a heatmap it has a sign.

    Raises
    ------
    SetupFault
        The shapes differ, or a group has fewer than two scans.
    """
    shapes = {np.shape(array) for array in (mean_a, var_a, mean_b, var_b)}
    if len(shapes) > 1:
        raise SetupFault(f"means and variances of different shapes: {sorted(shapes)}")
    if min(n_a, n_b) < 2:
        raise SetupFault(f"Welch's t needs at least two scans of each group, not {n_a} and {n_b}")
    difference = np.subtract(mean_a, mean_b, dtype=np.float64)
    squares = (np.divide(var, n, dtype=np.float64) for var, n in ((var_a, n_a), (var_b, n_b)))
    error = np.asarray(np.sqrt(sum(squares)))
    if (varying := error > 0).any():
        error[varying] = np.maximum(error[varying], floor * np.median(error[varying]))
    return np.divide(difference, error, out=np.zeros_like(difference), where=error != 0)
