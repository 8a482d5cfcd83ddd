"""How lines of many methods are told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import seaborn as sns


def line_looks(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Ten colours that most eyes tell apart, then the same ones broken."""
    palette = sns.color_palette("colorblind", 10)
    return {
        method: {"color": palette[number % 10], "ls": ("-", "--")[number // 10 % 2]}
        for number, method in enumerate(methods)
    }
