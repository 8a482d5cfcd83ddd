"""Splits of a cohort into training and test scans, by patient.

Only the standard library is needed: the scans of a split are chosen while the workflow is parsed,
from the table alone, so that the outcome of a job never moves a patient to the other side. The
side of a patient depends on the seed and on the patients' names (they are ordered by a hash), not
on the order of the table. Only the draw that reproduces a published split depends on that order.

Simulated patients who are made from the same head share its folding, and a network can recognise
it: where heads are given, all patients of a head stay on one side.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from voxplain.cohort.leakage import TEST, TRAIN
from voxplain.cohort.names import may_be_one
from voxplain.cohort.scan import Scan, class_in
from voxplain.cohort.split_names import FIXED, FOLDS, SplitName, external_name, fold_name
from voxplain.faults import ParameterFault

DRAWS = ("hash", "as_published")


@dataclass(frozen=True)
class Split:
    """One division of a cohort's scans.

    Attributes
    ----------
    name
        ``repeat-1_fold-1``, ..., ``fixed``, or ``external-<cohort>``.
    train, test
        Image ids in the order of the table.
    test_cohort
        The cohort of the test scans, if it is not that of the training scans, else empty. Two
        cohorts may have the same image ids.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    test_cohort: str = ""

    @property
    def kind(self) -> str:
        """``fixed``, ``external``, or ``folds``."""
        return SplitName.parse(self.name).kind

    @property
    def is_fold(self) -> bool:
        """Whether it belongs to a cross-validation."""
        return self.kind == FOLDS

    @cached_property
    def _sides(self) -> dict[tuple[str, str], str]:
        return {
            **{("", image): TRAIN for image in self.train},
            **{(self.test_cohort, image): TEST for image in self.test},
        }

    def side(self, image: str, cohort: str = "") -> str:
        """The side of a scan; empty if the scan is not in the split.

        ``cohort`` is empty for a scan of the training cohort, else the name of the scan's cohort.
        """
        return self._sides.get((cohort, image), "")


def patient_classes(scans: Iterable[Scan], classes: Sequence[str]) -> dict[str, str]:
    """Patient to class: the first of ``classes`` that any of the patient's scans has.

    With the disease first, a patient with one scan of that class counts as diseased (Rieke et al.
    2018, published code). A patient without a scan of the ``classes`` is left out.
    """
    groups = defaultdict(set)
    for scan in scans:
        groups[scan.patient].add(class_in(scan, classes))
    return {
        patient: next(group for group in classes if group in patient_groups)
        for patient, patient_groups in groups.items()
        if patient_groups != {""}
    }


def make_folds(
    scans: Sequence[Scan],
    classes: Sequence[str],
    folds: int,
    repeats: int,
    stratify: bool,
    seed: int,
    heads: Mapping[str, str] | None = None,
) -> list[Split]:
    """The splits of a repeated cross-validation by patient.

    The patients of a class are ordered by a hash and dealt to the folds in turn; unstratified, all
    patients are treated as one class. Adding a repeat does not change the earlier ones. With heads,
    whole heads are dealt, the largest first: each to the fold that has the fewest patients of its
    classes so far, as ``sklearn.model_selection.GroupKFold`` does with a single class.

    Parameters
    ----------
    scans
        The scans of a cohort; those without a class of the task are left out.
    classes
        The classes of the task, the disease first.
    folds, repeats
        Number of folds, and how many times the cohort is divided into folds.
    stratify
        Whether every fold gets its share of each class.
    seed
        Seed of the order of the patients, or of their heads.
    heads
        Patient to the head that the patient is made from, to keep the patients of a head together.
        None: split by patient only.

    Raises
    ------
    ParameterFault
        A class has fewer patients, or patients of fewer heads, than there are folds, or a training
        set would lack a class.
    """
    by_class = patient_classes(scans, classes)
    counts = Counter(by_class.values())
    for group in classes if stratify else ():
        if counts[group] < folds:
            raise ParameterFault(
                "folds",
                f"is {folds}, but class {group} has {counts[group]} patients; allowed: at most as "
                "many folds as the smallest class has patients",
            )
    if len(by_class) < folds:
        raise ParameterFault(
            "folds",
            f"is {folds}, but there are {len(by_class)} patients; allowed: at most as many folds "
            "as patients",
        )
    # Unstratified: treat all patients as one class.
    dealt_as = by_class if stratify else dict.fromkeys(by_class, "")
    if heads is not None:
        _check_heads(dealt_as, heads, folds)
    splits = []
    for repeat in range(1, repeats + 1):
        salt = f"{seed}/{repeat}"
        if heads is not None:
            fold_of = _deal_heads(dealt_as, heads, folds, salt)
        else:
            fold_of = _deal_patients(dealt_as, classes if stratify else [""], folds, salt)
        for fold in range(folds):
            name = fold_name(repeat, fold + 1)
            testing = {patient for patient, assigned in fold_of.items() if assigned == fold}
            splits.append(_split(name, scans, testing, classes, stratify))
    return splits


