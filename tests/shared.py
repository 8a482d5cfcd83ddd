"""Slow files are made by one of several test processes, for all of them."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

# Where CI keeps the files of one call of pytest for the next: a new folder, since nothing notices
# here that the code has changed in between.
KEPT = os.environ.get("VOXPLAIN_TESTS_KEEP")


@contextmanager
def made_once(tmp_path_factory, worker_id: str, name: str):
    """A folder that the first process fills for all, and whether it is empty."""
    base = tmp_path_factory.getbasetemp()
    shared = Path(KEPT) if KEPT else base if worker_id == "master" else base.parent
    directory = shared / name
    done = directory.with_suffix(".done")
    with FileLock(f"{directory}.lock"):
        if not done.exists():
            shutil.rmtree(directory, ignore_errors=True)  # of a process that failed
        yield directory, not done.exists()
        done.touch()
