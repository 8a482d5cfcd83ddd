from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxplain.cohort.leakage import (
    Member,
    check_fitted_on,
    check_members,
    describe_audit,
    find_leaks,
    find_repeated,
    find_shared_heads,
)
from voxplain.faults import SetupFault

CLASSES = ["AD", "NC"]


def clean():
    """Two training and two test patients, one of each class, with different images."""
    return [
        Member("I1", "P1", "train", "AD", ("a1", "v1")),
        Member("I2", "P1", "train", "AD", ("a2", "v2")),
        Member("I3", "P2", "train", "NC", ("a3", "v3")),
        Member("I4", "P3", "test", "AD", ("a4", "v4")),
        Member("I5", "P4", "test", "NC", ("a5", "v5")),
    ]


def refused(call):
    with pytest.raises(SetupFault) as fault:
        call()
    return str(fault.value).splitlines()


# --- leaks ----------------------------------------------------------------------------------------


def test_a_clean_split_has_no_leaks():
    assert find_leaks(clean()) == []
    assert find_repeated(clean()) == []
    check_members(clean(), CLASSES, "fixed")


def test_a_patient_on_both_sides_is_a_leak_reported_with_the_images():
    members = [
        *clean(),
        Member("I7", "P1", "test", "AD", ("a7",)),
        Member("I6", "P1", "test", "AD", ("a6",)),
    ]
    assert find_leaks(members) == ["patient P1 is on both sides (test: I6, I7; train: I1, I2)"]


@pytest.mark.parametrize("digest", ["a1", "v1"])
def test_one_image_under_two_patients_on_two_sides_is_a_leak(digest):
    members = [*clean(), Member("I6", "P5", "test", "NC", ("x", digest))]
    assert find_leaks(members) == [
        "images I1 (patient P1, train) and I6 (patient P5, test) are the same"
    ]
    assert find_repeated(members) == []


def test_one_image_under_two_patients_on_one_side_is_a_leak_too():
    members = [*clean(), Member("I6", "P5", "train", "NC", ("v1",))]
    assert find_leaks(members) == [
        "images I1 (patient P1, train) and I6 (patient P5, train) are the same"
    ]


def test_one_image_under_two_ids_of_a_patient_is_listed_but_no_leak():
    members = [*clean(), Member("I6", "P1", "train", "AD", ("a6", "v2"))]
    assert find_leaks(members) == []
    assert find_repeated(members) == ["images I2 and I6 of patient P1 are the same"]
    check_members(members, CLASSES, "fixed")


def test_images_that_share_several_digests_are_reported_once():
    members = [*clean(), Member("I6", "P5", "test", "NC", ("a1", "v1"))]
    assert len(find_leaks(members)) == 1


def test_an_image_that_holds_the_same_file_twice_is_not_a_duplicate_of_itself():
    assert find_repeated([Member("I1", "P1", "train", "AD", ("same", "same"))]) == []


def test_a_copy_of_another_patient_is_found_beside_a_patients_own_duplicate():
    members = [
        Member("I1", "P1", "train", "AD", ("v",)),
        Member("I2", "P1", "train", "AD", ("v",)),
        Member("I3", "P2", "test", "NC", ("v",)),
    ]
    assert find_repeated(members) == ["images I1 and I2 of patient P1 are the same"]
    assert find_leaks(members) == [
        "images I1 (patient P1, train) and I3 (patient P2, test) are the same"
    ]


def test_members_without_digests_are_compared_by_patient_only():
    assert find_leaks([Member("I1", "P1", "train", "AD"), Member("I2", "P2", "test", "AD")]) == []


def test_two_cohorts_may_have_the_same_image_ids_but_not_the_same_images_of_two_patients():
    members = [*clean()[:3], Member("I1", "P8", "test", "AD", ("b1",), "b")]
    assert find_leaks(members) == []
    members += [Member("I3", "P9", "test", "NC", ("v3",), "b")]
    assert find_leaks(members) == [
        "images I3 (patient P2, train) and I3 of cohort b (patient P9, test) are the same"
    ]
    members += [Member("I4", "P1", "test", "AD", (), "b")]
    assert find_leaks(members)[0] == (
        "patient P1 is on both sides (test: I4 of cohort b; train: I1, I2)"
    )


