"""Selection of the scans of a table: by visit, phase, field strength, sex, age, or first scan.

Only the standard library is needed, see :mod:`voxplain.cohort.scans`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from voxplain.cohort.demographics import read_age, read_sex, read_tesla
from voxplain.cohort.scan import Scan
from voxplain.cohort.visits import visit_month
from voxplain.cohort.words import plain
from voxplain.faults import Fate, ParameterFault

# Default of every key of `select`: all scans are selected.
EVERYTHING: dict[str, Any] = {
    "visits": [],
    "phases": [],
    "field_strengths": [],
    "description": "",
    "not_description": "",
    "sex": "any",
    "age": [0, 150],
    "keep": "all",
}
# Key to the table column that it needs.
_COLUMNS = {
    "visits": "visit",
    "phases": "phase",
    "field_strengths": "field_strength",
    "description": "description",
    "not_description": "description",
    "sex": "sex",
    "age": "age",
}
_SEXES = {"female": 0, "male": 1}
# The header of a 3 T scanner may state 2.89 T.
_TESLA_APART = 0.25


def columns_for(select: Mapping[str, Any]) -> list[str]:
    """Columns that a selection needs: keys of :data:`voxplain.cohort.scans.COLUMN_NAMES`."""
    columns = (name for key, name in _COLUMNS.items() if select[key] != EVERYTHING[key])
    return list(dict.fromkeys(columns))


def select_scans(scans: Sequence[Scan], select: Mapping[str, Any]) -> list[Scan]:
    """The scans; those that are not selected have the fate ``unused``.

    Nothing is guessed: a scan without a value that the selection needs is not selected. A scan that
    already has a fate keeps it, and is never the first scan of a patient or visit.

    Parameters
    ----------
    scans
        In the order of the table.
    select
        ``visits`` (words or session labels), ``phases``, ``field_strengths`` (tesla),
        ``description`` and ``not_description`` (regular expressions, searched for in any case),
        ``sex`` (``any``, ``female``, ``male``), ``age`` (least and greatest, in years), and
        ``keep``: ``all``, ``first_of_visit`` or ``first_of_patient``, by date, then by visit, then
        by image id. A key with its value of :data:`EVERYTHING` excludes no scan.

    Raises
    ------
    ParameterFault
        A regular expression is invalid, or the greatest age is less than the least.
    """
    checks = _checks(select)
    chosen = []
    for scan in scans:
        reason = "" if scan.fate else next(filter(None, (check(scan) for check in checks)), "")
        chosen.append(replace(scan, fate=Fate("unused", "table", reason)) if reason else scan)
    return _first_of_several(chosen, select["keep"])


def _checks(select: Mapping[str, Any]) -> list[Callable[[Scan], str]]:
    """The checks of a selection; each returns why a scan is left out, or an empty string."""
    checks: list[Callable[[Scan], str]] = []
    if wanted := {plain(visit): visit for visit in select["visits"]}:

        def of_visit(scan: Scan) -> str:
            visits = {plain(scan.visit), plain(scan.session)}
            listing = ", ".join(wanted.values())
            return (
                ""
                if visits & set(wanted)
                else f"its visit {_quoted(scan.visit)} is none of {listing}"
            )

        checks.append(of_visit)
    if phases := {plain(phase): phase for phase in select["phases"]}:

        def of_phase(scan: Scan) -> str:
            listing = ", ".join(phases.values())
            return (
                ""
                if plain(scan.phase) in phases
                else f"its phase {_quoted(scan.phase)} is none of {listing}"
            )

        checks.append(of_phase)
    if strengths := select["field_strengths"]:

        def of_strength(scan: Scan) -> str:
            tesla = read_tesla(scan.field_strength)
            if tesla is not None and any(abs(tesla - t) <= _TESLA_APART for t in strengths):
                return ""
            listing = ", ".join(f"{strength:g}" for strength in strengths)
            return f"its field strength {_quoted(scan.field_strength)} is none of {listing} T"

        checks.append(of_strength)
    if select["description"]:
        pattern = _compiled(select, "description")
        checks.append(
            lambda scan: (
                ""
                if pattern.search(scan.description)
                else f"its description {_quoted(scan.description)} is not like {pattern.pattern!r}"
            )
        )
    if select["not_description"]:
        refused = _compiled(select, "not_description")
        checks.append(
            lambda scan: (
                f"its description {_quoted(scan.description)} is like {refused.pattern!r}"
                if refused.search(scan.description)
                else ""
            )
        )
    if select["sex"] != "any":
        checks.append(
            lambda scan: (
                ""
                if read_sex(scan.sex) == _SEXES[select["sex"]]
                else f"its sex {_quoted(scan.sex)} is not {select['sex']}"
            )
        )
    if select["age"] != EVERYTHING["age"]:
        checks.append(_check_of_age(*select["age"]))
    return checks


def _check_of_age(least: float, greatest: float) -> Callable[[Scan], str]:
    if greatest < least:
        raise ParameterFault(
            "select.age",
            f"is [{least:g}, {greatest:g}]; expected the least age, then the greatest",
        )

    def of_age(scan: Scan) -> str:
        age = read_age(scan.age)
        if age is not None and least <= age <= greatest:
            return ""
        return f"its age {_quoted(scan.age)} is not one from {least:g} to {greatest:g}"

    return of_age


def _compiled(select: Mapping[str, Any], key: str) -> re.Pattern[str]:
    try:
        return re.compile(select[key], re.IGNORECASE)
    except re.error as error:
        raise ParameterFault(
            f"select.{key}",
            f"is {select[key]!r}, which is no regular expression ({error}); put a backslash before "
            "characters that stand for themselves",
        ) from None


def _first_of_several(scans: Sequence[Scan], keep: str) -> list[Scan]:
    """The scans; those that are not the first of their patient, or of their visit, are unused."""
    if keep == "all":
        return list(scans)
    whole = keep == "first_of_patient"
    what = "patient's first scan" if whole else "first scan of that visit"
    keys = [(scan.patient, "" if whole else scan.session) for scan in scans]
    first: dict[tuple[str, str], Scan] = {}
    for key, scan in zip(keys, scans, strict=True):
        if scan.fate is None:
            first[key] = min(first.get(key, scan), scan, key=_place_in_time)
    chosen = []
    for key, scan in zip(keys, scans, strict=True):
        if scan.fate is None and first[key] is not scan:
            reason = f"image {first[key].image} is the {what} (select.keep)"
            scan = replace(scan, fate=Fate("unused", "table", reason))
        chosen.append(scan)
    return chosen


def _place_in_time(scan: Scan) -> tuple[str, int, list[int], str]:
    """Sort key: the date or, without one, the month of the visit; then the image id as numbers."""
    month = visit_month(scan.session)
    counted = [int(digits) for digits in re.findall(r"\d+", scan.image)]
    return scan.date or "9999", 10**6 if month is None else month, counted, scan.image


def _quoted(value: str) -> str:
    return repr(value) if value else "(not in the table)"