def _deal_patients(
    by_class: Mapping[str, str], classes: Sequence[str], folds: int, salt: str
) -> dict[str, int]:
    """Patient to fold; the patients of each class are dealt in turn."""
    fold_of = {}
    for rank, group in enumerate(classes):
        stratum = [patient for patient, label in by_class.items() if label == group]
        for place, patient in enumerate(_hash_order(stratum, salt)):
            # Every other class is dealt backwards, so that no fold gets all the remainders.
            fold_of[patient] = folds - 1 - place % folds if rank % 2 else place % folds
    return fold_of


def _check_heads(by_class: Mapping[str, str], heads: Mapping[str, str], folds: int) -> None:
    """Raise if a class has fewer heads than folds: some fold would not test that class."""
    for group in dict.fromkeys(by_class.values()):
        class_heads = {heads[patient] for patient, label in by_class.items() if label == group}
        if len(class_heads) < folds:
            of_class = f" of class {group}" if group else ""
            raise ParameterFault(
                "folds",
                f"is {folds}, but the patients{of_class} are made from {len(class_heads)} heads, "
                f"which are kept together; allowed: at most as many folds as heads, so ask for "
                f"fewer folds, or give at least {folds} heads",
                "heads",
            )


def _deal_heads(
    by_class: Mapping[str, str], heads: Mapping[str, str], folds: int, salt: str
) -> dict[str, int]:
    """Patient to fold; all patients of a head go to one fold, the classes as even as possible."""
    sizes = Counter(by_class.values())
    of_head = defaultdict(Counter)
    for patient, group in by_class.items():
        of_head[heads[patient]][group] += 1
    filled = [Counter() for _ in range(folds)]
    fold_of_head = {}
    # The sort is stable: heads of the same size stay in the order of the hash.
    for head in sorted(_hash_order(of_head, salt), key=lambda h: -of_head[h].total()):
        counts = of_head[head]
        # Growth of the sum of squares of a fold's shares of the classes, without the terms that
        # are the same for every fold: the smallest growth keeps the shares most alike.
        growth = [
            sum(in_fold[g] * counts[g] / sizes[g] ** 2 for g in sorted(counts))
            for in_fold in filled
        ]
        chosen = min(range(folds), key=lambda f: (growth[f], filled[f].total()))
        filled[chosen] += counts
        fold_of_head[head] = chosen
    return {patient: fold_of_head[heads[patient]] for patient in by_class}


