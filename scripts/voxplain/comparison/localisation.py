"""How well a heatmap finds a region that is known: simulated atrophy, or an area of the anatomy."""

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
    """How well one heatmap finds a region, by the measures of :data:`MEASURES`.

    Parameters
    ----------
    heatmap
        ``[x, y, z]``, none below 0.
    region
        ``[x, y, z]`` bool, where the relevance should lie.
    mask
        ``[x, y, z]`` bool, the template's brain; only voxels inside it count.

    Returns
    -------
    Each between 0 and 1, 1 being best; a map of one value above 0 has :func:`chance` in all of
    them.

    ``average_precision``
        Of the voxels' values as a ranking: the precisions at all thresholds, weighted by the gain
        of recall (as scikit-learn's; voxels of one value share a threshold). The area under the
        curve of Yang et al. 2018, figure 3.
    ``mass``
        The share of the relevance that lies in the region (relevance mass accuracy, Arras, Osman
        and Samek 2022).
    ``rank``
        Of the K highest voxels, K being the region's size, the share that lies in the region
        (relevance rank accuracy, same paper).
    ``pointing``
        1 if the highest voxel lies in the region, else 0 (pointing game, Zhang et al. 2018).

    Where voxels of one value compete for the last places of ``rank`` or for ``pointing``, it is
    the expectation over all orders of them. All are nan where there is nothing to find or to rank:
    the region has no voxel in the mask or all of them, or the heatmap is 0 everywhere in it.

    Raises
    ------
    SetupFault
        The shapes differ, region or mask is not bool, or the heatmap has voxels inside the mask
        that are below 0 or no number.
    """
    values, found = _inside(heatmap, region, mask)
    if not _answerable(values, found):
        return dict.fromkeys(MEASURES, np.nan)
    ordered = np.sort(values)
    size = len(found)
    hits, reached = _steps(ordered, found)
    relevance = found.sum(dtype=np.float64)
    # Of two parts, so that rounding never gives a share above 1.
    beyond = values[~region[mask]].sum(dtype=np.float64)
    return {
        "average_precision": float(np.diff(hits, prepend=0) @ (hits / reached) / size),
        "mass": float(relevance / (relevance + beyond)),
        "rank": _share_of_highest(ordered, found, size),
        "pointing": _share_of_highest(ordered, found, 1),
    }


def chance(region: np.ndarray, mask: np.ndarray) -> float:
    """What a map that knows nothing has in each of :data:`MEASURES`: the region's share of voxels.

    It is what a map of one value has, and the expectation over all orders of any map's voxels;
    only the average precision of untied values is expected slightly above it, by up to
    ``(1 + 1/2 + ... + 1/n) / n`` with n voxels in the mask (Bestgen 2015): 8e-6 of 1.9 million,
    which matters for regions of less than some hundred voxels.

    Parameters
    ----------
    region, mask
        ``[x, y, z]`` bool.

    Returns
    -------
    Between 0 and 1; nan where the region has no voxel in the mask.

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
    """Precision of one heatmap at even recalls, so that curves of scans can be averaged.

    The precision is the plain one of a threshold, neither interpolated nor the best at this recall
    or a higher one: that of the fewest voxels above a threshold whose recall is as wanted or more.
    At recall 0 these are the voxels of the highest value, and their precision is the ``pointing``
    of :func:`score`.

    Parameters
    ----------
    heatmap, region, mask
        See :func:`score`.
    points
        How many recalls, at least 2.

    Returns
    -------
    recall
        ``[points]`` evenly from 0 to 1.
    precision
        ``[points]``, at each of them; nan where :func:`score` is nan.

    Raises
    ------
    SetupFault
        As :func:`score`, or there are fewer than 2 points.
    """
    if points < 2:
        raise SetupFault(f"a curve needs at least 2 points, not {points}")
    values, found = _inside(heatmap, region, mask)
    recall = np.linspace(0, 1, points)
    if not _answerable(values, found):
        return recall, np.full(points, np.nan)
    ordered = np.sort(values)
    hits, reached = _steps(ordered, found)
    # In whole voxels, rounded up: as fractions, a recall of 0.07 is above 7 voxels of 100.
    wanted = -(-np.arange(points) * len(found) // (points - 1))
    precision = (hits / reached)[np.searchsorted(hits, wanted)]
    precision[0] = _share_of_highest(ordered, found, 1)
    return recall, precision


def speak(heatmap: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A heatmap; for one that is 0 everywhere in the mask, a map of one value.

    It knows nothing, as little as a map of one value, and has :func:`chance`: so a method that is
    often silent is not judged by the scans alone on which it spoke.
    """
    return heatmap if heatmap[mask].any() else mask.astype(np.float64)


