import itertools
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, train_test_split

from voxplain.cohort.scan import Scan
from voxplain.cohort.split_names import FOLD_PATTERN, SplitName, external_name, fold_name
from voxplain.cohort.splits import (
    Split,
    count_members,
    make_external,
    make_fixed,
    make_folds,
    numpy_permutation,
    patient_classes,
)
from voxplain.faults import SetupFault

CLASSES = ["AD", "NC"]


def scans_of(patients):
    """Scans of patients; each patient is given as the groups of the scans. Image ids count up."""
    numbers = itertools.count(100)
    return [
        Scan(
            row=number - 98,
            image=f"I{number}",
            subject=f"011_S_{patient:04d}",
            session="M12",
            visit="m12",
            date="",
            diagnosis=group,
            group=group,
            sex="F",
            age="70",
            description="",
        )
        for patient, groups in enumerate(patients)
        for group, number in zip(groups, numbers, strict=False)
    ]


def folds_of(scans, folds=3, repeats=1, stratify=True, seed=1, classes=CLASSES):
    return make_folds(scans, classes, folds, repeats, stratify, seed)


def same(classes, least=1, most=3):
    """A patient whose label never changes."""
    return st.tuples(st.sampled_from(classes), st.integers(least, most)).map(
        lambda p: [p[0]] * p[1]
    )


def cohorts(classes=CLASSES, least=3):
    """Patients with one to three scans, some with changing labels; enough of every class."""
    changing = st.lists(st.sampled_from(classes), min_size=1, max_size=3)
    enough = [[group] for group in classes for _ in range(least)]
    drawn = st.lists(same(classes) | changing, max_size=20)
    return drawn.flatmap(lambda some: st.permutations([*enough, *some])).map(scans_of)


seeds = st.integers(0, 2**31)
everything = {"folds": st.integers(2, 3), "stratify": st.booleans(), "seed": seeds}


def split_or_skip(make, *args, **options):
    """Skip small training sets without a class, which are refused; another test checks that."""
    try:
        return make(*args, **options)
    except SetupFault as fault:
        assume("to train on" not in str(fault))
        raise


# --- patients -------------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", ["011_S_0003", "011S0003", "011_s_0003", "011-S-0003"])
def test_the_spelling_of_a_subject_does_not_change_the_patient(subject):
    scan = Scan(2, "I1", subject, "M12", "m12", "", "AD", "AD", "F", "70", "")
    assert scan.patient == "011S0003"


def test_a_patient_counts_under_the_first_class_that_any_of_their_scans_has():
    scans = scans_of([["NC", "AD"], ["NC", "NC"], ["AD"], ["MCI", "NC"]])
    assert patient_classes(scans, ["AD", "MCI", "NC"]) == {
        "011S0000": "AD",
        "011S0001": "NC",
        "011S0002": "AD",
        "011S0003": "MCI",
    }
    assert patient_classes(scans[:2], ["NC", "AD"]) == {"011S0000": "NC"}


def test_a_split_gives_the_side_of_a_scan():
    split = Split("fixed", ("I1", "I2"), ("I3",))
    assert [split.side(image) for image in ("I1", "I2", "I3", "I4")] == [
        "train",
        "train",
        "test",
        "",
    ]


def test_images_of_two_cohorts_with_the_same_ids_are_distinguished():
    split = Split("external-b", ("I1", "I2"), ("I1", "I3"), test_cohort="b")
    assert [split.side(image) for image in ("I1", "I2", "I3")] == ["train", "train", ""]
    assert [split.side(image, "b") for image in ("I1", "I2", "I3")] == ["test", "", "test"]
    assert split.side("I1", "c") == ""


# --- names ----------------------------------------------------------------------------------------


@given(repeat=st.integers(1, 10**6), fold=st.integers(1, 10**6))
def test_the_name_of_a_fold_has_its_repeat_and_number(repeat, fold):
    name = fold_name(repeat, fold)
    assert SplitName.parse(name) == SplitName("folds", repeat, fold)
    assert re.fullmatch(FOLD_PATTERN, name)


def test_the_spelling_of_names_does_not_change():
    assert fold_name(2, 13) == "repeat-2_fold-13"
    assert external_name("adni3T") == "external-adni3T"


@pytest.mark.parametrize("cohort", ["b", "fixed", "folds"])
def test_the_names_of_an_external_test_and_the_fixed_split_are_parsed(cohort):
    assert SplitName.parse(external_name(cohort)) == SplitName("external")
    assert SplitName.parse("fixed") == SplitName("fixed")


