"""Scans that differ from the rest of their cohort, for visual inspection.

No scan is excluded because of it: a rule that is fitted on all scans before they are split would
leak information about the test scans into the training.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from voxplain.cohort.fates import MEASURES
from voxplain.tables import MISSING

# Iglewicz and Hoaglin 1993: how to detect and handle outliers, p. 11.
FAR = 3.5
# Fewest usable scans; with fewer, the distribution is unknown.
FEWEST = 8
# Direction in which a measure gets worse: higher (1), lower (-1), or both.
_WORSE = {
    "brain_volume_ml": (-1, 1),
    "largest_part": (-1,),
    "border_share": (1,),
    "overlap": (-1,),
    "similarity": (-1,),
}
# Lower limit of the SD, in the measure's unit: if nearly all scans are equal (a mask in one part),
# the smallest difference would be an outlier.
_LEAST_SD = {
    "brain_volume_ml": 20.0,
    "largest_part": 0.002,
    "border_share": 0.005,
    "overlap": 0.002,
    "similarity": 0.01,
}


@dataclass(frozen=True)
class Flag:
    """A measure of a scan that is far from the cohort's median.

    Attributes
    ----------
    image, measure
        Image id, and column of ``scans.tsv``.
    value, median
        Value of the scan, and median of the cohort.
    distance
        In robust SD (1.4826 times the median absolute deviation), signed.
    """

    image: str
    measure: str
    value: float
    median: float
    distance: float


def find_outliers(table: Sequence[Mapping[str, str]]) -> list[Flag]:
    """Measures that are more than 3.5 robust SD worse than the cohort's median.

    Parameters
    ----------
    table
        Rows of ``scans.tsv``. Median and deviation are those of the usable scans; excluded scans
        are compared with them as well. A measure with fewer than eight usable scans has no
        outliers.
    """
    flags = []
    for measure in MEASURES:
        values = {
            row["image"]: float(row[measure])
            for row in table
            if row[measure] != MISSING and math.isfinite(float(row[measure]))
        }
        usable = [
            values[row["image"]]
            for row in table
            if row["fate"] == "usable" and row["image"] in values
        ]
        if len(usable) < FEWEST:
            continue
        median = statistics.median(usable)
        deviation = statistics.median(abs(value - median) for value in usable)
        sd = max(1.4826 * deviation, _LEAST_SD[measure])
        for image, value in values.items():
            distance = (value - median) / sd
            if any(side * distance > FAR for side in _WORSE[measure]):
                flags.append(Flag(image, measure, value, median, distance))
    return flags
