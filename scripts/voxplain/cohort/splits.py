"""Who trains and who tests: splits of a cohort by patient.

Only the standard library is needed: which scans a split holds is decided while the workflow is
parsed, from the table alone, so that no job's outcome moves anybody from one side to the other.
A patient's place depends on the seed and on the patients' own names (their order is that of a
hash), not on the order of a table.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from voxplain.cohort.leakage import TEST, TRAIN
from voxplain.cohort.scans import Scan
from voxplain.faults import SetupFault

FIXED = "fixed"


@dataclass(frozen=True)
class Split:
    """One division of a cohort's scans.

    Attributes
    ----------
    name
        ``repeat-1_fold-1``, ..., or ``fixed``.
    train, test
        Image ids in the order of the table.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]

    @cached_property
    def _sides(self) -> dict[str, str]:
        return {**dict.fromkeys(self.train, TRAIN), **dict.fromkeys(self.test, TEST)}

    def side(self, image: str) -> str:
        """The side of a scan; empty if it takes no part."""
        return self._sides.get(image, "")


def patient_of(scan: Scan) -> str:
    """Who a scan shows, however the table spells the subject: ``011_S_0003``, ``011s0003``."""
    return scan.subject_label.upper()


def patient_classes(scans: Iterable[Scan], classes: Sequence[str]) -> dict[str, str]:
    """The class each patient counts under: the first of ``classes`` that any scan of theirs has.

    With the disease first, a patient with any scan of it counts as diseased (Rieke et al. 2018,
    published code).
    """
    groups = defaultdict(set)
    for scan in scans:
        groups[patient_of(scan)].add(scan.group)
    return {
        patient: next(group for group in classes if group in found)
        for patient, found in groups.items()
    }


def make_folds(
    scans: Sequence[Scan],
    classes: Sequence[str],
    folds: int,
    repeats: int,
    stratify: bool,
    seed: int,
) -> list[Split]:
    """Cross-validation by patient, repeated with other divisions.

    Patients of a class are put in the order of a hash and dealt to the folds in turn; unstratified,
    all patients are one class. One more repeat leaves the earlier ones as they are.

    Parameters
    ----------
    scans
        Those that take part, each of a group among ``classes``.
    classes
        Groups, the disease first.
    folds, repeats
        Numbers of folds, and of divisions into folds.
    stratify
        Whether every fold gets its share of each class.
    seed
        Of the patients' order.

    Raises
    ------
    SetupFault
        A class has fewer patients than there are folds, or a training set would lack a class.
    """
    by_class = patient_classes(scans, classes)
    counts = Counter(by_class.values())
    for group in classes if stratify else ():
        if counts[group] < folds:
            raise SetupFault(
                f"config: splits.folds is {folds}, but class {group} has {counts[group]} patients; "
                "allowed: at most as many folds as the smallest class has patients"
            )
    if len(by_class) < folds:
        raise SetupFault(
            f"config: splits.folds is {folds}, but there are {len(by_class)} patients; allowed: at "
            "most as many folds as patients"
        )
    splits = []
    for repeat in range(1, repeats + 1):
        fold_of = {}
        strata = [[p for p, g in by_class.items() if g == group] for group in classes]
        for rank, stratum in enumerate(strata if stratify else [list(by_class)]):
            for place, patient in enumerate(_hash_order(stratum, f"{seed}/{repeat}")):
                # Every other class is dealt backwards, so that no fold gets all the remainders.
                fold_of[patient] = folds - 1 - place % folds if rank % 2 else place % folds
        for fold in range(folds):
            name = f"repeat-{repeat}_fold-{fold + 1}"
            testing = {patient for patient, its in fold_of.items() if its == fold}
            splits.append(_split(name, scans, testing, classes))
    return splits


def make_fixed(
    scans: Sequence[Scan], classes: Sequence[str], test_patients: int, seed: int
) -> Split:
    """The fixed split whose test set the heatmaps explain: so many patients of each class.

    Parameters
    ----------
    test_patients
        Patients of each class in the test set; Rieke et al. took 30.

    Raises
    ------
    SetupFault
        A class has no more patients than that.
    """
    by_class = patient_classes(scans, classes)
    testing = set()
    for group in classes:
        patients = [patient for patient, its in by_class.items() if its == group]
        if len(patients) <= test_patients:
            raise SetupFault(
                f"config: splits.fixed_test_patients is {test_patients}, but class {group} has "
                f"{len(patients)} patients; allowed: fewer, so that some are left to train on"
            )
        testing.update(_hash_order(patients, f"{seed}/{FIXED}")[:test_patients])
    return _split(FIXED, scans, testing, classes)


def _hash_order(patients: Iterable[str], salt: str) -> list[str]:
    return sorted(patients, key=lambda p: hashlib.sha256(f"{salt}/{p}".encode()).hexdigest())


def _split(name: str, scans: Sequence[Scan], testing: set[str], classes: Sequence[str]) -> Split:
    train = [scan for scan in scans if patient_of(scan) not in testing]
    test = [scan for scan in scans if patient_of(scan) in testing]
    for group in classes:
        if not any(scan.group == group for scan in train):
            raise SetupFault(
                f"split {name} has no scan of class {group} to train on; set splits.stratify to "
                "true, or ask for other folds"
            )
    return Split(name, tuple(s.image for s in train), tuple(s.image for s in test))


def count_members(
    members: Iterable[Mapping[str, str]], classes: Sequence[str]
) -> list[dict[str, str | int]]:
    """Scans and patients of every class on both sides of every split.

    A patient whose label changes over time counts under each of their labels, and once more in
    ``patients_with_several_labels``.

    Parameters
    ----------
    members
        Rows with ``split``, ``side``, ``patient`` and ``class``, one a scan.

    Returns
    -------
    One row for each split, side and class.
    """
    labels: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in members:
        of_side = labels.setdefault((row["split"], row["side"]), {})
        of_side.setdefault(row["patient"], []).append(row["class"])
    return [
        {
            "split": split,
            "side": side,
            "class": group,
            "scans": sum(found.count(group) for found in of_side.values()),
            "patients": sum(group in found for found in of_side.values()),
            "patients_with_several_labels": sum(len(set(f)) > 1 for f in of_side.values()),
        }
        for (split, side), of_side in labels.items()
        for group in classes
    ]