@pytest.mark.parametrize("name", ["", "folds", "repeat-1", "repeat-1_fold-x", "fixed-2"])
def test_an_invalid_split_name_is_refused(name):
    with pytest.raises(SetupFault, match=f"^split '{name}' is unknown; expected repeat-<number>_"):
        SplitName.parse(name)


def test_the_kind_of_a_split_is_in_its_name():
    names = {"repeat-1_fold-2": "folds", "fixed": "fixed", "external-b": "external"}
    assert {name: Split(name, (), ()).kind for name in names} == names
    assert [Split(name, (), ()).is_fold for name in names] == [True, False, False]


# --- tasks ----------------------------------------------------------------------------------------


def test_scans_without_a_class_in_the_task_take_no_part():
    scans = scans_of([["AD", "MCI"]] * 3 + [["NC"]] * 3 + [["MCI"]] * 4 + [["MCI", "NC"]])
    mine = {scan.image for scan in scans if scan.group in CLASSES}
    assert len(patient_classes(scans, CLASSES)) == 7
    for split in [*folds_of(scans), make_fixed(scans, CLASSES, 1, 0)]:
        assert set(split.train) | set(split.test) == mine
    only_mine = [scan for scan in scans if scan.group in CLASSES]
    assert folds_of(scans) == folds_of(only_mine)
    assert make_fixed(scans, CLASSES, 1, 0) == make_fixed(only_mine, CLASSES, 1, 0)


def test_a_task_of_derived_labels_is_split_by_them():
    labels = ["pMCI", "sMCI", ""]
    scans = [
        replace(scan, progression=labels[number % 3])
        for number, scan in enumerate(scans_of([["LMCI"]] * 18))
    ]
    classes = ["pMCI", "sMCI"]
    assert Counter(patient_classes(scans, classes).values()) == {"pMCI": 6, "sMCI": 6}
    label_of = {scan.image: scan.progression for scan in scans}
    for split in folds_of(scans, 3, classes=classes):
        assert Counter(label_of[image] for image in split.test) == {"pMCI": 2, "sMCI": 2}
        assert Counter(label_of[image] for image in split.train) == {"pMCI": 4, "sMCI": 4}
    fixed = make_fixed(scans, classes, 2, 0)
    assert Counter(label_of[image] for image in fixed.test) == {"pMCI": 2, "sMCI": 2}


# --- folds ----------------------------------------------------------------------------------------


@given(scans=cohorts(), repeats=st.integers(1, 3), **{k: everything[k] for k in everything})
def test_no_patient_is_on_two_sides_and_every_scan_is_tested_once_a_repeat(
    scans, folds, repeats, stratify, seed
):
    splits = split_or_skip(folds_of, scans, folds, repeats, stratify, seed)
    owner = {scan.image: scan.patient for scan in scans}
    assert [split.name for split in splits] == [
        f"repeat-{repeat}_fold-{fold}"
        for repeat in range(1, repeats + 1)
        for fold in range(1, folds + 1)
    ]
    for split in splits:
        assert not {owner[i] for i in split.train} & {owner[i] for i in split.test}
        assert sorted(split.train + split.test) == sorted(owner)
        assert split.test
    for repeat in range(repeats):
        tested = [i for s in splits[repeat * folds : (repeat + 1) * folds] for i in s.test]
        assert sorted(tested) == sorted(owner)


@given(scans=cohorts(), **everything)
def test_the_scans_of_each_side_are_in_the_order_of_the_table(scans, folds, stratify, seed):
    table = [scan.image for scan in scans]
    for split in split_or_skip(folds_of, scans, folds, 1, stratify, seed):
        assert list(split.train) == [image for image in table if image in split.train]
        assert list(split.test) == [image for image in table if image in split.test]


def patients_tested(scans, splits):
    owner = {scan.image: scan.patient for scan in scans}
    return [{owner[image] for image in split.test} for split in splits]


@given(scans=cohorts(["AD", "MCI", "NC"]), folds=st.integers(2, 3), seed=seeds)
def test_stratified_folds_differ_by_at_most_one_patient_of_each_class(scans, folds, seed):
    classes = ["AD", "MCI", "NC"]
    of_patient = patient_classes(scans, classes)
    splits = folds_of(scans, folds, 1, True, seed, classes)
    counts = [Counter(of_patient[p] for p in tested) for tested in patients_tested(scans, splits)]
    for group in classes:
        numbers = [count[group] for count in counts]
        assert max(numbers) - min(numbers) <= 1
        assert sum(numbers) == list(of_patient.values()).count(group)
        assert min(numbers) >= 1


