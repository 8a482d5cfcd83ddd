"""The two kinds of errors: faults of one scan's data, and faults of the set-up.

The workflow treats them differently. A fault of one scan's data affects that scan only: it becomes
the scan's fate, and the other scans are processed. A fault of the set-up (a table without a column,
a tool that is not installed) stops the run with a message, since it affects every scan.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

# A message line of more characters is cut in its middle: values of users' files may be long.
_LONGEST_LINE = 2000
# Bytes of names that are not UTF-8, half characters, and control characters other than \t and \n.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text with escapes (``\xff``) for what no file or terminal can hold.

    These are the bytes of file names that are not UTF-8, half characters, and control characters.
    """
    return _UNPRINTABLE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    # Python reads a byte that is not UTF-8 as the half character U+DC00 plus the byte.
    code -= 0xDC00 if 0xDC80 <= code <= 0xDCFF else 0
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def shortened(text: str, longest: int = 100) -> str:
    """The text, or its beginning and end with three dots between them if it is longer."""
    if len(text) <= longest:
        return text
    kept = max(longest - 5, 2)
    return f"{text[: kept - kept // 3]} ... {text[-(kept // 3) :]}"


class DataFault(Exception):
    """The data of one scan cannot be used.

    Parameters
    ----------
    reason
        The actual and the expected value, with the name of the file or value.
    remedy
        What the user can do about it.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        # A reason may be a message of another library, with several lines, or name any file.
        self.reason, self.remedy = (
            shortened(printable(" ".join(text.split())), _LONGEST_LINE) for text in (reason, remedy)
        )
        super().__init__(f"{self.reason}; {self.remedy}")


class AvoidableFault(DataFault):
    """The data of one scan can be used if a parameter has another value.

    Its remedy names the parameter of the function. A program that takes the value from another
    source replaces this name by that of its source, see :func:`voxplain_workflow.naming.naming`.

    Parameters
    ----------
    reason
        As in :class:`DataFault`.
    remedy
        Likewise; ``{setting}`` in it stands for the parameter and its value.
    parameter, value
        Name of the parameter, and the value with which the data is used.
    """

    def __init__(self, reason: str, remedy: str, parameter: str, value: object) -> None:
        self.parameter, self.value, self._remedy = parameter, value, remedy
        super().__init__(reason, self.remedy_named(parameter))

    def remedy_named(self, name: str) -> str:
        """The remedy with another name for the parameter."""
        return self._remedy.replace("{setting}", f"{name}: {self.value}")


class SetupFault(Exception):
    """The configuration, a table or an installed tool cannot be used; the message is one line."""

    def __init__(self, message: str) -> None:
        # Several keys may be wrong, and a message may end with a list of scans: a line for each.
        lines = printable(message).split("\n")
        super().__init__("\n".join(shortened(line, _LONGEST_LINE) for line in lines))


class ParameterFault(SetupFault):
    """A parameter of a function has an invalid value.

    The message names the parameter of the function. A program that takes the value from another
    source, such as a configuration, replaces this name by that of its source, see
    :func:`voxplain_workflow.naming.naming`.

    Parameters
    ----------
    parameter
        Name of the parameter, with which the message begins; ``select.age`` for an entry of a
        mapping.
    problem
        The rest of the message: the value, what is wrong with it, and what is allowed.
    others
        Other parameters that are involved: with another value of these, the value would be allowed.
    """

    def __init__(self, parameter: str, problem: str, *others: str) -> None:
        self.parameter, self.problem, self.others = parameter, problem, others
        super().__init__(f"{parameter} {problem}")


@dataclass(frozen=True)
class Fate:
    """The outcome of processing for one scan.

    Attributes
    ----------
    status
        ``usable`` (passed all stages), ``failed`` (a fault of its data), ``excluded`` (quality
        control), ``unused`` (it is not selected, has no class in any task, or its row names no
        image), or ``duplicate`` (the table names the same image twice).
    stage
        The stage that decided the status.
    reason, remedy
        One line each; empty for a usable scan.
    """

    status: str
    stage: str
    reason: str = ""
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        """The fate as a plain dict, for a sidecar."""
        return asdict(self)


def failed(stage: str, fault: DataFault) -> Fate:
    """The fate of a scan whose data failed in a stage."""
    return Fate("failed", stage, fault.reason, fault.remedy)
