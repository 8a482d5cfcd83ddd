"""Comparison of words from tables and headers."""

from __future__ import annotations

from voxplain.cohort.names import words_of


def plain(text: str) -> str:
    """A word reduced to its letters and digits in lower case, for comparisons."""
    # Of any script: two words of another one than ASCII's would have nothing left, and be the same.
    return "".join(words_of(text.lower()))