@given(ad=st.integers(5, 23), nc=st.integers(5, 23), folds=st.integers(2, 5), seed=seeds)
def test_the_remainders_of_two_classes_go_to_different_folds(ad, nc, folds, seed):
    scans = scans_of([["AD"]] * ad + [["NC"]] * nc)
    sizes = [len(tested) for tested in patients_tested(scans, folds_of(scans, folds, seed=seed))]
    assert max(sizes) - min(sizes) <= 1


@given(ad=st.integers(5, 23), nc=st.integers(5, 23), folds=st.integers(2, 5), seed=seeds)
def test_unstratified_folds_differ_by_at_most_one_patient(ad, nc, folds, seed):
    scans = scans_of([["AD"]] * ad + [["NC"]] * nc)
    splits = split_or_skip(folds_of, scans, folds, stratify=False, seed=seed)
    sizes = [len(tested) for tested in patients_tested(scans, splits)]
    assert max(sizes) - min(sizes) <= 1


def test_unstratified_folds_do_not_balance_the_classes():
    scans = scans_of([["AD"]] * 20 + [["NC"]] * 20)
    ad = {scan.patient for scan in scans[:20]}

    def shares(stratify):
        return [
            len(tested & ad)
            for tested in patients_tested(scans, folds_of(scans, 5, 4, stratify=stratify))
        ]

    assert set(shares(True)) == {4}
    assert len(set(shares(False))) > 1


# --- stability ------------------------------------------------------------------------------------


@given(scans=cohorts(), data=st.data(), **everything)
def test_the_order_of_the_table_does_not_change_the_split(scans, data, folds, stratify, seed):
    mixed = data.draw(st.permutations(scans))
    first = split_or_skip(folds_of, scans, folds, 2, stratify, seed)
    second = folds_of(mixed, folds, 2, stratify, seed)
    assert [set(s.test) for s in first] == [set(s.test) for s in second]
    assert [set(s.train) for s in first] == [set(s.train) for s in second]
    fixed = [make_fixed(order, CLASSES, 2, seed) for order in (scans, mixed)]
    assert set(fixed[0].test) == set(fixed[1].test)


def respelled(scan, how):
    subject = {
        "as it is": scan.subject,
        "without lines": scan.subject.replace("_", ""),
        "lower case": scan.subject.lower(),
        "with hyphens": scan.subject.replace("_", "-"),
    }[how]
    return Scan(**{**vars(scan), "subject": subject})


spellings = st.sampled_from(["as it is", "without lines", "lower case", "with hyphens"])


@given(scans=cohorts(), data=st.data(), **everything)
def test_the_spelling_of_the_subjects_does_not_change_the_split(scans, data, folds, stratify, seed):
    other = [respelled(scan, data.draw(spellings)) for scan in scans]
    assert split_or_skip(folds_of, scans, folds, 2, stratify, seed) == folds_of(
        other, folds, 2, stratify, seed
    )
    assert make_fixed(scans, CLASSES, 2, seed) == make_fixed(other, CLASSES, 2, seed)


@given(scans=cohorts(), repeats=st.integers(1, 3), **everything)
def test_one_more_repeat_does_not_change_the_earlier_ones(scans, folds, repeats, stratify, seed):
    more = split_or_skip(folds_of, scans, folds, repeats + 1, stratify, seed)
    assert more[: repeats * folds] == folds_of(scans, folds, repeats, stratify, seed)


def test_another_repeat_or_seed_gives_other_folds():
    scans = scans_of([["AD"]] * 15 + [["NC"]] * 15)
    repeats = folds_of(scans, 3, repeats=6)
    divisions = [frozenset(s.test for s in repeats[3 * n : 3 * n + 3]) for n in range(6)]
    divisions += [frozenset(s.test for s in folds_of(scans, 3, seed=seed)) for seed in range(2, 8)]
    assert len(set(divisions)) == 12
    fixed = {make_fixed(scans, CLASSES, 5, seed).test for seed in range(6)}
    assert len(fixed) == 6


