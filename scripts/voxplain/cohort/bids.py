"""A BIDS dataset, or derivatives named as BIDS names them, as a cohort's table and images.

Only the standard library is needed, see :mod:`voxplain.cohort.scans`. Folders are listed and the
dataset's own small tables read, no image is opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from voxplain.cohort.names import bids_label
from voxplain.cohort.tables import read_table
from voxplain.faults import ParameterFault, SetupFault

# Which files of a subject's or session's folder are meant, by what the images are.
PATTERNS = {
    "heads": "anat/*_T1w.nii*",
    "brains": "anat/*_desc-preproc_T1w.nii*",
    "registered": "anat/*_space-MNI152NLin2009cAsym*_desc-preproc_T1w.nii*",
}
_ENTITY = re.compile(r"_(space|desc)-")
# Columns of the rows that :func:`read_dataset` adds to those of the dataset's tables.
IMAGE, SUBJECT, SESSION, DESCRIPTION, DATE = "image", "subject", "session", "description", "date"
NO_SESSION = "01"


def read_dataset(
    root: str | Path, images_are: str, pattern: str = "auto", table: str | Path | None = None
) -> tuple[list[dict[str, str]], dict[str, list[str]], dict[str, list[str]]]:
    """List a dataset's T1-weighted images, and what its tables say of them.

    Parameters
    ----------
    root
        The folder with ``sub-*``, or one with ``subjects/sub-*`` in it (CAPS).
    images_are
        A key of :data:`PATTERNS`.
    pattern
        Shell pattern of the wanted files, from the session's folder on (from the subject's where
        there are no sessions); ``auto`` for that of :data:`PATTERNS`, and of heads and brains in
        their own space none of those in another.
    table
        Table of participants, or of participants and sessions (``participant_id``, ``session_id``);
        None for the dataset's ``participants.tsv``. A subject's ``sub-*_sessions.tsv`` and a
        session's ``*_scans.tsv`` add to it.

    Returns
    -------
    rows
        One for every image, and one for every line of the table without any, with the columns of
        the tables and those of this module.
    places
        Image to its file. A BIDS image has no id, so it is called by its labels
        (``sub011S0003sesM12run1``).
    companions
        Image to its JSON sidecar and brain mask, where they lie beside it.

    Raises
    ------
    SetupFault
        There is no such folder or image, or the table has no ``participant_id``.
    """
    root = Path(root)
    if not root.is_dir():
        raise ParameterFault("root", f"is {root}, a BIDS dataset that does not exist")
    top = root / "subjects" if (root / "subjects").is_dir() else root
    known = _table_by_session(table or root / "participants.tsv", given=table is not None)
    own_space = pattern == "auto" and images_are != "registered"
    wanted = PATTERNS[images_are] if pattern == "auto" else pattern
    rows: list[dict[str, str]] = []
    places: dict[str, list[str]] = {}
    companions: dict[str, list[str]] = {}
    found = set()
    for subject, folder in _labelled(top, "sub"):
        of_sessions = _extra(folder / f"sub-{subject}_sessions.tsv", "session_id", "ses")
        # (fMRIPrep puts the anatomy of several sessions beside their folders.)
        for session, place in [("", folder), *_labelled(folder, "ses")]:
            label = f"_ses-{session}" if session else ""
            of_scans = _extra(place / f"sub-{subject}{label}_scans.tsv", "filename", "")
            lines = [known.get((subject, "")), of_sessions.get(session)]
            lines += [known.get((subject, session))]
            for file, inner in _files(place, wanted):
                if own_space and not _is_in_own_space(file.name, images_are):
                    continue
                image = bids_label(re.sub(r"_T1w\.nii(\.gz)?$", "", file.name))
                row = _merged(*lines, of_scans.get(inner))
                row |= {IMAGE: image, SUBJECT: subject, SESSION: session or NO_SESSION}
                stem = re.sub(r"^sub-[^_]+_(ses-[^_]+_)?", "", file.name)
                row[DESCRIPTION] = re.sub(r"\.nii(\.gz)?$", "", stem).replace("_", " ")
                # A day of the dataset's own, without the time.
                row[DATE] = (row.get("acq_time") or "").split("T")[0].split(" ")[0]
                rows.append(row)
                found |= {(subject, session), (subject, "")}
                if file.is_file():  # or a link to what was not downloaded
                    places.setdefault(image, []).append(str(file))
                    companions[image] = _beside(file, images_are != "heads")
        for session, line in of_sessions.items():
            if (subject, session) not in found:
                # A visit without an image: its diagnosis may decide on others.
                found.add((subject, session))
                told = _merged(known.get((subject, "")), line, known.get((subject, session)))
                rows.append(told | {SUBJECT: subject, SESSION: session, IMAGE: ""})
    if not places:
        raise ParameterFault(
            "root",
            f"is {root}, a BIDS dataset that has no image sub-*/[ses-*/]{wanted}; give another "
            "folder, or another pattern",
            "pattern",
        )
    for (subject, session), line in known.items():
        if (subject, session) not in found:
            rows.append({**line, SUBJECT: subject, SESSION: session or NO_SESSION, IMAGE: ""})
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key, "") for key in columns} for row in rows], places, companions


def _merged(*lines: Mapping[str, str] | None) -> dict[str, str]:
    """What several tables say, the last of those that say something."""
    merged: dict[str, str] = {}
    for line in lines:
        merged |= {key: value for key, value in (line or {}).items() if value or key not in merged}
    return merged


def _labelled(folder: Path, entity: str) -> list[tuple[str, Path]]:
    """The folders ``<entity>-<label>`` in a folder, by label."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir())
    prefix = f"{entity}-"
    return [(n.removeprefix(prefix), folder / n) for n in names if n.startswith(prefix)]


