"""What is at fault if a scan's job raises an error: the scan's data, or something else."""

from __future__ import annotations

import errno
import re
import subprocess
from collections.abc import Iterator

from voxplain.faults import DataFault, SetupFault

# What libraries say if the machine lacks memory or disk space, though the error has another type.
_OF_MACHINE = re.compile(
    r"out of memory|bad_alloc|(cannot|can't|could not|failed to|unable to) allocate"
    r"|no space left|disk quota",
    re.IGNORECASE,
)
# Errors of the system that come from a file's name or content, and not from the machine.
_OF_FILE = (errno.ENAMETOOLONG, errno.EILSEQ, errno.ELOOP, errno.EINVAL, errno.EOVERFLOW)


def fault_of_data(error: Exception, remedy: str) -> DataFault | None:
    """The fault of a scan's data behind an error of its job; None if something else is at fault.

    Whatever is raised by reading or measuring a scan's data is a fault of this scan: nobody
    foresees all that files can hold. Its reason then begins with the type of the error. Not the
    scan's fault are want of memory, errors of the system (a full disk), a set-up that cannot be
    used, modules that cannot be imported, and programs that were ended from outside; also as the
    cause of another error.

    Parameters
    ----------
    error
        What was raised.
    remedy
        What the user can do, unless the error is a `DataFault` already.
    """
    if any(_is_of_machine(link) for link in _chain(error)):
        return None
    if isinstance(error, DataFault):
        return error
    return DataFault(f"{type(error).__name__}: {error}", remedy)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, the error that it was raised from, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_of_machine(error: BaseException) -> bool:
    if isinstance(
        error,
        MemoryError | ImportError | SetupFault | ChildProcessError | subprocess.SubprocessError,
    ):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno not in _OF_FILE
    if isinstance(error, DataFault):
        return False  # its message quotes other programs, which may say anything
    return "OutOfMemory" in type(error).__name__ or bool(_OF_MACHINE.search(str(error)))
