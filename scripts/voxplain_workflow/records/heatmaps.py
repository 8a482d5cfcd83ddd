"""Records of average heatmaps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MeanHeatmap:
    """The average heatmap of a class by a method.

    Attributes
    ----------
    split, seed
        Split and seed of the network's training.
    method, group
        Explanation method, and class of the scans.
    heatmap, sidecar
        Volume, and JSON file with the number of scans.
    """

    split: str
    seed: int
    method: str
    group: str
    heatmap: str
    sidecar: str
