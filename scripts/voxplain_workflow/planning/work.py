"""The work of each rule in a run: jobs, units of work, files.

Jobs are counted from the runs of a plan, like targets. The cost of a unit was measured, see
:mod:`voxplain_workflow.running.estimate`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from voxplain.cohort.demographics import AREAS as OF_AREAS
from voxplain.models import MODELS
from voxplain.relevance import METHODS
from voxplain_workflow.planning import layout
from voxplain_workflow.planning.cohorts import PACKAGED_HEAD, Cohort
from voxplain_workflow.planning.methods import SUMMARY
from voxplain_workflow.planning.runs import NetworkRun, Runs, TaskRun

if TYPE_CHECKING:
    from voxplain_workflow.planning.plan import Plan

# Rules whose jobs profiles/slurm submits in groups.
SCAN_CHAIN = (
    "simulate_scan",
    "convert_series",
    "strip_skull",
    "correct_intensity",
    "register_to_template",
    "assess_quality",
    "draw_quality",
)
# Cost of a gradient in forward passes; a step of training costs the same.
GRADIENT = METHODS["sensitivity"].passes
# Factors of training costs: only for rieke the background of scans is computed once, which halves
# the cost.
_CROPPED = {"rieke": 1.0}
_UNCROPPED = 2.0
# Forward passes for one occluded region, since only the changed part is recomputed: for rieke at
# 1 mm and the default settings (measured by `benchmarks/occlusion.py`).
PASSES_OF_REGION = {
    "occlusion": 1 / 280,
    "area_occlusion": 1 / 150,
    "voxel_occlusion": 1 / 4800,
    "sa_ucm": 1 / 5.6,
}
# Distinct segments of a hierarchy, per finest segment.
_SEGMENTS_OF_HIERARCHY = 2.0
# Forward passes of an occlusion before its first region: for the probability of the scan, its
# activations, and a check with the scan and one region in full.
PASSES_OF_START = 4
# The template at 1 mm: its grid, the voxels of its brain, and the bounding box of the brain.
GRID = (193, 229, 193)
BRAIN_VOXELS = 1_886_574
BRAIN = ((24, 169), (24, 206), (6, 161))
AREAS = 116  # of AAL


class Work(NamedTuple):
    """A rule's share of a run.

    Attributes
    ----------
    jobs
        Number of jobs.
    units
        Number of units for which the cost was measured: scans, passes through a network.
    files
        Number of units for which the disk space was measured.
    """

    jobs: int
    units: float
    files: int


def count_work(plan: Plan) -> dict[str, Work]:
    """Rule to its work in a whole run, without rules that have no job."""
    totals: dict[str, Work] = {}
    for rule, work in _shares(plan):
        before = totals.get(rule, Work(0, 0, 0))
        totals[rule] = Work(*(a + b for a, b in zip(before, work, strict=True)))
    return {rule: work for rule, work in totals.items() if work.jobs}


def count_cubes(size_mm: float, stride_mm: float, resolution_mm: float) -> int:
    """Number of positions of the occlusion cube that overlap the brain, taken as an ellipsoid.

    The ellipsoid fills the bounding box of the brain. The number is slightly larger than on the
    real mask (`voxplain.relevance.occlusion`), for small cubes by a fifth.
    """
    size, stride = (max(1, round(edge / resolution_mm)) for edge in (size_mm, stride_mm))
    # Squared distance of the cube's nearest point from the centre, in half axes, for each axis.
    far: list[list[float]] = []
    for n, box in zip(GRID, BRAIN, strict=True):
        start, end = (edge / resolution_mm for edge in box)
        middle, half = (start + end) / 2, (end - start) / 2
        firsts = [centre - size // 2 for centre in range(0, math.ceil(n / resolution_mm), stride)]
        gaps = [max(first - middle, middle - first - size, 0) / half for first in firsts]
        far.append(sorted(gap**2 for gap in gaps))
    return sum(bisect_right(far[2], 1 - x - y) for x in far[0] for y in far[1])


def count_regions(settings: Mapping[str, Any]) -> dict[str, int]:
    """Method to the number of regions that it occludes in one scan, with completed settings."""
    cube, resolution_mm = settings["occlusion"], settings["resolution_mm"]
    return {
        "occlusion": count_cubes(cube["size_mm"], cube["stride_mm"], resolution_mm),
        "area_occlusion": AREAS,
        "voxel_occlusion": round(
            BRAIN_VOXELS / (resolution_mm * settings["voxel_occlusion"]["stride_voxels"]) ** 3
        ),
        "sa_ucm": round(_SEGMENTS_OF_HIERARCHY * settings["sa_ucm"]["most_segments"]),
    }


def count_passes(regions: Mapping[str, int], settings: Mapping[str, Any]) -> dict[str, float]:
    """Method to the forward passes through the network for the heatmap of one scan.

    Parameters
    ----------
    regions
        Method to number of regions, from :func:`count_regions`.
    settings
        Completed settings.
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


def _of(jobs: int, units: float | None = None, files: int | None = None) -> Work:
    """Work of a number of jobs; by default with one unit, and the files of one, per job."""
    return Work(jobs, jobs if units is None else units, jobs if files is None else files)


