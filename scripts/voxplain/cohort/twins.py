"""Healthy twins of simulated scans: the same patient in the same scanner, without the disease.

A twin is a planned scan of its own, so that it is made and preprocessed by the very rules of every
other one; but it stands in no table, takes no side in a split and has no fate that counts.
"""

from __future__ import annotations

import re
from dataclasses import replace

from voxplain.cohort.plan import PlannedScan

# The archive's ids are I and digits only. A cohort's have seven, or eight of which the first is 1.
_TWIN = re.compile(r"I9(\d{7,})")


def twin_image(image: str) -> str:
    """The image id of a scan's healthy twin."""
    return f"I9{image.removeprefix('I')}"


def image_of_twin(image: str) -> str:
    """The image id of the scan that a twin belongs to.

    Raises
    ------
    KeyError
        The id is no twin's.
    """
    found = _TWIN.fullmatch(image)
    if found is None:
        raise KeyError(image)
    return f"I{found.group(1)}"


def healthy_twin(planned: PlannedScan) -> PlannedScan:
    """The scan of the same patient without the disease, and without a shortcut.

    Anatomy, ageing, pose, motion, intensity field, gain and noise come from the seeds and settings
    of the scan itself: nothing but the atrophy, or what a shortcut adds, differs.
    """
    return replace(planned, image=twin_image(planned.image), severity=0.0, shortcut=False)
