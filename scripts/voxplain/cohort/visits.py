"""The months of visits, from their codes."""

from __future__ import annotations

import re


def visit_month(visit: str) -> int | None:
    """Months since the first visit, from a visit's code or label; None if it names no month.

    ``sc`` and ``bl`` are month 0 and ``m12`` is month 12, in either case.
    """
    word = visit.lower()
    if word in ("sc", "bl"):
        return 0
    month = re.fullmatch(r"m([0-9]{1,4})", word)
    return int(month[1]) if month else None
