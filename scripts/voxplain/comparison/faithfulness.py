"""How well heatmaps follow their network: the order in which areas go; maps compared by rank."""

from __future__ import annotations

import zlib

import numpy as np
from scipy import ndimage, stats

from voxplain.faults import SetupFault

DIRECTIONS = ("deletion", "insertion")
# What curves of random orders are called in place of a method.
RANDOM = "random"
# Columns of a table of curves, one row a point.
CURVES = (
    "method", "draw", "image", "patient", "class", "direction", "step", "fraction", "probability",
)  # fmt: skip


def areas_of_brain(labels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The areas that are changed: those of an atlas, and what of the brain is nearest to each.

    Half of the brain, its white matter most of all, lies in no area of AAL. As one area it would be
    half of every curve; so it is divided by the area that is nearest.

    Parameters
    ----------
    labels
        ``[x, y, z]`` integers, the area of each voxel, 0 for none. Voxels are cubes.
    mask
        ``[x, y, z]`` bool, the template's brain; only voxels inside it count.

    Returns
    -------
    ``[x, y, z]`` int64: 0 outside the brain, 1 to the number of areas that have a voxel in it: in
    the order of their labels, then what lies around them, in the same order.

    Raises
    ------
    SetupFault
        The shapes differ, or the mask is empty.
    """
    if labels.shape != mask.shape:
        raise SetupFault(f"areas of shape {labels.shape} and a mask of {mask.shape}")
    if not mask.any():
        raise SetupFault("the brain mask has no voxel")
    inside = np.where(mask, labels, 0).astype(np.int64)
    if not inside.any():
        return mask.astype(np.int64)
    nearest = ndimage.distance_transform_edt(
        inside == 0, return_distances=False, return_indices=True
    )
    around = inside[tuple(nearest)] + inside.max() + 1
    areas = np.zeros(mask.shape, np.int64)
    areas[mask] = np.unique(np.where(inside > 0, inside, around)[mask], return_inverse=True)[1] + 1
    return areas


def mean_relevance(heatmap: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Mean relevance per voxel of each area: by it, not by the sum, since sums favour large areas.

    Parameters
    ----------
    heatmap
        ``[x, y, z]``.
    areas
        From :func:`areas_of_brain`.

    Returns
    -------
    ``[areas]`` float64, that of area 1 first.

    Raises
    ------
    SetupFault
        The shapes differ, or a voxel of an area is no number.
    """
    if heatmap.shape != areas.shape:
        raise SetupFault(f"a heatmap of shape {heatmap.shape} and areas of {areas.shape}")
    inside = areas > 0
    values = heatmap[inside].astype(np.float64)
    if not np.isfinite(values).all():
        raise SetupFault("the heatmap has voxels that are no number")
    found = areas[inside]
    return np.bincount(found, values)[1:] / np.bincount(found)[1:]


def order_areas(relevance: np.ndarray, seed: int, image: str, draw: int = 1) -> np.ndarray:
    """The areas in descending order of relevance; those of one value in a random one.

    So a map that is 0 everywhere gains nothing from how an atlas numbers its areas: its order is
    the random order of this draw.

    Parameters
    ----------
    relevance
        ``[areas]``; all of one value for a random order.
    seed, image, draw
        What the random order is drawn by: the same for all methods, another for each scan and draw.

    Returns
    -------
    ``[areas]`` numbers of areas, from 1.
    """
    rng = np.random.default_rng([seed, draw, zlib.crc32(image.encode())])
    return np.lexsort((rng.permutation(len(relevance)), -np.asarray(relevance, np.float64))) + 1


def steps_of(areas: np.ndarray, order: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Areas one after another in at most so many steps, each of a like part of the brain.

    A step ends with the first area by which the next multiple of 1 / ``steps`` of the brain's
    voxels is reached, so that large areas make steps of their own.

    Parameters
    ----------
    areas
        From :func:`areas_of_brain`.
    order
        From :func:`order_areas`.
    steps
        At most, at least 1.

    Returns
    -------
    step_of_voxel
        ``[x, y, z]`` int64: the step by which a voxel is changed, from 1; 0 outside the brain.
    fraction
        ``[steps made + 1]`` of the brain's voxels that are changed after each step, from 0 to 1.
    """
    voxels = np.bincount(areas[areas > 0], minlength=len(order) + 1)[order]
    reached = voxels.cumsum()
    # In whole numbers: the step of the multiple of 1 / steps that lies at or above its end.
    before = (reached - voxels) * steps // reached[-1]
    _, number = np.unique(before, return_inverse=True)
    step_of_area = np.zeros(len(order) + 1, np.int64)
    step_of_area[order] = number + 1
    ends = np.flatnonzero(np.diff(number, append=number[-1] + 1))
    return step_of_area[areas], np.concatenate([[0.0], reached[ends] / reached[-1]])


def rank_correlation(heatmap: np.ndarray, other: np.ndarray, mask: np.ndarray) -> float:
    """Spearman's rank correlation of two heatmaps inside the brain, of their absolute values.

    As Adebayo et al. 2018 compare maps; voxels of one value share their mean rank.

    Parameters
    ----------
    heatmap, other
        ``[x, y, z]``.
    mask
        ``[x, y, z]`` bool.

    Returns
    -------
    Between -1 and 1; nan where one of them has one value only in the mask, which ranks nothing.

    Raises
    ------
    SetupFault
        The shapes differ.
    """
    if not heatmap.shape == other.shape == mask.shape:
        raise SetupFault(
            f"heatmaps of shapes {heatmap.shape} and {other.shape} and a mask of {mask.shape}"
        )
    one, two = (np.abs(found[mask]).astype(np.float64) for found in (heatmap, other))
    if not np.ptp(one) or not np.ptp(two):
        return np.nan
    return float(stats.spearmanr(one, two).statistic)
