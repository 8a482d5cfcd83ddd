"""Demographics of a cohort's table, and unusual findings in it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from voxplain.cohort.demographics import Person, read_age, read_sex, read_tesla
from voxplain.cohort.names import patient_of
from voxplain.tables import MISSING

Row = Mapping[str, str]
# Of one scan: age in years, and 1 for men, 0 for women; None if the table has no such value.
AgeAndSex = tuple[float | None, int | None]
# Largest number of names in a cell; the rest is only counted.
MOST_NAMED = 20
UNKNOWN = "unknown"


def describe_people(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Numbers of scans and patients, sex and age of every group, before and after processing.

    Parameters
    ----------
    rows
        Rows of the cohort's table (``scans.tsv``).

    Returns
    -------
    One row for each group of the table (``which`` is ``table``) and of its usable scans
    (``usable``): ``scans``, ``patients``, the numbers of ``female`` and ``male`` patients, and
    their age in years at the first scan (``age_mean``, ``age_sd``, ``age_min``, ``age_max``; n/a if
    no age is known). A patient whose group changes counts in each group; a row that repeats the
    image of another row is not counted.
    """
    summary = []
    rows = [row for row in rows if row["fate"] != "duplicate"]
    for which in ("table", "usable"):
        groups: dict[str, list[Row]] = {}
        for row in rows:
            if which == "table" or row["fate"] == which:
                groups.setdefault(UNKNOWN if row["group"] == MISSING else row["group"], []).append(
                    row
                )
        for group in sorted(groups, key=lambda name: (name == UNKNOWN, name)):
            summary.append({"which": which, "group": group, **_count_people(groups[group])})
    return summary


def _count_people(rows: Iterable[Row]) -> dict[str, Any]:
    people: dict[str, list[AgeAndSex]] = {}
    for row in rows:
        age_and_sex = read_age(row["age"]), read_sex(row["sex"])
        people.setdefault(patient_of(row["subject"]), []).append(age_and_sex)
    counts = {"scans": sum(map(len, people.values())), "patients": len(people)}
    return counts | _describe_patients(people.values())


def _describe_patients(people: Iterable[Sequence[AgeAndSex]]) -> dict[str, Any]:
    """Sex, and age at the first scan, of patients; each patient is a list of scans."""
    people = list(people)
    sexes = [_of_person(male for _, male in scans) for scans in people]
    ages = [[age for age, _ in scans if age is not None] for scans in people]
    counts = {"female": sexes.count(0), "male": sexes.count(1)}
    return counts | describe_ages([min(of_person) for of_person in ages if of_person])


def describe_members(
    members: Iterable[Mapping[str, str]],
    people: Iterable[Person],
) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Sex and age of the patients of each class on both sides of every split.

    Parameters
    ----------
    members
        Rows with ``split``, ``side``, ``cohort``, ``image``, ``patient`` and ``class``, one for
        each scan.
    people
        Age and sex at every scan.

    Returns
    -------
    Split, side and class to ``female``, ``male`` and the ages at the first scan on that side, see
    :func:`describe_ages`.
    """
    known = {(person.cohort, person.image): (person.age, person.male) for person in people}
    sides: dict[tuple[str, str, str], dict[str, list[AgeAndSex]]] = {}
    for row in members:
        of_side = sides.setdefault((row["split"], row["side"], row["class"]), {})
        of_side.setdefault(row["patient"], []).append(known[row["cohort"], row["image"]])
    return {side: _describe_patients(patients.values()) for side, patients in sides.items()}


def describe_ages(ages: Sequence[float]) -> dict[str, Any]:
    """Mean, SD (of the sample), minimum and maximum of ages in years; n/a without ages."""
    if not ages:
        return dict.fromkeys(("age_mean", "age_sd", "age_min", "age_max"), MISSING)
    return {
        "age_mean": round(statistics.fmean(ages), 2),
        "age_sd": round(statistics.stdev(ages), 2) if len(ages) > 1 else MISSING,
        "age_min": min(ages),
        "age_max": max(ages),
    }


def _of_person(values: Iterable[int | None]) -> int | None:
    """The value that all scans of a person agree on; None if unknown or contradictory."""
    known = {value for value in values if value is not None}
    return known.pop() if len(known) == 1 else None


def find_oddities(rows: Sequence[Row], unlisted: Sequence[str]) -> list[dict[str, Any]]:
    """Numbers of unusual findings in a table; they are reported, not corrected.

    Parameters
    ----------
    rows
        Rows of the cohort's table (``scans.tsv``).
    unlisted
        Images in the folders that are not in the table.

    Returns
    -------
    One row for each kind of finding, also with a count of 0: ``finding``, ``count``, and ``which``,
    the names of the first :data:`MOST_NAMED`.
    """
    scans = [row for row in rows if row["fate"] != "duplicate"]
    people: dict[str, list[Row]] = {}
    visits: dict[tuple[str, str], list[Row]] = {}
    for row in scans:
        patient = patient_of(row["subject"])
        people.setdefault(patient, []).append(row)
        visits.setdefault((patient, row["session"]), []).append(row)
    groups_of = {
        name: {row["group"] for row in lines} - {MISSING} for name, lines in people.items()
    }
    teslas_of = {
        name: {read_tesla(row["field_strength"]) for row in lines} - {None}
        for name, lines in people.items()
    }
    sexes_of = {
        name: {read_sex(row["sex"]) for row in lines} - {None} for name, lines in people.items()
    }
    findings = {
        "patients with several diagnoses": [
            f"{name} ({', '.join(sorted(groups))})"
            for name, groups in groups_of.items()
            if len(groups) > 1
        ],
        "patients at several field strengths": [
            f"{name} ({', '.join(f'{t:g}' for t in sorted(teslas))} T)"
            for name, teslas in teslas_of.items()
            if teslas and max(teslas) - min(teslas) > 1
        ],
        "patients of both sexes": [name for name, both in sexes_of.items() if len(both) > 1],
        "visits with several scans": [
            f"{lines[0]['subject']} {session} ({len(lines)})"
            for (_, session), lines in visits.items()
            if len(lines) > 1
        ],
        "lines that name an image again": [
            row["image"] for row in rows if row["fate"] == "duplicate"
        ],
        "images of the table that are not there": [
            row["image"] for row in rows if row["stage"] == "find"
        ],
        "images that the table does not name": list(unlisted),
        "scans whose conversion took a choice or filled slices": [
            f"{row['image']} ({row['conversion']})" for row in scans if row["conversion"] != MISSING
        ],
        "scans that needed more than the skull tool as it is": [
            f"{row['image']} ({row['skull_rung']}, {row['group']})"
            for row in scans
            if row["skull_rung"] not in (MISSING, "plain")
        ],
        "lines with an unknown diagnosis": [
            f"{row['image']} ({row['diagnosis']})" for row in scans if row["group"] == MISSING
        ],
    }
    return [
        {"finding": finding, "count": len(names), "which": _named(names)}
        for finding, names in findings.items()
    ]


def _named(names: Sequence[str]) -> str:
    listing = ", ".join(names[:MOST_NAMED])
    more = len(names) - MOST_NAMED
    return f"{listing}, and {more} more" if more > 0 else listing or MISSING
