"""Scores of how well a heatmap finds a known region: simulated atrophy, or an anatomical area."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import ndimage

from voxplain.faults import SetupFault

MEASURES = ("average_precision", "mass", "rank", "pointing")
# Columns of the rows of `score_regions`.
SCORES = ("region", "smoothing_mm", "measure", "value", "chance")
_SIGMAS_IN_FWHM = np.sqrt(8 * np.log(2))


def score(heatmap: np.ndarray, region: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Scores of one heatmap for a region, one for each of :data:`MEASURES`.

    Parameters
    ----------
    heatmap
        ``[x, y, z]``, no value below 0.
    region
        ``[x, y, z]`` bool, where the relevance should lie.
    mask
        ``[x, y, z]`` bool, the template's brain; only voxels inside it count.

    Returns
    -------
    Each score is between 0 and 1, where 1 is best. A constant map above 0 has the value of
    :func:`chance` in all of them.

    ``average_precision``
        Precision at all thresholds, weighted by the gain in recall (as in scikit-learn; voxels with
        equal values share a threshold). It is the area under the curve in figure 3 of Yang et al.
        2018.
    ``mass``
        Share of the relevance that lies in the region (relevance mass accuracy, Arras, Osman and
        Samek 2022).
    ``rank``
        Share of the K highest voxels that lie in the region, with K the size of the region
        (relevance rank accuracy, same paper).
    ``pointing``
        1 if the highest voxel lies in the region, else 0 (pointing game, Zhang et al. 2018).

    If voxels with equal values compete for the last places of ``rank`` or for ``pointing``, the
    score is the expectation over all their orders. All scores are nan if they are undefined: the
    region has no voxel in the mask or all of them, or the heatmap is 0 everywhere in the mask.

    Raises
    ------
    SetupFault
        The shapes differ, region or mask is not bool, or the heatmap has voxels inside the mask
        that are negative or not finite.
    """
    values, in_region = _inside(heatmap, region, mask)
    if not _is_defined(values, in_region):
        return dict.fromkeys(MEASURES, np.nan)
    ordered = np.sort(values)
    size = len(in_region)
    hits, reached = _steps(ordered, in_region)
    relevance = in_region.sum(dtype=np.float64)
    # Sum of two parts, so that rounding never gives a share above 1.
    beyond = values[~region[mask]].sum(dtype=np.float64)
    return {
        "average_precision": float(np.diff(hits, prepend=0) @ (hits / reached) / size),
        "mass": float(relevance / (relevance + beyond)),
        "rank": _share_of_highest(ordered, in_region, size),
        "pointing": _share_of_highest(ordered, in_region, 1),
    }


def chance(region: np.ndarray, mask: np.ndarray) -> float:
    """Chance level of each of :data:`MEASURES`: the share of the mask's voxels in the region.

    A constant map has this score, and it is the expected score of a map in random order. Only the
    average precision of a map without equal values is expected slightly above it, by up to
    ``(1 + 1/2 + ... + 1/n) / n`` with n voxels in the mask (Bestgen 2015): 8e-6 for 1.9 million
    voxels, which matters for regions of less than some hundred voxels.

    Parameters
    ----------
    region, mask
        ``[x, y, z]`` bool.

    Returns
    -------
    Between 0 and 1; nan if the region has no voxel in the mask.

    Raises
    ------
    SetupFault
        The shapes differ, or region or mask is not bool.
    """
    _check_masks(region, mask)
    inside = np.count_nonzero(region & mask)
    return inside / np.count_nonzero(mask) if inside else np.nan


