"""A ladder of methods for skull removal; the first whose mask passes a gate is used.

Plain BET fails on about one head in five: a long neck moves its first sphere down, or the strong
intensity field of a coil hides the far side of the brain. A correction that helps one head can
spoil another, so a head whose mask passes the gate is not changed. The gate is a set of thresholds
of quality measures and does not depend on other scans.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from voxplain.anatomy.intensity import flatten_head
from voxplain.anatomy.quality import Quality, find_missed, measure_quality
from voxplain.anatomy.register import cut, register_brain
from voxplain.anatomy.skull import GIVEN, SkullTool, find_brain, find_tool
from voxplain.anatomy.template import make_template
from voxplain.faults import DataFault, SetupFault
from voxplain.volumes import Grid, read_image, resample, smooth_for

FIRST = "plain"
# Each rung but the last is applied to the head as changed by the rungs before it.
RUNGS = ("neck", "bias", "robust", "deepbet")
# If deepbet is not installed, its rung fails and the ladder ends before it.
MISSING_TOOL = SkullTool("missing", "n/a")
_GATE_MM = 4.0  # an affine registration at 4 mm takes a second, and detects incomplete brains
_SEED = 1
_AIR = 0.15  # of the head's bright voxels; darker voxels are not tissue
_TOP_CM2 = 10.0  # of tissue in a slice: noise and folds of hair do not count as the top of a head


@dataclass(frozen=True)
class Trial:
    """The result of one rung.

    Attributes
    ----------
    rung
        :data:`FIRST` or one of :data:`RUNGS`.
    quality
        Quality measures; None if the tool found no brain.
    missed
        Descriptions of missed thresholds, or why there is no mask; empty if the gate was passed.
    """

    rung: str
    quality: Quality | None
    missed: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For a sidecar."""
        measures = {} if self.quality is None else self.quality.as_dict()
        return {
            "rung": self.rung,
            "passed": not self.missed,
            "missed": list(self.missed),
            **measures,
        }


@dataclass(frozen=True)
class LadderResult:
    """The mask of the ladder and how it was made.

    Attributes
    ----------
    mask
        ``[x, y, z]`` bool.
    rung, tool, options
        Rung, tool and options that made the mask.
    trials
        Results of every rung that was tried.
    """

    mask: np.ndarray
    rung: str
    tool: SkullTool
    options: Mapping[str, Any]
    trials: tuple[Trial, ...]

    def as_dict(self) -> dict[str, Any]:
        """For a sidecar."""
        return {
            "SkullStrippingRung": self.rung,
            "SkullStrippingMaskTool": self.tool.name,
            "SkullStrippingMaskToolVersion": self.tool.version,
            "SkullStrippingMaskOptions": dict(sorted(self.options.items())),
            "SkullStrippingTrials": [trial.as_dict() for trial in self.trials],
        }


@dataclass(frozen=True)
class PreparedHead:
    """A head as prepared by a rung, with the tool and its options."""

    rung: str
    image: nib.Nifti1Image
    tool: SkullTool
    options: Mapping[str, Any]
    cut_off: int  # slices below its first

    def find(self) -> np.ndarray:
        """The brain mask on the grid of the prepared head; raises DataFault if there is none."""
        if self.tool == MISSING_TOOL:
            raise DataFault(f"{self.rung} is not installed here", "install it, or leave it out")
        return find_brain(self.image, self.tool, self.options)

    def place(self, mask: np.ndarray) -> np.ndarray:
        """A mask of the prepared head, padded to the grid of the uncut head."""
        return np.pad(mask, ((0, 0), (0, 0), (self.cut_off, 0)))


