"""Jobs of single scans: a fault of the data becomes the scan's fate, and the other scans go on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from voxplain.faults import DataFault, Fate, failed
from voxplain_workflow.jobs.frame import full_disk, job
from voxplain_workflow.jobs.sidecars import LostEarlier, write_sidecar

# Stands for every picture of a lost scan: drawn by each job, it would make figures part of what
# preprocessing depends on.
LOST_SCAN = Path(__file__).with_name("lost_scan.png")


@contextmanager
def scan_job(snakemake: Any, stage: str) -> Iterator[None]:
    """Run one scan's job of a stage.

    Where the data is at fault, every declared output is still written: sidecars with the fate,
    volumes empty, which every reader refuses, and a picture that says so.
    """
    with job(snakemake):
        try:
            yield
        except DataFault as fault:
            if full_disk(snakemake.output):
                raise  # what broke off on a full disk says nothing about the scan
            _write_fate(snakemake.output, failed(stage, fault))
        except LostEarlier as lost:
            _write_fate(snakemake.output, lost.fate)


def _write_fate(outputs: Any, fate: Fate) -> None:
    print(f"{fate.status} in {fate.stage}: {fate.reason}; {fate.remedy}", flush=True)
    for path in map(Path, outputs):
        if path.suffix == ".json":
            write_sidecar(path, {"Fate": fate.as_dict()})
        elif path.suffix == ".png":
            shutil.copyfile(LOST_SCAN, path)
        elif path.suffix == ".sha256":
            path.touch()  # what was read stays on record, so that a mended file is noticed
        else:
            path.write_bytes(b"")
