"""Start and end of a job: its log, its threads, and its exit status.

An error ends the job with exit status 1, and Snakemake retries or reports it. The last line of the
log then says what to do; the traceback of an unexpected error precedes it. Nothing here computes a
result: fingerprints leave this module out (:mod:`voxplain_workflow.planning.fingerprint`).
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
from voxplain_workflow.running.disk import is_full

# Beginnings of the last line of a log, which voxplain_workflow.running.failures reads.
DONE = "done in "
ERROR = "ERROR: "
# Placeholder for the pictures of a lost scan. It is a file, and stands in this module, so that
# preprocessing depends neither on the code of figures nor on the placeholder.
LOST_SCAN = Path(__file__).with_name("lost_scan.png")


@contextmanager
def job(snakemake: Any) -> Iterator[None]:
    """Run a job with its output, and that of its child processes, redirected to the rule's log.

    The environment holds the thread count of the rule. Libraries that read it when they are
    imported (ITK) must be imported inside this context.
    """
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(snakemake.threads)
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
        yield
        print(f"{DONE}{time.monotonic() - begun:.1f} s; {_peak_memory()}", flush=True)
    except (DataFault, SetupFault) as fault:
        _fail(str(fault), snakemake, terminal)
    except Exception as error:
        with suppress(OSError):  # a full disk has no room for this either
            traceback.print_exc()
            sys.stderr.flush()
        _fail(f"{type(error).__name__}: {error}", snakemake, terminal)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    print(
        f"{ERROR}stopped by {signal.Signals(number).name}: cancelled, preempted or out of time",
        file=sys.stderr,
        flush=True,
    )
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
