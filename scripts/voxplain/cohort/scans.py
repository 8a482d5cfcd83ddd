"""The list of a cohort's scans, from a table of scans and the folders of an archive.

Only the standard library is needed: the list is made while the workflow is parsed, and again by
every job. Folders are listed, no image file is opened.
"""

from __future__ import annotations

import datetime
import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

from voxplain.cohort.names import bids_label, separators_of
from voxplain.cohort.progression import (
    MCI_GROUPS,
    PROGRESSIVE,
    STABLE,
    check_task,
    derive_progression,
)
from voxplain.cohort.scan import Scan, class_in
from voxplain.cohort.selection import EVERYTHING, columns_for, select_scans
from voxplain.cohort.tables import MISSING_LINE
from voxplain.cohort.words import plain
from voxplain.faults import Fate, SetupFault, printable, shortened

# Names of each column in users' tables: the archive's search export, ADNI's tables, and the lists
# published with Rieke et al. 2018. Names are compared by their letters and digits.
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
    # ADNIMERGE gives the change since the previous visit: the new diagnosis counts.
    "AD": ("AD", "Dementia", "MCI to Dementia", "NL to Dementia"),
    "NC": ("NC", "CN", "NL", "Normal", "MCI to NL", "Dementia to NL"),
    "MCI": ("MCI", "NL to MCI", "Dementia to MCI"),
    "EMCI": ("EMCI",),
    "LMCI": ("LMCI",),
    "SMC": ("SMC",),
}

_IMAGE_ID = re.compile(r"^[ID]?([0-9]+)\Z", re.IGNORECASE | re.ASCII)
_MOST_NAMED = 5  # places in a message
_LONGEST_LABEL = 40  # subject and session each occur twice in the path of a file
_DAMAGED = "\N{REPLACEMENT CHARACTER}"  # what programs write for a letter they cannot read
_DATE_FORMATS = ("%Y-%m-%d", "%m/%d/%Y", "%m/%d/%y", "%Y/%m/%d", "%Y%m%d", "%Y-%m-%d %H:%M:%S.0")