def _files(place: Path, pattern: str) -> list[tuple[Path, str]]:
    """Files of a session's folder that a pattern means, each with its path from there."""
    *folders, name = (part for part in pattern.split("/") if part)
    found = [place]
    for part in folders:
        found = [
            inner
            for outer in found
            if outer.is_dir()
            for inner in sorted(outer.iterdir())
            if fnmatchcase(inner.name, part)
        ]
    files = [
        path
        for folder in found
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if fnmatchcase(path.name, name) and path.name.endswith((".nii", ".nii.gz"))
    ]
    return [(path, str(path.relative_to(place))) for path in files]


def _is_in_own_space(name: str, images_are: str) -> bool:
    """Whether a file is no derivative in another space; of heads, no derivative at all."""
    entities = _ENTITY.findall(name)
    return "space" not in entities and (images_are == "brains" or "desc" not in entities)


def _beside(file: Path, masked: bool) -> list[str]:
    """A volume's JSON sidecar and, where the brain is asked for, the mask that was made with it."""
    stem = re.sub(r"\.nii(\.gz)?$", "", file.name)
    names = [f"{stem}.json"]
    if masked:
        mask = re.sub(r"_T1w$", "_desc-brain_mask", re.sub(r"_desc-[^_]+(?=_)", "", stem))
        names += [f"{mask}.nii.gz", f"{mask}.nii"]
    return [str(file.with_name(name)) for name in names if file.with_name(name).is_file()]


def _table_by_session(path: str | Path, given: bool) -> dict[tuple[str, str], dict[str, str]]:
    """Lines by subject's and session's labels; the session is empty where the table has none."""
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


def _extra(path: Path, key: str, entity: str) -> Mapping[str, dict[str, str]]:
    """A small table of the dataset by one of its columns; nothing where there is none."""
    if not path.is_file():
        return {}
    rows: Sequence[dict[str, str]] = read_table(path, empty=True)
    if not rows:
        return {}
    if key not in rows[0]:
        raise SetupFault(f"table {path} has no column {key}; it has: {', '.join(rows[0])}")
    return {row[key].removeprefix(f"{entity}-") if entity else row[key]: row for row in rows}
