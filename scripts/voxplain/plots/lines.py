"""Line styles for figures of many methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import seaborn as sns


def line_styles(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Method to its line style: ten colour-blind safe colours, then the same colours dashed."""
    palette = sns.color_palette("colorblind", 10)
    return {
        method: {"color": palette[number % 10], "ls": ("-", "--")[number // 10 % 2]}
        for number, method in enumerate(methods)
    }
