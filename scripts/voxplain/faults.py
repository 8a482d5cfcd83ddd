"""The two ways in which a computation can refuse: the data is at fault, or the set-up is.

The difference decides what the workflow does. A fault of one scan's data costs that scan only: it
is written down as the scan's fate and the cohort goes on. A fault of the set-up (a table without a
column, a tool that is not installed) stops the run with a message, since every scan would meet it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


class DataFault(Exception):
    """The data of one scan cannot be used.

    Parameters
    ----------
    reason
        What was found, and what was expected, naming the file or value at fault.
    remedy
        What the user can do about it.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        # Other libraries' words, of which a reason may consist, come in several lines.
        self.reason, self.remedy = (" ".join(text.split()) for text in (reason, remedy))
        super().__init__(f"{self.reason}; {self.remedy}")


class SetupFault(Exception):
    """The configuration, a table or an installed tool cannot be used; the message is one line."""


class ParameterFault(SetupFault):
    """A parameter of a function cannot have the value it has.

    The library says which of its parameters is at fault, as whoever calls the function knows it. A
    program that takes the value from elsewhere, as from a configuration, puts its name for it in
    the parameter's place, see :func:`voxplain_workflow.naming.naming`.

    Parameters
    ----------
    parameter
        Its name, with which the message begins; ``select.age`` for an entry of a mapping.
    problem
        What follows the name: the value, what is wrong with it, and what is allowed.
    others
        Other parameters that have a part in it: with another value of theirs it would be allowed.
    """

    def __init__(self, parameter: str, problem: str, *others: str) -> None:
        self.parameter, self.problem, self.others = parameter, problem, others
        super().__init__(f"{parameter} {problem}")


@dataclass(frozen=True)
class Fate:
    """What became of a scan.

    Attributes
    ----------
    status
        ``usable`` (went through all stages), ``failed`` (a fault of its data), ``excluded``
        (quality control), ``unused`` (it has no class in any task, or its line names no image), or
        ``duplicate`` (the table names the same image twice).
    stage
        The stage that decided it.
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
