"""Who is in a cohort's table, and what a reader of it should know."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from voxplain.cohort.demographics import read_age, read_sex, read_tesla
from voxplain.cohort.names import patient_of
from voxplain.tables import MISSING

Row = Mapping[str, str]
# Of one scan: years, and 1 for men, 0 for women; None where the table says neither.
AgeAndSex = tuple[float | None, int | None]
# So many are named; of the others only the number.
MOST_NAMED = 20
UNKNOWN = "unknown"


def describe_people(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Scans and patients of every group, with sex and age, before and after processing.

    Parameters
    ----------
    rows
        Of the cohort's table (``scans.tsv``).

    Returns
    -------
    One row for each group of the table (``which`` is ``table``) and of its usable scans
    (``usable``): ``scans``, ``patients``, of these ``female`` and ``male``, and their age in years
    at their first scan (``age_mean``, ``age_sd``, ``age_min``, ``age_max``, n/a where no age is
    known). A patient whose group changes counts in each; a line that repeats another's image in
    none.
    """
    told = []
    rows = [row for row in rows if row["fate"] != "duplicate"]
    for which in ("table", "usable"):
        groups: dict[str, list[Row]] = {}
        for row in rows:
            if which == "table" or row["fate"] == which:
                groups.setdefault(UNKNOWN if row["group"] == MISSING else row["group"], []).append(
                    row
                )
        for group in sorted(groups, key=lambda name: (name == UNKNOWN, name)):
            told.append({"which": which, "group": group, **_count_people(groups[group])})
    return told


def _count_people(rows: Iterable[Row]) -> dict[str, Any]:
    people: dict[str, list[AgeAndSex]] = {}
    for row in rows:
        told = read_age(row["age"]), read_sex(row["sex"])
        people.setdefault(patient_of(row["subject"]), []).append(told)
    counts = {"scans": sum(map(len, people.values())), "patients": len(people)}
    return counts | _describe_patients(people.values())


def _describe_patients(people: Iterable[Sequence[AgeAndSex]]) -> dict[str, Any]:
    """Sex and age at the first scan of patients, each a list of their scans."""
    people = list(people)
    sexes = [_of_person(male for _, male in scans) for scans in people]
    ages = [[age for age, _ in scans if age is not None] for scans in people]
    counts = {"female": sexes.count(0), "male": sexes.count(1)}
    return counts | describe_ages([min(of_person) for of_person in ages if of_person])


def describe_members(
    members: Iterable[Mapping[str, str]],
    people: Iterable[tuple[str, str, float | None, int | None]],
) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Sex and age of the patients of each class on both sides of every split.

    Parameters
    ----------
    members
        Rows with ``split``, ``side``, ``cohort``, ``image``, ``patient`` and ``class``, one a scan.
    people
        Cohort and image of every scan, age in years, and 1 for men, 0 for women.

    Returns
    -------
    Split, side and class to ``female``, ``male`` and the ages at the first scan of that side, see
    :func:`describe_ages`.
    """
    known = {(cohort, image): (age, male) for cohort, image, age, male in people}
    sides: dict[tuple[str, str, str], dict[str, list[AgeAndSex]]] = {}
    for row in members:
        of_side = sides.setdefault((row["split"], row["side"], row["class"]), {})
        of_side.setdefault(row["patient"], []).append(known[row["cohort"], row["image"]])
    return {side: _describe_patients(own.values()) for side, own in sides.items()}


def describe_ages(ages: Sequence[float]) -> dict[str, Any]:
    """Mean, SD (of the sample), least and greatest of ages in years; n/a where there are none."""
    if not ages:
        return dict.fromkeys(("age_mean", "age_sd", "age_min", "age_max"), MISSING)
    return {
        "age_mean": round(statistics.fmean(ages), 2),
        "age_sd": round(statistics.stdev(ages), 2) if len(ages) > 1 else MISSING,
        "age_min": min(ages),
        "age_max": max(ages),
    }


def _of_person(values: Iterable[int | None]) -> int | None:
    """What all scans of a person agree on; None where they say nothing or contradict each other."""
    found = {value for value in values if value is not None}
    return found.pop() if len(found) == 1 else None


def find_oddities(rows: Sequence[Row], unlisted: Sequence[str]) -> list[dict[str, Any]]:
    """What is unusual about a table, counted; none of it is guessed away.

    Parameters
    ----------
    rows
        Of the cohort's table (``scans.tsv``).
    unlisted
        Images of the tree that the table does not name.

    Returns
    -------
    One row for each kind of finding, found or not: ``finding``, ``count``, and ``which``, the first
    :data:`MOST_NAMED` by name.
    """
    own = [row for row in rows if row["fate"] != "duplicate"]
    people: dict[str, list[Row]] = {}
    visits: dict[tuple[str, str], list[Row]] = {}
    for row in own:
        patient = patient_of(row["subject"])
        people.setdefault(patient, []).append(row)
        visits.setdefault((patient, row["session"]), []).append(row)
    several = {name: {row["group"] for row in of} - {MISSING} for name, of in people.items()}
    fields = {
        name: {read_tesla(row["field_strength"]) for row in of} - {None}
        for name, of in people.items()
    }
    sexes = {name: {read_sex(row["sex"]) for row in of} - {None} for name, of in people.items()}
    found = {
        "patients with several diagnoses": [
            f"{name} ({', '.join(sorted(groups))})"
            for name, groups in several.items()
            if len(groups) > 1
        ],
        "patients at several field strengths": [
            f"{name} ({', '.join(f'{t:g}' for t in sorted(teslas))} T)"
            for name, teslas in fields.items()
            if teslas and max(teslas) - min(teslas) > 1
        ],
        "patients of both sexes": [name for name, both in sexes.items() if len(both) > 1],
        "visits with several scans": [
            f"{of[0]['subject']} {session} ({len(of)})"
            for (_, session), of in visits.items()
            if len(of) > 1
        ],
        "lines that name an image again": [
            row["image"] for row in rows if row["fate"] == "duplicate"
        ],
        "images of the table that are not there": [
            row["image"] for row in rows if row["stage"] == "find"
        ],
        "images that the table does not name": list(unlisted),
        "scans that needed more than the skull tool as it is": [
            f"{row['image']} ({row['skull_rung']}, {row['group']})"
            for row in own
            if row["skull_rung"] not in (MISSING, "plain")
        ],
        "lines with an unknown diagnosis": [
            f"{row['image']} ({row['diagnosis']})" for row in own if row["group"] == MISSING
        ],
    }
    return [
        {"finding": finding, "count": len(names), "which": _named(names)}
        for finding, names in found.items()
    ]


def _named(names: Sequence[str]) -> str:
    told = ", ".join(names[:MOST_NAMED])
    more = len(names) - MOST_NAMED
    return f"{told}, and {more} more" if more > 0 else told or MISSING
