"""A scan of a cohort, and its class in a task.

Only the standard library is needed, see :mod:`voxplain.cohort.scans`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from voxplain.cohort.names import bids_label, patient_of
from voxplain.faults import Fate


@dataclass(frozen=True)
class Scan:
    """One row of a cohort's table.

    Attributes
    ----------
    row
        Line in the table; the header is line 1.
    image
        Image id with its leading ``I``.
    subject
        As in the table, e.g. ``011_S_0003``.
    session
        BIDS session label from visit or date, e.g. ``M12``.
    visit, date
        As in the table; ISO date, or empty.
    diagnosis, group
        As in the table; the group of this diagnosis, or empty.
    sex, age, description, phase, field_strength
        As in the table, or empty.
    place
        Place of its files, see :class:`voxplain.cohort.trees.Tree`, or empty.
    companions
        Files of the scan that are at other places: sidecar, mask, the archive's XML.
    fate
        Fate of a scan that will not be processed; None for the others.
    label
        BIDS label of the subject, if it is not :func:`voxplain.cohort.names.bids_label` of it,
        which another patient of the cohort has too.
    progression
        ``sMCI`` or ``pMCI``, or empty; see :mod:`voxplain.cohort.progression`.
    """

    row: int
    image: str
    subject: str
    session: str
    visit: str
    date: str
    diagnosis: str
    group: str
    sex: str
    age: str
    description: str
    place: str = ""
    companions: tuple[str, ...] = ()
    fate: Fate | None = None
    progression: str = ""
    phase: str = ""
    field_strength: str = ""
    label: str = ""

    @property
    def subject_label(self) -> str:
        """The subject as a BIDS label, see :func:`voxplain.cohort.names.bids_label`."""
        return self.label or bids_label(self.subject)

    @property
    def patient(self) -> str:
        """The patient of the scan, see :func:`voxplain.cohort.names.patient_of`."""
        return patient_of(self.subject)


def class_in(scan: Scan, classes: Sequence[str]) -> str:
    """The class of a scan in a task: its group or its progression; empty if it has no class.

    No task has both the groups of MCI and the labels derived from them, see
    :func:`voxplain.cohort.progression.check_task`.
    """
    return next((name for name in (scan.group, scan.progression) if name in classes), "")
