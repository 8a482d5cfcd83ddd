"""Jobs of single scans: faulty data ends the processing of one scan, not the run."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from voxplain.cohort.blame import fault_of_data
from voxplain.faults import DataFault, Fate, failed
from voxplain_workflow.jobs.frame import LOST_SCAN, changed_inputs, full_disk, job
from voxplain_workflow.jobs.sidecars import LostEarlier, write_sidecar


@contextmanager
def scan_job(snakemake: Any, stage: str) -> Iterator[None]:
    """Run one scan's job of a stage.

    If the data is faulty, the job still writes every declared output: sidecars with the fate,
    empty volumes, which every reader refuses, and placeholder pictures. So it does after any error
    that its data raises, see :func:`voxplain.cohort.blame.fault_of_data`; the log has the traceback
    of an error that nobody foresaw.
    """
    with job(snakemake), _lost_earlier(snakemake.output):
        try:
            yield
        except LostEarlier:
            raise
        except Exception as error:
            fault = fault_of_data(
                error,
                "look at the scan's files; if other programs open them, report this as a fault of "
                f"voxplain, with the log {snakemake.log[0]}",
            )
            if fault is None or full_disk(snakemake.output):
                raise  # the machine is at fault, not the scan
            if changed_inputs(snakemake.input):
                raise  # so is whatever damaged a file of an earlier stage
            if not isinstance(error, DataFault):
                traceback.print_exc()
            _write_fate(snakemake.output, failed(stage, fault))


@contextmanager
def picture_job(snakemake: Any) -> Iterator[None]:
    """Run a job that draws one scan.

    A scan that an earlier stage lost gets placeholder pictures. A fault in drawing is an error of
    the job: the fate of the scan is decided, and has nothing to do with its pictures.
    """
    with job(snakemake), _lost_earlier(snakemake.output):
        yield


@contextmanager
def _lost_earlier(outputs: Any) -> Iterator[None]:
    """Write the fate of a scan that an earlier stage lost."""
    try:
        yield
    except LostEarlier as lost:
        _write_fate(outputs, lost.fate)


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
