"""What is looked at before a run begins: whether it can write here, and whether it is alone.

A run that was killed goes on at the next command, though it left Snakemake's lock behind. That
lock does not say whose it is, so that after a power cut or ``kill -9`` a user must tell by hand
that nobody else is at work (``--unlock``). Here a run notes who it is, and its lock is removed
where that process is gone.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path

from voxplain.faults import SetupFault

# Less free space than this is a full disk: hardly any file of ours fits into it.
FULL_DISK_BYTES = 1_000_000
# Where a run writes, below its working directory.
FOLDERS = (".", ".snakemake", "results", "logs")
RECORD = Path(".snakemake/voxplain_run.json")
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
        if shutil.disk_usage(folder).free < FULL_DISK_BYTES:
            raise SetupFault(
                f"no space is left on the disk of {place}; free some, or choose another with "
                "--directory"
            )


def note_run(on_cluster: bool) -> None:
    """Note that this process works here; called when it holds Snakemake's lock.

    Parameters
    ----------
    on_cluster
        Whether its jobs may outlive it.
    """
    run = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "on_cluster": on_cluster,
    }
    RECORD.write_text(json.dumps(run), encoding="utf-8")


def clear_stale_lock() -> str:
    """Remove the lock of a run that is gone, and say so; empty where there is none to remove.

    A lock stays, and Snakemake refuses to run, where its owner may be alive: on another host, or
    unknown. It also stays where jobs on a cluster may have outlived it.
    """
    try:
        run = json.loads(RECORD.read_text(encoding="utf-8"))
        noted = RECORD.stat().st_mtime
        locks = [path.stat().st_mtime for path in LOCKS.glob("*.lock")]
    except (OSError, ValueError):
        return ""
    if not locks or max(locks) > noted:  # none, or one that another run has just taken
        return ""
    if run["host"] != socket.gethostname() or _started(run["pid"]) == run["started"]:
        return ""
    if run["on_cluster"]:
        return (
            "An earlier run here was killed, but jobs that it sent to the cluster may go on: look "
            "with squeue, end them with scancel, then run once with --unlock and go on as before."
        )
    shutil.rmtree(LOCKS)
    return "An earlier run here was killed: its lock is removed, and this one goes on from there."


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's clock ticks since boot; None where it is gone.

    The number of a process is used again; with its start it is unique.
    """
    if not Path("/proc/self/stat").exists():  # macOS
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return "running"
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    # Its name, in parentheses, may hold spaces; state Z is dead already.
    fields = told.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]
