"""Jobs end with the run that started them, also if the run, or a job among them, is killed.

A killed Snakemake leaves its jobs at work: they would write beside those of the next run. Therefore
a run marks the environment of its jobs, which all their child processes inherit, and starts a
guard: a small process that waits for the end of the run, and then ends what is left of its jobs.
Jobs that were sent to a cluster live on without the run, and the cluster ends their processes.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil  # a dependency of Snakemake

from voxplain_workflow.running.recorder import EventRecorder

# Variable that names the run of a process.
MARK = "VOXPLAIN_RUN"
# Seconds from the request to end (SIGTERM) to SIGKILL: time to remove temporary files.
PATIENCE_S = 3.0
_SCRIPTS = str(Path(__file__).resolve().parents[2])
_ENDED_WELL = b"ended"


def find_jobs(run: str) -> list[psutil.Process]:
    """The processes of a run's jobs on this machine, the run itself excepted.

    Parameters
    ----------
    run
        Name of the run, from :meth:`Guard.start`.
    """
    marked = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # ended, or another user's
            if process.environ().get(MARK) == run:
                marked.append(process)
    # Containers may not hand on the environment.
    found = dict.fromkeys(marked)
    for process in marked:
        with contextlib.suppress(psutil.Error):
            found |= dict.fromkeys(process.children(recursive=True))
    return [process for process in found if process.pid != os.getpid() and _is_alive(process)]


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def end_jobs(run: str, patience_s: float = PATIENCE_S, orphans_of: int | None = None) -> int:
    """End what is left of a run's jobs; returns the number of their processes.

    Parameters
    ----------
    run
        Name of the run.
    patience_s
        Time that the processes have to end by themselves.
    orphans_of
        PID of the run, to end only the child processes of jobs that were killed; None for all.
    """
    asked: set[psutil.Process] = set()
    killed_at = time.monotonic() + patience_s
    while True:
        jobs = find_jobs(run)
        if orphans_of is not None:
            jobs = [job for job in jobs if not _descends(job, orphans_of)]
        if not jobs:
            return len(asked)
        late = time.monotonic() >= killed_at
        for job in jobs:
            with contextlib.suppress(psutil.Error):
                if late:
                    job.kill()
                elif job not in asked:
                    job.terminate()
        asked |= set(jobs)
        if time.monotonic() >= killed_at + patience_s + 5:  # in the kernel: a disk that hangs
            return len(asked)
        time.sleep(0.05)


def _descends(process: psutil.Process, pid: int) -> bool:
    """Whether a process was started by another, by its descendants, or has ended."""
    try:
        return any(parent.pid == pid for parent in process.parents())
    except psutil.Error:
        return True


class Guard(EventRecorder):
    """Ends the jobs of this process when it ends in any other way than by :meth:`end`.

    Of Snakemake's events it takes those of failed jobs: a job that was killed outright, for want of
    memory for example, ends none of the programs that it started. They are ended before Snakemake
    tries the job again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.run = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, patience_s: float = PATIENCE_S) -> str:
        """Mark all processes that are started from now on; returns the name of the run."""
        self.run = uuid.uuid4().hex
        paths = [_SCRIPTS, os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        environment.pop(MARK, None)
        os.environ[MARK] = self.run
        # In a session of its own, a closed terminal and Ctrl-C do not reach it. It sees the end of
        # this process by that of its standard input.
        with contextlib.suppress(OSError):  # no process is to be had: the jobs matter more
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, self.run, str(patience_s)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        return self.run

    def end(self) -> None:
        """End the guard, since the run ends by itself; also allowed if it never started."""
        os.environ.pop(MARK, None)
        process, self._process, self.run = self._process, None, ""
        if process is not None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                process.communicate(_ENDED_WELL, timeout=5)

    def note(self, event: str, fields: Mapping[str, Any]) -> None:
        """See :class:`EventRecorder`."""
        if event == "job_error" and self.run:
            end_jobs(self.run, orphans_of=os.getpid())


def watch(run: str, patience_s: float) -> None:
    """What the guard does: wait for the end of the run, and end its jobs if it did not end well."""
    if sys.stdin.buffer.read() == _ENDED_WELL:
        return
    count = end_jobs(run, patience_s)
    if count:
        with contextlib.suppress(OSError):  # the terminal may be closed
            print(
                "voxplain: the run has ended without its jobs; their processes that were still at "
                f"work are ended: {count}",
                file=sys.stderr,
                flush=True,
            )


if __name__ == "__main__":
    watch(sys.argv[1], float(sys.argv[2]))
