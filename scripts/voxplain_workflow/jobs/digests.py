"""Digests of results, written by the job that made them, to find what was damaged or deleted since.

Snakemake knows of a file only whether it is there and when it was written: a truncated heatmap or a
deleted model, whose users are done, is "nothing to be done". Every job leaves a record of its
outputs in ``results/.digests``, in a file that is named by the digest of its first output's path:
programs that look for files by name, as TensorBoard does, find no others there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from voxplain_workflow.results import RESULTS

RECORDS = f"{RESULTS}/.digests"


@dataclass(frozen=True)
class Damage:
    """A file of the results that is not as its job left it.

    Attributes
    ----------
    path
        The file.
    output
        The output that its rule declares: the file, or the folder that it is in.
    problem
        ``missing``, ``is a folder`` or ``changed``.
    """

    path: str
    output: str
    problem: str


def record_outputs(outputs: Iterable[str]) -> None:
    """Write the SHA-256 of a job's outputs, of folders those of all files, into its record."""
    paths = [str(path) for path in outputs if _is_result(path)]
    if not paths:
        return
    record = {
        path: {str(file.relative_to(path)): _digest(file) for file in _files(Path(path))}
        if Path(path).is_dir()
        else _digest(Path(path))
        for path in paths
        if Path(path).exists()
    }
    place = record_of(paths[0])
    place.parent.mkdir(parents=True, exist_ok=True)
    # Written whole or not at all: half a record would look like damage.
    unfinished = place.with_name(f"{place.name}.partial")
    unfinished.write_text(json.dumps(record, sort_keys=True), encoding="utf-8")
    os.replace(unfinished, place)


def record_of(output: str) -> Path:
    """The file with the digests of a job, by the path of its first output."""
    return Path(RECORDS) / f"{hashlib.sha256(output.encode()).hexdigest()[:32]}.json"


def changed_inputs(inputs: Iterable[str]) -> list[str]:
    """Files among a job's inputs that changed or vanished since the workflow made them."""
    asked = {str(path) for path in inputs if _is_result(path)}
    if not asked:
        return []
    recorded = {output: files for output, files in _recorded().items() if output in asked}
    return [damage.path for damage in _damages(recorded)]


def find_damage(temporary: Iterable[str] = ()) -> tuple[list[Damage], int]:
    """All damage among the recorded results, and the number of files that were looked at.

    Outputs whose folder is gone are left out: a cohort or a network that was removed as a whole.

    Parameters
    ----------
    temporary
        Patterns, with wildcards in braces, of outputs that Snakemake removes when they are used.
    """
    patterns = [_expression(pattern) for pattern in temporary]
    kept = {
        output: files
        for output, files in _recorded().items()
        if Path(output).parent.is_dir()
        and not (not Path(output).exists() and any(p.fullmatch(output) for p in patterns))
    }
    number = sum(len(files) if isinstance(files, dict) else 1 for files in kept.values())
    return list(_damages(kept)), number


def _damages(recorded: dict[str, str | dict[str, str]]) -> Iterator[Damage]:
    for output, files in sorted(recorded.items()):
        named = files if isinstance(files, dict) else {"": files}
        for name, digest in sorted(named.items()):
            path = Path(output) / name
            if not path.exists():
                yield Damage(str(path), output, "missing")
            elif path.is_dir():
                yield Damage(str(path), output, "is a folder")
            elif _digest(path) != digest:
                yield Damage(str(path), output, "changed")


def _recorded() -> dict[str, str | dict[str, str]]:
    """Output to its digest, or to those of its files; of two records of one output the later."""
    records = sorted(Path(RECORDS).rglob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    outputs: dict[str, str | dict[str, str]] = {}
    for path in records:
        try:
            outputs |= json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, TypeError):
            continue  # a damaged record says nothing of the results
    return outputs


def _is_result(path: str) -> bool:
    return Path(path).parts[:1] == (RESULTS,)


def _files(folder: Path) -> list[Path]:
    """The files of a folder, without hidden ones: Snakemake adds one of its own."""
    return [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]


def _digest(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _expression(pattern: str) -> re.Pattern[str]:
    """A path pattern with wildcards in braces as a regular expression."""
    parts = re.split(r"\{\w+\}", pattern)
    return re.compile("[^/]+".join(map(re.escape, parts)))