def climb(
    path: str | Path,
    tool: SkullTool,
    settings: Mapping[str, Any],
) -> LadderResult:
    """The brain mask of a head, by the first rung whose mask passes the gate.

    If no mask passes, the result is that of the rung that missed the fewest thresholds and, among
    those, has the best overlap; quality control then decides about the scan.

    Parameters
    ----------
    path
        3D T1-weighted head.
    tool
        From :func:`voxplain.anatomy.skull.find_tool`, or :data:`voxplain.anatomy.skull.GIVEN`,
        which has no ladder.
    settings
        Name of each tool that may run to its options, ``ladder`` (some of :data:`RUNGS`, in the
        order to try them), ``neck_mm`` (slices farther below the top of the head are cut off) and
        ``gate`` (``min_<measure>`` and ``max_<measure>``, see
        :class:`voxplain.anatomy.quality.Quality`; overlap and similarity are those after an affine
        registration to the packaged template at 4 mm).

    Raises
    ------
    DataFault
        No rung found a brain.
    """
    image = read_image(path)
    if tool == GIVEN or not settings["ladder"]:
        options = settings[tool.name]
        try:
            mask = find_brain(image, tool, options)
        except DataFault as fault:
            raise DataFault(f"{path}: {fault.reason}", fault.remedy) from fault
        return LadderResult(mask, "n/a" if tool == GIVEN else FIRST, tool, options, ())
    template = None
    trials, best, faults = [], None, []
    for head in prepare_rungs(image, tool, settings):
        try:
            mask = head.find()
        except DataFault as fault:
            faults.append(fault)
            trials.append(Trial(head.rung, None, (fault.reason,)))
            print(f"skull removal, {head.rung}: {fault.reason}", flush=True)
            continue
        template = template or read_gates_template()
        quality = measure_rung(head.image, mask, template)
        missed = tuple(text for text, _ in find_missed(quality, settings["gate"]))
        trials.append(Trial(head.rung, quality, missed))
        measures = ", ".join(f"{key} {value:g}" for key, value in quality.as_dict().items())
        print(
            f"skull removal, {head.rung}: {'; '.join(missed) or 'passed'} ({measures})", flush=True
        )
        rank = (-len(missed), quality.overlap)
        if best is None or rank > best[0]:
            best = (rank, LadderResult(head.place(mask), head.rung, head.tool, head.options, ()))
        if not missed:
            break
    if best is None:
        raise DataFault(f"{path}: {faults[0].reason}", faults[0].remedy)
    return replace(best[1], trials=tuple(trials))


def read_gates_template() -> tuple[np.ndarray, np.ndarray, Grid]:
    """Brain, mask and grid that the gate registers to, independent of the run's template.

    Skull removal therefore does not run again when the run's template or resolution changes.
    """
    return make_template("packaged", _GATE_MM)


def prepare_rungs(
    image: nib.Nifti1Image, tool: SkullTool, settings: Mapping[str, Any]
) -> Iterator[PreparedHead]:
    """The head as prepared by each rung; rungs that would change nothing are left out."""
    options, cut_off, head = settings[tool.name], 0, image
    yield PreparedHead(FIRST, head, tool, options, cut_off)
    for rung in settings["ladder"]:
        if rung == "deepbet":
            if tool.name != "deepbet":
                try:
                    other = find_tool("deepbet")
                except SetupFault:
                    other = MISSING_TOOL
                yield PreparedHead(rung, image, other, settings["deepbet"], 0)
            continue
        if rung == "neck":
            start = _find_neck(_values(head), Grid.of(head), settings["neck_mm"])
            if start == 0:
                continue
            cut_off += start
            head = head.slicer[:, :, start:]
        elif rung == "bias":
            head = nib.Nifti1Image(flatten_head(_values(head), Grid.of(head)), head.affine)
        elif rung == "robust":
            if tool.name != "bet" or options["robust_centre"]:
                continue
            options = {**options, "robust_centre": True}
        yield PreparedHead(rung, head, tool, options, cut_off)


def _values(image: nib.Nifti1Image) -> np.ndarray:
    return np.nan_to_num(np.asarray(image.dataobj, np.float32), posinf=0, neginf=0)


def _find_neck(head: np.ndarray, grid: Grid, below_mm: float) -> int:
    """The first slice ``[:, :, z]`` that is at most ``below_mm`` below the top of the head."""
    tissue = ndimage.binary_opening(head > _AIR * np.percentile(head, 98))
    along_x, along_y, along_z = grid.voxel_size
    areas_cm2 = tissue.sum(axis=(0, 1)) * along_x * along_y / 100
    filled = np.flatnonzero(areas_cm2 > _TOP_CM2)
    return max(0, int(filled[-1] - below_mm / along_z)) if filled.size else 0


def measure_rung(
    image: nib.Nifti1Image, mask: np.ndarray, template: tuple[np.ndarray, np.ndarray, Grid]
) -> Quality:
    """The measures of quality control, after an affine registration at the gate's voxel size."""
    grid = Grid.of(image)
    (head, cut_grid), (inside, _) = cut(_values(image), grid, mask), cut(mask, grid, mask)
    coarse = cut_grid.coarsened(max(_GATE_MM, *cut_grid.voxel_size))
    brain, share = (
        resample(smooth_for(array, cut_grid, coarse), cut_grid, coarse)
        for array in (head * inside, inside)
    )
    known, known_mask, known_grid = template
    if not np.isfinite(brain).all() or np.ptp(brain) == 0:
        # ANTs cannot register an empty or constant image.
        nothing = np.zeros_like(known_mask)
        return measure_quality(mask, grid.voxel_volume_ml, known * 0, nothing, known, known_mask)
    with tempfile.TemporaryDirectory() as scratch:
        registered, _ = register_brain(
            brain, share, coarse, known, known_grid, "affine", _SEED, scratch
        )
    return measure_quality(
        mask, grid.voxel_volume_ml, registered.brain, registered.mask, known, known_mask
    )