def find_columns(
    header: Iterable[str],
    chosen: Mapping[str, str],
    table: str | Path,
    required: Sequence[str] = REQUIRED_COLUMNS,
) -> dict[str, str]:
    """Key of :data:`COLUMN_NAMES` to the name of the table's column.

    Parameters
    ----------
    header
        The table's column names.
    chosen
        The user's choice: a key of :data:`COLUMN_NAMES` to a column's name.
    table
        The table's name, for messages.
    required
        Keys whose columns must exist, besides one of visit and date.

    Raises
    ------
    SetupFault
        A required column, or a column that the user named, does not exist.
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
    """The scans of a cohort, one for each row; those that will not be processed have a fate.

    Parameters
    ----------
    rows
        The table, see :func:`voxplain.cohort.tables.read_table`.
    places
        Image id to its folder or file, see :func:`voxplain.cohort.trees.find_images`.
    tasks
        The classes of every task, groups or sMCI and pMCI; a scan without a class in any task is
        ``unused``. None selects every scan, also without a known diagnosis or a column for it: new
        scans that a trained network is applied to.
    table
        The table's name, for messages.
    columns
        The user's choice of columns, see :func:`find_columns`.
    diagnosis_words
        Further words for a group, in addition to :data:`DIAGNOSIS_WORDS`.
    horizon_months, visit
        How sMCI and pMCI are derived, if a task has them; see
        :func:`voxplain.cohort.progression.derive_progression`.
    select
        Which scans are selected, see :func:`voxplain.cohort.selection.select_scans`. The
        progression of a patient with MCI is derived from all visits of the table.
    companions
        Image id to files of the scan that are at other places.
    image_ids
        ``archive``: digits with or without a leading I; ``labels``: any letters and digits, see
        :func:`voxplain.cohort.bids.read_dataset`.

    Raises
    ------
    SetupFault
        A required column is missing, a scan could have two classes in a task, or no scan is left to
        process.
    """
    for classes in tasks or ():
        check_task(classes)
    required = [key for key in REQUIRED_COLUMNS if tasks is not None or key != "diagnosis"]
    column_of = find_columns(rows[0], columns, table, [*required, *columns_for(select)])
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
            {key: row[name] for key, name in column_of.items()},
            groups,
            table,
            diagnosed,
            image_ids,
            row.get(MISSING_LINE, ""),
        )
        for number, row in enumerate(rows, start=2)
    ]
    scans = _mark_repeated(_mark_doubtful(scans, table), table)
    if tasks is not None:
        wanted = list(dict.fromkeys(name for classes in tasks for name in classes))
        why_neither = {}
        if STABLE in wanted or PROGRESSIVE in wanted:
            derived = derive_progression(scans, horizon_months, visit)
            why_neither = {image: progression.reason for image, progression in derived.items()}
            scans = [
                replace(scan, progression=derived[scan.image].label)
                if scan.group in MCI_GROUPS and scan.fate is None
                else scan
                for scan in scans
            ]
        scans = [_used(scan, wanted, why_neither.get(scan.image, "")) for scan in scans]
    scans = select_scans(scans, select)
    scans = [_with_place(scan, places, companions or {}) for scan in scans]
    if all(scan.fate is not None for scan in scans):
        reasons = Counter(scan.fate.reason for scan in scans).most_common(3)
        listing = "; ".join(f"{count} x {reason}" for reason, count in reasons)
        raise SetupFault(f"scan table {table} has no scan to process: {listing}")
    return scans


def _scan_of_row(
    number: int,
    values: Mapping[str, str],
    groups: Mapping[str, str],
    table: str | Path,
    diagnosed: bool,
    image_ids: str,
    missing_line: str,
) -> Scan:
    """The scan of one row; if a value cannot be read, its fate is ``failed``."""
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
    if _DAMAGED in values["subject"]:
        problems.append(f"letters of subject {values['subject']!r} were lost in another encoding")
    diagnosis = values.get("diagnosis", "")
    group = groups.get(diagnosis.lower(), "")
    remedy = f"correct line {number} of {table}"
    if image_ids == "labels":
        # In a BIDS dataset, one line may describe several images, and there are several tables.
        remedy = f"correct what the tables say of subject {values['subject']}, session {session}"
    if diagnosed and diagnosis and not group:
        problems.append(f"unknown diagnosis word {shortened(diagnosis)!r}")
        remedy += ", or add the word to `diagnosis_words`"
    if diagnosed and not diagnosis and missing_line:
        problems.append(f"its diagnosis is unknown: {missing_line}")
        remedy = "let the line have the labels of the folder, or add the line"
    fate = Fate("failed", "table", "; ".join(problems), remedy) if problems else None
    if diagnosed and not diagnosis and not missing_line:
        # Without a diagnosis a scan has no class: nobody asked for it, so that it is not lost.
        fate = Fate("unused", "table", "; ".join(["it has no diagnosis", *problems]))
    if not values["image"]:
        # A visit without a scan: its diagnosis may be needed for the patient's other scans.
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
    """The BIDS session label: ``M12`` for month 12, ``SC``, ``BL``, else from visit or date."""
    word = visit.strip().lower()
    month = re.search(r"(?:^m|month )\s*0*([0-9]{1,4})\Z", word)
    if month:
        return f"M{int(month.group(1)):02d}"
    if word == "sc" or "screening" in word:
        return "SC"
    if word == "bl" or "baseline" in word:
        return "BL"
    return bids_label(visit) or date.replace("-", "")


def _mark_doubtful(scans: list[Scan], table: str | Path) -> list[Scan]:
    """The scans; those of ambiguous subjects such as ``1-11`` and ``111`` have failed.

    ``1-11`` and ``11-1`` are two patients, whose files have labels with their separators; ``111``
    may be either.
    """
    alike: dict[str, dict[str, set[str]]] = {}
    for scan in scans:
        of_patients = alike.setdefault(scan.patient.replace("-", ""), {})
        of_patients.setdefault(scan.patient, set()).add(scan.subject)
    doubtful: dict[str, str] = {}
    labels: dict[str, str] = {}
    for of_patients in alike.values():
        listed = ", ".join(map(repr, sorted(set().union(*of_patients.values()))))
        for one, other in permutations(of_patients, 2):
            labels[one] = bids_label(one, "-")
            if separators_of(one) < separators_of(other):
                doubtful[one] = doubtful[other] = listed
    remedy = f"in {table}, let the subjects of two patients differ in a letter or digit"
    marked = []
    for scan in scans:
        if scan.fate is None and scan.patient in doubtful:
            reason = (
                f"subjects {doubtful[scan.patient]} may be one patient or several: they differ "
                "only in where their separators stand"
            )
            scan = replace(scan, fate=Fate("failed", "table", reason, remedy))
        marked.append(replace(scan, label=labels.get(scan.patient, "")))
    return marked


def _mark_repeated(scans: list[Scan], table: str | Path) -> list[Scan]:
    """The scans; rows that repeat an image are duplicates, or have failed if they differ."""
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


def _used(scan: Scan, wanted: Sequence[str], why_neither: str) -> Scan:
    """The scan; its fate is ``unused`` if it has none of the wanted classes.

    ``why_neither`` is the reason why an MCI scan is neither sMCI nor pMCI; empty if it is one of
    them, or if no task needs these labels.
    """
    if scan.fate is not None or class_in(scan, wanted):
        return scan
    label = f"{scan.group} ({scan.progression})" if scan.progression else scan.group
    reason = f"its group {label} is not among the classes {', '.join(wanted)}"
    if why_neither:
        reason = f"its group is {label}, but neither {STABLE} nor {PROGRESSIVE}: {why_neither}"
    return replace(scan, fate=Fate("unused", "table", reason))


def _with_place(
    scan: Scan, places: Mapping[str, Sequence[str]], companions: Mapping[str, Sequence[str]]
) -> Scan:
    """The scan with the place of its files; its fate is ``failed`` if it has none or several."""
    if scan.fate is not None:
        return scan
    folders = places.get(scan.image, ())
    files = tuple(companions.get(scan.image, ()))
    if len(folders) == 1:
        odd = [path for path in (folders[0], *files) if not _is_utf8(path)]
        if not odd:
            return replace(scan, place=folders[0], companions=files)
        reason = f"the name {printable(odd[0])} is not UTF-8, which the workflow cannot pass on"
        remedy = "rename what is not UTF-8 in it (convmv -f latin1 -t utf8 does whole folders)"
    elif folders:
        listed = ", ".join(map(printable, folders[:_MOST_NAMED]))
        more = f" and {len(folders) - _MOST_NAMED} more" if len(folders) > _MOST_NAMED else ""
        reason = f"image id {scan.image} has {len(folders)} folders: {listed}{more}"
        remedy = "keep the right one"
    else:
        reason = f"image id {scan.image} of subject {scan.subject} has no folder"
        remedy = "download the image, or delete its line from the table"
    return replace(scan, fate=Fate("failed", "find", reason, remedy))


def _is_utf8(name: str) -> bool:
    """Whether a name can be written; bytes that are not UTF-8 are half characters in Python."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
