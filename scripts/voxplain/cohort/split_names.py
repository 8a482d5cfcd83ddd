"""Names of splits: how they are made, and what they say."""

from __future__ import annotations

import re
from dataclasses import dataclass

from voxplain.faults import SetupFault

# Kinds of splits. There is one fixed split, whose name is its kind.
FIXED, EXTERNAL, FOLDS = ("fixed", "external", "folds")
# Regular expression of the names of folds.
FOLD_PATTERN = "repeat-[0-9]+_fold-[0-9]+"


def fold_name(repeat: int, fold: int) -> str:
    """The name of a split of a cross-validation; both numbers begin at 1."""
    return f"repeat-{repeat}_fold-{fold}"


def external_name(cohort: str) -> str:
    """The name of a split that tests on another cohort."""
    return f"{EXTERNAL}-{cohort}"


@dataclass(frozen=True)
class SplitName:
    """The parts of a split's name.

    Attributes
    ----------
    kind
        ``fixed``, ``external``, or ``folds``.
    repeat, fold
        Numbers of the fold, from 1; 0 for a split of another kind.
    """

    kind: str
    repeat: int = 0
    fold: int = 0

    @classmethod
    def parse(cls, name: str) -> SplitName:
        """Parse the name of a split.

        Raises
        ------
        SetupFault
            It is not the name of a split.
        """
        if re.fullmatch(FOLD_PATTERN, name):
            return cls(FOLDS, *map(int, re.findall("[0-9]+", name)))
        if name == FIXED:
            return cls(FIXED)
        if name.startswith(external_name("")):
            return cls(EXTERNAL)
        raise SetupFault(
            f"split {name!r} is unknown; expected repeat-<number>_fold-<number>, {FIXED} or "
            f"{external_name('<cohort>')}"
        )
