"""Every rung of every skull tool that runs here, on heads of your own: what the gate sees of them.

For each head and rung: the volume of the mask, the gate's measures, whether it is passed, the Dice
coefficient with a reference mask (of ``--masks``, by the head's file name; without it deepbet's own
of the head as it came), and the seconds of rung and gate. A rung is tried whether or not the one
before it held. Prints a table, and one JSON line with ``ratios``: time of all rungs over that of
the ladder as it climbs.

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
    """Rows of one head and tool; the first mask of deepbet is the reference where there is none."""
    image, template = read_image(path), read_gates_template()
    rows, begun = [], time.perf_counter()
    for head in prepare_rungs(image, find_tool(tool_name), settings):
        row = {"head": path.name.split(".")[0], "tool": tool_name, "rung": head.rung}
        try:
            part = head.find()
            found = time.perf_counter()
            quality = measure_rung(head.image, part, template)
        except DataFault as fault:
            rows.append({**row, "missed": fault.reason})
        else:
            seconds = {"rung_s": round(found - begun, 1)}
            seconds["gate_s"] = round(time.perf_counter() - found, 1)
            mask = head.place(part)
            if reference is None and tool_name == "deepbet":
                reference = mask
            missed = [text for text, _ in find_missed(quality, settings["gate"])]
            score = "n/a" if reference is None else round(dice(mask, reference), 3)
            told = {"dice": score, "missed": "; ".join(missed)}
            rows.append({**row, **quality.as_dict(), **told, **seconds})
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
                told = [str(row.get(key, "n/a")) for key in columns]
                print("\t".join(told), flush=True)
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
