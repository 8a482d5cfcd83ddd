"""The splits of every cohort and task into training and test scans."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from voxplain.cohort.scan import class_in
from voxplain.cohort.splits import Split, make_external, make_fixed, make_folds
from voxplain.faults import SetupFault
from voxplain_workflow.naming import naming
from voxplain_workflow.planning.cohorts import Cohort

# Parameters of the library's splits to the configuration keys of their values.
_KEYS = {
    "folds": "splits.folds",
    "stratify": "splits.stratify",
    "seed": "splits.seed",
    "test_patients": "splits.fixed_test_patients",
    "draw": "splits.fixed_draw",
}
_HINTS = {
    "heads": "splits.group_by is head: set splits.group_by to patient to divide the patients of "
    "one of simulation.heads"
}


def split_cohort(
    cohort: Cohort,
    cohorts: Mapping[str, Cohort],
    classes: Sequence[str],
    settings: Mapping[str, Any],
) -> dict[str, Split]:
    """Name to split of a cohort for one task: folds, fixed split, tests on other cohorts.

    Parameters
    ----------
    cohort
        Cohort of the training scans.
    cohorts
        All cohorts by name, for external tests.
    classes
        Classes of the task, the disease first.
    settings
        The section ``splits``.

    Raises
    ------
    SetupFault
        The cohort cannot be split with these settings.
    """
    by_head = settings["group_by"] == "head"
    scans = list(cohort.scans.values())
    shared: dict[str, Any] = {"scans": scans, "classes": classes, "seed": settings["seed"]}
    shared["heads"] = _heads(cohort) if by_head else None
    with naming(_KEYS, _HINTS):
        splits = make_folds(
            **shared, **{key: settings[key] for key in ("folds", "repeats", "stratify")}
        )
        draw = settings["fixed_draw"]
        if draw == "as_published":
            shared["seed"] = 0
        fixed = make_fixed(**shared, test_patients=settings["fixed_test_patients"], draw=draw)
    splits.append(fixed)
    for place, pair in enumerate(settings["external"]):
        if pair["train"] == cohort.name:
            other = cohorts[pair["test"]]
            _check_other_people(cohort, other)
            heads = (_heads(cohort), _heads(other)) if by_head else None
            test_scans = list(other.scans.values())
            where = f"splits.external.{place}"
            with naming({"training": f"{where}.train", "testing": f"{where}.test"}, _HINTS):
                splits.append(make_external(scans, test_scans, classes, other.name, heads))
    return {split.name: split for split in splits}


def _heads(cohort: Cohort) -> dict[str, str]:
    """Patient to head, for splits by head; refuses cohorts whose heads are unknown."""
    if not cohort.simulated:
        raise SetupFault(
            f"config: splits.group_by is head, but of the scans of cohort {cohort.name} no head is "
            "known; allowed for scans that are not simulated: patient"
        )
    return cohort.heads_of_patients


def _check_other_people(*cohorts: Cohort) -> None:
    """Refuse an external test on the people of the training cohort under other numbers."""
    seeds = {c.settings["simulation"]["seed"] for c in cohorts if c.simulated}
    if all(cohort.simulated for cohort in cohorts) and len(seeds) == 1:
        raise SetupFault(
            f"config: cohorts {' and '.join(c.name for c in cohorts)} have the same "
            f"simulation.seed ({seeds.pop()}), so that their patients are the same people, "
            "whatever their numbers are; for a test on others give each cohort a seed of its own"
        )


def choose_first(split: Split, cohort: Cohort, classes: Sequence[str], count: int) -> list[str]:
    """The first ``count`` test scans of a split, from the classes in turn.

    The first scans of all patients come before the second ones.

    Parameters
    ----------
    cohort
        Cohort of the test scans.
    """
    of_patients: dict[str, list[str]] = {}
    for image in split.test:
        of_patients.setdefault(cohort.scans[image].patient, []).append(image)
    of_classes: dict[str, list[str]] = {group: [] for group in classes}
    for image in _in_turn(of_patients.values()):
        of_classes[class_in(cohort.scans[image], classes)].append(image)
    return list(_in_turn(of_classes.values()))[:count]


def _in_turn(lists: Iterable[Sequence[str]]) -> Iterator[str]:
    """The first of each list, then the second of each, and so on."""
    for turn in itertools.zip_longest(*lists):
        yield from (item for item in turn if item is not None)


def chunked(images: Sequence[str], size: int) -> list[list[str]]:
    """Scans in chunks; each chunk is processed by one job."""
    return [list(images[start : start + size]) for start in range(0, len(images), size)]


def chunk_numbers(
    images: Sequence[str], size: int, holding: Iterable[str] | None = None
) -> list[int]:
    """Numbers of the chunks, from 1; with ``holding``, only of chunks with any of these scans."""
    chunks = enumerate(chunked(images, size), start=1)
    if holding is None:
        return [number for number, _ in chunks]
    wanted = set(holding)
    return [number for number, chunk in chunks if wanted.intersection(chunk)]