def make_fixed(
    scans: Sequence[Scan],
    classes: Sequence[str],
    test_patients: int,
    seed: int,
    draw: str = "hash",
    heads: Mapping[str, str] | None = None,
) -> Split:
    """The fixed split whose test set the heatmaps explain: a number of patients of each class.

    With heads, the test set is made of whole heads. They are taken in the order of a hash until
    every class has at least ``test_patients`` patients in the test set; a head without patients of
    a class that still needs some is skipped.

    Parameters
    ----------
    scans, classes
        As for :func:`make_folds`.
    test_patients
        Patients of each class in the test set; 30 in Rieke et al. 2018.
    seed
        Seed of the draw; 0 in the published code of Rieke et al.
    draw
        ``hash``: the first patients in the order of a hash of their names, independent of the order
        of the table. ``as_published``: the patients that
        ``sklearn.model_selection.train_test_split(patients, test_size=test_patients,
        random_state=seed)`` draws from the patients of each class, in the order of their first rows
        with this class, as in the published code of Rieke et al.; the same table then gives the
        same test patients.
    heads
        As for :func:`make_folds`.

    Raises
    ------
    ParameterFault
        A class does not have more than ``test_patients`` patients, no head is left to train on, the
        draw is unknown, or it does not support the seed or heads.
    """
    if draw not in DRAWS:
        raise ParameterFault("draw", f"is {draw!r}; allowed: {', '.join(DRAWS)}")
    if heads is not None and draw != "hash":
        raise ParameterFault(
            "draw",
            f"is {draw}, which draws single patients and cannot keep heads together; allowed with "
            "heads: hash",
            "heads",
        )
    by_class = patient_classes(scans, classes)
    testing = set()
    for group in classes:
        # Ordered by their first scans of this class, not by their first scans of any class.
        with_class = dict.fromkeys(s.patient for s in scans if class_in(s, classes) == group)
        patients = [patient for patient in with_class if by_class[patient] == group]
        if len(patients) <= test_patients:
            raise ParameterFault(
                "test_patients",
                f"is {test_patients}, but class {group} has {len(patients)} patients; allowed: "
                "fewer, so that some are left to train on",
            )
        if draw == "hash":
            ordered = _hash_order(patients, f"{seed}/{FIXED}")
        else:
            ordered = [patients[place] for place in numpy_permutation(len(patients), seed)]
        testing.update(ordered[:test_patients])
    if heads is not None:
        testing = _test_heads(by_class, heads, test_patients, f"{seed}/{FIXED}")
    return _split(FIXED, scans, testing, classes)


def _test_heads(
    by_class: Mapping[str, str], heads: Mapping[str, str], test_patients: int, salt: str
) -> set[str]:
    """Test patients of whole heads: at least ``test_patients`` of each class."""
    of_head = defaultdict(set)
    for patient in by_class:
        of_head[heads[patient]].add(patient)
    lacking = Counter(dict.fromkeys(by_class.values(), test_patients))
    testing = set()
    for head in _hash_order(of_head, salt):
        counts = Counter(by_class[patient] for patient in of_head[head])
        if any(lacking[group] > 0 for group in counts):
            testing |= of_head[head]
            lacking.subtract(counts)
    for group in dict.fromkeys(by_class.values()):
        if not any(label == group and p not in testing for p, label in by_class.items()):
            raise ParameterFault(
                "test_patients",
                f"is {test_patients}, and so many of each class, in whole heads, leave none of the "
                f"{len(of_head)} heads to train class {group} on; allowed: fewer, or more heads",
                "heads",
            )
    return testing


def make_external(
    training: Sequence[Scan],
    testing: Sequence[Scan],
    classes: Sequence[str],
    name: str,
    heads: tuple[Mapping[str, str], Mapping[str, str]] | None = None,
) -> Split:
    """The split of an external test: train on all of one cohort, test on all of another.

    A patient with any scan in the training cohort is left out of the test: ADNI scanned some
    patients at both field strengths. With heads, patients are also left out if their head is that
    of a patient in the training cohort.

    Parameters
    ----------
    training, testing
        Scans of the two cohorts; those without a class of the task are left out.
    classes
        The classes of the task, the disease first.
    name
        Name of the test cohort.
    heads
        As for :func:`make_folds`: the heads of the training cohort, and those of the test cohort.

    Returns
    -------
    The split ``external-<name>``; its ``test_cohort`` is ``name``.

    Raises
    ------
    ParameterFault
        A class has no scan to train on, or no scan left to test, or subjects of the two cohorts
        differ only in separators, so that they may be one patient.
    """
    known = {scan.patient for scan in training}
    tested = {scan.patient for scan in testing}
    for one, other in may_be_one(sorted(known), sorted(tested)):
        raise ParameterFault(
            "testing",
            f"is cohort {name}, whose patient {other} may be patient {one} of the training cohort: "
            "they differ only in separators; spell their subjects alike in both tables, or let "
            "them differ in a letter or digit",
        )
    shared = tested & known
    hint = "; give each simulated cohort another first_number" if tested and tested <= known else ""
    other_parameters: tuple[str, ...] = ()
    if heads is not None:
        heads_known = {heads[0][patient] for patient in known}
        of_known_head = {patient for patient in tested if heads[1][patient] in heads_known}
        if of_known_head - shared:
            other_parameters = ("heads",)
            hint += "; or make the two cohorts from different heads"
        shared |= of_known_head
    train = [scan for scan in training if class_in(scan, classes)]
    test = [s for s in testing if class_in(s, classes) and s.patient not in shared]
    left_out = "or their heads are" if heads is not None else "are"
    for group in classes:
        if not any(class_in(scan, classes) == group for scan in train):
            raise ParameterFault(
                "training",
                f"has no scan of class {group} to train on, as the external test on cohort {name} "
                "needs it; leave the test out, or the task",
            )
        if not any(class_in(scan, classes) == group for scan in test):
            raise ParameterFault(
                "testing",
                f"is cohort {name}, which has no scan of class {group} to test ({len(shared)} of "
                f"its patients {left_out} in the training cohort too and left out); leave the test "
                f"out, or the task{hint}",
                *other_parameters,
            )
    images = (tuple(scan.image for scan in side) for side in (train, test))
    return Split(external_name(name), *images, test_cohort=name)


