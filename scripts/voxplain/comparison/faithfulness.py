"""Faithfulness of heatmaps: order of areas for deletion and insertion, and rank correlation."""

from __future__ import annotations

import zlib

import numpy as np
from scipy import ndimage, stats

from voxplain.faults import SetupFault

DIRECTIONS = ("deletion", "insertion")
# Name of random orders in the column of methods.
RANDOM = "random"
# Columns of a table of curves, one row a point.
CURVES = (
    "method", "draw", "image", "patient", "class", "direction", "step", "fraction", "probability",
)  # fmt: skip


def areas_of_brain(labels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Label volume of the areas to delete: atlas areas, and the rest of the brain divided.

    Half of the brain, mostly white matter, lies outside all areas of AAL. As one area it would
    make up half of every curve. It is therefore divided by the nearest atlas area.

    Parameters
    ----------
    labels
        ``[x, y, z]`` integers, the area of each voxel, 0 for none. Voxels are cubes.
    mask
        ``[x, y, z]`` bool, the template's brain; only voxels inside it count.

    Returns
    -------
    ``[x, y, z]`` int64: 0 outside the brain, then 1 to the number of areas with a voxel in it.
    First come the atlas areas in the order of their labels, then the surroundings of each, in the
    same order.

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
    """Mean relevance per voxel of each area.

    The mean is used since a sum favours large areas.

    Parameters
    ----------
    heatmap
        ``[x, y, z]``.
    areas
        From :func:`areas_of_brain`.

    Returns
    -------
    ``[areas]`` float64, area 1 first.

    Raises
    ------
    SetupFault
        The shapes differ, or a voxel of an area is NaN or infinite.
    """
    if heatmap.shape != areas.shape:
        raise SetupFault(f"a heatmap of shape {heatmap.shape} and areas of {areas.shape}")
    inside = areas > 0
    values = heatmap[inside].astype(np.float64)
    if not np.isfinite(values).all():
        raise SetupFault("the heatmap has voxels that are NaN or infinite")
    area_of_voxel = areas[inside]
    return np.bincount(area_of_voxel, values)[1:] / np.bincount(area_of_voxel)[1:]


def order_areas(relevance: np.ndarray, seed: int, image: str, draw: int = 1) -> np.ndarray:
    """Areas in descending order of relevance, areas with equal values in random order.

    A map that is 0 everywhere therefore does not depend on how the atlas numbers its areas: it
    gets the random order of this draw.

    Parameters
    ----------
    relevance
        ``[areas]``; all values equal for a random order.
    seed, image, draw
        Seeds of the random order: the same order for all methods, another for each scan and draw.

    Returns
    -------
    ``[areas]`` numbers of areas, from 1.
    """
    rng = np.random.default_rng([seed, draw, zlib.crc32(image.encode())])
    return np.lexsort((rng.permutation(len(relevance)), -np.asarray(relevance, np.float64))) + 1


def steps_of(areas: np.ndarray, order: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Step at which each voxel is changed, with steps of about equal volume.

    A step ends with the area that reaches the next multiple of 1 / ``steps`` of the brain's voxels.
    A large area therefore makes up a whole step.

    Parameters
    ----------
    areas
        From :func:`areas_of_brain`.
    order
        From :func:`order_areas`.
    steps
        Largest number of steps, 1 or more.

    Returns
    -------
    step_of_voxel
        ``[x, y, z]`` int64: the step by which a voxel is changed, from 1; 0 outside the brain.
    fraction
        ``[steps made + 1]``, share of the brain's voxels changed after each step, from 0 to 1.
    """
    voxels = np.bincount(areas[areas > 0], minlength=len(order) + 1)[order]
    reached = voxels.cumsum()
    # Integer arithmetic: the step is the multiple of 1 / steps at or above the area's end.
    before = (reached - voxels) * steps // reached[-1]
    _, number = np.unique(before, return_inverse=True)
    step_of_area = np.zeros(len(order) + 1, np.int64)
    step_of_area[order] = number + 1
    ends = np.flatnonzero(np.diff(number, append=number[-1] + 1))
    return step_of_area[areas], np.concatenate([[0.0], reached[ends] / reached[-1]])


def rank_correlation(heatmap: np.ndarray, other: np.ndarray, mask: np.ndarray) -> float:
    """Spearman's rank correlation of the absolute values of two heatmaps inside the brain.

    As in Adebayo et al. 2018. Voxels with equal values share their mean rank.

    Parameters
    ----------
    heatmap, other
        ``[x, y, z]``.
    mask
        ``[x, y, z]`` bool.

    Returns
    -------
    Between -1 and 1; nan if a heatmap is constant in the mask and therefore has no ranks.

    Raises
    ------
    SetupFault
        The shapes differ.
    """
    if not heatmap.shape == other.shape == mask.shape:
        raise SetupFault(
            f"heatmaps of shapes {heatmap.shape} and {other.shape} and a mask of {mask.shape}"
        )
    one, two = (np.abs(values[mask]).astype(np.float64) for values in (heatmap, other))
    if not np.ptp(one) or not np.ptp(two):
        return np.nan
    return float(stats.spearmanr(one, two).statistic)
