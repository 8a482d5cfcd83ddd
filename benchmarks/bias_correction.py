"""Remaining error of a known bias field: voxplain against ANTs' N4 with defaults, in one process.

Heads are simulated with and without the field of a coil (SD of its logarithm 0.15 and 0.45 over the
whole image); the error is the SD over the brain of log(estimated / true). Prints one JSON line,
with ``ratios`` of error and of time (default / ours, so that more is better for us).

    python benchmarks/bias_correction.py [--heads 2]
"""

from __future__ import annotations

import os

os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"

import argparse
import json
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import ants
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from voxplain.anatomy.intensity import correct_bias
from voxplain.anatomy.itk import as_ants
from voxplain.cohort.heads import Head, build_packaged_head
from voxplain.cohort.scanner import ScannerSettings
from voxplain.cohort.simulate import simulate_scan
from voxplain.volumes import write_array

VOXEL_MM = 1.2


def scanner(bias: float, noise: float) -> ScannerSettings:
    """Settings of a scanner with a given bias field and noise."""
    return ScannerSettings(3.0, 8, 6, bias, noise, 0, (VOXEL_MM, VOXEL_MM))


def measure(head: Head, seed: int, bias: float, folder: Path) -> dict[str, float]:
    """Errors and times in seconds of both sides for one head."""
    only_brain = Head(head.brain.astype(np.float32), head.brain, head.areas, head.grid)
    scan = simulate_scan(head, {}, 0.03, seed, seed, scanner(bias, 0.03))
    plain = simulate_scan(head, {}, 0.03, seed, seed, scanner(0, 0)).volume.astype(float)
    biased = simulate_scan(head, {}, 0.03, seed, seed, scanner(bias, 0)).volume.astype(float)
    mask = simulate_scan(only_brain, {}, 0.03, seed, seed, scanner(0, 0)).volume > 300
    tissue = mask & (plain > 300) & (biased < 4095)
    true = np.log(biased[tissue] / plain[tissue])

    write_array(folder / "head.nii", scan.volume, scan.grid)
    write_array(folder / "mask.nii", mask, scan.grid, np.uint8)
    begun = time.perf_counter()
    ours = correct_bias(folder / "head.nii", folder / "mask.nii")
    between = time.perf_counter()
    theirs = ants.n4_bias_field_correction(
        as_ants(scan.volume, scan.grid), mask=as_ants(mask, scan.grid), return_bias_field=True
    ).numpy()
    ended = time.perf_counter()

    def error(field: np.ndarray) -> float:
        log_field = np.log(field)
        return float(np.std(log_field - log_field.mean() - (true - true.mean())))

    return {
        "true": float(true.std()),
        "ours": error(scan.volume[tissue] / ours[tissue]),
        "default": error(theirs[tissue]),
        "seconds_ours": between - begun,
        "seconds_default": ended - between,
    }


def main() -> None:
    """Run both sides and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", type=int, default=2, help="simulated heads for each field")
    heads = parser.parse_args().heads
    packaged = build_packaged_head()
    figures, ratios = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        for bias in (0.15, 0.45):
            runs = [measure(packaged, 10 + n, bias, Path(scratch)) for n in range(heads)]
            median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            figures[f"bias_{bias}"] = {key: round(value, 4) for key, value in median.items()}
            ratios[f"error_{bias}"] = round(median["default"] / median["ours"], 2)
            ratios[f"seconds_{bias}"] = round(median["seconds_default"] / median["seconds_ours"], 2)
    print(
        json.dumps(
            {
                "name": "bias_correction",
                "ratios": ratios,
                "figures": figures,
                "heads": heads,
                "voxel_mm": VOXEL_MM,
                "antspyx": version("antspyx"),
            }
        )
    )


if __name__ == "__main__":
    main()