def numpy_permutation(count: int, seed: int) -> list[int]:
    """The result of ``numpy.random.RandomState(seed).permutation(count)``, computed without numpy.

    Python and numpy both use the Mersenne Twister MT19937 (Matsumoto and Nishimura, ACM TOMACS 8,
    1998). They differ in how a seed fills its state and how a number below a limit is drawn.

    Raises
    ------
    ParameterFault
        The seed does not fit into 32 bits.
    """
    if not 0 <= seed < 2**32:
        raise ParameterFault("seed", f"is {seed}; allowed: 0 to 2^32 - 1")
    # The authors' init_genrand; random.seed() uses their init_by_array instead.
    state = [seed]
    for place in range(1, 624):
        state.append((1812433253 * (state[-1] ^ state[-1] >> 30) + place) % 2**32)
    generator = random.Random()
    generator.setstate((3, (*state, 624), None))
    order = list(range(count))
    for last in range(count - 1, 0, -1):  # Fisher and Yates, from the end
        # Masked rejection: draw as many bits as the limit has, until they are not above it.
        mask = 2 ** last.bit_length() - 1
        while (chosen := generator.getrandbits(32) & mask) > last:
            pass
        order[last], order[chosen] = order[chosen], order[last]
    return order


def _hash_order(patients: Iterable[str], salt: str) -> list[str]:
    return sorted(patients, key=lambda p: hashlib.sha256(f"{salt}/{p}".encode()).hexdigest())


def _split(
    name: str,
    scans: Sequence[Scan],
    testing: set[str],
    classes: Sequence[str],
    stratify: bool = True,
) -> Split:
    taking_part = [scan for scan in scans if class_in(scan, classes)]
    train = [scan for scan in taking_part if scan.patient not in testing]
    test = [scan for scan in taking_part if scan.patient in testing]
    for group in classes:
        if not any(class_in(scan, classes) == group for scan in train):
            raise ParameterFault(
                "stratify",
                f"is {str(stratify).lower()}, and split {name} has no scan of class {group} to "
                f"train on; {'' if stratify else 'set it to true, or '}ask for another number of "
                "folds",
            )
    return Split(name, tuple(s.image for s in train), tuple(s.image for s in test))


def count_members(
    members: Iterable[Mapping[str, str]], classes: Sequence[str]
) -> list[dict[str, str | int]]:
    """Numbers of scans and patients of every class, on both sides of every split.

    A patient whose label changes over time counts in each class, and once more in
    ``patients_with_several_labels``.

    Parameters
    ----------
    members
        Rows with ``split``, ``side``, ``patient`` and ``class``, one for each scan.

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
            "scans": sum(groups.count(group) for groups in of_side.values()),
            "patients": sum(group in groups for groups in of_side.values()),
            "patients_with_several_labels": sum(
                len(set(groups)) > 1 for groups in of_side.values()
            ),
        }
        for (split, side), of_side in labels.items()
        for group in classes
    ]
