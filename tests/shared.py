"""What takes long is made by one of several test processes, for all of them."""

import shutil
from contextlib import contextmanager

from filelock import FileLock


@contextmanager
def made_once(tmp_path_factory, worker_id: str, name: str):
    """A folder that the first process fills for all, and whether it is empty."""
    base = tmp_path_factory.getbasetemp()
    directory = (base if worker_id == "master" else base.parent) / name
    done = directory.with_suffix(".done")
    with FileLock(f"{directory}.lock"):
        if not done.exists():
            shutil.rmtree(directory, ignore_errors=True)  # of a process that failed
        yield directory, not done.exists()
        done.touch()
