"""Effect of resampling a brain to the template's voxel size before the registration by ANTs.

Both sides register the same simulated brains by the same method and resample them to the template
in the same way. They differ in the voxel size of the moving image. Prints one JSON line, with
``ratios`` of the error (1 - Dice with the template's brain; full / ours) and of time.

    python benchmarks/registration_grid.py [--resolution 4] [--heads 2]
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

from voxplain.anatomy.itk import as_ants
from voxplain.anatomy.quality import correlation, dice
from voxplain.anatomy.register import TRANSFORMS, register_to_template
from voxplain.anatomy.template import make_template
from voxplain.cohort.heads import Head, build_packaged_head
from voxplain.cohort.scanner import ScannerSettings
from voxplain.cohort.simulate import simulate_scan
from voxplain.volumes import smooth_for, write_array

SCANNER = ScannerSettings(3.0, 8, 6, 0, 0.02, 0, (1.2, 1.2))
METHOD = "syn_quick"


def measure(head: Head, seed: int, resolution: int, folder: Path) -> dict[str, float]:
    """Overlap, similarity and time in seconds of both sides for one brain."""
    template, template_mask, grid = make_template("packaged", resolution)
    only_brain = Head(head.brain.astype(np.float32), head.brain, head.areas, head.grid)
    scan = simulate_scan(head, {}, 0.03, seed, seed, SCANNER)
    mask = simulate_scan(only_brain, {}, 0.03, seed, seed, SCANNER).volume > 300
    brain = np.where(mask, scan.volume / 600, 0).astype(np.float32)
    files = {name: folder / f"{name}.nii" for name in ("brain", "mask", "template")}
    write_array(files["brain"], brain, scan.grid)
    write_array(files["mask"], mask, scan.grid, np.uint8)
    write_array(files["template"], template, grid)

    begun = time.perf_counter()
    ours = register_to_template(*files.values(), folder / "ours.h5", METHOD, 42)
    between = time.perf_counter()
    ants.config.set_ants_deterministic(on=False, seed_value=42)
    fixed = as_ants(template, grid)
    result = ants.registration(
        fixed,
        as_ants(brain, scan.grid),
        type_of_transform=TRANSFORMS[METHOD],
        outprefix=f"{folder}/full",
    )
    full_brain, full_mask = (
        ants.apply_transforms(
            fixed, as_ants(smooth_for(array, scan.grid, grid), scan.grid), result["fwdtransforms"]
        ).numpy()
        for array in (brain, mask.astype(np.float32))
    )
    ended = time.perf_counter()
    return {
        "overlap_ours": dice(ours.mask, template_mask),
        "overlap_full": dice(full_mask > 0.5, template_mask),
        "similarity_ours": correlation(ours.brain[template_mask], template[template_mask]),
        "similarity_full": correlation(full_brain[template_mask], template[template_mask]),
        "seconds_ours": between - begun,
        "seconds_full": ended - between,
    }


def main() -> None:
    """Run both sides and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolution", type=int, default=4, help="voxel size in mm, 2 to 4")
    parser.add_argument("--heads", type=int, default=2, help="simulated brains")
    options = parser.parse_args()
    packaged = build_packaged_head()
    with tempfile.TemporaryDirectory() as scratch:
        runs = [
            measure(packaged, 10 + n, options.resolution, Path(scratch))
            for n in range(options.heads)
        ]
    median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    error = (1 - median["overlap_full"]) / (1 - median["overlap_ours"])
    print(
        json.dumps(
            {
                "name": "registration_grid",
                "ratios": {
                    "error": round(error, 2),
                    "seconds": round(median["seconds_full"] / median["seconds_ours"], 2),
                },
                "figures": {key: round(value, 4) for key, value in median.items()},
                "resolution_mm": options.resolution,
                "heads": options.heads,
                "method": METHOD,
                "antspyx": version("antspyx"),
            }
        )
    )


if __name__ == "__main__":
    main()
