"""Cost of each rule at 1 mm, from a finished run: CPU seconds, peak memory and disk space.

    snakemake --cores 2 --configfile benchmarks/costs.yaml --directory FOLDER
    python benchmarks/costs.py FOLDER [--write]

Prints a table for the docs (requested memory and measured peak) and one JSON line last.
``--write`` puts the costs into ``scripts/voxplain_workflow/running/costs.json``, which
`snakemake estimate` reads. CPU seconds are medians of Snakemake's benchmark files. The peak is the
largest value that the jobs report in their logs, since Snakemake samples only every half minute and
misses some peaks.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from voxplain.anatomy.template import make_template
from voxplain.relevance.regions import Regions
from voxplain_workflow.planning.settings import complete_settings, read_schema
from voxplain_workflow.planning.work import AREAS, GRADIENT, count_passes
from voxplain_workflow.running.estimate import COSTS, INTERMEDIATE

CONFIG = ROOT / "benchmarks/costs.yaml"
PEAK = re.compile(r"peak memory (\d+) MB, of its largest child process (\d+) MB")
# CPU seconds of the start of Snakemake, which is repeated for each job (twice in a group).
START_S = 1.5
# CPU time of other registrations of one brain, as a multiple of syn_quick. The value of syn is an
# assumption: a registration was stopped, unfinished, at eight times.
TRANSFORMS = {"syn_quick": 1.0, "syn_fast": 0.3, "syn": 15.0, "affine": 0.29}
# Rules that only heads of users need, with the costs of strip_skull and of a registration at 2 mm.
OWN_HEADS = {"strip_head": ("strip_skull", 1), "register_head": ("register_to_template", 8)}


def plan(folder: Path) -> tuple[dict[str, int], dict[str, list[Path]]]:
    """Requested memory of each rule, and its output files."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--cores", "2", "--configfile", str(CONFIG), "--directory", str(folder)]
    output = subprocess.run(
        [*command, "-n", "--forceall"], capture_output=True, text=True, check=True
    ).stdout
    memory: dict[str, int] = {}
    files: dict[str, list[Path]] = {}
    for job in re.split(r"\n(?=rule |localrule )", output):
        name = re.match(r"(?:local)?rule (\w+):", job)
        requested = re.search(r"mem_mb=(\d+)", job)
        outputs = re.search(r"^    output: (.*)$", job, re.M)
        if name and requested and outputs:
            memory[name[1]] = max(memory.get(name[1], 0), int(requested[1]))
            files.setdefault(name[1], []).extend(folder / path for path in outputs[1].split(", "))
    return memory, files


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(size_of(inner) for inner in path.iterdir())
    return path.stat().st_size


def units_of(rule: str, folder: Path, jobs: int) -> float:
    """Units of work of a rule, summed over its jobs; see `count_work`."""
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    settings = complete_settings(config, read_schema(ROOT / "schemas/config.schema.yaml"))
    cohort = next(iter(settings["cohorts"]))
    members = sorted((folder / f"results/{cohort}").glob("*/splits/*_members.tsv"))
    sides = []
    for path in members:
        with open(path, newline="", encoding="utf-8") as stream:
            sides.append([row["side"] for row in csv.DictReader(stream, delimiter="\t")])
    if rule == "fit_statistics":
        return sum(side.count("train") for side in sides)
    if rule == "train_network":
        steps = sum(GRADIENT * side.count("train") + side.count("test") for side in sides)
        return settings["models"]["rieke"]["epochs"] * steps
    maps = sorted((folder / f"results/{cohort}").glob("*/*/fixed/seed-*/*/scans/*/*.nii.gz"))
    if rule in ("average_heatmaps", "tabulate_areas"):
        return len(maps)
    if rule == "explain_scans":
        _, mask, _ = make_template("packaged", settings["resolution_mm"])
        size, stride = settings["occlusion"]["size_mm"], settings["occlusion"]["stride_mm"]
        centres = np.stack(np.meshgrid(*(range(0, n, stride) for n in mask.shape)), axis=-1)
        cubes = Regions.cubes(centres, size, mask.shape).touching(mask)
        regions = {"occlusion": cubes.sum(), "area_occlusion": AREAS, "voxel_occlusion": mask.sum()}
        passes = count_passes(regions, settings)
        return sum(passes[path.parents[2].name] for path in maps)
    return jobs


def measure(folder: Path) -> dict[str, Any]:
    """Costs of each rule that ran."""
    memory, files = plan(folder)
    rules: dict[str, Any] = {}
    for rule, outputs in sorted(files.items()):
        rows = []
        for path in (folder / f"results/benchmarks/{rule}").rglob("*.tsv"):
            with open(path, newline="", encoding="utf-8") as stream:
                rows += csv.DictReader(stream, delimiter="\t")
        single = folder / f"results/benchmarks/{rule}.tsv"
        if single.is_file():
            with open(single, newline="", encoding="utf-8") as stream:
                rows += csv.DictReader(stream, delimiter="\t")
        logs = [*(folder / f"logs/{rule}").rglob("*.log"), *folder.glob(f"logs/{rule}.log")]
        peaks = [max(map(int, PEAK.search(log.read_text()).groups())) for log in logs]
        units = units_of(rule, folder, len(rows))
        alike = units == len(rows)
        seconds = [float(row["cpu_time"]) for row in rows]
        cpu_seconds = statistics.median(seconds) if alike else sum(seconds) / units
        left = len(rows)
        if rule == "explain_scans":
            left = len(list(folder.glob("results/*/*/*/fixed/seed-*/*/scans/*/*.nii.gz")))
        sizes = {path: size_of(path) for path in outputs}
        passing = sum(size for path, size in sizes.items() if INTERMEDIATE.search(path.name))
        rules[rule] = {
            "cpu_s": round(cpu_seconds, 3),
            "peak_mb": max(peaks),
            "asked_mb": memory[rule],
            "kept_mb": round((sum(sizes.values()) - passing) / left / 1e6, 3),
            "passing_mb": round(passing / left / 1e6, 3),
        }
    for rule in ("change_areas", "randomise_layers"):  # also counted in passes
        rules[rule]["cpu_s"] = rules["explain_scans"]["cpu_s"]
    for rule, (like, faster) in OWN_HEADS.items():
        disk = {"kept_mb": rules["build_head"]["kept_mb"] / len(OWN_HEADS), "passing_mb": 0.0}
        rules[rule] = {**rules[like], "cpu_s": round(rules[like]["cpu_s"] / faster, 3), **disk}
    return rules


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--write", action="store_true", help="into scripts/voxplain_workflow/running/costs.json"
    )
    options = parser.parse_args()
    rules = measure(options.folder)
    print("| rule | CPU s | peak MB | mem_mb | kept MB | intermediate MB |")
    print("|---|---|---|---|---|---|")
    for rule, cost in rules.items():
        if rule not in OWN_HEADS:
            print(f"| {rule} | " + " | ".join(f"{value:,}" for value in cost.values()) + " |")
    if options.write:
        costs = {"resolution_mm": 1, "start_s": START_S, "transforms": TRANSFORMS, "rules": rules}
        COSTS.write_text(json.dumps(costs, indent=2) + "\n", encoding="utf-8")
    share = {rule: round(cost["peak_mb"] / cost["asked_mb"], 2) for rule, cost in rules.items()}
    machine = {"machine": platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({"name": "costs", "ratios": {"peak_to_asked": share}, **machine}))


if __name__ == "__main__":
    main()
