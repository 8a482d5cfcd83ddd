"""Measures of the gate for all rungs of the available skull tools, on heads of your own.

For each head and rung: the volume of the mask, the measures of the gate, missed thresholds, the
Dice coefficient with a reference mask (from ``--masks``, by the file name of the head; without it
the mask of deepbet's first rung), and the time of rung and gate in seconds. All rungs are tried,
even if an earlier one passed. Prints a table, and one JSON line with ``ratios``: the time of all
rungs divided by that of the ladder, which stops at the first rung that passes.

    python benchmarks/skull_removal.py HEAD.nii.gz ... [--masks FOLDER] [--tools bet deepbet]
"""

from __future__ import annotations

import os

os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from voxplain.anatomy.ladder import measure_rung, prepare_rungs, read_gates_template
from voxplain.anatomy.quality import dice, find_missed
from voxplain.anatomy.skull import find_tool
from voxplain.faults import DataFault, SetupFault
from voxplain.volumes import read_array, read_image
from voxplain_workflow.planning.settings import complete_settings, read_schema


def try_rungs(path: Path, tool_name: str, settings: dict, reference: np.ndarray | None) -> list:
    """Rows of one head and tool, and the reference: by default the first mask of deepbet."""
    image, template = read_image(path), read_gates_template()
    rows, begun = [], time.perf_counter()
    for head in prepare_rungs(image, find_tool(tool_name), settings):
        row = {"head": path.name.split(".")[0], "tool": tool_name, "rung": head.rung}
        try:
            part = head.find()
            between = time.perf_counter()
            quality = measure_rung(head.image, part, template)
        except DataFault as fault:
            rows.append({**row, "missed": fault.reason})
        else:
            seconds = {"rung_s": round(between - begun, 1)}
            seconds["gate_s"] = round(time.perf_counter() - between, 1)
            mask = head.place(part)
            if reference is None and tool_name == "deepbet":
                reference = mask
            missed = [text for text, _ in find_missed(quality, settings["gate"])]
            score = "n/a" if reference is None else round(dice(mask, reference), 3)
            outcome = {"dice": score, "missed": "; ".join(missed)}
            rows.append({**row, **quality.as_dict(), **outcome, **seconds})
        begun = time.perf_counter()
    return rows, reference


def main() -> None:
    """Read the options, try the heads, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("heads", type=Path, nargs="+")
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--tools", nargs="+", choices=["bet", "deepbet"])
    options = parser.parse_args()
    schema = read_schema(ROOT / "schemas/config.schema.yaml")
    default = yaml.safe_load((ROOT / "config.yaml").read_text())
    settings = complete_settings(default, schema)["skull"]
    tools = options.tools
    if tools is None:
        tools = ["deepbet"]
        with contextlib.suppress(SetupFault):
            tools.append(find_tool("bet").name)
    all_seconds = climbed_seconds = 0.0
    columns = ["head", "tool", "rung", "brain_volume_ml", "overlap", "similarity", "dice"]
    columns += ["rung_s", "gate_s", "missed"]
    print("\t".join(columns))
    for path in options.heads:
        reference = None
        if options.masks:
            reference = read_array(options.masks / path.name, np.uint8)[0] > 0
        for tool in tools:
            rows, reference = try_rungs(path, tool, settings, reference)
            for row in rows:
                cells = [str(row.get(key, "n/a")) for key in columns]
                print("\t".join(cells), flush=True)
            held = [bool(row["missed"]) for row in rows]
            climbed = rows[: held.index(False) + 1] if False in held else rows
            all_seconds += sum(row.get("rung_s", 0) + row.get("gate_s", 0) for row in rows)
            climbed_seconds += sum(row.get("rung_s", 0) + row.get("gate_s", 0) for row in climbed)
    print(
        json.dumps(
            {
                "benchmark": "skull_removal",
                "heads": len(options.heads),
                "tools": tools,
                "nibabel": nib.__version__,
                "ratios": {"every_rung_over_climbed": round(all_seconds / climbed_seconds, 2)},
            }
        )
    )


if __name__ == "__main__":
    main()
