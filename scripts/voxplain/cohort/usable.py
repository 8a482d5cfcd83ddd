"""Checks of the scans of a split that came through preprocessing.

They stand apart from :mod:`voxplain.cohort.fates`, so that a change there, of a table or of words,
trains no network again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from voxplain.faults import SetupFault


def check_lost_of_split(
    lost: Sequence[str], scans: int, failures_left: int, split: str, cohort: str
) -> None:
    """Raise if processing lost more scans of a split than ``max_failed`` still allows.

    Parameters
    ----------
    lost
        Images of the split that are not usable.
    scans
        Number of scans in the split before processing.
    failures_left
        How many more scans ``max_failed`` allows to be lost, after those lost before processing.
    split, cohort
        Their names, for the message.

    Raises
    ------
    SetupFault
        More scans were lost.
    """
    if len(lost) > failures_left:
        raise SetupFault(
            f"{len(lost)} of the {scans} scans of split {split} were lost in "
            "processing, and with those lost before more than max_failed allows; see "
            f"results/{cohort}/scans.tsv, and that of the cohort tested on"
        )


def check_tools_of_split(
    tools: Collection[str], split: str, remedy: str = "strip all scans by one of them"
) -> None:
    """Raise if scans of a split were stripped by different tools: sides or classes may differ.

    Parameters
    ----------
    tools
        The tools that stripped the usable scans of the split.
    split
        Name of the split, for the message.
    remedy
        What to do, for the message.

    Raises
    ------
    SetupFault
        There are several tools.
    """
    if len(tools) > 1:
        raise SetupFault(
            f"split {split} mixes scans stripped by {' and '.join(sorted(tools))}, whose masks "
            f"differ as much as groups do; {remedy}"
        )
