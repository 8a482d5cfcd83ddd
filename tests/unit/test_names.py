"""Who a subject is, and what its files are called."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxplain.cohort.names import bids_label, patient_of, separators_of


@pytest.mark.parametrize(
    "subject", ["011_S_0003", "011_s_0003", "011S0003", "011-S-0003", " 011 S 0003 ", "011.S.0003"]
)
def test_case_and_separators_make_no_other_patient(subject):
    assert patient_of(subject) == "011S0003"


@pytest.mark.parametrize(
    "others", [("P-Ü1", "P-1", "P-U1"), ("Jürg", "Jrg", "Jurg"), ("陈", "王"), ("नी", "नि", "न")]
)
def test_letters_of_any_script_tell_patients_and_their_files_apart(others):
    assert len(set(map(patient_of, others))) == len(set(map(bids_label, others))) == len(others)


@pytest.mark.parametrize("subject", ["Ü_1", "ü1", "Ü-1"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_letter_is_the_same_in_either_case_and_as_one_character_or_two(subject, form):
    assert patient_of(unicodedata.normalize(form, subject)) == "Ü1"


def test_wide_letters_and_digits_are_those_of_ascii():
    assert (patient_of("０１１_Ｓ_０００３"), bids_label("０１１_Ｓ")) == ("011S0003", "011S")


@given(subject=st.text(st.characters(max_codepoint=127)))
def test_the_label_of_an_ascii_subject_is_its_letters_and_digits(subject):
    label = re.sub("[^A-Za-z0-9]", "", subject)
    assert bids_label(subject) == label
    assert patient_of(subject).replace("-", "") == label.upper()


@pytest.mark.parametrize(
    "others",
    [
        ("1-11", "11-1", "111"),
        ("A_BC", "AB_C", "ABC"),
        ("Ä1", "Ö1", "A1", "1"),
        ("P♀1", "P♂1", "P1"),
        ("P\ue0001", "P\ue0011"),
        ("1-1-1", "1-11"),
    ],
)
def test_different_people_stay_apart(others):
    assert len(set(map(patient_of, others))) == len(others)


@pytest.mark.parametrize("same", [("1-11", "1_11", " 1 11"), ("P1-2", "p-1_2", "P 1.2")])
def test_other_separators_at_the_same_places_make_no_other_patient(same):
    assert len(set(map(patient_of, same))) == 1


def test_separators_are_counted_by_what_stands_before_them():
    assert separators_of(patient_of("1-11-A-2")) == {1}
    assert separators_of(patient_of("AB-C-D")) == {2, 3}
    assert separators_of(patient_of("111")) == set()


def test_a_label_with_separators_tells_patients_apart():
    assert bids_label("1-11", "-") == "1U002D11"
    assert re.fullmatch("[A-Za-z0-9]+", bids_label("11-1 Ä", "-"))


@given(subject=st.text())
def test_a_label_is_ascii_and_is_empty_where_there_is_no_patient(subject):
    assert re.fullmatch("[A-Za-z0-9]*", bids_label(subject))
    assert bool(bids_label(subject)) == bool(patient_of(subject))
