"""Start and end of a job: its log, its threads, and its exit status.

An error ends the job with exit status 1, and Snakemake retries or reports it. The last line of the
log then says what to do; the traceback of an unexpected error precedes it. Nothing here computes a
result (the number of threads is a param of the job), so that fingerprints leave this module out
(:mod:`voxplain_workflow.planning.fingerprint`).
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from voxplain.faults import DataFault, SetupFault
from voxplain_workflow.jobs.digests import changed_inputs, record_outputs
from voxplain_workflow.running.disk import is_full

# Beginnings of the last line of a log, which voxplain_workflow.running.failures reads.
DONE = "done in "
ERROR = "ERROR: "
# Signals that stop a job, and why somebody sends them.
_STOPPED_BY = {
    signal.SIGTERM: "cancelled, preempted, out of time, or the run that started it was killed",
    signal.SIGHUP: "its terminal was closed",
}
# Variables from which libraries take their number of threads.
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "GOTO_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
# Placeholder for the pictures of a lost scan. It is a file, and stands in this module, so that
# preprocessing depends neither on the code of figures nor on the placeholder.
LOST_SCAN = Path(__file__).with_name("lost_scan.png")


@contextmanager
def job(snakemake: Any) -> Iterator[None]:
    """Run a job with its output, and that of its child processes, redirected to the rule's log.

    The environment holds the number of threads of the job, see :func:`_fix_threads`. Libraries that
    read it when they are imported (torch, ITK, BLAS) must be imported inside this context.
    """
    _fix_threads(getattr(snakemake.params, "threads", 1))
    terminal = os.dup(sys.stderr.fileno())
    begun = time.monotonic()
    try:
        log = os.open(snakemake.log[0], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log, stream.fileno())
            # Names of files may hold bytes that are not UTF-8.
            stream.reconfigure(errors="backslashreplace")
        signal.signal(signal.SIGTERM, _stop)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # `nohup` ignores it
            signal.signal(signal.SIGHUP, _stop)
        yield
        record_outputs(snakemake.output)
        print(f"{DONE}{time.monotonic() - begun:.1f} s; {_peak_memory()}", flush=True)
    except (DataFault, SetupFault) as fault:
        _fail(_describe(fault, str(fault), snakemake), snakemake, terminal)
    except Exception as error:
        with suppress(OSError):  # a full disk has no room for this either
            traceback.print_exc()
            sys.stderr.flush()
        message = f"{type(error).__name__}: {error}"
        _fail(_describe(error, message, snakemake), snakemake, terminal)


def _fix_threads(threads: int) -> None:
    """Set the number of threads of all libraries: that of the job's params, not of its cores.

    The order of a sum, and with it its last digits, depends on the number of threads. The param is
    part of what determines the result; the rule's ``threads`` are capped by ``--cores``. Jobs
    without the param use one thread, among them all that use ITK: its sums over several threads
    differ from one run to the next.
    """
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    # The number above holds only if nothing lowers it.
    os.environ.update(OMP_DYNAMIC="FALSE", MKL_DYNAMIC="FALSE")
    os.environ.pop("OMP_THREAD_LIMIT", None)


def _describe(error: Exception, message: str, snakemake: Any) -> str:
    """The message of an error; if the workflow's own inputs are not as they were, that first."""
    # A set-up that cannot be used has nothing to do with them.
    changed = [] if isinstance(error, SetupFault) else changed_inputs(snakemake.input)
    if not changed:
        return message
    return (
        f"{changed[0]} is not as its job wrote it; delete it and run again, and see `snakemake "
        f"verify_results` for others ({message})"
    )


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """End the job as after an error, so that its temporary files are removed."""
    # A second signal must not interrupt this.
    for other in _STOPPED_BY:
        signal.signal(other, signal.SIG_IGN)
    name = signal.Signals(number).name
    with suppress(OSError):
        print(f"{ERROR}stopped by {name}: {_STOPPED_BY[number]}", file=sys.stderr, flush=True)
    sys.exit(128 + number)


def _fail(message: str, snakemake: Any, terminal: int) -> NoReturn:
    """End the job with a last line in its log or, where nothing can be written, on the terminal."""
    # Libraries report failed writes in many ways, and none names a full disk.
    full = full_disk(snakemake.output)
    if full:
        message = f"no space is left on the disk of {full}; free some and run again ({message})"
    line = f"{ERROR}{message}"
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        os.write(terminal, f"{line}\n".encode())
    sys.exit(1)


def full_disk(outputs: Any) -> Path | None:
    """The folder of an output, or of scratch files, whose disk is full."""
    places = [*(Path(path).parent for path in outputs), Path(tempfile.gettempdir())]
    for folder in dict.fromkeys(places):
        with suppress(OSError):
            if is_full(folder):
                return folder
    return None


def _peak_memory() -> str:
    """Peak memory of this process, and of the largest of its child processes, as text."""
    process, child = (
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    # On Linux ru_maxrss includes the peak of the parent process, Snakemake, which takes some GB for
    # a large cohort. The peak of this process alone is in /proc; psutil 7 has only current memory.
    with suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        process = int(peak.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    peaks_mb = [round(size * unit / 1e6) for size in (process, child)]
    return f"peak memory {peaks_mb[0]} MB, of its largest child process {peaks_mb[1]} MB"
