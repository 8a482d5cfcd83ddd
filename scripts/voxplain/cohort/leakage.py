"""Does anything of the test set reach the training? The checks of Wen et al. 2020.

Biased split: a patient, or the same image under another name, on both sides. Late split: something
fitted before the split. Both make the accuracy too good, and the heatmaps with it.
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
        Image id; who it shows, in one spelling.
    side
        ``train`` or ``test``.
    group
        Its class.
    digests
        SHA-256 of its voxels, and of whatever else tells images apart.
    cohort
        Its cohort, where that is another than the training scans'; image ids of two cohorts may be
        the same.
    head
        The head that a simulated patient is made from; empty where nobody knows.
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
        """The image id, with the cohort's name if it is of another."""
        return f"{self.image} of cohort {self.cohort}" if self.cohort else self.image


def find_leaks(members: Sequence[Member]) -> list[str]:
    """One line for every patient on both sides and every image that stands under two ids.

    The same image under two patients' names is a leak wherever both lie: whose it
    is cannot be told. The same image twice under one patient is none, but it counts twice; see
    :func:`find_repeated`.
    """
    leaks = []
    sides = defaultdict(lambda: defaultdict(list))
    for member in members:
        sides[member.patient][member.side].append(member.name)
    for patient, found in sorted(sides.items()):
        if len(found) > 1:
            told = "; ".join(f"{side}: {', '.join(sorted(found[side]))}" for side in sorted(found))
            leaks.append(f"patient {patient} is on both sides ({told})")
    for first, second in _same_images(members):
        if first.patient != second.patient:
            leaks.append(
                f"images {first.name} (patient {first.patient}, {first.side}) and {second.name} "
                f"(patient {second.patient}, {second.side}) are the same"
            )
    return leaks


def find_repeated(members: Sequence[Member]) -> list[str]:
    """One line for every image that stands under two ids of one patient."""
    return [
        f"images {first.name} and {second.name} of patient {first.patient} are the same"
        for first, second in _same_images(members)
        if first.patient == second.patient
    ]


def find_shared_heads(members: Sequence[Member]) -> list[str]:
    """One line for every head that patients on both sides are made from.

    They share its folding, which an atrophy changes little: a network that knows the head from
    training is tested on what it has seen.
    """
    patients = defaultdict(lambda: defaultdict(set))
    for member in members:
        if member.head:
            patients[member.head][member.side].add(member.patient)
    return [
        f"head {head} is on both sides ("
        + "; ".join(f"{side}: {len(found[side])} patients" for side in sorted(found))
        + ")"
        for head, found in sorted(patients.items())
        if len(found) > 1
    ]


def _same_images(members: Sequence[Member]) -> list[tuple[Member, Member]]:
    """Pairs that share a digest: each image with the first that hashes to the same."""
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
    """Refuse a split that leaks, or one side of which lacks what it needs.

    Parameters
    ----------
    members
        The scans that came through preprocessing.
    classes
        Each must have a scan to train on; the test side needs one scan of any.
    split
        Name of the split, for messages.
    by_head
        Whether a head on both sides is a leak as well.

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
    """What the audit knows of a split that :func:`check_members` let pass, as its record has it."""
    patients = {side: {m.patient for m in members if m.side == side} for side in (TRAIN, TEST)}
    return {
        # Any of these is refused.
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
    """Refuse what was fitted on anything but the training scans of its split.

    Parameters
    ----------
    fitted_on
        Image ids that ``what`` (statistics, a model) was fitted on, as recorded where it was.
    members
        The split's scans.
    what
        For the message.
    scans
        How many training scans it was to be fitted on, where not on all of them.

    Raises
    ------
    SetupFault
        It saw a test scan, a scan of no side, or not as many training scans as it should have.
    """
    fitted_on = set(fitted_on)
    training = {member.image for member in members if member.side == TRAIN}
    expected = len(training) if scans is None else min(scans, len(training))
    if not fitted_on <= training or len(fitted_on) != expected:
        # The test scans of another cohort may bear the ids of training scans.
        testing = {m.image for m in members if m.side == TEST} - training
        seen = sorted(fitted_on & testing)
        told = f"test scans {', '.join(seen[:5])}" if seen else "other scans"
        number = f"the {expected}" if expected == len(training) else f"{expected} of the"
        raise SetupFault(
            f"{what} were fitted on {told} and not on exactly {number} training scans "
            "of their split; delete the file and run again"
        )
