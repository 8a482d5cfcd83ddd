"""Stable or progressive MCI: labels of MCI scans, derived from the patient's later visits.

sMCI and pMCI after Wen et al. 2020 (Medical Image Analysis 63): a patient with MCI is progressive
if Alzheimer's disease is diagnosed within a horizon, and stable if it is not diagnosed although the
patient was followed for that long. A patient with a shorter follow-up has neither label: whether
the disease was diagnosed later is unknown.

Only the standard library is needed: labels are derived while the workflow is parsed.
"""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from voxplain.cohort.scan import Scan
from voxplain.cohort.visits import visit_month
from voxplain.faults import ParameterFault

STABLE, PROGRESSIVE = "sMCI", "pMCI"
MCI_GROUPS = ("MCI", "EMCI", "LMCI")
DISEASE = "AD"
VISITS = ("first", "any")

_DAYS_A_MONTH = 365.25 / 12
# Half of the six months between ADNI's visits: a visit this close to the horizon counts as the
# visit at the horizon. With the scan dates of the 1.5 T list of Rieke et al. 2018, where screening
# is weeks before month 0, a tolerance of half a month would lose 54 of the 197 scans that are pMCI
# at 24 months; three months lose 2.
_TOLERANCE_MONTHS = 3


@dataclass(frozen=True)
class Progression:
    """The progression label of one MCI scan.

    Attributes
    ----------
    label
        ``sMCI``, ``pMCI``, or empty if the scan has neither label.
    reason
        Why the scan has no label, one line; empty if it has one.
    """

    label: str
    reason: str = ""


def check_task(classes: Sequence[str]) -> None:
    """Raise if a scan could have two classes in a task.

    Raises
    ------
    ParameterFault
        The task has sMCI or pMCI together with MCI, EMCI or LMCI, or the same class twice.
    """
    listing = ", ".join(classes)
    derived = [name for name in classes if name in (STABLE, PROGRESSIVE)]
    groups = [name for name in classes if name in MCI_GROUPS]
    if derived and groups:
        raise ParameterFault(
            "classes",
            f"is {listing}, which has {' and '.join(derived)} beside {' and '.join(groups)}, so "
            "that a scan could be in two classes; allowed: either of the two kinds, with AD, NC or "
            "SMC",
        )
    if len(set(classes)) < len(classes):
        raise ParameterFault(
            "classes", f"is {listing}, which names a class twice; allowed: each class once"
        )


def derive_progression(
    scans: Sequence[Scan], horizon_months: float, visit: str
) -> dict[str, Progression]:
    """Image id of every MCI scan of a cohort to its progression label, from the later visits.

    Every row of a patient counts as a visit, whatever its fate, with or without images. The time
    between two visits is the difference of their dates, or of their months (screening and baseline
    are month 0) if one of them has no date.

    - pMCI: AD within the horizon. A later visit without AD does not change the label.
    - sMCI: no AD within the horizon, and visits without AD up to the horizon or beyond. A return to
      NC or SMC counts as a visit without AD, as MCI does: the patient did not progress.
    - neither: AD before or at the scan; a follow-up shorter than the horizon; AD after the horizon
      where the last visit without AD is before the horizon, since the date of onset is unknown.

    A visit up to three months before or after the horizon counts as the visit at the horizon.

    The table must give a diagnosis for each visit. If it has one group for each subject, as the
    search export of the archive has, no patient converts to AD and no scan is pMCI.

    Parameters
    ----------
    scans
        All rows of a cohort's table, see :func:`voxplain.cohort.scans.list_scans`.
    horizon_months
        The horizon in months; 36 in Wen et al. 2020.
    visit
        Which MCI scans of a patient are labelled: those of the ``first`` visit with MCI, or those
        of ``any`` visit.

    Returns
    -------
    Image id of every MCI scan (MCI, EMCI, LMCI) to its label, or to the reason why it has no label.

    Raises
    ------
    ParameterFault
        The horizon is not above 0, or ``visit`` is neither ``first`` nor ``any``.
    """
    if not horizon_months > 0:
        raise ParameterFault("horizon_months", f"is {horizon_months}; allowed: more than 0")
    if visit not in VISITS:
        raise ParameterFault("visit", f"is {visit!r}; allowed: {', '.join(VISITS)}")
    by_patient = defaultdict(list)
    for scan in scans:
        if scan.group:
            by_patient[scan.patient].append(scan)
    progressions: dict[str, Progression] = {}
    # If several rows name the same image, the row without a fate is the scan.
    for scan in sorted(scans, key=lambda scan: scan.fate is not None):
        if scan.group in MCI_GROUPS and scan.image not in progressions:
            progressions[scan.image] = _progression(
                scan, by_patient[scan.patient], horizon_months, visit
            )
    return progressions


def _progression(
    scan: Scan, visits: Sequence[Scan], horizon_months: float, which: str
) -> Progression:
    """The label of one MCI scan, from all rows of its patient."""
    if not scan.patient:
        return Progression("", "the subject is empty")
    if not scan.date and visit_month(scan.session) is None:
        return Progression("", f"neither date nor month of visit {scan.session!r} is known")
    after = {other.row: _months_between(scan, other) for other in visits}
    known = [other for other in visits if after[other.row] is not None]
    if which == "first" and any(
        other.group in MCI_GROUPS and after[other.row] < 0 and other.session != scan.session
        for other in known
    ):
        return Progression("", "not the first visit with MCI")
    disease = [other for other in visits if other.group == DISEASE]
    if any(after[other.row] is None for other in disease):
        return Progression("", "the time between the scan and a visit with AD is not known")
    onset = min((after[other.row] for other in disease), default=None)
    if onset is not None and onset <= 0:
        return Progression("", "AD before the scan, or with it")
    if onset is not None and onset <= horizon_months + _TOLERANCE_MONTHS:
        return Progression(PROGRESSIVE)
    followed = max(
        after[o.row]
        for o in known
        if o.group != DISEASE and (onset is None or after[o.row] < onset)
    )
    if followed >= horizon_months - _TOLERANCE_MONTHS:
        return Progression(STABLE)
    follow_up = f"followed for {followed:.0f} of {horizon_months:g} months"
    if onset is not None:
        return Progression("", f"{follow_up} without AD, then seen with it after {onset:.0f}")
    return Progression("", follow_up)


def _months_between(scan: Scan, other: Scan) -> float | None:
    """Months from a scan to another visit of its patient, below 0 if that was earlier."""
    if scan.date and other.date:
        start, end = (datetime.date.fromisoformat(visit.date) for visit in (scan, other))
        return (end - start).days / _DAYS_A_MONTH
    months = visit_month(scan.session), visit_month(other.session)
    return None if None in months else float(months[1] - months[0])