def test_the_folds_do_not_change_between_versions():
    # Fixed values: results of a version with other folds would not be comparable.
    scans = scans_of([["AD"]] * 4 + [["NC"]] * 4)
    first, second = patients_tested(scans, folds_of(scans, 2))
    assert "".join(sorted(patient[-1] for patient in first)) == "2345"
    assert "".join(sorted(patient[-1] for patient in second)) == "0167"
    assert make_fixed(scans, CLASSES, 1, seed=1).test == ("I103", "I105")


def test_over_many_seeds_every_patient_is_in_the_first_fold_equally_often():
    scans = scans_of([["AD"]] * 6 + [["NC"]] * 6)
    counts = Counter()
    for seed in range(300):
        counts.update(patients_tested(scans, folds_of(scans, 3, seed=seed)[:1])[0])
    assert len(counts) == 12
    assert all(70 <= count <= 130 for count in counts.values())  # 100 +- 3.7 standard deviations


# --- the fixed split ------------------------------------------------------------------------------


@given(scans=cohorts(["AD", "MCI", "NC"], least=4), test_patients=st.integers(1, 3), seed=seeds)
def test_the_fixed_split_tests_the_set_number_of_patients_of_each_class(scans, test_patients, seed):
    classes = ["AD", "MCI", "NC"]
    of_patient = patient_classes(scans, classes)
    split = make_fixed(scans, classes, test_patients, seed)
    owner = {scan.image: scan.patient for scan in scans}
    tested = {owner[image] for image in split.test}
    assert split.name == "fixed"
    assert Counter(of_patient[p] for p in tested) == dict.fromkeys(classes, test_patients)
    assert not tested & {owner[image] for image in split.train}
    assert sorted(split.train + split.test) == sorted(owner)


@given(scans=cohorts(least=5), seed=seeds)
def test_more_test_patients_keep_the_previous_ones(scans, seed):
    few, more = (set(make_fixed(scans, CLASSES, number, seed).test) for number in (2, 3))
    assert few < more


# --- the published draw ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 42, 2**31, 2**32 - 1])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 31, 32, 33, 64, 65, 151, 193, 624, 700, 2000])
def test_the_permutation_agrees_with_numpy(count, seed):
    expected = np.random.RandomState(seed).permutation(count).tolist()
    assert numpy_permutation(count, seed) == expected


@given(count=st.integers(0, 400), seed=st.integers(0, 2**32 - 1))
def test_the_permutation_agrees_with_numpy_for_any_seed_and_count(count, seed):
    expected = np.random.RandomState(seed).permutation(count).tolist()
    assert numpy_permutation(count, seed) == expected


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_numpy_refuses_is_refused(seed):
    with pytest.raises(SetupFault, match=f"{seed}; allowed: 0 to"):
        numpy_permutation(3, seed)


def published(scans, test_patients, seed=0):
    """The test images as drawn by the notebook of Rieke et al. 2018."""
    subjects = {
        group: list(dict.fromkeys(s.subject for s in scans if s.group == group))
        for group in CLASSES
    }
    subjects["NC"] = [name for name in subjects["NC"] if name not in subjects["AD"]]
    tested = set()
    for names in subjects.values():
        tested.update(train_test_split(names, test_size=test_patients, random_state=seed)[1])
    return tuple(scan.image for scan in scans if scan.subject in tested)


@pytest.mark.parametrize(("ad", "nc", "test_patients"), [(193, 151, 30), (37, 28, 20), (5, 9, 1)])
def test_the_published_draw_agrees_with_sklearn(ad, nc, test_patients):
    # Every third patient's label changes to AD, so the first row of many is NC.
    changing = [["NC", "AD"] if n % 3 == 0 else ["AD", "AD"] for n in range(ad)]
    patients = [*changing, *([["NC"]] * nc)]
    order = np.random.default_rng(5).permutation(len(patients))
    scans = scans_of([patients[place] for place in order])
    split = make_fixed(scans, CLASSES, test_patients, 0, "as_published")
    assert split.test == published(scans, test_patients)
    tested = {scan.patient for scan in scans if scan.image in split.test}
    of_patient = patient_classes(scans, CLASSES)
    assert Counter(of_patient[p] for p in tested) == dict.fromkeys(CLASSES, test_patients)


@given(scans=cohorts(least=4), test_patients=st.integers(1, 3), seed=st.integers(0, 99))
def test_the_published_draw_agrees_with_sklearn_in_any_cohort(scans, test_patients, seed):
    mixed = np.random.default_rng(seed).permutation(len(scans))
    scans = [scans[place] for place in mixed]
    split = make_fixed(scans, CLASSES, test_patients, seed, "as_published")
    assert split.test == published(scans, test_patients, seed)


