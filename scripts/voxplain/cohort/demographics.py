"""Age, sex and field strength from table cells as numbers; the baselines without a network.

Only the standard library is needed: the names of the baselines are used while the workflow is
parsed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

AGE_SEX, AREAS = "age_sex", "areas"
# Names of the baselines in tables and figures.
BASELINES = {AGE_SEX: "baseline: age and sex", AREAS: "baseline: mean of areas"}
# ADNI's PTGENDER has 1 for men and 2 for women.
_MALE = {"m": 1, "male": 1, "1": 1, "f": 0, "female": 0, "2": 0}


@dataclass(frozen=True)
class Person:
    """Age and sex at one scan.

    Attributes
    ----------
    cohort, image
        Name of the cohort, and image id of the scan.
    age
        In years; None if it is not in the table.
    male
        1 for men, 0 for women; None if it is not in the table.
    """

    cohort: str
    image: str
    age: float | None
    male: int | None


def read_age(text: str) -> float | None:
    """Age in years; None if the text is not an age (empty, a word, 0, or above 120)."""
    try:
        age = float(text)
    except ValueError:
        return None
    return age if 0 < age <= 120 else None


def read_sex(text: str) -> int | None:
    """1 for men, 0 for women; None for any other text."""
    return _MALE.get(text.strip().lower())


def read_tesla(text: str) -> float | None:
    """Field strength in tesla from ``1.5``, ``3T``, ``Field Strength=1.5;...``; None otherwise."""
    match = re.search(r"field strength\s*=\s*(\d+(?:\.\d+)?)", text, re.IGNORECASE)
    match = match or re.match(r"\s*(\d+(?:\.\d+)?)\s*(?:t|tesla)?\b", text, re.IGNORECASE)
    return float(match[1]) if match else None
