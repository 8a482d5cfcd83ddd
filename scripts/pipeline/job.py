"""How a job starts and ends: its log, its threads, and what becomes of a fault.

A fault of one scan's data is written down as the scan's fate, and the job ends well, so that the
other scans go on. Any other error ends the job with exit status 1, and Snakemake retries or reports
it; its log ends with one line that says what to do, or with the traceback of what nobody foresaw.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from voxplain.faults import DataFault, Fate, SetupFault, failed


class _GivenUp(Exception):
    """The scan was given up in an earlier stage; its fate is handed on."""

    def __init__(self, fate: Fate) -> None:
        super().__init__(fate.reason)
        self.fate = fate


@contextmanager
def job(snakemake: Any) -> Iterator[None]:
    """Run a job: what it and its child processes say goes to the rule's log.

    Libraries that take their thread count from the environment when they are imported (ITK) see the
    rule's, so a script imports them inside this context.
    """
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(snakemake.threads)
    log = os.open(snakemake.log[0], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(log, stream.fileno())
    try:
        yield
    except (DataFault, SetupFault) as fault:
        print(f"ERROR: {fault}", file=sys.stderr, flush=True)
        sys.exit(1)
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        sys.exit(1)


@contextmanager
def scan_job(snakemake: Any, stage: str) -> Iterator[None]:
    """Run one scan's job of a stage.

    Where the data is at fault, every declared output is still written: sidecars with the fate,
    volumes empty, which every reader refuses.
    """
    with job(snakemake):
        try:
            yield
        except DataFault as fault:
            _write_fate(snakemake.output, failed(stage, fault))
        except _GivenUp as earlier:
            _write_fate(snakemake.output, earlier.fate)


def read_sidecar(path: str | Path) -> dict[str, Any]:
    """Read an earlier stage's sidecar; if the scan was given up there, so it is here."""
    sidecar = json.loads(Path(path).read_text(encoding="utf-8"))
    if sidecar.get("Fate", {}).get("status", "usable") != "usable":
        raise _GivenUp(Fate(**sidecar["Fate"]))
    return sidecar


def write_sidecar(path: str | Path, fields: Mapping[str, Any]) -> None:
    """Write a JSON sidecar."""
    text = json.dumps(fields, indent=2, ensure_ascii=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


def _write_fate(outputs: Any, fate: Fate) -> None:
    print(f"{fate.status} in {fate.stage}: {fate.reason}; {fate.remedy}", flush=True)
    for path in map(Path, outputs):
        if path.suffix == ".json":
            write_sidecar(path, {"Fate": fate.as_dict()})
        elif path.suffix == ".png":
            from voxplain.plots.slices import picture_of_text

            picture_of_text(path, f"{fate.status} in {fate.stage}", fate.reason, fate.remedy)
        elif path.suffix == ".sha256":
            path.touch()  # what was read stays on record, so that a mended file is noticed
        else:
            path.write_bytes(b"")
