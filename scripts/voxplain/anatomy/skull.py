"""Skull removal: FSL BET through fslpy if FSL is installed, else deepbet."""

from __future__ import annotations

import importlib.util
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from voxplain.faults import DataFault, ParameterFault, SetupFault
from voxplain.volumes import Grid

HOW_TO_GET_FSL = (
    "install FSL (https://fsl.fmrib.ox.ac.uk, its licence is free for non-commercial use only) and "
    "set FSLDIR, or run with --sdm conda"
)

# What shells and programs say of a crash on the input, and of want of memory or disk space.
_CRASH = re.compile(
    r"segmentation fault|floating point exception|illegal instruction|bus error|aborted", re.I
)
_WANT = re.compile(r"killed|bad_alloc|out of memory|no space left|disk quota", re.I)


@dataclass(frozen=True)
class SkullTool:
    """Name and version of a tool that is installed on this machine."""

    name: str
    version: str


# The skull was removed before; the brain is all voxels that are not 0.
GIVEN = SkullTool("given", "n/a")


def find_tool(tool: str) -> SkullTool:
    """The tool to use on this machine.

    Parameters
    ----------
    tool
        ``bet``, ``deepbet``, or ``auto``: BET where FSL is installed, else deepbet.

    Raises
    ------
    SetupFault
        The tool is not installed.
    """
    bet = _find_bet()
    if tool == "bet" or (tool == "auto" and bet):
        if not bet:
            raise ParameterFault(
                "tool",
                f"is bet, but FSL's bet is not installed: {HOW_TO_GET_FSL}, or choose deepbet or "
                "auto",
            )
        return bet
    if importlib.util.find_spec("deepbet") is None:
        raise SetupFault(f"deepbet is not installed: pip install deepbet; for BET {HOW_TO_GET_FSL}")
    return SkullTool("deepbet", version("deepbet"))


def _find_bet() -> SkullTool | None:
    root = os.environ.get("FSLDIR")
    if not root or not (Path(root) / "bin" / "bet").is_file():  # where fslpy looks for it
        return None
    version_file = Path(root) / "etc" / "fslversion"
    return SkullTool(
        "bet", version_file.read_text().strip() if version_file.is_file() else "unknown"
    )


def find_brain(image: nib.Nifti1Image, tool: SkullTool, options: Mapping[str, Any]) -> np.ndarray:
    """The brain mask of a head.

    Parameters
    ----------
    image
        3D T1-weighted head in RAS+ orientation.
    tool
        From :func:`find_tool`, or :data:`GIVEN`.
    options
        For BET ``fractional_intensity`` (0 to 1, smaller finds more brain; Smith 2002) and
        ``robust_centre``; for deepbet ``threshold`` (0 to 1) and ``dilate`` (layers of voxels).

    Returns
    -------
    ``[x, y, z]`` bool, on the grid of the head.

    Raises
    ------
    DataFault
        No brain was found.
    """
    find = {"bet": _run_bet, "deepbet": _run_deepbet, GIVEN.name: _take_given}[tool.name]
    mask = find(image, **options)
    if not mask.any():
        raise DataFault(
            f"{tool.name} found no brain",
            "look at the scan; try the other tool, or leave the scan out",
        )
    return mask


def _take_given(image: nib.Nifti1Image) -> np.ndarray:
    """The largest connected component of the voxels that are not 0, with its holes filled."""
    nonzero = np.nan_to_num(np.asanyarray(image.dataobj)) != 0
    labels, _ = ndimage.label(nonzero)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return ndimage.binary_fill_holes(labels == sizes.argmax()) & nonzero.any()


def _run_bet(
    image: nib.Nifti1Image, fractional_intensity: float, robust_centre: bool
) -> np.ndarray:
    from fsl.wrappers import bet

    os.environ["FSLOUTPUTTYPE"] = "NIFTI_GZ"  # without it bet2 writes nothing
    with tempfile.TemporaryDirectory() as scratch:
        head, brain = Path(scratch) / "head.nii.gz", Path(scratch) / "brain"
        nib.save(image, head)
        options = {"robust": True} if robust_centre else {}
        said: list[str] = []
        failed = ""
        try:
            bet(
                str(head),
                str(brain),
                mask=True,
                seg=False,
                fracintensity=fractional_intensity,
                log={"tee": True, "stdout": said.append, "stderr": said.append},
                **options,
            )
        except RuntimeError as error:
            failed = f" ({error})"
        mask_path = Path(scratch) / "brain_mask.nii.gz"
        if failed or not mask_path.is_file():
            crash = _CRASH.search("\n".join(said))
            if crash and not _WANT.search("\n".join(said)):
                raise DataFault(
                    f"bet crashed ({crash[0]})",
                    "look at the scan; try the other tool, or leave the scan out",
                )
            # The bet script exits with 0 even where bet2 was killed or could not write.
            raise ChildProcessError(
                f"bet ended without writing a mask; see above what it said{failed}"
            )
        return np.asarray(nib.load(mask_path).dataobj) > 0


def _run_deepbet(image: nib.Nifti1Image, threshold: float, dilate: int) -> np.ndarray:
    from deepbet import bet

    extraction = bet.BrainExtraction(no_gpu=True)
    try:
        _, mask, _ = extraction.run(image, threshold=threshold, n_dilate=dilate)
    except (AssertionError, ValueError) as error:  # raised if deepbet finds no brain
        raise DataFault(
            f"deepbet found no brain ({error})", "look at the scan, or take bet instead"
        ) from error
    return np.asarray(mask.dataobj) > 0


def describe(tool: SkullTool, options: Mapping[str, Any], mask: np.ndarray, grid: Grid) -> dict:
    """Sidecar fields: tool, version, options and the brain volume in millilitres."""
    return {
        "SkullStrippingTool": tool.name,
        "SkullStrippingToolVersion": tool.version,
        "SkullStrippingOptions": dict(sorted(options.items())),
        "BrainVolumeMl": round(float(mask.sum()) * grid.voxel_volume_ml, 1),
    }