def test_an_unknown_draw_is_refused_with_the_allowed_ones():
    scans = scans_of([["AD"]] * 3 + [["NC"]] * 3)
    refused(lambda: make_fixed(scans, CLASSES, 1, 0, "coin"), "'coin'", "hash, as_published")


# --- external tests -------------------------------------------------------------------------------


def other_cohort(scans, first=0):
    """The same image ids, of other patients: their numbers start at ``first``."""
    return [replace(s, subject=f"022_S_{int(s.subject[-4:]) + first:04d}") for s in scans]


def test_an_external_test_trains_on_one_cohort_and_tests_on_the_other():
    training = scans_of([["AD", "AD"], ["NC"], ["MCI"]])
    testing = other_cohort(scans_of([["NC"], ["AD", "MCI"], ["AD"]]))
    split = make_external(training, testing, CLASSES, "b")
    assert split == Split("external-b", ("I100", "I101", "I102"), ("I100", "I101", "I103"), "b")
    assert (split.side("I103"), split.side("I103", "b")) == ("", "test")


def test_patients_of_both_cohorts_are_not_tested_whatever_their_spelling():
    training = scans_of([["AD"], ["NC"], ["MCI"]])
    both = [replace(scan, subject=scan.subject.replace("_", "").lower()) for scan in training]
    testing = [*both, *other_cohort(scans_of([["AD"], ["NC"]]))]
    testing = [
        replace(s, image=f"I{n}", group="AD" if n < 4 else "NC") for n, s in enumerate(testing)
    ]
    # The third is in the training cohort with MCI only, but is left out as well.
    assert make_external(training, testing, CLASSES, "b").test == ("I3", "I4")


def test_other_people_of_a_test_cohort_are_tested_and_doubtful_ones_are_refused():
    training = [
        replace(s, subject=n) for s, n in zip(scans_of([["AD"], ["NC"]]), "ab", strict=True)
    ]
    training[0] = replace(training[0], subject="1-11")
    testing = other_cohort(scans_of([["AD"], ["NC"]]))
    testing[0] = replace(testing[0], subject="11-1")
    assert make_external(training, testing, CLASSES, "b").test == ("I100", "I101")
    testing[0] = replace(testing[0], subject="1_11")
    refused(lambda: make_external(training, testing, CLASSES, "b"), "1 of its patients")
    testing[0] = replace(testing[0], subject="111")
    refused(
        lambda: make_external(training, testing, CLASSES, "b"),
        "cohort b, whose patient 111 may be patient 1-11 of the training cohort",
    )


@given(training=cohorts(), testing=cohorts(), shift=st.integers(0, 30))
def test_an_external_test_leaves_out_shared_patients_only(training, testing, shift):
    testing = [replace(s, subject=f"011_S_{int(s.subject[-4:]) + shift:04d}") for s in testing]
    try:
        split = make_external(training, testing, CLASSES, "b")
    except SetupFault as fault:
        assert "patients are in the training cohort" in str(fault)
        return
    patients = {scan.patient for scan in training}
    owner = {scan.image: scan.patient for scan in testing}
    assert split.train == tuple(scan.image for scan in training)
    assert not {owner[image] for image in split.test} & patients
    assert split.test == tuple(s.image for s in testing if s.patient not in patients)


def test_an_external_test_without_a_class_on_a_side_is_refused():
    whole = scans_of([["AD"], ["NC"]])
    healthy = other_cohort(scans_of([["NC"], ["MCI"]]))
    refused(lambda: make_external(healthy, whole, CLASSES, "b"), "cohort b", "class AD to train on")
    message = refused(
        lambda: make_external(whole, healthy, CLASSES, "b"), "cohort b", "class AD to test", "(0 of"
    )
    assert "first_number" not in message
    refused(
        lambda: make_external(whole, whole, CLASSES, "b"),
        "class AD to test (2 of its patients",
        "give each simulated cohort another first_number",
    )


# --- by head --------------------------------------------------------------------------------------


def made_from(scans, heads):
    """Patient -> head; the names of heads are for the patients in the order of the scans."""
    return dict(zip(dict.fromkeys(scan.patient for scan in scans), heads, strict=True))


def heads_of(scans, heads, images):
    return {heads[scan.patient] for scan in scans if scan.image in images}


