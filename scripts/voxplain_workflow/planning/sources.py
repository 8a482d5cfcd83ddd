"""Checks of a cohort's settings that its schema cannot make: its source, and its simulation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from voxplain.cohort.visits import visit_month

# The keys of a cohort that belong to some sources only.
_OF_SCANS = ("table", "images", "columns", "diagnosis_words", "images_are")
_KEYS_OF_SOURCE = {
    "simulated": {"required": (), "allowed": ("simulation",)},
    "adni": {"required": ("table", "images"), "allowed": _OF_SCANS},
    "bids": {"required": ("images",), "allowed": (*_OF_SCANS, "files")},
}
# Values of such a key that count as not set.
_UNSET = (None, {}, "", "heads", "auto")


def source_problems(name: str, cohort: Mapping[str, Any]) -> Iterator[str]:
    """One line for each key of a cohort that does not fit its source or its other keys.

    Values of a wrong type are left to the schema.
    """
    source = cohort.get("source")
    if not isinstance(source, str) or source not in _KEYS_OF_SOURCE:
        return
    for key in _KEYS_OF_SOURCE[source]["required"]:
        if not cohort.get(key):
            yield f"config: cohorts.{name}.{key} is missing; source {source} needs it"
    owners: dict[str, list[str]] = {}
    for other, keys in _KEYS_OF_SOURCE.items():
        for key in keys["allowed"]:
            owners.setdefault(key, []).append(other)
    for key, sources in owners.items():
        if source not in sources and cohort.get(key) not in _UNSET:
            allowed = " or ".join(sources)
            yield f"config: cohorts.{name}.{key} is for source {allowed}, not {source}; remove it"
    if source == "bids" and isinstance(cohort.get("images"), list):
        yield f"config: cohorts.{name}.images is a list; source bids takes one dataset's folder"
    if isinstance(cohort.get("simulation"), Mapping):
        yield from _simulation_problems(f"cohorts.{name}.simulation", cohort["simulation"])


def _simulation_problems(where: str, simulation: Mapping[str, Any]) -> Iterator[str]:
    """Messages on descending ranges, visits out of order, and effects that the preset excludes."""
    ranges = {"age": simulation.get("age")}
    ranges["scanner.voxel_size_mm"] = _get(simulation, "scanner", "voxel_size_mm")
    groups = simulation.get("groups")
    for group in groups if isinstance(groups, Mapping) else ():
        ranges[f"groups.{group}.severity"] = _get(groups, group, "severity")
    for key, pair in ranges.items():
        try:
            low, high = pair
            backwards = low > high
        except (TypeError, ValueError):
            continue  # the schema reports this value
        if backwards:
            yield f"config: {where}.{key} is {pair}; allowed: the lower number first"
    yield from _effect_problems(where, simulation)
    visits = simulation.get("visits")
    names = list(visits) if isinstance(visits, Mapping) else []
    if all(re.fullmatch(r"sc|bl|m\d{2,3}", visit) for visit in names):
        order = [visit_month(visit) for visit in names]
        if order != sorted(set(order)) or (names and order[0] != 0):
            yield (
                f"config: {where}.visits is {', '.join(names)}; allowed: sc or bl first, then "
                "months in their order"
            )


def _effect_problems(where: str, simulation: Mapping[str, Any]) -> Iterator[str]:
    """Messages on effects under the preset ``null``, and on a shortcut in no group."""
    groups, kind = simulation.get("groups"), _get(simulation, "shortcut", "kind")
    groups = groups if isinstance(groups, Mapping) else {}
    severities = [_get(groups, group, "severity") for group in groups]
    with_disease = simulation.get("preset") in ("hippocampal", "diffuse_cortex")
    if with_disease and severities and all(severity == [0, 0] for severity in severities):
        yield (
            f"config: {where}.preset is {simulation['preset']}, but nobody is ill: presets make "
            "group AD ill; give another group a severity above 0"
        )
    area = _get(simulation, "shortcut", "area")
    if isinstance(area, str) and not area.endswith(("_L", "_R")) and "Vermis" not in area:
        yield f"config: {where}.shortcut.area is {area}, on both sides; allowed: {area}_L, {area}_R"
    if simulation.get("preset") == "null":
        why = "the preset null has no effect at all; remove the key, or choose another preset"
        for group in groups:
            severity = _get(groups, group, "severity")
            if severity not in (None, [0, 0]):
                yield f"config: {where}.groups.{group}.severity is {severity}, but {why}"
        if kind not in (None, "none"):
            yield f"config: {where}.shortcut.kind is {kind!r}, but {why}"
    group = _get(simulation, "shortcut", "group")
    if not isinstance(group, str):
        return  # the schema reports this value
    converts = any(_get(groups, name, "converts") for name in groups)
    carried = group in groups or (group == "AD" and converts)
    if kind in ("mark", "scanner") and groups and not carried:
        yield (
            f"config: {where}.shortcut.group is {group!r}, which no scan of the cohort is; "
            f"allowed: {', '.join(groups)}"
        )


def _get(mapping: Mapping[str, Any], *keys: str) -> Any:
    value: Any = mapping
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
