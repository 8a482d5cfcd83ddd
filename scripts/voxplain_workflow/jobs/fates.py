"""Jobs of single scans: faulty data ends the processing of one scan, not the run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from voxplain.faults import DataFault, Fate, failed
from voxplain_workflow.jobs.frame import full_disk, job
from voxplain_workflow.jobs.sidecars import LostEarlier, write_sidecar

# Placeholder for the pictures of a lost scan. It is a file, not drawn by the jobs, so that
# preprocessing does not depend on the code of figures.
LOST_SCAN = Path(__file__).with_name("lost_scan.png")


@contextmanager
def scan_job(snakemake: Any, stage: str) -> Iterator[None]:
    """Run one scan's job of a stage.

    If the data is faulty, the job still writes every declared output: sidecars with the fate,
    empty volumes, which every reader refuses, and placeholder pictures.
    """
    with job(snakemake):
        try:
            yield
        except DataFault as fault:
            if full_disk(snakemake.output):
                raise  # the disk is at fault, not the scan
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
            path.touch()  # keeps the recorded digests, which reveal a file that was repaired
        else:
            path.write_bytes(b"")
