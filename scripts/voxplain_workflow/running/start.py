"""What is looked at before a run begins: whether it can write here, and whether it is alone.

A run that was killed goes on at the next command, though it left Snakemake's lock behind. That
lock does not say whose it is, so that after a power cut or ``kill -9`` a user must tell by hand
that nobody else is at work (``--unlock``). Here every run notes who it is, and the lock is removed
where all of them are gone.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil  # which Snakemake needs itself

from voxplain.faults import SetupFault
from voxplain_workflow.running.disk import is_full

# Where a run writes, below its working directory.
FOLDERS = (".", ".snakemake", "results", "logs")
RECORDS = Path(".snakemake/voxplain_runs")
LOCKS = Path(".snakemake/locks")


def check_folders() -> None:
    """Refuse a working directory that cannot be written to.

    Raises
    ------
    SetupFault
        A folder is read-only or no folder at all, or its disk is full.
    """
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
    """Refuse to be a Snakemake module with a prefix: tables name volumes, which it would not reach.

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


def note_run(on_cluster: bool) -> None:
    """Note that this process works here; called when it holds Snakemake's lock.

    Parameters
    ----------
    on_cluster
        Whether its jobs may outlive it.
    """
    RECORDS.mkdir(parents=True, exist_ok=True)
    run = {**_here(), "started": _started(os.getpid()), "on_cluster": on_cluster}
    _own_record().write_text(json.dumps(run), encoding="utf-8")


def forget_run() -> None:
    """Take back the note at the end of a run."""
    _own_record().unlink(missing_ok=True)


def _own_record() -> Path:
    return RECORDS / f"{socket.gethostname()}-{os.getpid()}.json"


def _here() -> dict[str, object]:
    """What makes a process's number unique: containers count from 1, whatever their host.

    Linux says in files what psutil does not know: which boot it is, and whose numbers these are.
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
    """Remove the lock of runs that are gone, and say so; empty where there is none to remove.

    A lock stays, and Snakemake refuses to run, where any run that was noted may be alive: on
    another host, in another container, of another user; and where the lock is later than every
    note. It also stays where jobs on a cluster may have outlived their run.
    """
    try:
        records = {path: path.stat().st_mtime for path in RECORDS.glob("*.json")}
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in records]
        locks = [path.stat().st_mtime for path in LOCKS.glob("*.lock")]
        gone = all(_is_gone(run) for run in runs)
    except (OSError, ValueError, KeyError, psutil.Error):
        return ""
    if not locks:  # a run notes itself while it holds one, so whose these were is over
        for path in records:
            path.unlink(missing_ok=True)
    if not (locks and runs and gone) or max(locks) > max(records.values()):
        return ""
    if any(run["on_cluster"] for run in runs):
        return (
            "An earlier run here was killed, but jobs that it sent to the cluster may go on: look "
            "with squeue, end them with scancel, then run once with --unlock and go on as before."
        )
    # Another command that begins in this moment may be doing the same.
    shutil.rmtree(LOCKS, ignore_errors=True)
    for path in records:
        path.unlink(missing_ok=True)
    return "An earlier run here was killed: its lock is removed, and this one goes on from there."


def _is_gone(run: Mapping[str, Any]) -> bool:
    here = _here()
    if (run["host"], run["user"]) != (here["host"], here["user"]):
        return False
    if run["boot"] != here["boot"]:
        return True
    return run["pid_namespace"] == here["pid_namespace"] and _started(run["pid"]) != run["started"]


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's clock ticks since boot; None where it is gone.

    The number of a process is used again; with its start it is unique. Only Linux says when a
    process started in a way that stays when the clock is set: elsewhere it is ``running``.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:  # dead already
            return None
        if not psutil.LINUX:
            return "running"
        # Both are by the clock, as it is set now; their difference is not.
        seconds = process.create_time() - psutil.boot_time()
    except psutil.NoSuchProcess:
        return None
    return str(round(seconds * os.sysconf("SC_CLK_TCK")))