@st.composite
def cohorts_of_heads(draw, least=3):
    """A cohort with at least ``least`` heads in each class, and patient -> head."""
    scans = draw(cohorts(least=least))
    by_class = patient_classes(scans, CLASSES)
    names = [f"head{n}" for n in range(draw(st.integers(least, 6)))]
    heads = {}
    for group in CLASSES:
        patients = [patient for patient, class_ in by_class.items() if class_ == group]
        assume(len(patients) >= least)
        some = [draw(st.sampled_from(names)) for _ in patients[least:]]
        heads |= dict(zip(patients, [*names[:least], *some], strict=True))
    return scans, heads


@given(drawn=cohorts_of_heads(), repeats=st.integers(1, 2), **everything)
def test_no_head_is_on_two_sides_and_every_scan_is_tested_once_a_repeat(
    drawn, repeats, folds, stratify, seed
):
    scans, heads = drawn
    splits = split_or_skip(make_folds, scans, CLASSES, folds, repeats, stratify, seed, heads)
    assert len(splits) == folds * repeats
    for split in splits:
        assert split.test, "every fold tests some head"
        assert not heads_of(scans, heads, split.train) & heads_of(scans, heads, split.test)
    for repeat in range(repeats):
        of_repeat = splits[repeat * folds : (repeat + 1) * folds]
        assert sorted(image for split in of_repeat for image in split.test) == sorted(
            scan.image for scan in scans
        )


def test_heads_with_equal_class_counts_are_assigned_evenly():
    # As plan_cohort assigns them: each group's patients get all heads in turn.
    patients = [["AD"]] * 12 + [["NC"]] * 12
    scans = scans_of(patients)
    heads = made_from(scans, [f"head{n % 6}" for n in range(24)])
    for split in make_folds(scans, CLASSES, 3, 2, True, 1, heads):
        tested = Counter(scan.group for scan in scans if scan.image in split.test)
        assert tested == {"AD": 4, "NC": 4}
        assert len(heads_of(scans, heads, split.test)) == 2


def test_a_large_head_is_balanced_by_several_small_ones():
    # a: 4 AD, 4 NC; b: 2 AD, 2 NC; c: 1 AD, 1 NC; d: 1 AD, 1 NC
    sizes = {"a": 4, "b": 2, "c": 1, "d": 1}
    patients = [[group] for group in CLASSES for _ in range(8)]
    scans = scans_of(patients)
    heads = made_from(scans, 2 * [name for name, n in sizes.items() for _ in range(n)])
    splits = make_folds(scans, CLASSES, 2, 1, True, 5, heads)
    tested = {frozenset(heads_of(scans, heads, split.test)) for split in splits}
    assert tested == {frozenset("a"), frozenset("bcd")}


def test_heads_of_one_class_each_are_paired_with_those_of_the_other():
    # Assigned by number of patients only, a fold could get the two heads of one class.
    scans = scans_of([["AD"]] * 4 + [["NC"]] * 4)
    heads = made_from(scans, ["a", "a", "b", "b", "c", "c", "d", "d"])
    for seed in range(20):
        for split in make_folds(scans, CLASSES, 2, 1, True, seed, heads):
            assert Counter(s.group for s in scans if s.image in split.test) == {"AD": 2, "NC": 2}


@given(
    sizes=st.lists(st.integers(1, 9), min_size=3, max_size=8), folds=st.integers(2, 3), seed=seeds
)
def test_heads_of_one_stratum_are_assigned_as_sklearn_assigns_groups(sizes, folds, seed):
    # Both classes in every head, so that no training set lacks one; still unstratified.
    scans = scans_of([[group] for size in sizes for _ in range(size) for group in CLASSES])
    names = [f"head{n}" for n, size in enumerate(sizes) for _ in range(2 * size)]
    splits = make_folds(scans, CLASSES, folds, 1, False, seed, made_from(scans, names))
    expected = GroupKFold(folds).split(names, groups=names)
    assert sorted(len(split.test) for split in splits) == sorted(len(test) for _, test in expected)


@given(drawn=cohorts_of_heads(), data=st.data(), **everything)
def test_the_order_of_the_table_does_not_change_a_split_by_head(drawn, data, folds, stratify, seed):
    scans, heads = drawn
    other = data.draw(st.permutations(scans))
    first, second = (
        split_or_skip(make_folds, rows, CLASSES, folds, 1, stratify, seed, heads)
        for rows in (scans, other)
    )
    assert [set(split.test) for split in first] == [set(split.test) for split in second]


