"""Comparable intensities of scans: N4 bias field correction, and one scale factor for each scan.

Without it, voxelwise z-scores measure the scanner's gain and coil instead of anatomy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from voxplain.anatomy.itk import as_ants, import_ants
from voxplain.faults import DataFault
from voxplain.volumes import Grid, read_array, resample, smooth_for, white_matter_level

# Names of the archive's correction in its descriptions (MPR; GradWarp; N3), folder names
# (MPR__GradWarp__N3) and ImageType, and those of files that fMRIPrep and CAPS corrected with N4.
_CORRECTED = re.compile(
    r"(?<![a-z0-9])(N[34]m?|NUC|desc-preproc|desc-crop)(?![a-z0-9])", re.IGNORECASE
)
_FIT_MM = 6.0
_MOST_FITS = 6
_CONVERGED = 0.03  # SD of the logarithm of the field of the last fit
# A head is four times as large as the brain, and its field need not be exact to a percent: N4 runs
# on a coarser grid, and is repeated until it finds less than 5 %.
_HEAD_FIT_MM, _HEAD_CONVERGED = 10.0, 0.05
_TISSUE = 0.1  # of a head's bright voxels; darker voxels are air or bone


def is_already_corrected(texts: Iterable[str]) -> bool:
    """Whether descriptions or ImageType words name an earlier N3 or N4 (``MPR; GradWarp; N3``)."""
    return any(_CORRECTED.search(text) for text in texts)


def correct_bias(path: str | Path, mask_path: str | Path) -> np.ndarray:
    """N4 bias field correction inside the brain (Tustison et al. 2010), by ANTs.

    The field is smooth, so it is fitted on a 6 mm grid, at three levels of its spline mesh: the
    default of ANTs, four levels, follows anatomy (benchmarks/bias_correction.py). Weak fields
    converge at once, strong fields of surface coils do not, so the fit is repeated on the corrected
    image until it finds less than 3 %.

    Parameters
    ----------
    path, mask_path
        Head and brain mask on the same grid.

    Returns
    -------
    ``[x, y, z]`` float32, the corrected brain, 0 outside.

    Raises
    ------
    DataFault
        The brain is constant or not finite, so that no field can be fitted.
    RuntimeError
        N4 failed on a valid brain.
    """
    head, grid = read_array(path)
    mask, _ = read_array(mask_path)
    # N4 takes logarithms: no voxel may be below 0.
    head = head - min(float(head.min()), 0.0)
    coarse = grid.coarsened(max(_FIT_MM, *grid.voxel_size))
    weight = resample(smooth_for(mask, grid, coarse), grid, coarse)
    # Mean over the part of each coarse voxel inside the brain, so that the border is not darker.
    level = resample(smooth_for(head * mask, grid, coarse), grid, coarse)
    log_field = _find_field(level / np.maximum(weight, 0.5), weight > 0.5, coarse, _CONVERGED)
    if log_field is None:
        raise DataFault(
            f"the brain in {path} is constant, or holds values that are no numbers",
            "look at the scan and its mask",
        )
    field = np.exp(resample(log_field, coarse, grid, beyond="nearest"))
    return np.where(mask > 0, head / field, 0).astype(np.float32)


def flatten_head(head: np.ndarray, grid: Grid) -> np.ndarray:
    """A whole head corrected with N4 before its brain is known, for a skull removal tool.

    Parameters
    ----------
    head
        ``[x, y, z]`` on ``grid``.

    Returns
    -------
    ``[x, y, z]`` float32; the uncorrected head if no field can be fitted.
    """
    head = head - min(float(head.min()), 0.0)
    coarse = grid.coarsened(max(_HEAD_FIT_MM, *grid.voxel_size))
    level = resample(smooth_for(head, grid, coarse), grid, coarse)
    tissue = level > _TISSUE * np.percentile(level, 98)
    log_field = _find_field(level, tissue, coarse, _HEAD_CONVERGED)
    if log_field is None:
        return head
    return head / np.exp(resample(log_field, coarse, grid, beyond="nearest"))


def _find_field(
    level: np.ndarray, inside: np.ndarray, grid: Grid, converged: float
) -> np.ndarray | None:
    """The logarithm of the bias field ``[x, y, z]``; None if no field can be fitted."""
    level = np.where(inside, level, 0).astype(np.float32)
    if not np.isfinite(level).all() or not inside.any() or np.ptp(level[inside]) == 0:
        return None
    log_field = np.zeros_like(level)
    for _ in range(_MOST_FITS):
        update = _fit_field(level / np.exp(log_field), inside, grid)
        log_field += update
        if update[inside].std() < converged:
            break
    return log_field


def _fit_field(level: np.ndarray, inside: np.ndarray, grid: Grid) -> np.ndarray:
    """Logarithm of the bias field by one run of N4, ``[x, y, z]``."""
    ants = import_ants()
    field = ants.n4_bias_field_correction(
        as_ants(level, grid),
        mask=as_ants(inside, grid),
        shrink_factor=1,
        convergence={"iters": [25, 25, 25], "tol": 1e-7},
        return_bias_field=True,
    )
    values = field.numpy()
    # antspyx drops N4's exit status; if N4 failed, the "field" is the input image.
    if np.array_equal(values, level):
        raise RuntimeError("N4 ended without a field; as a rule it lacked memory")
    return np.log(np.maximum(values, 1e-3))


def intensity_scale(brain: np.ndarray, method: str) -> float:
    """The intensity level that is scaled to 1.

    Parameters
    ----------
    brain
        ``[x, y, z]``, 0 outside the brain.
    method
        ``percentile`` (the 98th inside the brain), ``white_matter`` (the mode of white matter), or
        ``none`` (1, intensities stay).

    Raises
    ------
    DataFault
        The brain has no positive intensities.
    """
    values = brain[brain > 0]
    if values.size == 0:
        raise DataFault("the brain has no positive intensity", "look at the scan and its mask")
    if method == "none":
        return 1.0
    return (
        float(np.percentile(values, 98)) if method == "percentile" else white_matter_level(values)
    )
