"""The people in a table and its oddities, compared with cases counted by hand."""

import pytest

from voxplain.cohort.demographics import Person
from voxplain.cohort.fates import COLUMNS, MISSING
from voxplain.cohort.overview import (
    MOST_NAMED,
    describe_members,
    describe_people,
    find_oddities,
)


def row(image, subject="011_S_0003", group="AD", **fields):
    """A row of scans.tsv."""
    defaults = {
        "image": image,
        "subject": subject,
        "group": group,
        "fate": "usable",
        "session": "SC",
    }
    return {**dict.fromkeys(COLUMNS, MISSING), **defaults, **fields}


COHORT = [
    row("I1", sex="F", age="70", skull_rung="plain"),
    row("I2", sex="F", age="71", session="M12", skull_rung="bias"),
    # The same person in another spelling, at a visit with another diagnosis.
    row("I3", "011s0003", "MCI", sex="F", age="69.5", session="BL"),
    row("I4", "012_S_0004", "NC", sex="M", age="60", fate="failed", stage="find"),
    row("I5", "013_S_0005", "NC", sex="M", age="80", conversion="the qform was trusted"),
    row("I5", "013_S_0005", "NC", sex="M", age="80", fate="duplicate"),
    row("I6", "014_S_0006", MISSING, diagnosis="Patient", fate="failed", stage="table"),
]


def test_people_are_counted_once_with_their_age_at_the_first_scan():
    rows = {(r["which"], r["group"]): r for r in describe_people(COHORT)}
    assert list(rows) == [
        ("table", "AD"),
        ("table", "MCI"),
        ("table", "NC"),
        ("table", "unknown"),
        ("usable", "AD"),
        ("usable", "MCI"),
        ("usable", "NC"),
    ]
    diseased, healthy = rows["table", "AD"], rows["table", "NC"]
    assert (diseased["scans"], diseased["patients"], diseased["female"]) == (2, 1, 1)
    assert (diseased["age_mean"], diseased["age_sd"]) == (70, MISSING)
    assert (healthy["scans"], healthy["patients"], healthy["male"]) == (2, 2, 2)
    assert (healthy["age_mean"], healthy["age_min"], healthy["age_max"]) == (70, 60, 80)
    assert healthy["age_sd"] == pytest.approx(14.14)  # of the sample: sqrt(200)
    assert rows["usable", "NC"]["patients"] == 1
    assert rows["table", "unknown"]["age_mean"] == MISSING


def test_a_patient_with_both_sexes_counts_as_neither():
    (people, _) = describe_people([row("I1", sex="F"), row("I2", sex="M")])
    assert (people["patients"], people["female"], people["male"]) == (1, 0, 0)


def test_findings_are_counted_and_named():
    oddities = {r["finding"]: (r["count"], r["which"]) for r in find_oddities(COHORT, ["I8", "I9"])}
    assert oddities == {
        "patients with several diagnoses": (1, "011S0003 (AD, MCI)"),
        "patients at several field strengths": (0, MISSING),
        "patients of both sexes": (0, MISSING),
        "visits with several scans": (0, MISSING),
        "lines that name an image again": (1, "I5"),
        "images of the table that are not there": (1, "I4"),
        "scans whose conversion took a choice or filled slices": (1, "I5 (the qform was trusted)"),
        "scans that needed more than the skull tool as it is": (1, "I2 (bias, AD)"),
        "images that the table does not name": (2, "I8, I9"),
        "lines with an unknown diagnosis": (1, "I6 (Patient)"),
    }


def test_field_strengths_visits_and_sexes_are_compared_within_a_patient():
    rows = [
        row("I1", field_strength="1.5", sex="F"),
        row("I2", field_strength="2.89", sex="M"),
        row("I3", "012_S_0004", field_strength="1.494"),
        row("I4", "012_S_0004", field_strength="1.5 Tesla MRI", session="M12"),
    ]
    oddities = {r["finding"]: r["which"] for r in find_oddities(rows, [])}
    assert oddities["patients at several field strengths"] == "011S0003 (1.5, 2.89 T)"
    assert oddities["patients of both sexes"] == "011S0003"
    assert oddities["visits with several scans"] == "011_S_0003 SC (2)"


def test_the_spelling_of_a_subject_does_not_matter_for_visits():
    rows = [row("I1"), row("I2", "011s0003"), row("I3", "Jürg"), row("I4", "Jrg")]
    oddities = {r["finding"]: r["which"] for r in find_oddities(rows, [])}
    assert oddities["visits with several scans"] == "011_S_0003 SC (2)"
    assert describe_people(rows)[0]["patients"] == 3


def test_only_the_first_of_many_are_named():
    rows = {r["finding"]: r for r in find_oddities(COHORT, [f"I{n}" for n in range(25)])}
    rows = rows["images that the table does not name"]
    assert rows["count"] == 25
    assert rows["which"].endswith(f"I{MOST_NAMED - 1}, and 5 more")


def test_the_people_of_a_split_are_counted_by_side_and_class():
    def member(image, patient, side="train", group="AD"):
        fields = {"split": "fixed", "side": side, "cohort": "a", "image": image}
        return {**fields, "patient": patient, "class": group}

    members = [
        member("I1", "P1"),
        member("I2", "P1"),
        member("I3", "P2"),
        member("I4", "P3", side="test", group="NC"),
    ]
    people = [
        Person("a", "I1", 71.0, 1),
        Person("a", "I2", 70.0, 1),
        Person("a", "I3", 74.0, 0),
        Person("a", "I4", None, None),
    ]
    summary = describe_members(members, people)
    train = summary["fixed", "train", "AD"]
    assert (train["female"], train["male"]) == (1, 1)
    assert (train["age_mean"], train["age_min"], train["age_max"]) == (72, 70, 74)
    assert train["age_sd"] == pytest.approx(2.83)  # sqrt(8)
    assert summary["fixed", "test", "NC"] == {
        "female": 0,
        "male": 0,
        **dict.fromkeys(("age_mean", "age_sd", "age_min", "age_max"), MISSING),
    }
