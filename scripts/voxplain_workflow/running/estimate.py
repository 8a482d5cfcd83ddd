"""Estimate of the cost of a run before it starts: jobs, CPU and GPU hours, disk.

Jobs are counted from the size of the cohort and the settings; their costs were measured
(``benchmarks/costs.py`` writes ``costs.json`` from a real run at 1 mm; docs/scale.md lists the
numbers that are calculated until then).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxplain_workflow.planning.checks import has_gpu
from voxplain_workflow.planning.work import SCAN_CHAIN, Work, count_work

if TYPE_CHECKING:
    from voxplain_workflow.planning.plan import Plan

# Rules that only collect files.
TARGETS = ("all", "simulated", "converted", "preprocessed")
COSTS = Path(__file__).with_name("costs.json")
# Files between a DICOM series and a brain in template space; see keep_intermediates.
INTERMEDIATE = re.compile(
    r"_acq-[A-Za-z0-9]+_(T1w\.nii\.gz|desc-brain_mask\.nii\.gz|desc-corrected_T1w\.nii\.gz"
    r"|from-T1w_to-\w+_mode-image_xfm\.h5)$"
)
# Rules on the template's grid, whose costs are proportional to its number of voxels.
ON_GRID = {
    "register_to_template",
    "fit_statistics",
    "train_network",
    "explain_scans",
    "combine_heatmaps",
    "average_heatmaps",
    "tabulate_areas",
    "compare_methods",
    "compare_runs",
    "measure_areas",
    "carry_truth",
    "measure_residual",
    "map_group_difference",
    "localise_difference",
    "localise_heatmaps",
    "show_truth",
    "change_areas",
    "randomise_layers",
}
GPU_RULES = {"train_network", "explain_scans", "change_areas", "randomise_layers"}
# Assumed, not measured: number of cores that train and explain as fast as one GPU.
CORES_PER_GPU = 100
GROUP_SIZE = 10  # of profiles/slurm


@dataclass(frozen=True)
class Row:
    """Estimated cost of a rule.

    Attributes
    ----------
    cpu_h
        CPU hours, without a GPU.
    gpu_h
        GPU hours on a machine with a GPU; 0 for rules that use none.
    kept_gb, passing_gb
        Disk for files that stay and for intermediate volumes, in 10^9 bytes.
    """

    rule: str
    jobs: int
    cpu_h: float
    gpu_h: float
    kept_gb: float
    passing_gb: float


def estimate(
    work: Mapping[str, Work], settings: Mapping[str, Any], costs: Mapping[str, Any]
) -> list[Row]:
    """Estimated costs of every rule.

    Parameters
    ----------
    work
        Rule to its work, from :func:`voxplain_workflow.planning.work.count_work`.
    settings
        Completed settings.
    costs
        Content of ``costs.json``.
    """
    rows, keeps_maps = [], settings["heatmaps"]["keep_scans"]
    for rule, (jobs, units, files) in work.items():
        cost = costs["rules"][rule]
        voxels = (costs["resolution_mm"] / settings["resolution_mm"]) ** 3
        scale = voxels if rule in ON_GRID else 1
        registers = rule == "register_to_template"
        slower = costs["transforms"][settings["registration"]["transform"]] if registers else 1
        work_s = units * cost["cpu_s"] * scale * slower
        on_gpu = rule in GPU_RULES and settings["device"] != "cpu"
        kept, passing = (files * cost[key] * scale / 1e3 for key in ("kept_mb", "passing_mb"))
        if settings["keep_intermediates"]:
            kept, passing = kept + passing, 0.0
        if rule in ("explain_scans", "combine_heatmaps") and not keeps_maps:
            kept, passing = 0.0, kept
        rows.append(
            Row(
                rule=rule,
                jobs=jobs,
                cpu_h=(work_s + jobs * costs["start_s"]) / 3600,
                gpu_h=(work_s / CORES_PER_GPU + jobs * costs["start_s"]) / 3600 if on_gpu else 0.0,
                kept_gb=kept,
                passing_gb=passing,
            )
        )
    return rows


def _rows_of(plan: Plan) -> list[Row]:
    return estimate(count_work(plan), plan.settings, read_costs())


def expected_seconds(plan: Plan) -> dict[str, float]:
    """Rule to the estimated seconds of one of its jobs; empty if the plan has a fault."""
    if plan.fault:
        return {}
    on_gpu = plan.settings["device"] != "cpu" and (not plan.local or has_gpu())
    return dict.fromkeys(TARGETS, 0.0) | {
        row.rule: 3600 * (row.gpu_h if on_gpu and row.gpu_h else row.cpu_h) / row.jobs
        for row in _rows_of(plan)
    }


def count_submissions(rows: Sequence[Row]) -> tuple[int, int]:
    """Number of SLURM jobs with the groups of ``profiles/slurm``, and without groups."""
    jobs = sum(row.jobs for row in rows)
    chain = [row.jobs for row in rows if row.rule in SCAN_CHAIN]
    return jobs - sum(chain) + math.ceil(max(chain, default=0) / GROUP_SIZE), jobs


def describe_plan(plan: Plan) -> str:
    """The estimate of a plan as text, see :func:`describe_estimate`."""
    scans = sum(len(cohort.scans) for cohort in plan.cohorts.values())
    return describe_estimate(scans, _rows_of(plan))


def describe_estimate(scans: int, rows: Sequence[Row]) -> str:
    """The estimate for a number of scans as text: a table, totals, and numbers of jobs."""
    columns = list(zip(*(vars(row).values() for row in rows), strict=True))
    total = Row("total", *map(sum, columns[1:]))
    cells = [["rule", "jobs", "CPU hours", "GPU hours", "disk, GB"]]
    for row in (*rows, total):
        gpu = f"{row.gpu_h:,.2f}" if row.gpu_h else "-"
        disk = f"{row.kept_gb + row.passing_gb:,.2f}"
        cells.append([row.rule, f"{row.jobs:,}", f"{row.cpu_h:,.2f}", gpu, disk])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [f"{scans:,} scans, the whole run:", ""]
    for name, *numbers in cells:
        padded = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]))
    lines += ["", f"Without a GPU:  {total.cpu_h:,.1f} CPU hours."]
    if total.gpu_h:
        beside = sum(row.cpu_h for row in rows if not row.gpu_h)
        lines.append(
            f"With GPUs:      {beside:,.1f} CPU hours and {total.gpu_h:,.1f} GPU hours, if one "
            f"does the work of {CORES_PER_GPU} cores (assumed, not measured)."
        )
    lines.append(f"Disk:           {total.kept_gb:,.1f} GB stay.")
    if total.passing_gb:
        lines[-1] += f" Up to {total.passing_gb:,.1f} GB more are removed on the way."
    grouped, single = count_submissions(rows)
    lines += [
        f"On SLURM:       {grouped:,} jobs through profiles/slurm, {single:,} without its groups.",
        "",
        "From the beginning; what is there is not made again (snakemake -n counts what is left).",
        f"CPU hours, memory and bytes are as measured in {COSTS.name}, see docs/scale.md.",
    ]
    return "\n".join(lines)


def read_costs(path: Path = COSTS) -> dict[str, Any]:
    """The measured costs."""
    return json.loads(path.read_text(encoding="utf-8"))
