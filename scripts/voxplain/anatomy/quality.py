"""Quality measures of skull removal and registration, and decisions by thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from scipy import ndimage

from voxplain.faults import Fate
from voxplain.volumes import white_matter_level


@dataclass(frozen=True)
class Quality:
    """Measures of one scan.

    Attributes
    ----------
    brain_volume_ml
        Volume of the mask in scanner space.
    largest_part
        Share of the mask's voxels in its largest connected component (faces touching).
    border_share
        Share of the mask's surface voxels on the border of the image; above 0 if the field of view
        cuts the brain, or if the mask extends beyond the brain to the border.
    overlap
        Dice coefficient of the registered mask with the template's brain.
    similarity
        Pearson correlation of the registered brain with the template inside the template's brain.
    """

    brain_volume_ml: float
    largest_part: float
    border_share: float
    overlap: float
    similarity: float

    def as_dict(self) -> dict[str, float]:
        """The measures, rounded to four places."""
        return {key: round(float(value), 4) for key, value in asdict(self).items()}


# Measure to its name, its unit, and what to check if it misses a threshold.
_WORDS = {
    "brain_volume_ml": (
        "brain volume",
        "ml",
        "look at the mask picture; try the other tool for skull removal",
    ),
    "largest_part": ("connected share of the mask", "", "look at the mask picture"),
    "border_share": ("share of the mask on the image border", "", "is the head cut off?"),
    "overlap": ("overlap with the template brain", "", "look at the registration picture"),
    "similarity": ("similarity to the template", "", "look at the registration picture"),
}


def measure_quality(
    mask: np.ndarray,
    voxel_volume_ml: float,
    registered_brain: np.ndarray,
    registered_mask: np.ndarray,
    template_brain: np.ndarray,
    template_mask: np.ndarray,
) -> Quality:
    """The quality measures of one scan.

    Masks are bool ``[x, y, z]``; ``mask`` is in scanner space, the others on the template's grid.
    """
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())[1:]
    return Quality(
        brain_volume_ml=float(mask.sum() * voxel_volume_ml),
        largest_part=float(sizes.max() / sizes.sum()) if sizes.size else 0.0,
        border_share=_border_share(mask),
        overlap=dice(registered_mask, template_mask),
        similarity=correlation(registered_brain[template_mask], template_brain[template_mask]),
    )


def fluid_spaces(brain: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Ventricles and wide sulci of a T1 brain, drawn with its outline, ``[x, y, z]`` bool."""
    return ndimage.binary_erosion(mask) & (brain < 0.6 * white_matter_level(brain[mask]))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice coefficient of two boolean volumes, 0 if both are empty (Dice 1945)."""
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int(np.logical_and(a, b).sum()) / total if total else 0.0


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation, 0 if one of the two is constant."""
    a, b = a.astype(np.float64) - a.mean(), b.astype(np.float64) - b.mean()
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / scale) if scale > 0 else 0.0


def _border_share(mask: np.ndarray) -> float:
    """Number of mask voxels on the volume's border, divided by that on the mask's surface."""
    if not mask.any():
        return 0.0
    surface = mask & ~ndimage.binary_erosion(mask, border_value=1)
    border = np.ones(mask.shape, bool)
    border[1:-1, 1:-1, 1:-1] = False
    touching = (mask & border).sum()
    return float(touching / max((surface | (mask & border)).sum(), 1))


def judge(quality: Quality, thresholds: Mapping[str, float], kept: bool = False) -> Fate:
    """The fate of a scan by absolute thresholds, which do not depend on other scans.

    Parameters
    ----------
    thresholds
        ``min_<measure>`` or ``max_<measure>`` to a value.
    kept
        Whether a person inspected the scan and keeps it whatever its measures are.

    Returns
    -------
    ``usable``, or ``excluded`` with every missed threshold. A kept scan is ``usable``; its reason
    lists the missed thresholds as well.
    """
    missed = find_missed(quality, thresholds)
    if not missed:
        return Fate("usable", "quality")
    reason = "; ".join(text for text, _ in missed)
    if kept:
        return Fate("usable", "quality", f"kept by name: {reason}")
    return Fate("excluded", "quality", reason, "; ".join(dict.fromkeys(why for _, why in missed)))


def find_missed(quality: Quality, thresholds: Mapping[str, float]) -> list[tuple[str, str]]:
    """Descriptions of every threshold that a scan misses, each with what to check.

    Parameters
    ----------
    thresholds
        As in :func:`judge`.
    """
    missed = []
    for name, limit in thresholds.items():
        bound, measure = name.split("_", 1)
        value = getattr(quality, measure)
        # Written so that NaN misses its threshold.
        if not (value >= limit if bound == "min" else value <= limit):
            words, unit, remedy = _WORDS[measure]
            side = "below" if bound == "min" else "above"
            digits = 0 if unit == "ml" else 3
            text = f"{words} {value:.{digits}f}{unit and ' ' + unit} is {side} {limit:g}"
            missed.append((text, remedy))
    return missed