def precision_recall(
    heatmap: np.ndarray, region: np.ndarray, mask: np.ndarray, points: int = 101
) -> tuple[np.ndarray, np.ndarray]:
    """Precision of one heatmap at evenly spaced recalls, so that curves of scans can be averaged.

    The precision is that of a threshold, neither interpolated nor the best at this or a higher
    recall: it belongs to the smallest set of voxels above a threshold that reaches the recall. At
    recall 0 the set consists of the voxels with the highest value, and the precision is the
    ``pointing`` of :func:`score`.

    Parameters
    ----------
    heatmap, region, mask
        See :func:`score`.
    points
        Number of recalls, at least 2.

    Returns
    -------
    recall
        ``[points]`` evenly from 0 to 1.
    precision
        ``[points]``, at each recall; nan if :func:`score` is nan.

    Raises
    ------
    SetupFault
        As :func:`score`, or there are fewer than 2 points.
    """
    if points < 2:
        raise SetupFault(f"a curve needs at least 2 points, not {points}")
    values, in_region = _inside(heatmap, region, mask)
    recall = np.linspace(0, 1, points)
    if not _is_defined(values, in_region):
        return recall, np.full(points, np.nan)
    ordered = np.sort(values)
    hits, reached = _steps(ordered, in_region)
    # Whole voxels, rounded up: in floating point a recall of 0.07 is above 7 voxels of 100.
    wanted = -(-np.arange(points) * len(in_region) // (points - 1))
    precision = (hits / reached)[np.searchsorted(hits, wanted)]
    precision[0] = _share_of_highest(ordered, in_region, 1)
    return recall, precision


def replace_zero_map(heatmap: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The heatmap, or a constant map if the heatmap is 0 everywhere in the mask.

    A map of zeros carries no information, as a constant map, which scores at :func:`chance`. With
    the replacement, a method that often gives zeros is not judged by its other scans only.
    """
    return heatmap if heatmap[mask].any() else mask.astype(np.float64)


def smooth_to(
    heatmap: np.ndarray,
    mask: np.ndarray,
    smoothing_mm: Sequence[float],
    voxel_size: Sequence[float],
) -> dict[float, np.ndarray]:
    """A heatmap at several resolutions: width in mm to the map from :func:`smooth_inside`."""
    return {width: smooth_inside(heatmap, mask, width, voxel_size) for width in smoothing_mm}


def score_regions(
    heatmaps: Mapping[float, np.ndarray], regions: Mapping[str, np.ndarray], mask: np.ndarray
) -> Iterator[dict[str, object]]:
    """Rows with each measure of a heatmap for several regions and resolutions.

    See also :func:`replace_zero_map`.

    Parameters
    ----------
    heatmaps
        From :func:`smooth_to`.
    regions
        Name to ``[x, y, z]`` bool.
    mask
        ``[x, y, z]`` bool, the template's brain.

    Yields
    ------
    Rows with the columns of :data:`SCORES`.

    Raises
    ------
    SetupFault
        As :func:`score`.
    """
    for width, heatmap in heatmaps.items():
        for name, region in regions.items():
            expected = chance(region, mask)
            for measure, value in score(heatmap, region, mask).items():
                yield dict(zip(SCORES, (name, width, measure, value, expected), strict=True))


def smooth_inside(
    heatmap: np.ndarray, mask: np.ndarray, fwhm_mm: float, voxel_size: Sequence[float]
) -> np.ndarray:
    """A heatmap smoothed by a Gaussian within the mask only.

    It brings methods that work on blocks and methods that work on voxels to one resolution before
    they are compared. Voxels outside the mask do not contribute: each voxel is a weighted mean of
    voxels inside the mask, and a constant map does not change.

    Parameters
    ----------
    heatmap
        ``[x, y, z]``, no value below 0.
    mask
        ``[x, y, z]`` bool.
    fwhm_mm
        Full width of the Gaussian at half of its height, mm; 0 for no smoothing.
    voxel_size
        Edges of a voxel along x, y and z, mm.

    Returns
    -------
    ``[x, y, z]`` float64, 0 outside the mask.

    Raises
    ------
    SetupFault
        The shapes differ, the mask is not bool, the heatmap has voxels inside the mask that are
        negative or not finite, the width is below 0, or a voxel edge is not above 0.
    """
    size = np.asarray(voxel_size, np.float64)
    if size.shape != (3,) or not (np.isfinite(size) & (size > 0)).all():
        raise SetupFault(f"a voxel has three edges above 0 mm, not {voxel_size}")
    if not (np.isfinite(fwhm_mm) and fwhm_mm >= 0):
        raise SetupFault(f"a Gaussian has a width of 0 mm or more, not {fwhm_mm}")
    values, _ = _inside(heatmap, mask, mask)
    smooth = np.zeros(mask.shape)
    smooth[mask] = values
    if fwhm_mm == 0 or not len(values):
        return smooth
    # Outside the mask's bounding box all values are 0, as beyond the border of an array.
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    sigma = fwhm_mm / size / _SIGMAS_IN_FWHM
    weight = ndimage.gaussian_filter(mask[box].astype(np.float64), sigma, mode="constant")
    blurred = ndimage.gaussian_filter(smooth[box], sigma, mode="constant")
    smooth[mask] = blurred[mask[box]] / weight[mask[box]]
    return smooth


def bootstrap_mean(
    values: Sequence[float],
    patients: Sequence[object],
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Mean over patients with its percentile bootstrap interval.

    Scans of one patient resemble each other: each patient counts once, as the mean of their scans,
    and whole patients are drawn (with replacement, Efron and Tibshirani 1993).

    Parameters
    ----------
    values
        One for each scan; nan is left out.
    patients
        The patient of each scan.
    draws
        Number of draws, each with as many patients as there are.
    level
        Share of the drawn means inside the interval.
    seed
        Seed of the draws. Two methods with the same seed and patients get the same draws.

    Returns
    -------
    Mean, lower and upper end of the interval. The ends are nan with one patient, all three are nan
    without patients.

    Raises
    ------
    SetupFault
        The numbers of values and patients differ, ``draws`` is below 1, or the level is not between
        0 and 1.
    """
    if len(values) != len(patients):
        raise SetupFault(f"{len(values)} values of {len(patients)} scans' patients")
    if draws < 1 or not 0 < level < 1:
        raise SetupFault(
            f"a bootstrap needs draws, not {draws}, and a level between 0 and 1, not {level}"
        )
    means = _patient_means(values, patients)
    if not len(means):
        return np.nan, np.nan, np.nan
    if len(means) == 1:
        return float(means[0]), np.nan, np.nan
    drawn = np.random.default_rng(seed).integers(len(means), size=(draws, len(means)))
    ends = np.quantile(means[drawn].mean(1), [(1 - level) / 2, (1 + level) / 2])
    return float(means.mean()), float(ends[0]), float(ends[1])


def summarise(
    scores: pd.DataFrame, by: Sequence[str], draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Table of the mean of each measure over patients, with 95 % bootstrap intervals.

    Parameters
    ----------
    scores
        One row a scan and measure: the columns of ``by``, ``patient``, ``measure``, ``value`` (from
        :func:`score`) and ``chance`` (of that scan's region).
    by
        Columns to group by, such as method and class.
    draws, seed
        See :func:`bootstrap_mean`.

    Returns
    -------
    One row for each of ``by`` and ``measure``, in order of first appearance: ``mean``, ``low``,
    ``high``, ``chance`` (also a mean over patients), ``times_chance`` (mean divided by chance),
    ``scans`` and ``patients``. Scans with a value of nan are left out. If no scan is left, the
    means are nan and the counts 0.

    Raises
    ------
    SetupFault
        A column is missing.
    """
    keys = [*by, "measure"]
    missing = {*keys, "patient", "value", "chance"}.difference(scores.columns)
    if missing:
        raise SetupFault(f"scores without the columns {', '.join(sorted(missing))}")
    rows = []
    for key, group in scores.groupby(keys, sort=False, dropna=False, observed=True):
        valid = group[group["value"].notna()]
        mean, low, high = bootstrap_mean(valid["value"], valid["patient"], draws, seed=seed)
        expected = _patient_means(valid["chance"], valid["patient"])
        rows.append(
            {
                **dict(zip(keys, key, strict=True)),
                "mean": mean,
                "low": low,
                "high": high,
                "chance": expected.mean() if len(expected) else np.nan,
                "scans": len(valid),
                "patients": valid["patient"].nunique(),
            }
        )
    numbers = ["mean", "low", "high", "chance", "times_chance", "scans", "patients"]
    table = pd.DataFrame(rows, columns=[*keys, *numbers])
    table["times_chance"] = table["mean"] / table["chance"]
    return table


def _inside(
    heatmap: np.ndarray, region: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Values of the heatmap in the mask, and its values in the part of the region in the mask."""
    _check_masks(region, mask)
    if heatmap.shape != mask.shape:
        raise SetupFault(f"a heatmap of shape {heatmap.shape} and a mask of {mask.shape}")
    values = heatmap[mask]
    if not (np.isfinite(values) & (values >= 0)).all():
        raise SetupFault("the heatmap has negative, NaN or infinite voxels")
    return values, heatmap[region & mask]


def _check_masks(region: np.ndarray, mask: np.ndarray) -> None:
    if region.shape != mask.shape:
        raise SetupFault(f"a region of shape {region.shape} and a mask of {mask.shape}")
    for name, array in (("mask", mask), ("region", region)):
        if array.dtype != bool:
            raise SetupFault(f"the {name} is {array.dtype}, expected bool")


def _is_defined(values: np.ndarray, in_region: np.ndarray) -> bool:
    return 0 < len(in_region) < len(values) and bool(values.any())


def _steps(ordered: np.ndarray, in_region: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts of region voxels and of all voxels at or above each region value, highest first.

    Other thresholds do not change the recall and are not needed.
    """
    thresholds, counts = np.unique(in_region, return_counts=True)
    reached = len(ordered) - np.searchsorted(ordered, thresholds)
    return counts[::-1].cumsum(), reached[::-1]


def _share_of_highest(ordered: np.ndarray, in_region: np.ndarray, count: int) -> float:
    """Share of the ``count`` highest voxels that lie in the region, averaged over ties."""
    border = ordered[-count]
    first, last = np.searchsorted(ordered, border), np.searchsorted(ordered, border, "right")
    above, tied = len(ordered) - last, last - first
    certain = np.count_nonzero(in_region > border)
    likely = np.count_nonzero(in_region == border) * (count - above) / tied
    return float((certain + likely) / count)


def _patient_means(values: Sequence[float], patients: Sequence[object]) -> np.ndarray:
    """Mean of each patient's values without nan, in the order of the patients' names."""
    column = pd.Series(np.asarray(values, np.float64))
    means = column.groupby(np.asarray(patients, object)).mean()
    return means.dropna().to_numpy()
