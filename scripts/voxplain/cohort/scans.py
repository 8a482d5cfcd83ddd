"""From a table of scans and an archive's tree to one list of scans, each with what is known of it.

Only the standard library is needed: the list is made while the workflow is parsed, by every job
again. Folders are listed, no image file is opened.
"""

from __future__ import annotations

import datetime
import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from voxplain.cohort.names import bids_label, words_of
from voxplain.cohort.progression import (
    MCI_GROUPS,
    PROGRESSIVE,
    STABLE,
    check_task,
    derive_progression,
)
from voxplain.cohort.scan import Scan, class_in
from voxplain.cohort.selection import EVERYTHING, columns_for, select_scans
from voxplain.cohort.words import plain
from voxplain.faults import Fate, SetupFault

# What each column is called in the tables that users have: the archive's search export, ADNI's own
# tables, and the lists published with Rieke et al. 2018. Names are compared by letters and digits.
COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "image": ("Image Data ID", "Image ID", "Image.ID", "Image_ID", "IMAGEUID"),
    "subject": ("Subject", "PTID", "Subject ID"),
    "diagnosis": ("Group", "Diagnosis", "DX", "Research Group"),
    "visit": ("VISCODE", "Visit"),
    "date": ("Acq Date", "Scan.Date", "Exam Date", "EXAMDATE", "Study Date"),
    "description": ("Description", "Sequence"),
    "sex": ("Sex", "PTGENDER", "Gender"),
    "age": ("Age",),
    "phase": ("Phase", "COLPROT"),
    "field_strength": ("Field Strength", "FLDSTRENG", "MagStrength", "Imaging Protocol"),
}
REQUIRED_COLUMNS = ("image", "subject", "diagnosis")

DIAGNOSIS_WORDS: dict[str, tuple[str, ...]] = {
    # ADNIMERGE writes what changed since the visit before: what it changed to counts.
    "AD": ("AD", "Dementia", "MCI to Dementia", "NL to Dementia"),
    "NC": ("NC", "CN", "NL", "Normal", "MCI to NL", "Dementia to NL"),
    "MCI": ("MCI", "NL to MCI", "Dementia to MCI"),
    "EMCI": ("EMCI",),
    "LMCI": ("LMCI",),
    "SMC": ("SMC",),
}

_IMAGE_ID = re.compile(r"^[ID]?(\d+)$", re.IGNORECASE)
_LONGEST_LABEL = 40  # both stand twice in the name of a file
_DATE_FORMATS = ("%Y-%m-%d", "%m/%d/%Y", "%m/%d/%y", "%Y/%m/%d", "%Y%m%d", "%Y-%m-%d %H:%M:%S.0")


