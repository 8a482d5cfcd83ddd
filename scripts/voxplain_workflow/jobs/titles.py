"""Titles of pictures."""

from typing import Any


def title_of(wildcards: Any, network: str) -> str:
    """Cohort, task, network, split and seed of one run."""
    return (
        f"{wildcards.cohort}, {wildcards.task}, {network}, split {wildcards.split}, seed "
        f"{wildcards.seed}"
    )
