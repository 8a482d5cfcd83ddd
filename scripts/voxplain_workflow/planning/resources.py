"""The memory and time that jobs ask for; with every further attempt more of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def growing(amount: int) -> Callable[[Any, int], int]:
    """Resource function: MB, or minutes."""

    def grown(wildcards: Any, attempt: int) -> int:
        return amount * attempt

    return grown


def of_grid(resolution_mm: float, mb_at_1_mm: int, least_mb: int) -> Callable[[Any, int], int]:
    """Resource function: MB that grow with the voxels of the template's grid."""

    def mem_mb(wildcards: Any, attempt: int) -> int:
        return round(attempt * max(mb_at_1_mm / resolution_mm**3, least_mb))

    return mem_mb
