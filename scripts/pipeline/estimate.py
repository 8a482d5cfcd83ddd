"""What a run will cost, before anything runs: jobs, CPU and GPU hours, disk.

Jobs are counted from the cohort's size and the settings; what each costs was measured
(``benchmarks/costs.py`` writes ``costs.json`` from a real run at 1 mm; docs/scale.md says which
numbers are reckoned until then).
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxplain.models import MODELS
from voxplain.relevance import METHODS

COSTS = Path(__file__).with_name("costs.json")
# Files between a DICOM series and a brain in template space; see keep_intermediates.
INTERMEDIATE = re.compile(
    r"_acq-[A-Za-z0-9]+_(T1w\.nii\.gz|desc-brain_mask\.nii\.gz|desc-corrected_T1w\.nii\.gz"
    r"|from-T1w_to-\w+_mode-image_xfm\.h5)$"
)
# The chain that profiles/slurm sends to a cluster in groups.
SCAN_CHAIN = (
    "simulate_scan",
    "convert_series",
    "strip_skull",
    "correct_intensity",
    "register_to_template",
    "assess_quality",
)
# What is done on the template's grid costs as many times less as that has fewer voxels.
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
# Assumed, not measured: how many cores train and explain as fast as one GPU.
CORES_PER_GPU = 100
GROUP_SIZE = 10  # of profiles/slurm
# In forward passes; a step of training takes as many.
GRADIENT = METHODS["sensitivity"].passes
# Training computes the background of rieke's scans once, which saves it half; of no other's.
CROPPED = {"rieke": 1.0}
UNCROPPED = 2.0
# Forward passes that one region of an occlusion takes, where only what it changes is recomputed: of
# rieke at 1 mm, with the regions of the default settings (`benchmarks/occlusion.py` measures them).
PASSES_OF_REGION = {
    "occlusion": 1 / 280,
    "area_occlusion": 1 / 150,
    "voxel_occlusion": 1 / 4800,
    "sa_ucm": 1 / 5.6,
}
# A hierarchy's distinct segments, for each of its finest.
SEGMENTS_OF_HIERARCHY = 2.0
# What an occlusion takes before its first region: the scan's probability, its activations, and for
# a check the scan and one region in full.
PASSES_OF_START = 4
# The template, at 1 mm: its grid, its brain's voxels, and the brain's box.
GRID = (193, 229, 193)
BRAIN_VOXELS = 1_886_574
BRAIN = ((24, 169), (24, 206), (6, 161))
AREAS = 116  # of AAL


@dataclass(frozen=True)
class Work:
    """A rule's share of a run.

    Attributes
    ----------
    jobs
        Its jobs.
    units
        How often the work is done that its cost was measured for: scans, passes through a network.
    files
        How often it leaves the files that its disk was measured for; None: once a job.
    """

    jobs: int
    units: float
    files: int | None = None


@dataclass(frozen=True)
class ExplainedSplit:
    """How many of everything a split has whose test scans get heatmaps.

    Attributes
    ----------
    task
        Its name.
    train, test
        Scans on either side.
    diseased
        Test scans that were simulated with a disease.
    classes
        Those of its task.
    fold
        Whether it is a fold of a cross-validation.
    """

    task: str
    train: int
    test: int
    diseased: int
    classes: int
    fold: bool


@dataclass(frozen=True)
class CohortSize:
    """How many of everything a cohort has.

    Attributes
    ----------
    scans
        Those that are processed.
    simulated
        Whether their DICOM is made first.
    packaged_heads, own_heads
        Heads that a simulation is made from.
    tasks
        Those that it is trained for.
    splits
        Scans to train on and to test on, of each split of each task.
    explained
        The splits that get heatmaps.
    truths
        Scans whose true atrophy is carried to the template.
    twins
        Scans that are made once more without their disease.
    models
        The networks that are trained on it, by name.
    baselines
        Those that are fitted, of all its tasks.
    measured
        Scans whose areas a baseline reads, of each of its tasks with that baseline.
    """

    scans: int
    simulated: bool
    packaged_heads: int
    own_heads: int
    tasks: int
    splits: Sequence[tuple[int, int]]
    explained: Sequence[ExplainedSplit]
    truths: int
    twins: int
    models: Sequence[str]
    baselines: int
    measured: Sequence[int]


@dataclass(frozen=True)
class Row:
    """What a rule is estimated to take.

    Attributes
    ----------
    cpu_h
        CPU hours, without a GPU.
    gpu_h
        GPU hours, where there is one; 0 for a rule that uses none.
    kept_gb, passing_gb
        Disk for files that stay and for intermediate volumes, in 10^9 bytes.
    """

    rule: str
    jobs: int
    cpu_h: float
    gpu_h: float
    kept_gb: float
    passing_gb: float


def count_cubes(size_mm: float, stride_mm: float, resolution_mm: float) -> int:
    """Places of occlusion's cube where it meets the brain, as an ellipsoid in the brain's box.

    A few more than on the real mask (`voxplain.relevance.occlusion`), a fifth for small cubes.
    """
    size, stride = (max(1, round(edge / resolution_mm)) for edge in (size_mm, stride_mm))
    # Squared distances of the cube's nearest point from the centre, in half axes.
    far: list[list[float]] = []
    for n, box in zip(GRID, BRAIN, strict=True):
        start, end = (edge / resolution_mm for edge in box)
        middle, half = (start + end) / 2, (end - start) / 2
        firsts = [centre - size // 2 for centre in range(0, math.ceil(n / resolution_mm), stride)]
        gaps = [max(first - middle, middle - first - size, 0) / half for first in firsts]
        far.append(sorted(gap**2 for gap in gaps))
    return sum(bisect_right(far[2], 1 - x - y) for x in far[0] for y in far[1])


def count_regions(settings: Mapping[str, Any]) -> dict[str, int]:
    """Regions that a method occludes in one scan."""
    cube, resolution_mm = settings["occlusion"], settings["resolution_mm"]
    return {
        "occlusion": count_cubes(cube["size_mm"], cube["stride_mm"], resolution_mm),
        "area_occlusion": AREAS,
        "voxel_occlusion": round(
            BRAIN_VOXELS / (resolution_mm * settings["voxel_occlusion"]["stride_voxels"]) ** 3
        ),
        "sa_ucm": round(SEGMENTS_OF_HIERARCHY * settings["sa_ucm"]["most_segments"]),
    }


def count_passes(regions: Mapping[str, int], settings: Mapping[str, Any]) -> dict[str, float]:
    """Forward passes through the network that a heatmap of one scan takes, by method.

    Parameters
    ----------
    regions
        Method to number of regions, as :func:`count_regions` gives them.
    settings
        Completed.
    """
    return {
        **{
            name: method.passes * (settings[name][method.per] if method.per else 1)
            for name, method in METHODS.items()
            if method.passes is not None
        },
        **{
            method: PASSES_OF_START + count * PASSES_OF_REGION[method]
            for method, count in regions.items()
        },
    }


def count_work(cohort: CohortSize, settings: Mapping[str, Any]) -> Iterator[tuple[str, Work]]:
    """The work of one cohort under the completed settings, in the order of the run."""
    n = cohort.scans + cohort.twins
    if cohort.simulated:
        yield "build_head", Work(cohort.packaged_heads, cohort.packaged_heads)
        yield "strip_head", Work(cohort.own_heads, cohort.own_heads)
        yield "register_head", Work(cohort.own_heads, cohort.own_heads)
        yield "write_scan_table", Work(1, 1)
        yield "simulate_scan", Work(n, n)
        yield "check_simulation", Work(1, 1)
    yield "choose_skull_tool", Work(1, 1)
    for rule in SCAN_CHAIN[1:]:
        yield rule, Work(n, n)
    yield "carry_truth", Work(cohort.truths, cohort.truths)
    yield "measure_residual", Work(cohort.twins, cohort.twins)
    yield "collect_scans", Work(1, 1)
    yield "check_scans", Work(1, 1)
    yield "show_quality", Work(1, 1)
    if not cohort.splits:
        return
    splits = len(cohort.splits)
    models = {name: settings["models"][name] for name in cohort.models}
    seeds = len(settings["training"]["seeds"])
    yield "audit_split", Work(splits, splits)
    yield "report_splits", Work(cohort.tasks, cohort.tasks)
    yield "measure_areas", Work(len(cohort.measured), sum(cohort.measured))
    yield "fit_baseline", Work(cohort.baselines, cohort.baselines * splits / cohort.tasks)
    yield "fit_statistics", Work(splits, sum(train for train, _ in cohort.splits))
    steps = sum(GRADIENT * train + test for train, test in cohort.splits)
    passes_of_epochs = sum(
        MODELS[name].passes * CROPPED.get(name, UNCROPPED) * model["epochs"]
        for name, model in models.items()
    )
    trainings = seeds * splits * len(models)
    yield "train_network", Work(trainings, seeds * passes_of_epochs * steps)
    logged = trainings * settings["training"]["tensorboard"]
    yield "write_events", Work(logged, logged)
    yield "evaluate_folds", Work(cohort.tasks * len(models), cohort.tasks * len(models))
    yield from count_heatmaps(cohort, settings)


def count_heatmaps(cohort: CohortSize, settings: Mapping[str, Any]) -> Iterator[tuple[str, Work]]:
    """The work of one cohort that comes after its networks."""
    heatmaps, seeds = settings["heatmaps"], len(settings["training"]["seeds"])
    scans = sum(split.test for split in cohort.explained)
    chunks = sum(math.ceil(split.test / heatmaps["chunk_size"]) for split in cohort.explained)
    classes = sum(split.classes for split in cohort.explained)
    if any(settings["methods_of"][name] for name in cohort.models):
        training = sum(split.train for split in cohort.explained)
        yield "map_group_difference", Work(len(cohort.explained), training)
        yield "localise_difference", Work(len(cohort.explained), scans, len(cohort.explained))
    passes = count_passes(count_regions(settings), settings)
    for name in cohort.models:
        methods = settings["methods_of"][name]
        if not methods:
            continue
        looking = [method for method in methods if method != "summary"]
        units = seeds * scans * sum(passes[method] for method in looking) * MODELS[name].passes
        maps = seeds * scans * len(methods)
        yield (
            "explain_scans",
            Work(
                jobs=seeds * len(looking) * chunks, units=units, files=seeds * scans * len(looking)
            ),
        )
        if "summary" in methods:
            yield "combine_heatmaps", Work(seeds * chunks, seeds * scans * len(looking))
        yield "average_heatmaps", Work(seeds * len(methods) * classes, maps)
        averages = seeds * len(methods) * len(cohort.explained)
        yield "tabulate_areas", Work(averages, maps)
        pairs = seeds * len(cohort.explained)
        yield "compare_methods", Work(pairs, pairs)
        jobs, read = _count_compared(cohort.explained, seeds)
        yield "compare_runs", Work(jobs, read * len(methods))
        yield "localise_heatmaps", Work(averages, maps, averages)
        yield "compare_localisation", Work(pairs, pairs)
        shown = seeds * sum(split.diseased > 0 for split in cohort.explained)
        yield "show_truth", Work(shown, shown)
        yield from count_faithfulness(cohort, settings, name)


def count_faithfulness(
    cohort: CohortSize, settings: Mapping[str, Any], name: str
) -> Iterator[tuple[str, Work]]:
    """The work on one network's faithfulness, in forward passes of rieke."""
    told, seeds = settings["faithfulness"], len(settings["training"]["seeds"])
    methods, passes = settings["methods_of"][name], count_passes(count_regions(settings), settings)
    chosen = told["randomise"]
    remade = [
        method
        for method in methods
        if method != "summary" and (chosen == "all" or method in chosen)
    ]
    runs = seeds * len(cohort.explained)
    if told["scans"]:
        scans = seeds * sum(min(told["scans"], split.test) for split in cohort.explained)
        of_scan = 2 * told["steps"] * (len(methods) + told["random_orders"])
        yield "change_areas", Work(runs, scans * of_scan * MODELS[name].passes)
        yield "compare_faithfulness", Work(runs, runs)
    if told["randomised_scans"] and remade:
        scans = seeds * sum(min(told["randomised_scans"], split.test) for split in cohort.explained)
        of_scan = MODELS[name].layers * sum(passes[method] for method in remade)
        yield (
            "randomise_layers",
            Work(runs * len(remade), scans * of_scan * MODELS[name].passes),
        )
        yield "compare_randomisation", Work(runs, runs)


