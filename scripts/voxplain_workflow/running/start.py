"""Checks before a run: whether it can write here, and whether another run is active.

A killed run can be continued with the next command, although it left Snakemake's lock behind. The
lock does not name its process, so that after a power cut or ``kill -9`` a user would have to
confirm that no other run is active (``--unlock``). Therefore every run writes a record of its
process, and the lock is removed if none of these processes exists any more. What is left of its
jobs is ended first (:mod:`voxplain_workflow.running.orphans`).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil  # a dependency of Snakemake

from voxplain.faults import SetupFault, printable
from voxplain_workflow.running.disk import is_full
from voxplain_workflow.running.orphans import end_jobs, find_jobs

# Folders below the working directory to which a run writes.
FOLDERS = (".", ".snakemake", "results", "logs")
RECORDS = Path(".snakemake/voxplain_runs")
LOCKS = Path(".snakemake/locks")


def check_folders() -> None:
    """Refuse a working directory that cannot be written to.

    Raises
    ------
    SetupFault
        A folder is read-only or no folder at all, its disk is full, or its name is not UTF-8.
    """
    here = str(Path.cwd())
    if printable(here) != here:
        # Snakemake passes it to every job as text.
        raise SetupFault(
            f"the working directory {here} has bytes in its name that are not UTF-8, or control "
            "characters; rename it, or choose another with --directory"
        )
    for folder in map(Path, FOLDERS):
        if not folder.exists():
            continue
        place = folder.resolve()
        if not folder.is_dir():
            raise SetupFault(f"{place} is a file; a run writes its {folder} there: move it away")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise SetupFault(
                f"folder {place} cannot be written to; choose another with --directory, or change "
                "its permissions"
            )
        if is_full(folder):
            raise SetupFault(
                f"no space is left on the disk of {place}; free some, or choose another with "
                "--directory"
            )


def check_module(paths: Any) -> None:
    """Refuse use as a Snakemake module with a prefix: tables have paths, which it cannot change.

    Parameters
    ----------
    paths
        Snakemake's path modifier.

    Raises
    ------
    SetupFault
        The module is used with ``prefix`` or ``replace_prefix``.
    """
    if paths.prefix or paths.modifies_prefixes:
        raise SetupFault(
            "module voxplain: prefix and replace_prefix cannot be used; results lie below "
            "results/ in the working directory: choose another with --directory or workdir:"
        )


def note_run(on_cluster: bool, jobs: str = "") -> None:
    """Write the record of this run; called while it holds Snakemake's lock.

    Parameters
    ----------
    on_cluster
        Whether jobs may outlive this process.
    jobs
        Name that marks its jobs on this machine, see
        :meth:`voxplain_workflow.running.orphans.Guard.start`; may be empty.
    """
    RECORDS.mkdir(parents=True, exist_ok=True)
    here = {**_here(), "started": _started(os.getpid())}
    run = {**here, "on_cluster": on_cluster, "jobs": jobs}
    _record_path().write_text(json.dumps(run), encoding="utf-8")


def forget_run() -> None:
    """Remove the record of this run at its end."""
    _record_path().unlink(missing_ok=True)


def _record_path() -> Path:
    return RECORDS / f"{socket.gethostname()}-{os.getpid()}.json"


def _here() -> dict[str, object]:
    """Fields that make the PID of this process unique, since each container counts from 1.

    psutil does not provide the boot and the PID namespace; Linux has them in files.
    """
    return {
        "host": socket.gethostname(),
        "user": os.getuid(),
        "pid": os.getpid(),
        "boot": _of_linux(lambda: Path("/proc/sys/kernel/random/boot_id").read_text().strip()),
        "pid_namespace": _of_linux(lambda: os.readlink("/proc/self/ns/pid")),
    }


def _of_linux(read: Callable[[], str]) -> str:
    try:
        return read()
    except OSError:
        return ""


def clear_stale_lock() -> str:
    """End the jobs and remove the lock of runs that no longer exist; returns a message or "".

    The lock stays, and Snakemake refuses to run, if any recorded run may be alive: on another host,
    in another container, or of another user; and if the lock is newer than every record. It also
    stays if jobs on a cluster may have outlived their run.
    """
    try:
        records = {path: path.stat().st_mtime for path in RECORDS.glob("*.json")}
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in records]
        locks = [path.stat().st_mtime for path in LOCKS.glob("*.lock")]
        ended = [run for run in runs if _is_gone(run)]
        gone = len(ended) == len(runs)
        # Its guard may be at this too; nothing else begins before they are gone.
        names = [run["jobs"] for run in ended if run.get("jobs")]
        orphans = sum(map(end_jobs, names))
        stuck = [job.pid for name in names if orphans for job in find_jobs(name)]
    except (OSError, ValueError, KeyError, psutil.Error):
        return ""
    if stuck:
        return (
            "Of a run here that was killed, these processes cannot be ended; they wait for a disk, "
            f"as a rule: {', '.join(map(str, stuck))}. Run again when they are gone."
        )
    told = f"Processes of its jobs that were still at work are ended: {orphans}." if orphans else ""
    if not locks:  # runs write their records while they hold a lock, so these runs ended
        for path in records:
            path.unlink(missing_ok=True)
    if not (locks and runs and gone) or max(locks) > max(records.values()):
        return told and f"An earlier run here was killed. {told}"
    if any(run["on_cluster"] for run in runs):
        return (
            "An earlier run here was killed, but jobs that it sent to the cluster may go on: look "
            "with squeue, end them with scancel, then run once with --unlock and go on as before."
        )
    # Another command that starts at the same time may remove it too.
    shutil.rmtree(LOCKS, ignore_errors=True)
    for path in records:
        path.unlink(missing_ok=True)
    killed = "An earlier run here was killed: its lock is removed, and this one goes on from there."
    return " ".join(filter(None, [killed, told]))


def _is_gone(run: Mapping[str, Any]) -> bool:
    here = _here()
    if (run["host"], run["user"]) != (here["host"], here["user"]):
        return False
    if run["boot"] != here["boot"]:
        return True
    return run["pid_namespace"] == here["pid_namespace"] and _started(run["pid"]) != run["started"]


def _started(pid: int) -> str | None:
    """Start of a process in the kernel's clock ticks since boot; None if it does not exist.

    PIDs are reused; together with the start they are unique. Only on Linux the start does not
    change when the clock is set; on other systems the result is ``running``.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:  # has ended
            return None
        if not psutil.LINUX:
            return "running"
        # Both depend on the current clock setting; their difference does not.
        seconds = process.create_time() - psutil.boot_time()
    except psutil.NoSuchProcess:
        return None
    return str(round(seconds * os.sysconf("SC_CLK_TCK")))
