"""Simulation of one scan: anatomy, ageing, atrophy, pose, shortcut and scanner artefacts.

Fields are pull-back displacements in mm, see :mod:`voxplain.cohort.atrophy`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from voxplain.cohort.atrophy import (
    area_loss,
    atrophy_field,
    individual_anatomy,
    lose_tissue,
    shrinkage,
    stretch_at,
    tissue,
)
from voxplain.cohort.heads import Head
from voxplain.cohort.sampling import brain_centre, sample, sample_field
from voxplain.cohort.scanner import ScannerSettings, bias_field, draw_grid, move_head, pose_points
from voxplain.cohort.shortcuts import Shortcut, add_shortcut
from voxplain.volumes import Grid, centres_mm

_WHITE_MATTER_UNITS = 600  # stored value of white matter at gain 1


@dataclass(frozen=True)
class AreaMeasures:
    """Intended and achieved changes of one area of one scan.

    Attributes
    ----------
    intended_loss
        The intended fraction of tissue lost to the disease.
    volume_ml, volume_without_ml
        Tissue volume with and without the disease.
    intensity, intensity_without
        Mean brightness of the area's voxels (white matter is 1) with and without disease and
        shortcut; both before the coil's field, gain and noise, which preprocessing should remove.
    """

    intended_loss: float
    volume_ml: float
    volume_without_ml: float
    intensity: float
    intensity_without: float


@dataclass(frozen=True)
class SimulatedScan:
    """A scan and its ground truth, both ``[x, y, z]`` on ``grid``.

    Attributes
    ----------
    volume
        uint16, as a scanner would store it.
    truth
        float32, the fraction by which each voxel was changed: the tissue lost to the disease, or
        the brightness added by a shortcut (1 where the image was dark), whichever is larger.
    grid
        Sagittal slices, 1.2 times as thick as the pixels are wide, around the head.
    measures
        Label value of each measured area to its measures.
    """

    volume: np.ndarray
    truth: np.ndarray
    grid: Grid
    measures: Mapping[int, AreaMeasures] = field(default_factory=dict)


def simulate_scan(
    head: Head,
    losses: Mapping[int, float],
    ageing: float,
    anatomy_seed: int,
    scan_seed: int,
    scanner: ScannerSettings,
    extent: float = 1.0,
    shortcut: Shortcut | None = None,
    measured: Sequence[int] = (),
) -> SimulatedScan:
    """Simulate a scan of one patient.

    Parameters
    ----------
    head
        The head whose anatomy is deformed.
    losses
        Label value of an area to the fraction of its tissue lost to the disease, 0 to below 1.
    ageing
        Fraction of tissue lost everywhere in the brain.
    anatomy_seed, scan_seed
        Seed of the patient's anatomy and patches; seed of pose, motion, bias, gain, noise and voxel
        size.
    scanner
        Sizes of the random variations.
    extent
        Fraction of each area that is affected, see :func:`area_loss`.
    shortcut
        The shortcut of the scan; None: no shortcut.
    measured
        Label values of the areas to measure.
    """
    draw = np.random.default_rng(scan_seed)
    grid = draw_grid(draw, scanner.voxel_size_mm)
    points = pose_points(centres_mm(grid), draw, scanner, brain_centre(head))

    anatomy, anatomy_grid = individual_anatomy(head.grid, anatomy_seed, scanner.deformation_mm)
    points += sample_field(anatomy, anatomy_grid, points)
    fraction = tissue(head)
    disease = area_loss(head, losses, extent, anatomy_seed)
    loss = 1 - (1 - disease) * (1 - ageing * fraction)
    displacement, field_grid = atrophy_field(head, loss)
    shift = sample_field(displacement, field_grid, points)
    points += shift

    # Beyond the border of the head's volume (the neck), the voxels at the border continue.
    whole = sample(head.t1, head.grid, points, beyond="nearest")
    truth = sample(disease, head.grid, points)
    lost = sample(loss, head.grid, points)
    image = lose_tissue(whole, lost)
    if shortcut is not None:
        image, change = add_shortcut(image, points, head, shortcut)
        truth = np.maximum(truth, change)
    clean = image.copy() if len(measured) else None
    # The coil does not move with the head.
    image = move_head(image, grid, scanner.motion, scan_seed)
    image *= bias_field(grid, draw, scanner.bias)
    image *= 1 + scanner.gain * draw.uniform(-1, 1)
    noise = draw.normal(0, scanner.noise, (2, *grid.shape)).astype(np.float32)
    image = np.hypot(image + noise[0], noise[1])  # a magnitude image's noise is Rician
    stored = np.clip(np.rint(image * _WHITE_MATTER_UNITS), 0, 4095).astype(np.uint16)

    measures = {}
    if clean is not None:
        labels = sample(head.areas, head.grid, points, order=0)
        in_areas = np.isin(labels, measured)
        sources = points[:, in_areas].reshape(3, -1, 1, 1)
        stretched = stretch_at(
            displacement, field_grid, sources - shift[:, in_areas].reshape(sources.shape)
        )
        diseased = sample(disease, head.grid, sources).ravel()
        aged = 1 - (1 - lost[in_areas]) / (1 - diseased)
        area_fraction = sample(fraction, head.grid, sources).ravel()
        sums = {
            "voxels": np.ones(len(aged)),
            "tissue": area_fraction * (1 - shrinkage(lost[in_areas])),
            # The voxel's tissue before it shrank, without the tissue lost to age.
            "tissue_without": area_fraction * (1 - aged) * stretched,
            "brightness": clean[in_areas],
            "brightness_without": lose_tissue(whole[in_areas], aged),
        }
        totals = {key: np.bincount(labels[in_areas], weights, 256) for key, weights in sums.items()}
        measures = _measures(
            totals,
            measured,
            {label: extent * losses.get(label, 0.0) for label in measured},
            grid.voxel_volume_ml,
        )
    return SimulatedScan(stored, truth.astype(np.float32), grid, measures)


def _measures(
    totals: Mapping[str, np.ndarray],
    measured: Sequence[int],
    intended: Mapping[int, float],
    voxel_ml: float,
) -> dict[int, AreaMeasures]:
    """Label to measures of the area, from sums over its voxels; an empty area is left out."""
    measures = {}
    for label in measured:
        area_sums = {key: float(sums[label]) for key, sums in totals.items()}
        if area_sums["voxels"] == 0:
            continue
        measures[label] = AreaMeasures(
            intended_loss=intended[label],
            volume_ml=area_sums["tissue"] * voxel_ml,
            volume_without_ml=area_sums["tissue_without"] * voxel_ml,
            intensity=area_sums["brightness"] / area_sums["voxels"],
            intensity_without=area_sums["brightness_without"] / area_sums["voxels"],
        )
    return measures
