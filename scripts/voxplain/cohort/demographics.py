"""What a table says of a person and a scan, as numbers; the baselines that go without a network.

Only the standard library is needed: which baselines there are is known while the workflow
is parsed.
"""

from __future__ import annotations

import re

AGE_SEX, AREAS = "age_sex", "areas"
# What tables and figures call them.
BASELINES = {AGE_SEX: "baseline: age and sex", AREAS: "baseline: mean of areas"}
# ADNI's PTGENDER has 1 for men and 2 for women.
_MALE = {"m": 1, "male": 1, "1": 1, "f": 0, "female": 0, "2": 0}


def read_age(text: str) -> float | None:
    """Age in years; None where the text says none (empty, a word, 0, or beyond 120)."""
    try:
        age = float(text)
    except ValueError:
        return None
    return age if 0 < age <= 120 else None


def read_sex(text: str) -> int | None:
    """1 for men, 0 for women; None where the text says neither."""
    return _MALE.get(text.strip().lower())


def read_tesla(text: str) -> float | None:
    """Tesla, of texts as ``1.5``, ``3T``, ``Field Strength=1.5;...``; None of others."""
    match = re.search(r"field strength\s*=\s*(\d+(?:\.\d+)?)", text, re.IGNORECASE)
    match = match or re.match(r"\s*(\d+(?:\.\d+)?)\s*(?:t|tesla)?\b", text, re.IGNORECASE)
    return float(match[1]) if match else None
