"""Healthy twins of simulated scans: the same patient in the same scanner, without the disease.

A twin is planned like any other scan, so that the same rules simulate and preprocess it. But it is
in no table and on no side of a split, and its fate does not count.
"""

from __future__ import annotations

import re
from dataclasses import replace

from voxplain.cohort.plan import PlannedScan

# The archive's ids are I and digits. Those of a simulated cohort have seven digits, or eight of
# which the first is 1.
_TWIN = re.compile(r"I9(\d{7,})")


def twin_image(image: str) -> str:
    """The image id of a scan's healthy twin."""
    return f"I9{image.removeprefix('I')}"


def image_of_twin(image: str) -> str:
    """The image id of the scan that a twin belongs to.

    Raises
    ------
    KeyError
        It is not the id of a twin.
    """
    match = _TWIN.fullmatch(image)
    if match is None:
        raise KeyError(image)
    return f"I{match.group(1)}"


def healthy_twin(planned: PlannedScan) -> PlannedScan:
    """The planned scan of the same patient without the disease and without a shortcut.

    Anatomy, ageing, pose, motion, intensity field, gain and noise come from the seeds and settings
    of the scan: the two differ only in the atrophy or in the shortcut.
    """
    return replace(planned, image=twin_image(planned.image), severity=0.0, shortcut=False)
