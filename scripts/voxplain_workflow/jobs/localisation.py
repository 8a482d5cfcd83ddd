"""What heatmaps are to find, as the rules hand it to their scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from voxplain.atlas import read_names
from voxplain.tables import read_tsv
from voxplain.volumes import read_array

TRUTH, RESIDUAL = "truth", "residual"
# The order in which tables and pictures tell of regions: a scan's own before those of every brain.
OWN = (TRUTH, RESIDUAL)
# The voxelwise t of the training scans' classes, which looks at no network.
BASELINE = "group_difference"
# Whose scan a score is of.
WHO = ("image", "patient", "class")


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
    residuals
        Image to the file of what is left of it after registration, where that was measured.
    regions
        Name to region of the anatomy, ``[x, y, z]`` bool.
    """

    def __init__(self, inputs: Any, images: Sequence[str], settings: Mapping[str, Any]) -> None:
        mask, self.grid = read_array(inputs.mask, np.uint8)
        self.mask = mask > 0
        self.truths = dict(zip(images, inputs.truths, strict=True))
        self.residuals = measured_residuals(images, inputs.residuals)
        self._settings = settings
        labels, _ = read_array(inputs.regions, np.uint8)
        names = read_names(inputs.names)
        wanted = {name: value for value, name in names.items()}
        self.regions = {name: labels == wanted[name] for name in settings["regions"]}

    def of_scan(self, image: str) -> dict[str, np.ndarray]:
        """Name to region ``[x, y, z]`` bool; of a scan with a disease its own first."""
        return {**self.own_of(image), **self.regions}

    def own_of(self, image: str) -> dict[str, np.ndarray]:
        """The truth, and what is left of it; nothing of a scan without a disease."""
        files = {TRUTH: self.truths, RESIDUAL: self.residuals}
        return {
            name: read_array(of[image])[0] > self._settings[f"{name}_threshold"]
            for name, of in files.items()
            if image in of
        }


def read_scores(path: str | Path, method: str) -> pd.DataFrame:
    """A table of scores with a column that says which method's they are."""
    return read_tsv(path).assign(method=method)


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """A table with a scan's own regions first: who finds the truth stands at the top.

    Also where the first scan has none.
    """
    places = {name: place for place, name in enumerate(OWN, -len(OWN))}
    return table.sort_values("region", key=lambda r: r.map(places).fillna(0), kind="stable")


def measured_residuals(images: Sequence[str], paths: Sequence[str]) -> dict[str, str]:
    """Image to residual, of those whose twin came through; says which did not."""
    measured = {}
    for image, path in zip(images, paths, strict=True) if paths else ():
        if Path(path).stat().st_size:
            measured[image] = path
        else:
            told = str(path).replace(".nii.gz", ".json")
            print(f"{image}: no residual, see the fate in {told}", flush=True)
    return measured
