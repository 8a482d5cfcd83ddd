"""Memory and time that jobs request, which grow with every further attempt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def growing(amount: int) -> Callable[[Any, int], int]:
    """Resource function: an amount (MB, or minutes) times the number of the attempt."""

    def grown(wildcards: Any, attempt: int) -> int:
        return amount * attempt

    return grown


def of_grid(resolution_mm: float, mb_at_1_mm: int, least_mb: int) -> Callable[[Any, int], int]:
    """Resource function: MB in proportion to the number of voxels of the template's grid."""

    def mem_mb(wildcards: Any, attempt: int) -> int:
        return round(attempt * max(mb_at_1_mm / resolution_mm**3, least_mb))

    return mem_mb