@st.composite
def drawn_members(draw):
    count = draw(st.integers(1, 8))
    return [
        Member(
            f"I{number}",
            draw(st.sampled_from(["P1", "P2", "P3", "P4"])),
            draw(st.sampled_from(["train", "test"])),
            draw(st.sampled_from(CLASSES)),
            tuple(draw(st.lists(st.sampled_from("abcdefgh"), max_size=2))),
        )
        for number in range(count)
    ]


@given(members=drawn_members())
def test_a_split_leaks_exactly_if_two_of_its_members_do(members):
    pairs = [(a, b) for i, a in enumerate(members) for b in members[i + 1 :]]
    shared = [(a, b) for a, b in pairs if set(a.digests) & set(b.digests)]
    leaks = any(a.patient == b.patient and a.side != b.side for a, b in pairs)
    leaks |= any(a.patient != b.patient for a, b in shared)
    assert bool(find_leaks(members)) == leaks
    if not leaks:
        assert bool(find_repeated(members)) == bool(shared)


# --- what a split must contain --------------------------------------------------------------------


def test_a_leak_is_refused_with_the_splits_name_and_one_line_per_leak():
    members = [
        *clean(),
        Member("I6", "P1", "test", "AD", ("a6",)),
        Member("I7", "P5", "train", "NC", ("v4",)),
    ]
    lines = refused(lambda: check_members(members, CLASSES, "repeat-1_fold-2"))
    assert len(lines) == 2
    assert all(line.startswith("split repeat-1_fold-2 leaks: ") for line in lines)
    assert "patient P1 is on both sides" in lines[0]
    assert "images I4 (patient P3, test) and I7 (patient P5, train) are the same" in lines[1]
    assert all("correct the table of scans" in line for line in lines)


@pytest.mark.parametrize("group", CLASSES)
def test_a_class_without_scans_after_preprocessing_is_refused(group):
    members = [m for m in clean() if (m.side, m.group) != ("train", group)]
    (line,) = refused(lambda: check_members(members, CLASSES, "fixed"))
    assert line.startswith(f"split fixed has no usable scan of class {group} left to train on")
    assert "scans.tsv" in line


def test_a_class_may_be_missing_from_the_test_side_but_not_every_class():
    members = [m for m in clean() if (m.side, m.group) != ("test", "AD")]
    check_members(members, CLASSES, "fixed")
    members = [m for m in clean() if m.side != "test"]
    (line,) = refused(lambda: check_members(members, CLASSES, "fixed"))
    assert line.startswith("split fixed has no usable scan left to test")


def test_all_problems_are_reported_at_once():
    lines = refused(lambda: check_members([], CLASSES, "fixed"))
    assert len(lines) == 3


# --- scans that statistics were fitted on ---------------------------------------------------------


def test_statistics_of_exactly_the_training_scans_pass_in_any_order():
    check_fitted_on(["I3", "I1", "I2"], clean(), "voxel statistics")


def test_statistics_fitted_on_a_test_scan_are_refused_by_its_name():
    (line,) = refused(
        lambda: check_fitted_on(["I1", "I2", "I3", "I5"], clean(), "voxel statistics")
    )
    assert line.startswith(
        "voxel statistics were fitted on test scans I5 and not on exactly the 3 "
    )


def test_at_most_five_test_scans_are_named():
    members = [*clean(), *(Member(f"I1{n}", f"Q{n}", "test", "AD") for n in range(7))]
    (line,) = refused(lambda: check_fitted_on([m.image for m in members], members, "statistics"))
    assert "test scans I10, I11, I12, I13, I14 and not" in line


