"""Placeholder for a part of the plan that could not be made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn


class Faulty(Mapping[Any, Any]):
    """A mapping that could not be filled: every access raises the reason.

    A fault of splits or networks then stops only the targets and jobs that need them. (Access it in
    input and params functions only; Snakemake wraps the errors of resource functions.)

    Parameters
    ----------
    reason
        Raised by looking up, counting, comparing, and iterating over keys or values.
    """

    def __init__(self, reason: BaseException) -> None:
        self._reason = reason

    def _refuse(self, *_: object) -> NoReturn:
        raise self._reason.with_traceback(None)

    __getitem__ = __iter__ = __len__ = __contains__ = __eq__ = _refuse
    keys = items = values = get = _refuse
