"""Comparison of words from tables and headers."""

from __future__ import annotations

import re


def plain(text: str) -> str:
    """A word reduced to its letters and digits in lower case, for comparisons."""
    return re.sub(r"[^a-z0-9]", "", text.lower())
