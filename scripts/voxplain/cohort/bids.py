"""A BIDS dataset, or derivatives with BIDS names, as a cohort's table and images.

Only the standard library is needed, see :mod:`voxplain.cohort.scans`. Folders are listed and the
tables of the dataset are read, no image is opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from voxplain.cohort.names import bids_label
from voxplain.cohort.tables import MISSING_LINE, read_table
from voxplain.cohort.trees import once
from voxplain.cohort.words import plain
from voxplain.faults import ParameterFault, SetupFault, printable

# Kind of images to the pattern of their files in a subject's or session's folder.
PATTERNS = {
    "heads": "anat/*_T1w.nii*",
    "brains": "anat/*_desc-preproc_T1w.nii*",
    "registered": "anat/*_space-MNI152NLin2009cAsym*_desc-preproc_T1w.nii*",
}
_ENTITY = re.compile(r"_(space|desc)-")
# Columns of the rows that :func:`read_dataset` adds to those of the dataset's tables.
IMAGE, SUBJECT, SESSION, DESCRIPTION, DATE = "image", "subject", "session", "description", "date"
NO_SESSION = "01"
_MOST_NAMED = 5  # labels in a message


def read_dataset(
    root: str | Path, images_are: str, pattern: str = "auto", table: str | Path | None = None
) -> tuple[list[dict[str, str]], dict[str, list[str]], dict[str, list[str]]]:
    """A dataset's T1-weighted images with their rows of its tables.

    Parameters
    ----------
    root
        The folder that contains ``sub-*`` or, for CAPS, ``subjects/sub-*``.
    images_are
        A key of :data:`PATTERNS`.
    pattern
        Shell pattern of the files, relative to the session's folder (or to the subject's folder
        without sessions). ``auto``: the pattern of :data:`PATTERNS`; for heads and brains, files in
        another space than that of the scan are left out.
    table
        Table of participants, or of participants and sessions (``participant_id``, ``session_id``);
        None for the dataset's ``participants.tsv``. Values of ``sub-*_sessions.tsv`` of a subject
        and ``*_scans.tsv`` of a session are added.

    Returns
    -------
    rows
        One for every image, and one for every line of the table without an image, with the columns
        of the tables and those of this module.
    places
        Image to its file. A BIDS image has no id, so its labels are its name
        (``sub011S0003sesM12run1``).
    companions
        Image to its JSON sidecar and brain mask, if they exist beside the image.

    Raises
    ------
    SetupFault
        There is no such folder or image, or the table has no ``participant_id``.
    """
    root = Path(root)
    if not root.is_dir():
        raise ParameterFault("root", f"is {root}, a BIDS dataset that does not exist")
    top = root / "subjects" if (root / "subjects").is_dir() else root
    participants = table or root / "participants.tsv"
    known = _table_by_session(participants, given=table is not None)
    spelled = {_simple(label): label for label, _ in known}
    own_space = pattern == "auto" and images_are != "registered"
    wanted = PATTERNS[images_are] if pattern == "auto" else pattern
    rows: list[dict[str, str]] = []
    places: dict[str, list[str]] = {}
    companions: dict[str, list[str]] = {}
    listed = set()
    for subject, folder in _labelled(top, "sub"):
        of_sessions = _extra(folder / f"sub-{subject}_sessions.tsv", "session_id", "ses")
        # fMRIPrep writes the anatomy of several sessions beside the folders of the sessions.
        for session, place in [("", folder), *_labelled(folder, "ses")]:
            label = f"_ses-{session}" if session else ""
            of_scans = _extra(place / f"sub-{subject}{label}_scans.tsv", "filename", "")
            lines = [known.get((subject, "")), of_sessions.get(session)]
            lines += [known.get((subject, session))]
            missing = _missing(subject, session, known, spelled, participants)
            if of_sessions and session and session not in of_sessions:
                present = ", ".join(f"ses-{each}" for each in list(of_sessions)[:_MOST_NAMED])
                missing = f"sub-{subject}_sessions.tsv has no line ses-{session}, but {present}"
            for file, inner in _files(place, wanted):
                if own_space and not _is_in_own_space(file.name, images_are):
                    continue
                image = bids_label(printable(re.sub(r"_T1w\.nii(\.gz)?$", "", file.name)))
                row = _merged(*lines, of_scans.get(inner))
                row |= {IMAGE: image, SUBJECT: subject, SESSION: session or NO_SESSION}
                row |= {MISSING_LINE: missing} if missing else {}
                stem = re.sub(r"^sub-[^_]+_(ses-[^_]+_)?", "", file.name)
                row[DESCRIPTION] = re.sub(r"\.nii(\.gz)?$", "", stem).replace("_", " ")
                # The date in the dataset, without the time.
                row[DATE] = (row.get("acq_time") or "").split("T")[0].split(" ")[0]
                rows.append(row)
                listed |= {(subject, session), (subject, "")}
                if file.is_file():  # and not a link to a file that was not downloaded
                    places.setdefault(image, []).append(str(file))
                    companions[image] = _beside(file, images_are != "heads")
        for session, line in of_sessions.items():
            if (subject, session) not in listed:
                # A visit without an image: its diagnosis may be needed for the patient's scans.
                listed.add((subject, session))
                merged = _merged(known.get((subject, "")), line, known.get((subject, session)))
                rows.append(merged | {SUBJECT: subject, SESSION: session, IMAGE: ""})
    if not places:
        raise ParameterFault(
            "root",
            f"is {root}, a BIDS dataset that has no image sub-*/[ses-*/]{wanted}; give another "
            "folder, or another pattern",
            "pattern",
        )
    for (subject, session), line in known.items():
        if (subject, session) not in listed:
            rows.append({**line, SUBJECT: subject, SESSION: session or NO_SESSION, IMAGE: ""})
    columns = dict.fromkeys(key for row in rows for key in row)
    # Names of folders may hold bytes that are not UTF-8, and rows are written.
    rows = [{key: printable(row.get(key, "")) for key in columns} for row in rows]
    return rows, places, companions


def _merged(*lines: Mapping[str, str] | None) -> dict[str, str]:
    """The values of several lines by column; the last value that is not empty takes precedence."""
    merged: dict[str, str] = {}
    for line in lines:
        merged |= {key: value for key, value in (line or {}).items() if value or key not in merged}
    return merged


def _labelled(folder: Path, entity: str) -> list[tuple[str, Path]]:
    """Label and path of the folders ``<entity>-<label>`` in a folder, sorted by name."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    prefix = f"{entity}-"
    return [(n.removeprefix(prefix), folder / n) for n in names if n.startswith(prefix)]


