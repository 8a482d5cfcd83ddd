"""The regions that heatmaps should find, read from the inputs of a rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from voxplain.atlas import read_names
from voxplain.tables import read_tsv
from voxplain.volumes import read_array
from voxplain_workflow.records.scans import TrueScan

TRUTH, RESIDUAL = "truth", "residual"
# Regions that differ from scan to scan. In tables and pictures they precede the anatomical ones.
SCAN_SPECIFIC = (TRUTH, RESIDUAL)
# The voxelwise t of the training scans' classes, which needs no network.
BASELINE = "group_difference"
# Columns that identify the scan of a score.
SCAN_KEYS = ("image", "patient", "class")


class TargetRegions:
    """Anatomical regions of the template, and the true atrophy of simulated scans.

    Attributes
    ----------
    mask
        ``[x, y, z]`` bool, the template's brain.
    grid
        Grid of the template.
    truths
        Image to the file of its true atrophy, in template space.
    residuals
        Image to the file of the true atrophy that remains after registration, where measured.
    regions
        Name to anatomical region, ``[x, y, z]`` bool.
    """

    def __init__(
        self, inputs: Any, with_truth: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
    ) -> None:
        mask, self.grid = read_array(inputs.mask, np.uint8)
        self.mask = mask > 0
        scans = [TrueScan(**fields) for fields in with_truth]
        self.truths = {scan.image: scan.truth for scan in scans}
        self.residuals = measured_residuals(scans)
        self._settings = settings
        labels, _ = read_array(inputs.regions, np.uint8)
        names = read_names(inputs.names)
        wanted = {name: value for value, name in names.items()}
        self.regions = {name: labels == wanted[name] for name in settings["regions"]}

    def of_scan(self, image: str) -> dict[str, np.ndarray]:
        """Name to region ``[x, y, z]`` bool: scan-specific regions, then anatomical ones."""
        return {**self.scan_specific(image), **self.regions}

    def scan_specific(self, image: str) -> dict[str, np.ndarray]:
        """Name to truth and residual, ``[x, y, z]`` bool; empty for a scan without a disease."""
        files = {TRUTH: self.truths, RESIDUAL: self.residuals}
        return {
            name: read_array(paths[image])[0] > self._settings[f"{name}_threshold"]
            for name, paths in files.items()
            if image in paths
        }


def read_scores(path: str | Path, method: str) -> pd.DataFrame:
    """The scores in a table, with the method in an additional column."""
    return read_tsv(path).assign(method=method)


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """The table sorted with scan-specific regions first, and otherwise in its order.

    The order holds also if the first scan of the table has no such region.
    """
    places = {name: place for place, name in enumerate(SCAN_SPECIFIC, -len(SCAN_SPECIFIC))}
    return table.sort_values("region", key=lambda r: r.map(places).fillna(0), kind="stable")


def measured_residuals(scans: Iterable[TrueScan]) -> dict[str, str]:
    """Image to residual, if it could be measured; prints the images where it could not."""
    measured = {}
    for scan in scans:
        if scan.residual is None:
            continue
        if Path(scan.residual).stat().st_size:
            measured[scan.image] = scan.residual
        else:
            sidecar = str(scan.residual).replace(".nii.gz", ".json")
            print(f"{scan.image}: no residual, see the fate in {sidecar}", flush=True)
    return measured