def test_one_more_repeat_by_head_does_not_change_the_earlier_ones():
    scans = scans_of([["AD"], ["NC"]] * 8)
    heads = made_from(scans, [f"head{n // 2}" for n in range(16)])
    one, many = (make_folds(scans, CLASSES, 2, n, True, 1, heads) for n in (1, 4))
    assert many[:2] == one
    assert len({frozenset(split.test) for split in many[::2]}) > 1


@given(drawn=cohorts_of_heads(), test_patients=st.integers(1, 2), seed=seeds)
def test_the_fixed_split_by_head_tests_whole_heads_with_at_least_so_many_of_each_class(
    drawn, test_patients, seed
):
    scans, heads = drawn
    try:
        split = make_fixed(scans, CLASSES, test_patients, seed, heads=heads)
    except SetupFault as fault:
        assert "leave none of the" in str(fault) or "allowed: fewer" in str(fault)
        return
    tested = heads_of(scans, heads, split.test)
    assert not tested & heads_of(scans, heads, split.train)
    by_class = patient_classes(scans, CLASSES)
    counts = Counter(by_class[patient] for patient, head in heads.items() if head in tested)
    assert min(counts[group] for group in CLASSES) >= test_patients


def test_the_fixed_split_by_head_uses_the_fewest_heads():
    scans = scans_of([["AD"], ["NC"]] * 6)
    heads = made_from(scans, [f"head{n // 4}" for n in range(12)])  # two of each class a head
    for test_patients, expected in ((1, 1), (2, 1), (3, 2), (4, 2)):
        split = make_fixed(scans, CLASSES, test_patients, 1, heads=heads)
        assert len(heads_of(scans, heads, split.test)) == expected
    refused(
        lambda: make_fixed(scans, CLASSES, 5, 1, heads=heads),
        "test_patients is 5",
        "in whole heads",
        "none of the 3 heads",
    )


def test_two_heads_are_enough_for_two_folds_and_a_fixed_split():
    scans = scans_of([["AD"]] * 4 + [["NC"]] * 4)
    heads = made_from(scans, ["a", "b"] * 4)
    for split in [
        *make_folds(scans, CLASSES, 2, 1, True, 1, heads),
        make_fixed(scans, CLASSES, 1, 1, heads=heads),
    ]:
        assert len(split.test) == len(split.train) == 4
        assert len(heads_of(scans, heads, split.test)) == 1


@pytest.mark.parametrize(
    ("stratify", "counted"), [(True, "patients of class AD"), (False, "patients")]
)
def test_fewer_heads_than_folds_are_refused_with_both_numbers_and_a_remedy(stratify, counted):
    scans = scans_of([["AD"]] * 6 + [["NC"]] * 6)
    heads = made_from(scans, ["a", "b"] * 6)
    refused(
        lambda: make_folds(scans, CLASSES, 3, 1, stratify, 1, heads),
        "folds is 3",
        f"the {counted} are made from 2 heads",
        "at least 3 heads",
    )


def test_a_class_of_too_few_heads_is_refused_although_there_are_enough_heads_in_all():
    scans = scans_of([["AD"]] * 6 + [["NC"]] * 6)
    heads = made_from(scans, ["a"] * 6 + ["b", "c"] * 3)
    refused(lambda: make_folds(scans, CLASSES, 2, 1, True, 1, heads), "class AD", "from 1 heads")


def test_the_published_draw_cannot_keep_heads_together():
    scans = scans_of([["AD"]] * 3 + [["NC"]] * 3)
    heads = made_from(scans, "abcabc")
    refused(
        lambda: make_fixed(scans, CLASSES, 1, 0, "as_published", heads),
        "draw is as_published",
        "allowed with heads: hash",
    )


def test_an_external_test_by_head_leaves_out_patients_of_shared_heads():
    training = scans_of([["AD"], ["NC"]])
    testing = other_cohort(scans_of([["AD"], ["NC"], ["AD"], ["NC"]]))
    heads = made_from(training, ["a", "b"]), made_from(testing, ["a", "c", "c", "b"])
    assert make_external(training, testing, CLASSES, "b").test == ("I100", "I101", "I102", "I103")
    assert make_external(training, testing, CLASSES, "b", heads).test == ("I101", "I102")
    refused(
        lambda: make_external(
            training, testing, CLASSES, "b", (heads[0], made_from(testing, "abca"))
        ),
        "no scan of class NC to test",
        "(3 of its patients or their heads are in the training cohort too and left out)",
        "from different heads",
    )