def _files(place: Path, pattern: str) -> list[tuple[Path, str]]:
    """Files of a session's folder that match a pattern, each with its path within the folder."""
    *folders, name = (part for part in pattern.split("/") if part)
    matching = [place]
    for part in folders:
        # Each folder once: links to folders above give endless names to the same folders.
        matching = once(
            [
                inner
                for outer in matching
                if outer.is_dir()
                for inner in sorted(outer.iterdir())
                if fnmatchcase(inner.name, part)
            ]
        )
    files = [
        path
        for folder in matching
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if fnmatchcase(path.name, name) and path.name.endswith((".nii", ".nii.gz"))
    ]
    return [(path, str(path.relative_to(place))) for path in files]


def _is_in_own_space(name: str, images_are: str) -> bool:
    """Whether a file is in the space of the scan and, for heads, not a derivative."""
    entities = _ENTITY.findall(name)
    return "space" not in entities and (images_are == "brains" or "desc" not in entities)


def _beside(file: Path, masked: bool) -> list[str]:
    """Paths of a volume's JSON sidecar and, if ``masked``, brain mask; existing files only."""
    stem = re.sub(r"\.nii(\.gz)?$", "", file.name)
    names = [f"{stem}.json"]
    if masked:
        mask = re.sub(r"_T1w$", "_desc-brain_mask", re.sub(r"_desc-[^_]+(?=_)", "", stem))
        names += [f"{mask}.nii.gz", f"{mask}.nii"]
    return [str(file.with_name(name)) for name in names if file.with_name(name).is_file()]


def _table_by_session(path: str | Path, given: bool) -> dict[tuple[str, str], dict[str, str]]:
    """Labels of subject and session to line; the session is empty if the table has no sessions."""
    if not given and not Path(path).is_file():
        return {}
    rows = read_table(path)
    if "participant_id" not in rows[0]:
        raise SetupFault(f"table {path} has no column participant_id; it has: {', '.join(rows[0])}")
    return {
        (
            row["participant_id"].removeprefix("sub-"),
            row.get("session_id", "").removeprefix("ses-"),
        ): row
        for row in rows
    }


def _missing(
    subject: str,
    session: str,
    known: Mapping[tuple[str, str], Any],
    spelled: Mapping[str, str],
    table: str | Path,
) -> str:
    """Which line the table of participants lacks for a folder; empty if it has one.

    ``spelled`` is the simplest spelling of a label to the label in the table.
    """
    if not known or (subject, "") in known or (subject, session) in known:
        return ""
    sessions = [other for label, other in known if label == subject][:_MOST_NAMED]
    if sessions:
        present = ", ".join(f"ses-{each}" for each in sessions)
        return f"{table} has no line sub-{subject}, ses-{session or NO_SESSION}, but {present}"
    other = spelled.get(_simple(subject))
    return f"{table} has no line sub-{subject}{f', but sub-{other}' if other else ''}"


def _simple(label: str) -> str:
    """A label without zeros before numbers, separators and case, in which spellings differ."""
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", plain(label))


def _extra(path: Path, key: str, entity: str) -> Mapping[str, dict[str, str]]:
    """Value of a column to line of a small table; empty if the table does not exist."""
    if not path.is_file():
        return {}
    rows: Sequence[dict[str, str]] = read_table(path, empty=True)
    if not rows:
        return {}
    if key not in rows[0]:
        raise SetupFault(f"table {path} has no column {key}; it has: {', '.join(rows[0])}")
    return {row[key].removeprefix(f"{entity}-") if entity else row[key]: row for row in rows}