def find_columns(
    header: Iterable[str],
    chosen: Mapping[str, str],
    table: str | Path,
    required: Sequence[str] = REQUIRED_COLUMNS,
) -> dict[str, str]:
    """Which column of a table holds what.

    Parameters
    ----------
    header
        The table's column names.
    chosen
        What the user says: a key of :data:`COLUMN_NAMES` to a column's name.
    table
        The table's name, for messages.
    required
        Keys that must be there, besides one of visit and date.

    Raises
    ------
    SetupFault
        A needed column, or one the user named, is not there.
    """
    header = list(header)
    by_plain_name = {plain(name): name for name in header}
    columns = {}
    for key, names in COLUMN_NAMES.items():
        if key in chosen:
            if chosen[key] not in header:
                near = difflib.get_close_matches(chosen[key], header, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; it has: {', '.join(header)}"
                raise SetupFault(f"scan table {table} has no column {chosen[key]!r} ({key}){hint}")
            columns[key] = chosen[key]
            continue
        match = next((by_plain_name[plain(n)] for n in names if plain(n) in by_plain_name), None)
        if match is not None:
            columns[key] = match
    missing = [key for key in required if key not in columns]
    if "visit" not in columns and "date" not in columns:
        missing.append("visit or date")
    if missing:
        known = [
            " or ".join(map(repr, COLUMN_NAMES[key])) for key in missing if key in COLUMN_NAMES
        ]
        raise SetupFault(
            f"scan table {table} lacks a column for {', '.join(missing)}"
            f"{' (known names: ' + '; '.join(known) + ')' if known else ''}; it has: "
            f"{', '.join(header)}. Rename the column, or name it in `columns`"
        )
    return columns


def list_scans(
    rows: Sequence[Mapping[str, str]],
    places: Mapping[str, Sequence[str]],
    tasks: Sequence[Sequence[str]] | None,
    table: str | Path,
    columns: Mapping[str, str],
    diagnosis_words: Mapping[str, Sequence[str]],
    horizon_months: float = 36,
    visit: str = "first",
    select: Mapping[str, Any] = EVERYTHING,
    companions: Mapping[str, Sequence[str]] | None = None,
    image_ids: str = "archive",
) -> list[Scan]:
    """The scans of a cohort, one a row, with the fate of those that will not be processed.

    Parameters
    ----------
    rows
        The table, see :func:`voxplain.cohort.tables.read_table`.
    places
        Image id to its folder or file, see :func:`voxplain.cohort.trees.find_images`.
    tasks
        The classes of every task, groups or sMCI and pMCI; a scan with a class in none of them is
        ``unused``. None takes every scan, also without a known diagnosis or a column for it: new
        scans that a trained network is applied to.
    table
        The table's name, for messages.
    columns
        What the user says of the table's columns, see :func:`find_columns`.
    diagnosis_words
        Words for a group besides :data:`DIAGNOSIS_WORDS`.
    horizon_months, visit
        How sMCI and pMCI are told, where a task has them; see
        :func:`voxplain.cohort.progression.derive_progression`.
    select
        Which scans take part, see :func:`voxplain.cohort.selection.select_scans`. What becomes of a
        patient with MCI is told from all visits of the table.
    companions
        Image id to the files that belong to it and lie elsewhere.
    image_ids
        ``archive``: digits with or without a leading I; ``labels``: any letters and digits, see
        :func:`voxplain.cohort.bids.read_dataset`.

    Raises
    ------
    SetupFault
        A needed column is missing, a task could give a scan two classes, or no scan is left to
        process.
    """
    for classes in tasks or ():
        check_task(classes)
    required = [key for key in REQUIRED_COLUMNS if tasks is not None or key != "diagnosis"]
    where = find_columns(rows[0], columns, table, [*required, *columns_for(select)])
    groups = {
        word.lower(): group
        for words in (DIAGNOSIS_WORDS, diagnosis_words)
        for group, listed in words.items()
        for word in listed
    }
    diagnosed = tasks is not None
    scans = [
        _scan_of_row(
            number,
            {key: row[name] for key, name in where.items()},
            groups,
            table,
            diagnosed,
            image_ids,
        )
        for number, row in enumerate(rows, start=2)
    ]
    scans = _mark_repeated(_mark_doubtful(scans, table), table)
    if tasks is not None:
        wanted = list(dict.fromkeys(name for classes in tasks for name in classes))
        neither = {}
        if STABLE in wanted or PROGRESSIVE in wanted:
            derived = derive_progression(scans, horizon_months, visit)
            neither = {image: found.reason for image, found in derived.items()}
            scans = [
                replace(scan, progression=derived[scan.image].label)
                if scan.group in MCI_GROUPS and scan.fate is None
                else scan
                for scan in scans
            ]
        scans = [_used(scan, wanted, neither.get(scan.image, "")) for scan in scans]
    scans = select_scans(scans, select)
    scans = [_with_place(scan, places, companions or {}) for scan in scans]
    if all(scan.fate is not None for scan in scans):
        reasons = Counter(scan.fate.reason for scan in scans).most_common(3)
        told = "; ".join(f"{count} x {reason}" for reason, count in reasons)
        raise SetupFault(f"scan table {table} has no scan to process: {told}")
    return scans


def _scan_of_row(
    number: int,
    values: Mapping[str, str],
    groups: Mapping[str, str],
    table: str | Path,
    diagnosed: bool,
    image_ids: str,
) -> Scan:
    """One row as a scan; whatever cannot be read is its fate."""
    problems = []
    match = _IMAGE_ID.match(values["image"])
    if image_ids == "labels":
        image = values["image"]
    else:
        image = f"I{match.group(1)}" if match else values["image"]
    if image_ids == "archive" and not match:
        problems.append(f"image id {values['image']!r} is not digits with or without a leading I")
    label = bids_label(values["subject"])
    if not label:
        problems.append("the subject is empty")
    date = ""
    if values.get("date"):
        date = _iso_date(values["date"])
        if not date:
            problems.append(f"date {values['date']!r} is neither 2005-09-12 nor 9/12/2005")
    session = _session_label(values.get("visit", ""), date)
    if max(len(label), len(session), len(image) / 2) > _LONGEST_LABEL:
        problems.append(f"subject or visit is longer than {_LONGEST_LABEL} letters and digits")
    if not session:
        problems.append("neither visit nor date is given")
    diagnosis = values.get("diagnosis", "")
    group = groups.get(diagnosis.lower(), "")
    remedy = f"correct line {number} of {table}"
    if image_ids == "labels":
        # One line for several images, and more than one table.
        remedy = f"correct what the tables say of subject {values['subject']}, session {session}"
    if diagnosed and not group:
        problems.append(f"unknown diagnosis word {diagnosis!r}")
        remedy += ", or add the word to `diagnosis_words`"
    fate = Fate("failed", "table", "; ".join(problems), remedy) if problems else None
    if not values["image"]:
        # A visit without a scan: nothing can be lost, but its diagnosis may decide on others.
        fate = Fate("unused", "table", "; ".join(["the line names no image", *problems[1:]]))
    return Scan(
        row=number,
        image=image,
        subject=values["subject"],
        session=session,
        visit=values.get("visit", ""),
        date=date,
        diagnosis=diagnosis,
        group=group,
        sex=values.get("sex", ""),
        age=values.get("age", ""),
        description=values.get("description", ""),
        phase=values.get("phase", ""),
        field_strength=values.get("field_strength", ""),
        fate=fate,
    )


def _iso_date(text: str) -> str:
    for form in _DATE_FORMATS:
        try:
            return datetime.datetime.strptime(text, form).date().isoformat()
        except ValueError:
            continue
    return ""


def _session_label(visit: str, date: str) -> str:
    """A BIDS session label: ``M12`` for month 12, ``SC`` for screening, else from visit or date."""
    word = visit.strip().lower()
    month = re.search(r"(?:^m|month )\s*0*(\d+)$", word)
    if month:
        return f"M{int(month.group(1)):02d}"
    if word == "sc" or "screening" in word:
        return "SC"
    if word == "bl" or "baseline" in word:
        return "BL"
    return bids_label(visit) or date.replace("-", "")


def _mark_doubtful(scans: list[Scan], table: str | Path) -> list[Scan]:
    """The scans; those of subjects such as ``1-11`` and ``11-1`` fail: one patient, or two?

    Where one spelling has all separators of the other (``011_S_0003``, ``011S0003``), it is one.
    """
    spelled: dict[str, dict[str, frozenset[int]]] = {}
    for scan in scans:
        words = words_of(scan.subject.upper())
        ends = frozenset(accumulate(map(len, words)))
        spelled.setdefault(scan.patient, {})[scan.subject] = ends
    doubtful: dict[str, str] = {}
    for patient, subjects in spelled.items():
        if any(not few <= many for few, many in pairwise(sorted(subjects.values(), key=len))):
            doubtful[patient] = ", ".join(map(repr, sorted(subjects)))
    remedy = f"in {table}, let the subjects of two patients differ in a letter or digit"
    marked = []
    for scan in scans:
        if scan.fate is None and scan.patient in doubtful:
            reason = (
                f"subjects {doubtful[scan.patient]} may be one patient or several: they differ "
                "only in where their separators stand"
            )
            scan = replace(scan, fate=Fate("failed", "table", reason, remedy))
        marked.append(scan)
    return marked


def _mark_repeated(scans: list[Scan], table: str | Path) -> list[Scan]:
    """An image named by several rows counts once if they agree, and not at all if they differ."""
    by_image: dict[str, list[Scan]] = {}
    for scan in (scan for scan in scans if scan.fate is None):
        by_image.setdefault(scan.image, []).append(scan)
    marked = []
    for scan in scans:
        same = by_image.get(scan.image, [scan])
        first = same[0]
        lines = ", ".join(str(other.row) for other in same)
        alike = len({(o.patient, o.group, o.session) for o in same}) == 1
        if len(same) > 1 and scan.fate is None:
            if not alike:
                reason = f"lines {lines} of {table} say different things of image {scan.image}"
                scan = replace(scan, fate=Fate("failed", "table", reason, "keep the right one"))
            elif scan is not first:
                reason = f"line {first.row} of {table} names the same image"
                scan = replace(scan, fate=Fate("duplicate", "table", reason))
        marked.append(scan)
    return marked


def _used(scan: Scan, wanted: Sequence[str], neither: str) -> Scan:
    """The scan, with the fate that it is unused if it has none of the wanted classes.

    ``neither`` says why an MCI scan is neither sMCI nor pMCI; empty if it is one, or was not asked.
    """
    if scan.fate is not None or class_in(scan, wanted):
        return scan
    told = f"{scan.group} ({scan.progression})" if scan.progression else scan.group
    reason = f"its group {told} is not among the classes {', '.join(wanted)}"
    if neither:
        reason = f"its group is {told}, but neither {STABLE} nor {PROGRESSIVE}: {neither}"
    return replace(scan, fate=Fate("unused", "table", reason))


def _with_place(
    scan: Scan, places: Mapping[str, Sequence[str]], companions: Mapping[str, Sequence[str]]
) -> Scan:
    """The scan with the place of its files, or with the fate that it has not just one."""
    if scan.fate is not None:
        return scan
    found = places.get(scan.image, ())
    if len(found) == 1:
        return replace(scan, place=found[0], companions=tuple(companions.get(scan.image, ())))
    if found:
        reason = f"image id {scan.image} has {len(found)} folders: {', '.join(found)}"
        remedy = "keep the right one"
    else:
        reason = f"image id {scan.image} of subject {scan.subject} has no folder"
        remedy = "download the image, or delete its line from the table"
    return replace(scan, fate=Fate("failed", "find", reason, remedy))