# --- errors ---------------------------------------------------------------------------------------


def refused(call, *words):
    with pytest.raises(SetupFault) as fault:
        call()
    message = str(fault.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


def test_more_folds_than_patients_of_a_class_are_refused_with_the_allowed_number():
    scans = scans_of([["AD", "AD"]] * 2 + [["NC"]] * 9)
    message = refused(lambda: folds_of(scans, 3), "folds is 3", "class AD has 2 patients")
    assert "allowed: at most as many folds as the smallest class" in message
    assert len(folds_of(scans, 2)) == 2


def test_unstratified_only_the_number_of_all_patients_counts():
    scans = scans_of([["AD"]] * 2 + [["NC"]] * 2)
    refused(
        lambda: folds_of(scans, 5, stratify=False),
        "folds is 5",
        "there are 4 patients",
        "allowed: at most as many folds as patients",
    )
    assert len(folds_of(scans, 4, stratify=False)) == 4


def test_a_class_without_patients_is_refused():
    refused(lambda: folds_of(scans_of([["NC"]] * 5), 2), "class AD has 0 patients")


@given(seed=seeds)
def test_a_training_set_without_a_class_is_refused_by_the_splits_name(seed):
    scans = scans_of([["AD"]] + [["NC"]] * 5)
    message = refused(
        lambda: folds_of(scans, 3, stratify=False, seed=seed),
        "no scan of class AD to train on",
        "stratify is false",
    )
    assert any(f"split repeat-1_fold-{fold} " in message for fold in (1, 2, 3))


@pytest.mark.parametrize("test_patients", [3, 4])
def test_a_test_set_that_leaves_no_training_patient_is_refused(test_patients):
    scans = scans_of([["AD"]] * 6 + [["NC", "NC"]] * 3)
    refused(
        lambda: make_fixed(scans, CLASSES, test_patients, 1),
        f"test_patients is {test_patients}",
        "class NC has 3 patients",
        "allowed: fewer",
    )
    assert len(make_fixed(scans, CLASSES, 2, 1).test) == 2 + 4


def test_a_class_whose_patients_all_count_in_another_is_refused():
    scans = scans_of([["AD", "NC"]] * 3)
    refused(lambda: make_fixed(scans, CLASSES, 1, 0), "class NC has 0 patients")


# --- counting -------------------------------------------------------------------------------------


def member(split, side, patient, group):
    return {"split": split, "side": side, "patient": patient, "class": group}


def test_scans_and_patients_are_counted_by_split_side_and_class():
    rows = [
        member("fixed", "train", "P1", "AD"),
        member("fixed", "train", "P1", "AD"),
        member("fixed", "train", "P2", "AD"),
        member("fixed", "train", "P2", "NC"),
        member("fixed", "train", "P3", "NC"),
        member("fixed", "test", "P4", "NC"),
        member("other", "train", "P4", "NC"),
    ]
    counted = [tuple(row.values()) for row in count_members(rows, CLASSES)]
    assert counted == [
        ("fixed", "train", "AD", 3, 2, 1),
        ("fixed", "train", "NC", 2, 2, 1),
        ("fixed", "test", "AD", 0, 0, 0),
        ("fixed", "test", "NC", 1, 1, 0),
        ("other", "train", "AD", 0, 0, 0),
        ("other", "train", "NC", 1, 1, 0),
    ]
    assert list(count_members(rows, CLASSES)[0]) == [
        "split",
        "side",
        "class",
        "scans",
        "patients",
        "patients_with_several_labels",
    ]


# --- imports --------------------------------------------------------------------------------------


def test_splits_and_the_registries_need_no_numerical_library(repository):
    code = (
        "import sys\n"
        "import voxplain.cohort.splits, voxplain.cohort.leakage\n"
        "import voxplain.models, voxplain.relevance, voxplain_workflow.running.summary\n"
        "assert voxplain.models.describe_model('rieke', (97, 115, 97)) == 'rieke'\n"
        "outside = {name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names\n"
        "heavy = {'numpy', 'scipy', 'pandas', 'torch', 'ants', 'nibabel', 'sklearn'}\n"
        "print(sorted(outside & heavy))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository / "scripts",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