def _count_compared(explained: Sequence[ExplainedSplit], seeds: int) -> tuple[int, int]:
    """Tables over several networks, and the average maps of each method that they are made of."""
    over_seeds = explained if seeds > 1 else ()
    folds: dict[str, list[ExplainedSplit]] = {}
    for split in explained:
        if split.fold:
            folds.setdefault(split.task, []).append(split)
    over_folds = [of_task for of_task in folds.values() if len(of_task) > 1]
    read = [*over_seeds, *(split for of_task in over_folds for split in of_task)]
    return len(over_seeds) + len(over_folds), seeds * sum(split.classes for split in read)


def read_sizes(sizes: Sequence[Mapping[str, Any]]) -> list[CohortSize]:
    """Sizes of cohorts from plain values, as a job is given them."""
    return [
        CohortSize(
            **{**size, "explained": [ExplainedSplit(**split) for split in size["explained"]]}
        )
        for size in sizes
    ]


def estimate(
    cohorts: Sequence[CohortSize], settings: Mapping[str, Any], costs: Mapping[str, Any]
) -> list[Row]:
    """What every rule takes, under the completed settings, at costs as in ``costs.json``."""
    explains = any(cohort.explained for cohort in cohorts)
    trains = any(cohort.splits for cohort in cohorts)
    work: dict[str, list[Work]] = {
        "make_template": [Work(1, 1)],
        "make_atlas": [Work(explains or any(cohort.measured for cohort in cohorts), 1)],
        "make_regions": [Work(explains, 1)],
    }
    for cohort in cohorts:
        for rule, share in count_work(cohort, settings):
            work.setdefault(rule, []).append(share)
    work["summarise_networks"] = [Work(trains, 1)]
    work["report_results"] = [Work(1, 1)]
    work["show_heatmaps"] = [Work(explains and any(settings["methods_of"].values()), 1)]
    work["report_trust"] = [Work(explains and any(settings["methods_of"].values()), 1)]
    rows = []
    for rule, shares in work.items():
        jobs = sum(share.jobs for share in shares)
        if not jobs:
            continue
        cost = costs["rules"][rule]
        voxels = (costs["resolution_mm"] / settings["resolution_mm"]) ** 3
        scale = voxels if rule in ON_GRID else 1
        transform = settings["registration"]["transform"]
        slower = costs["transforms"][transform] if rule == "register_to_template" else 1
        own_s = sum(share.units for share in shares) * cost["cpu_s"] * scale * slower
        files = sum(share.jobs if share.files is None else share.files for share in shares)
        on_gpu = rule in GPU_RULES and settings["device"] != "cpu"
        kept, passing = (files * cost[key] * scale / 1e3 for key in ("kept_mb", "passing_mb"))
        if settings["keep_intermediates"]:
            kept, passing = kept + passing, 0.0
        if rule in ("explain_scans", "combine_heatmaps") and not settings["heatmaps"]["keep_scans"]:
            kept, passing = 0.0, kept
        rows.append(
            Row(
                rule=rule,
                jobs=jobs,
                cpu_h=(own_s + jobs * costs["start_s"]) / 3600,
                gpu_h=(own_s / CORES_PER_GPU + jobs * costs["start_s"]) / 3600 if on_gpu else 0.0,
                kept_gb=kept,
                passing_gb=passing,
            )
        )
    return rows


def count_submissions(rows: Sequence[Row]) -> tuple[int, int]:
    """How many jobs SLURM sees through ``profiles/slurm``, and without its groups."""
    jobs = sum(row.jobs for row in rows)
    chain = [row.jobs for row in rows if row.rule in SCAN_CHAIN]
    return jobs - sum(chain) + math.ceil(max(chain, default=0) / GROUP_SIZE), jobs


def describe_estimate(cohorts: Sequence[CohortSize], rows: Sequence[Row]) -> str:
    """The estimate as a table, and what follows from it."""
    columns = list(zip(*(vars(row).values() for row in rows), strict=True))
    total = Row("total", *map(sum, columns[1:]))
    cells = [["rule", "jobs", "CPU hours", "GPU hours", "disk, GB"]]
    for row in (*rows, total):
        gpu = f"{row.gpu_h:,.2f}" if row.gpu_h else "-"
        disk = f"{row.kept_gb + row.passing_gb:,.2f}"
        cells.append([row.rule, f"{row.jobs:,}", f"{row.cpu_h:,.2f}", gpu, disk])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [f"{sum(cohort.scans for cohort in cohorts):,} scans, the whole run:", ""]
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
