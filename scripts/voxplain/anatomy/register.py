"""Registration of a brain to the template with ANTs, through antspyx."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from voxplain.anatomy.itk import as_ants, import_ants
from voxplain.anatomy.pose import find_start
from voxplain.faults import DataFault
from voxplain.volumes import Grid, read_array, resample, smooth_for

if TYPE_CHECKING:
    import ants

# The stages of ANTs' own scripts antsRegistrationSyN.sh and antsRegistrationSyNQuick.sh: rigid and
# affine by mutual information, then SyN (Avants et al. 2008). syn_fast has the same stages.
TRANSFORMS = {
    "syn_quick": "antsRegistrationSyNQuick[s]",
    "syn": "antsRegistrationSyN[s]",
    "affine": "antsRegistrationSyNQuick[a]",
    "syn_fast": "SyNRA",
}
# For a brain that is already in the template's space: it is only resampled to its grid.
NONE = "none"
# Quick SyN iterates down to twice the template's voxel size, and not at the template's voxel size.
# syn_fast works at twice that size from the start, with the same steps, metric and smoothing of the
# field. Quick SyN spends most of its time on its last iterations at twice the size, when its metric
# hardly changes, and on rigid and affine stages at that size and finer, which SyN does not need
# (docs/performance.md).
FAST = {"aff_random_sampling_rate": 0.25, "reg_iterations": (100, 70, 20)}
_COARSEST_MM = 4.0  # above, a brain has too few voxels for the first level
_MARGIN_MM = 10.0  # around the brain; without cropping, half of the time is spent on air


@dataclass(frozen=True)
class Registered:
    """A brain on the template's grid.

    Attributes
    ----------
    brain
        ``[x, y, z]`` float32, 0 outside ``mask``.
    mask
        ``[x, y, z]`` bool.
    grid
        The template's.
    """

    brain: np.ndarray
    mask: np.ndarray
    grid: Grid


def register_to_template(
    brain_path: str | Path,
    mask_path: str | Path,
    template_path: str | Path,
    transform_path: str | Path,
    method: str,
    seed: int,
) -> Registered:
    """A brain registered to a template brain and resampled once to the template's grid.

    Mutual information is sampled at random positions, so the seed is fixed. Sums over several ITK
    threads are not reproducible: for the same result, set
    ``ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1`` before ``ants`` is imported.

    Parameters
    ----------
    brain_path, mask_path
        Brain without skull, 0 outside, and its mask, in scanner space.
    template_path
        Template brain; its grid is that of the result.
    transform_path
        Output file of the composite transform (ITK HDF5; it maps points of the template to points
        of the scan, as needed to resample the scan).
    method
        A key of :data:`TRANSFORMS`, or :data:`NONE`.
    seed
        Seed of the metric's sampling.

    Raises
    ------
    DataFault
        The brain is empty or constant, or outside of the template after registration.
    RuntimeError
        ANTs failed on a valid brain, usually for lack of memory; antspyx reports only a code.
    """
    template, grid = read_array(template_path)
    brain, scan_grid = read_array(brain_path)
    mask, _ = read_array(mask_path)
    inside = brain[mask > 0]
    if not np.isfinite(brain).all() or inside.size == 0 or np.ptp(inside) == 0:
        raise DataFault(
            f"{brain_path} is empty or constant inside its mask, or its values are no numbers",
            "look at the scan and its mask",
        )
    with tempfile.TemporaryDirectory() as scratch:
        registered, transform = register_brain(
            brain, mask, scan_grid, template, grid, method, seed, scratch
        )
        shutil.copyfile(transform, transform_path)
    if not registered.mask.any():
        raise DataFault(
            f"{brain_path} lies outside the template after registration",
            "look at the brain mask of the scan",
        )
    return registered


def register_brain(
    brain: np.ndarray,
    mask: np.ndarray,
    scan_grid: Grid,
    template: np.ndarray,
    grid: Grid,
    method: str,
    seed: int,
    scratch: str,
) -> tuple[Registered, str]:
    """As :func:`register_to_template`, for arrays.

    Parameters
    ----------
    brain, mask
        ``[x, y, z]`` in scanner space, on ``scan_grid``.
    template
        ``[x, y, z]`` on ``grid``.
    scratch
        Folder for temporary files of ANTs.

    Returns
    -------
    registered
        The registered brain; its mask may be empty.
    transform
        The file of the composite transform, in ``scratch``.
    """
    if method == NONE:
        transform = _write_identity(scratch)
    else:
        transform, _ = run_ants(template, grid, brain, scan_grid, method, seed, scratch)
    fixed = as_ants(template, grid)
    brain, share = (_resample(array, scan_grid, fixed, grid, transform) for array in (brain, mask))
    within = share > 0.5
    return Registered(np.where(within, brain, 0).astype(np.float32), within, grid), transform


def carry(
    path: str | Path, template_path: str | Path, transform_path: str | Path
) -> tuple[np.ndarray, Grid]:
    """A volume in a scan's space, resampled to the template by the scan's transform.

    Parameters
    ----------
    path
        Volume ``[x, y, z]`` in scanner space.
    template_path
        Template brain; its grid is that of the result.
    transform_path
        From :func:`register_to_template`.

    Returns
    -------
    resampled
        ``[x, y, z]`` float32, linearly interpolated.
    grid
        The template's.
    """
    template, grid = read_array(template_path)
    array, scan_grid = read_array(path)
    return _resample(array, scan_grid, as_ants(template, grid), grid, str(transform_path)), grid


def _write_identity(scratch: str) -> str:
    ants = import_ants()
    path = f"{scratch}/identity.h5"
    ants.write_transform(ants.create_ants_transform(transform_type="AffineTransform"), path)
    return path


def _write_start(start: np.ndarray, scratch: str) -> str:
    """File of a rigid transform of points, given as 4x4 matrix in RAS+ millimetres."""
    ants = import_ants()
    flip = np.diag([-1.0, -1.0, 1.0])
    transform = ants.create_ants_transform(
        transform_type="AffineTransform",
        matrix=flip @ start[:3, :3] @ flip,
        translation=flip @ start[:3, 3],
        center=(0.0, 0.0, 0.0),
    )
    path = f"{scratch}/start.mat"
    ants.write_transform(transform, path)
    return path


def _resample(
    array: np.ndarray, scan_grid: Grid, fixed: ants.ANTsImage, grid: Grid, transform: str
) -> np.ndarray:
    ants = import_ants()
    moving = as_ants(smooth_for(array, scan_grid, grid), scan_grid)
    return ants.apply_transforms(
        fixed, moving, transformlist=[transform], interpolator="linear"
    ).numpy()


def run_ants(
    template: np.ndarray,
    grid: Grid,
    brain: np.ndarray,
    scan_grid: Grid,
    method: str,
    seed: int,
    scratch: str,
) -> tuple[str, str]:
    """Files of the composite transform and of its inverse, as computed by ANTs."""
    ants = import_ants()
    ants.config.set_ants_deterministic(on=False, seed_value=seed)
    options = {}
    if method == "syn_fast":
        size = max(grid.voxel_size)
        template, grid = cut(template, grid, template != 0)
        brain, scan_grid = cut(brain, scan_grid, brain != 0)
        coarse = grid.coarsened(max(min(2 * size, _COARSEST_MM), size))
        # A brain with a sharp border, as from make_template: with a blurred one the fit is worse.
        level, share = (
            resample(smooth_for(array, grid, coarse), grid, coarse)
            for array in (template, template > 0)
        )
        template, grid, options = np.where(share > 0.5, level, 0), coarse, FAST
    # ANTs smooths and shrinks both images in units of voxels: their voxels must have about the same
    # size, or the finer image is hardly smoothed at the coarse levels and aliases at the last one.
    working = scan_grid.coarsened(max(*grid.voxel_size, *scan_grid.voxel_size))
    moving = resample(smooth_for(brain, scan_grid, working), scan_grid, working)
    start = find_start(template, grid, moving, working)
    if start is not None:
        print("registration starts from a turned pose: the head is turned far", flush=True)
        options = {**options, "initial_transform": _write_start(start, scratch)}
    result = ants.registration(
        as_ants(template, grid),
        as_ants(moving, working),
        type_of_transform=TRANSFORMS[method],
        outprefix=f"{scratch}/",
        write_composite_transform=True,
        **options,
    )
    return result["fwdtransforms"], result["invtransforms"]


def cut(array: np.ndarray, grid: Grid, inside: np.ndarray) -> tuple[np.ndarray, Grid]:
    """A volume cropped to the voxels inside, with a margin of 10 mm, and its grid.

    Parameters
    ----------
    array, inside
        ``[x, y, z]`` on ``grid``; ``inside`` is bool and not empty.
    """
    margin = np.ceil(_MARGIN_MM / np.array(grid.voxel_size)).astype(int)
    filled = np.argwhere(inside)
    start = np.maximum(filled.min(axis=0) - margin, 0)
    end = np.minimum(filled.max(axis=0) + 1 + margin, grid.shape)
    return array[tuple(map(slice, start, end))], grid.part(start, end)
