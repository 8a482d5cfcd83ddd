"""Messages of a run on the terminal, before it begins and when it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from voxplain.cohort.demographics import AGE_SEX
from voxplain.cohort.fates import read_fates, summarise
from voxplain_workflow.planning import layout
from voxplain_workflow.running.summary import (
    summarise_applied,
    summarise_networks,
    summarise_run,
)

if TYPE_CHECKING:
    from voxplain_workflow.planning.cohorts import Cohort
    from voxplain_workflow.planning.plan import Plan

_PAGES = {
    layout.TRUST: "Which heatmap can be trusted, on one page",
    layout.VIEWER: "Heatmaps slice by slice",
    layout.REPORT: "All of this run, with its pictures",
}


def say(text: str) -> None:
    """Print a text on the terminal, unless it is empty."""
    if text:
        print(text, file=sys.stderr)


def describe_missing(plan: Plan) -> Iterator[str]:
    """Messages on the scans that cannot be processed, also if they are too many."""
    allowed = plan.settings["max_failed"]
    for cohort in plan.cohorts.values():
        lost = cohort.lost
        if not lost:
            continue
        wanted, first = len(lost) + len(cohort.scans), lost[0]
        reason = first.fate.reason if first.fate else ""
        text = (
            f"Cohort {cohort.name}: {len(lost)} of {wanted} scans cannot be processed; the first "
            f"is {first.image}: {reason} (all of them: scans.tsv)"
        )
        if len(lost) > allowed * wanted + 1e-9:
            text += (
                f". That is more than max_failed = {allowed:g} allows: the run will stop before "
                "any training"
            )
        yield text


def describe_results(plan: Plan, since: float = 0) -> Iterator[str]:
    """Messages on the fates of the scans, on the results, and on their files.

    Parameters
    ----------
    since
        Files older than this are left out; a failed run passes its start.
    """
    for cohort in plan.cohorts.values():
        yield _scans(cohort, since)
        yield _lost_twins(plan, cohort, since)
        yield from _networks(plan, cohort, since)
        if cohort.name in plan.settings["apply"]["cohorts"]:
            for network in plan.settings["apply"]["networks"]:
                place = layout.APPLIED.format(cohort=cohort.name, network=network)
                yield summarise_applied(Path(place), since)
    yield summarise_networks(Path(layout.SUMMARY), since)
    for page, what in _PAGES.items():
        if _is_new(Path(page), since):
            yield f"\n{what}: {page}"


def _scans(cohort: Cohort, since: float) -> str:
    folder = layout.COHORT.format(cohort=cohort.name)
    table = Path(folder) / "scans.tsv"
    if not _is_new(table, since):
        return ""
    return (
        f"\nCohort {cohort.name}: {summarise(read_fates(table))}\n"
        f"  table: {table}\n"
        f"  pictures of every scan: {folder}/quality.html"
    )


def _networks(plan: Plan, cohort: Cohort, since: float) -> Iterator[str]:
    if plan.fault:
        return
    for task in plan.runs.tasks:
        if task.cohort is not cohort:
            continue
        for model in task.models:
            place = Path(layout.NETWORK.format(**task.wildcards, model=model))
            yield summarise_run(place, [split.name for split in task.explained], since)
        wanted = AGE_SEX in plan.settings["evaluation"]["baselines"]
        if wanted and AGE_SEX not in task.baselines:
            yield (
                f"\nCohort {cohort.name}, {task.task}: no age or sex in the table, so no such "
                "baseline"
            )


def _lost_twins(plan: Plan, cohort: Cohort, since: float) -> str:
    """Message on scans without residual, since they or their healthy twins were lost."""
    images = set() if plan.fault else plan.runs.twinned.get(cohort.name, set())
    paths = [Path(path) for path in cohort.files(layout.RESIDUAL, sorted(images))]
    lost = [path for path in paths if _is_new(path, since) and path.stat().st_size == 0]
    if not lost:
        return ""
    sidecars = [f"  {path.with_suffix('').with_suffix('.json')}" for path in lost]
    return "\n".join(
        [
            f"\nCohort {cohort.name}: of {len(lost)} scans no residual could be measured, see",
            *sidecars,
        ]
    )


def _is_new(path: Path, since: float) -> bool:
    return path.is_file() and path.stat().st_mtime >= since
