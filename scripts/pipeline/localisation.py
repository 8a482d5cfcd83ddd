"""What heatmaps are to find, as the rules hand it to their scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxplain.atlas import read_names
from voxplain.volumes import read_array

TRUTH = "truth"


class Sought:
    """Regions of the template, and the true atrophy of simulated scans.

    Attributes
    ----------
    mask
        ``[x, y, z]`` bool, the template's brain.
    grid
        The template's.
    truths
        Image to the file of its true atrophy, in template space.
    regions
        Name to region of the anatomy, ``[x, y, z]`` bool.
    """

    def __init__(self, inputs: Any, images: Sequence[str], settings: Mapping[str, Any]) -> None:
        mask, self.grid = read_array(inputs.mask, np.uint8)
        self.mask = mask > 0
        self.truths = dict(zip(images, inputs.truths, strict=True))
        self._threshold = settings["truth_threshold"]
        labels, _ = read_array(inputs.regions, np.uint8)
        names = read_names(inputs.names)
        wanted = {name: value for value, name in names.items()}
        self.regions = {name: labels == wanted[name] for name in settings["regions"]}

    def of_scan(self, image: str) -> dict[str, np.ndarray]:
        """Name to region ``[x, y, z]`` bool; of a scan with a disease the truth first."""
        return {**self.truth_of(image), **self.regions}

    def truth_of(self, image: str) -> dict[str, np.ndarray]:
        """The truth alone; nothing of a scan without a disease."""
        if image not in self.truths:
            return {}
        truth, _ = read_array(self.truths[image])
        return {TRUTH: truth > self._threshold}
