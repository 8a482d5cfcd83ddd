"""Checks for data leakage from the test set into the training, after Wen et al. 2020.

Biased split: a patient, or the same image under another name, is on both sides. Late split:
something is fitted before the data are split. Both make the accuracy, and thus the heatmaps, look
better than they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from voxplain.faults import SetupFault

TRAIN, TEST = "train", "test"


@dataclass(frozen=True)
class Member:
    """One scan of a split.

    Attributes
    ----------
    image, patient
        Image id; patient, in one spelling.
    side
        ``train`` or ``test``.
    group
        Class of the scan.
    digests
        SHA-256 of the voxels, and of anything else that identifies an image.
    cohort
        Cohort of the scan, if it is not that of the training scans, else empty. Two cohorts may
        have the same image ids.
    head
        The head that a simulated patient is made from; empty if unknown.
    """

    image: str
    patient: str
    side: str
    group: str
    digests: tuple[str, ...] = ()
    cohort: str = ""
    head: str = ""

    @property
    def name(self) -> str:
        """The image id, with the name of the cohort if it is not the training cohort."""
        return f"{self.image} of cohort {self.cohort}" if self.cohort else self.image


def find_leaks(members: Sequence[Member]) -> list[str]:
    """Lines that describe every patient on both sides and every image listed for two patients.

    The same image under two patients' names is a leak on whichever sides they are: its true patient
    is unknown. The same image twice for one patient is no leak, but the image counts twice; see
    :func:`find_repeated`.
    """
    leaks = []
    sides = defaultdict(lambda: defaultdict(list))
    for member in members:
        sides[member.patient][member.side].append(member.name)
    for patient, by_side in sorted(sides.items()):
        if len(by_side) > 1:
            listing = "; ".join(
                f"{side}: {', '.join(sorted(by_side[side]))}" for side in sorted(by_side)
            )
            leaks.append(f"patient {patient} is on both sides ({listing})")
    for first, second in _same_images(members):
        if first.patient != second.patient:
            leaks.append(
                f"images {first.name} (patient {first.patient}, {first.side}) and {second.name} "
                f"(patient {second.patient}, {second.side}) are the same"
            )
    return leaks


def find_repeated(members: Sequence[Member]) -> list[str]:
    """Lines that describe every image that has two ids of the same patient."""
    return [
        f"images {first.name} and {second.name} of patient {first.patient} are the same"
        for first, second in _same_images(members)
        if first.patient == second.patient
    ]


def find_shared_heads(members: Sequence[Member]) -> list[str]:
    """Lines that describe every head that patients on both sides are made from.

    These patients share the folding of the head, which atrophy changes little: a network that was
    trained on a head is tested on an anatomy that it has seen.
    """
    patients = defaultdict(lambda: defaultdict(set))
    for member in members:
        if member.head:
            patients[member.head][member.side].add(member.patient)
    return [
        f"head {head} is on both sides ("
        + "; ".join(f"{side}: {len(by_side[side])} patients" for side in sorted(by_side))
        + ")"
        for head, by_side in sorted(patients.items())
        if len(by_side) > 1
    ]


def _same_images(members: Sequence[Member]) -> list[tuple[Member, Member]]:
    """Pairs of scans that share a digest: each scan with the first scan of the same digest."""
    first_with: dict[str, Member] = {}
    pairs = {}
    for member in members:
        for digest in member.digests:
            first = first_with.setdefault(digest, member)
            if first.name != member.name:
                pairs[(first.name, member.name)] = (first, member)
    return list(pairs.values())


def check_members(
    members: Sequence[Member], classes: Iterable[str], split: str, by_head: bool = False
) -> None:
    """Raise if a split leaks, or if scans are missing on one of its sides.

    Parameters
    ----------
    members
        The usable scans after preprocessing.
    classes
        Each must have a training scan; the test side needs at least one scan of any class.
    split
        Name of the split, for messages.
    by_head
        Whether a head on both sides counts as a leak.

    Raises
    ------
    SetupFault
        One line for each problem.
    """
    problems = [
        f"split {split} leaks: {leak}; correct the table of scans" for leak in find_leaks(members)
    ]
    if by_head:
        problems += [
            f"split {split} leaks: {shared}, though all patients of a head are to be on one side; "
            "make the cohorts from different heads"
            for shared in find_shared_heads(members)
        ]
    for group in classes:
        if not any(m.side == TRAIN and m.group == group for m in members):
            problems.append(
                f"split {split} has no usable scan of class {group} left to train on; see the "
                "fates in scans.tsv"
            )
    if not any(member.side == TEST for member in members):
        problems.append(f"split {split} has no usable scan left to test; see scans.tsv")
    if problems:
        raise SetupFault("\n".join(problems))


def describe_audit(members: Sequence[Member]) -> dict[str, Any]:
    """The fields of the audit record of a split that passed :func:`check_members`."""
    patients = {side: {m.patient for m in members if m.side == side} for side in (TRAIN, TEST)}
    return {
        # 0 in every split that passed the check.
        "PatientsOnBothSides": 0,
        "ImagesOfTwoPatients": 0,
        "ImagesCountedTwice": find_repeated(members),
        "HeadsKnown": any(member.head for member in members),
        "HeadsOnBothSides": find_shared_heads(members),
        "PatientsTrain": len(patients[TRAIN]),
        "PatientsTest": len(patients[TEST]),
    }


def check_fitted_on(
    fitted_on: Iterable[str], members: Sequence[Member], what: str, scans: int | None = None
) -> None:
    """Raise if something was fitted on other scans than the training scans of its split.

    Parameters
    ----------
    fitted_on
        Image ids that ``what`` (statistics, a model) was fitted on, from the record of the fit.
    members
        The split's scans.
    what
        Name of the fitted object, for the message.
    scans
        The number of training scans that it should be fitted on; None: all of them.

    Raises
    ------
    SetupFault
        It was fitted on a test scan, on a scan outside of the split, or on another number of
        training scans than expected.
    """
    fitted_on = set(fitted_on)
    training = {member.image for member in members if member.side == TRAIN}
    expected = len(training) if scans is None else min(scans, len(training))
    if not fitted_on <= training or len(fitted_on) != expected:
        # The test scans of another cohort may have the same ids as training scans.
        testing = {m.image for m in members if m.side == TEST} - training
        seen = sorted(fitted_on & testing)
        actual = f"test scans {', '.join(seen[:5])}" if seen else "other scans"
        number = f"the {expected}" if expected == len(training) else f"{expected} of the"
        raise SetupFault(
            f"{what} were fitted on {actual} and not on exactly {number} training scans "
            "of their split; delete the file and run again"
        )