def _shares(plan: Plan) -> Iterator[tuple[str, Work]]:
    """Rules and shares of their work, in the order of the run."""
    runs = plan.runs
    yield "make_template", _of(1)
    yield "make_atlas", _of(1 if runs.explained or _measuring(runs) else 0)
    yield "make_regions", _of(1 if runs.explained else 0)
    passes = count_passes(count_regions(plan.settings), plan.settings)
    for cohort in plan.cohorts.values():
        yield from _of_scans(cohort, len(runs.twinned.get(cohort.name, ())))
        for task in runs.tasks:
            if task.cohort is cohort:
                networks = [network for network in runs.networks if network.of_task is task]
                yield from _of_task(task, any(network.methods for network in networks))
                for network in networks:
                    yield from _of_network(network, plan)
                    yield from _of_heatmaps(network, plan, passes)
    yield "summarise_networks", _of(1 if runs.networks else 0)
    yield "report_results", _of(1)
    yield "show_heatmaps", _of(1 if runs.explained else 0)
    yield "report_trust", _of(1 if runs.explained else 0)


def _measuring(runs: Runs) -> list[TaskRun]:
    """The tasks with a baseline that needs the areas of scans."""
    return [task for task in runs.tasks if OF_AREAS in task.baselines]


def _of_scans(cohort: Cohort, twins: int) -> Iterator[tuple[str, Work]]:
    n = len(cohort.scans) + twins
    if cohort.simulated:
        heads = {cohort.planned[image].head for image in cohort.scans}
        user_heads = len(heads - {PACKAGED_HEAD})
        yield "build_head", _of(len(heads) - user_heads)
        yield "strip_head", _of(user_heads)
        yield "register_head", _of(user_heads)
        yield "write_scan_table", _of(1)
        yield "simulate_scan", _of(n)
        yield "check_simulation", _of(1)
    yield "choose_skull_tool", _of(1)
    for rule in SCAN_CHAIN[1:-1]:
        yield rule, _of(n)
    yield "draw_quality", _of(len(cohort.scans))  # not of twins
    yield "carry_truth", _of(sum(map(cohort.has_truth, cohort.scans)))
    yield "measure_residual", _of(twins)
    for rule in ("collect_scans", "check_scans", "show_quality"):
        yield rule, _of(1)


def _of_task(task: TaskRun, is_explained: bool) -> Iterator[tuple[str, Work]]:
    splits = len(task.splits)
    yield "audit_split", _of(splits)
    yield "report_splits", _of(1)
    yield "fit_statistics", _of(splits, sum(len(split.train) for split in task.splits))
    if OF_AREAS in task.baselines:
        yield "measure_areas", _of(1, len(task.people))
    yield "fit_baseline", _of(len(task.baselines), len(task.baselines) * splits)
    if is_explained:
        explained = task.explained
        yield "map_group_difference", _of(len(explained), sum(len(s.train) for s in explained))
        tested = sum(len(split.test) for split in explained)
        yield "localise_difference", _of(len(explained), tested, len(explained))


def _of_network(network: NetworkRun, plan: Plan) -> Iterator[tuple[str, Work]]:
    splits, seeds, name = network.of_task.splits, len(network.seeds), network.model
    steps = sum(GRADIENT * len(split.train) + len(split.test) for split in splits)
    passes = MODELS[name].passes * _CROPPED.get(name, _UNCROPPED)
    passes *= plan.networks[name].recipe["epochs"]
    trainings = seeds * len(splits)
    yield "train_network", _of(trainings, seeds * passes * steps)
    yield "evaluate_network", _of(trainings)
    yield "write_events", _of(trainings * plan.settings["training"]["tensorboard"])
    yield "evaluate_folds", _of(1)


def _of_heatmaps(
    network: NetworkRun, plan: Plan, passes: Mapping[str, float]
) -> Iterator[tuple[str, Work]]:
    """Work after the training of a network; units on the network are forward passes of rieke."""
    weight, methods = MODELS[network.model].passes, network.methods
    explaining = [method for method in methods if method != SUMMARY]
    of_scan = sum(passes[method] for method in explaining) * weight
    classes = len(network.of_task.classes)
    for run in plan.runs.explained:
        if run.network is not network:
            continue
        scans, chunks = len(run.split.test), len(plan.runs.chunks(run.split))
        maps = scans * len(methods)
        yield (
            "explain_scans",
            _of(len(explaining) * chunks, scans * of_scan, scans * len(explaining)),
        )
        if SUMMARY in methods:
            yield "combine_heatmaps", _of(chunks, scans * len(explaining))
        yield "average_heatmaps", _of(len(methods) * classes, maps)
        yield "tabulate_areas", _of(len(methods), maps)
        yield "compare_methods", _of(1)
        yield "localise_heatmaps", _of(len(methods), maps, len(methods))
        yield "compare_localisation", _of(1)
        yield "show_truth", _of(1 if run.with_truth else 0)
        if run.changed:
            orders = len(methods) + plan.settings["faithfulness"]["random_orders"]
            forward = len(run.changed) * 2 * plan.settings["faithfulness"]["steps"] * orders
            yield "change_areas", _of(1, forward * weight)
            yield "compare_faithfulness", _of(1)
        if run.forgetting:
            forward = sum(passes[method] for method in run.randomised) * weight
            units = len(run.forgetting) * MODELS[network.model].layers * forward
            yield "randomise_layers", _of(len(run.randomised), units)
            yield "compare_randomisation", _of(1)
    for several in network.several:
        splits = network.of_task.explained_folds if several == layout.OF_FOLDS else [several]
        read = len(network.seeds) * len(splits) * classes
        yield "compare_runs", _of(1, read * len(methods))