@pytest.mark.parametrize("fitted_on", [["I1", "I2"], ["I1", "I2", "I3", "I99"], []])
def test_statistics_of_too_few_or_unknown_scans_are_refused(fitted_on):
    (line,) = refused(lambda: check_fitted_on(fitted_on, clean(), "voxel statistics"))
    assert "voxel statistics were fitted on other scans" in line
    assert "3 training scans" in line
    assert "delete the file and run again" in line


def test_statistics_of_a_subset_of_training_scans_pass_if_its_size_was_set():
    check_fitted_on(["I1", "I3"], clean(), "voxel statistics", scans=2)
    check_fitted_on(["I1", "I2", "I3"], clean(), "voxel statistics", scans=200)


@pytest.mark.parametrize(
    ("fitted_on", "scans", "message"),
    [
        (["I1"], 2, "other scans and not on exactly 2 of the training scans"),
        (["I1", "I2", "I3"], 2, "other scans and not on exactly 2 of the"),
        (["I1", "I5"], 2, "test scans I5 and not on exactly 2 of the"),
        (["I1", "I99"], 2, "other scans and not on exactly 2 of the"),
        (["I1", "I2"], 200, "other scans and not on exactly the 3 training scans"),
    ],
)
def test_statistics_of_a_subset_of_another_size_are_refused(fitted_on, scans, message):
    (line,) = refused(lambda: check_fitted_on(fitted_on, clean(), "statistics", scans))
    assert line.startswith(f"statistics were fitted on {message}")


def test_a_test_scan_of_another_cohort_with_a_training_scans_id_is_not_a_leak():
    members = [*clean()[:3], Member("I1", "P8", "test", "AD", (), "b")]
    check_fitted_on(["I1", "I2", "I3"], members, "voxel statistics")
    (line,) = refused(lambda: check_fitted_on(["I1"], members, "voxel statistics"))
    assert "fitted on other scans" in line


# --- heads ----------------------------------------------------------------------------------------


def of_heads(*heads):
    """The clean split, with patients made from these heads."""
    return [replace(member, head=head) for member, head in zip(clean(), heads, strict=True)]


def test_a_head_on_both_sides_is_found_with_its_numbers_of_patients():
    members = of_heads("a", "a", "b", "b", "c")
    assert find_shared_heads(members) == [
        "head b is on both sides (test: 1 patients; train: 1 patients)"
    ]
    all_one = of_heads(*"aaaaa")
    assert find_shared_heads(all_one) == [
        "head a is on both sides (test: 2 patients; train: 2 patients)"
    ]


def test_heads_on_one_side_only_and_unknown_heads_are_not_reported():
    assert find_shared_heads(of_heads("a", "a", "b", "c", "d")) == []
    assert find_shared_heads(clean()) == []


def test_a_shared_head_is_refused_only_in_a_split_by_head():
    members = of_heads("a", "a", "b", "b", "c")
    check_members(members, CLASSES, "fixed")
    (line,) = refused(lambda: check_members(members, CLASSES, "fixed", by_head=True))
    assert line.startswith("split fixed leaks: head b is on both sides")
    assert "are to be on one side" in line and "from different heads" in line
    check_members(of_heads("a", "a", "b", "c", "d"), CLASSES, "fixed", by_head=True)


# --- the record -----------------------------------------------------------------------------------


def test_the_record_of_a_clean_split_counts_its_patients():
    assert describe_audit(clean()) == {
        "PatientsOnBothSides": 0,
        "ImagesOfTwoPatients": 0,
        "ImagesCountedTwice": [],
        "HeadsKnown": False,
        "HeadsOnBothSides": [],
        "PatientsTrain": 2,
        "PatientsTest": 2,
    }


def test_the_record_also_lists_findings_that_are_not_leaks():
    twice = Member("I6", "P1", "train", "AD", ("a1",))
    members = [replace(member, head="head1") for member in [*clean(), twice]]
    audit = describe_audit(members)
    assert audit["ImagesCountedTwice"] == ["images I1 and I6 of patient P1 are the same"]
    assert audit["HeadsKnown"]
    assert audit["HeadsOnBothSides"] == find_shared_heads(members) != []
