"""How a job starts and ends: its log, its threads, and its exit status.

An error ends the job with exit status 1, and Snakemake retries or reports it; its log ends with one
line that says what to do, or with the traceback of what nobody foresaw. Nothing here computes a
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

# How the last line of a log begins; voxplain_workflow.running.failures looks for them.
DONE = "done in "
ERROR = "ERROR: "


@contextmanager
def job(snakemake: Any) -> Iterator[None]:
    """Run a job: what it and its child processes say goes to the rule's log.

    Libraries that take their thread count from the environment when they are imported (ITK) see the
    rule's, so a script imports them inside this context.
    """
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(snakemake.threads)
    terminal = os.dup(sys.stderr.fileno())
    begun = time.monotonic()
    try:
        log = os.open(snakemake.log[0], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log, stream.fileno())
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


def _fail(why: str, snakemake: Any, terminal: int) -> NoReturn:
    """End the job with a last line in its log or, where nothing can be written, on the terminal."""
    # Libraries say "cannot write" in many ways, and of a full disk nothing.
    full = full_disk(snakemake.output)
    if full:
        why = f"no space is left on the disk of {full}; free some and run again ({why})"
    line = f"{ERROR}{why}"
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
    """What this process and the largest of its children held at most."""
    own, child = (
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    # On Linux a process inherits this number from the one that started it: Snakemake, which takes
    # some GB for a large cohort. What it held itself stands in /proc, of which psutil 7 gives only
    # what it holds now.
    with suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        own = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    told = [round(size * unit / 1e6) for size in (own, child)]
    return f"peak memory {told[0]} MB, of its largest child process {told[1]} MB"