def smooth_to(
    heatmap: np.ndarray,
    mask: np.ndarray,
    smoothing_mm: Sequence[float],
    voxel_size: Sequence[float],
) -> dict[float, np.ndarray]:
    """A heatmap at several resolutions: width in mm to what :func:`smooth_inside` gives."""
    return {width: smooth_inside(heatmap, mask, width, voxel_size) for width in smoothing_mm}


def score_regions(
    heatmaps: Mapping[float, np.ndarray], regions: Mapping[str, np.ndarray], mask: np.ndarray
) -> Iterator[dict[str, object]]:
    """Every measure of one heatmap for several regions and resolutions; see also :func:`speak`.

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

    Brings methods of blocks and methods of single voxels to one resolution before they are
    compared. What lies outside neither comes in nor pulls down the border: every voxel is a
    weighted mean of those inside the mask, and a map of one value stays as it is.

    Parameters
    ----------
    heatmap
        ``[x, y, z]``, none below 0.
    mask
        ``[x, y, z]`` bool.
    fwhm_mm
        Full width of the Gaussian at half of its height, mm; 0 for none.
    voxel_size
        Edges of a voxel along x, y and z, mm.

    Returns
    -------
    ``[x, y, z]`` float64, 0 outside the mask.

    Raises
    ------
    SetupFault
        The shapes differ, the mask is not bool, the heatmap has voxels inside the mask that are
        below 0 or no number, or a size is no length.
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
    # Beyond the mask's box there are only noughts, as at the border of an array.
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
    """Mean over patients, and the percentile bootstrap interval of it.

    Scans of one patient resemble each other: each patient counts once, as the mean of their scans,
    and whole patients are drawn (with replacement, Efron and Tibshirani 1993).

    Parameters
    ----------
    values
        One a scan; nan is left out.
    patients
        Whose scan it is.
    draws
        How often as many patients are drawn as there are.
    level
        Share of the draws' means that the interval holds.
    seed
        Of the draws. The same for two methods on the same patients, it draws the same.

    Returns
    -------
    Mean, and the interval's lower and upper end: these are nan with one patient, all three with
    none.

    Raises
    ------
    SetupFault
        There are not as many values as patients, no draws, or the level is not between 0 and 1.
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
    """Measures of many scans as means over patients with their 95 % bootstrap intervals.

    Parameters
    ----------
    scores
        One row a scan and measure: the columns of ``by``, ``patient``, ``measure``, ``value`` (from
        :func:`score`) and ``chance`` (of that scan's region).
    by
        Columns that are told apart, such as method and class.
    draws, seed
        See :func:`bootstrap_mean`.

    Returns
    -------
    One row for each of ``by`` and ``measure``, in the order in which they come first: ``mean``,
    ``low``, ``high``, ``chance`` (a mean over patients likewise), ``times_chance`` (mean over
    chance), ``scans`` and ``patients``. Scans whose value is nan are left out of all of them;
    where none is left, the numbers are nan and the counts 0.

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
    """The heatmap's values in the mask, and those of them in the region."""
    _check_masks(region, mask)
    if heatmap.shape != mask.shape:
        raise SetupFault(f"a heatmap of shape {heatmap.shape} and a mask of {mask.shape}")
    values = heatmap[mask]
    if not (np.isfinite(values) & (values >= 0)).all():
        raise SetupFault("the heatmap has voxels below 0 or that are no number")
    return values, heatmap[region & mask]


def _check_masks(region: np.ndarray, mask: np.ndarray) -> None:
    if region.shape != mask.shape:
        raise SetupFault(f"a region of shape {region.shape} and a mask of {mask.shape}")
    for name, array in (("mask", mask), ("region", region)):
        if array.dtype != bool:
            raise SetupFault(f"the {name} is {array.dtype}, expected bool")


def _answerable(values: np.ndarray, found: np.ndarray) -> bool:
    return 0 < len(found) < len(values) and bool(values.any())


def _steps(ordered: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxels at or above each value of the region, from the highest: of the region, and of all.

    Thresholds between these values add no recall, and nothing that is counted here.
    """
    thresholds, counts = np.unique(found, return_counts=True)
    reached = len(ordered) - np.searchsorted(ordered, thresholds)
    return counts[::-1].cumsum(), reached[::-1]


def _share_of_highest(ordered: np.ndarray, found: np.ndarray, count: int) -> float:
    """The share of the ``count`` highest voxels in the region, expected over orders of ties."""
    border = ordered[-count]
    first, last = np.searchsorted(ordered, border), np.searchsorted(ordered, border, "right")
    above, tied = len(ordered) - last, last - first
    certain = np.count_nonzero(found > border)
    likely = np.count_nonzero(found == border) * (count - above) / tied
    return float((certain + likely) / count)


def _patient_means(values: Sequence[float], patients: Sequence[object]) -> np.ndarray:
    """Mean of each patient's values but nan, in the order of the patients' names."""
    column = pd.Series(np.asarray(values, np.float64))
    means = column.groupby(np.asarray(patients, object)).mean()
    return means.dropna().to_numpy()
