"""What stands in the place of a part of the plan that could not be made."""

from __future__ import annotations

from typing import Any, NoReturn


class Faulty(dict[Any, Any]):
    """A mapping that could not be filled: whoever looks into it raises the reason.

    A fault of splits or networks so stops the jobs that need them, and no others.

    Parameters
    ----------
    reason
        Raised by looking up, counting, and iterating over keys or values.
    """

    def __init__(self, reason: BaseException) -> None:
        super().__init__()
        self._reason = reason

    def _refuse(self, *_: object) -> NoReturn:
        raise self._reason.with_traceback(None)

    __contains__ = __getitem__ = __iter__ = __len__ = _refuse
    get = items = keys = values = _refuse
