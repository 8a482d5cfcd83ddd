"""Subjects and other names of tables, as patients and as labels of files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from voxplain.cohort.words import words_of


def patient_of(subject: str) -> str:
    """The patient of a subject, in one spelling: ``011_S_0003`` and ``011s0003`` are one patient.

    Letters and digits of any script count, case does not. Separators count only where nothing else
    ends a word or number: ``1-11`` and ``11-1`` are two patients, and so are ``A_BC`` and ``AB_C``.
    """
    patient = ""
    for word in words_of(subject.upper()):
        ends_word = patient and patient[-1].isnumeric() != word[0].isnumeric()
        patient += word if ends_word or not patient else f"-{word}"
    return patient


def separators_of(patient: str) -> frozenset[int]:
    """Numbers of letters and digits before each separator of a :func:`patient_of`."""
    return frozenset(accumulate(map(len, patient.split("-")[:-1])))


def may_be_one(patients: Iterable[str], others: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of a patient and another one that may be the same person: ``111`` and ``1-11``.

    They differ only in separators, and one has all those of the other.
    """
    alike: dict[str, list[str]] = {}
    for patient in others:
        alike.setdefault(patient.replace("-", ""), []).append(patient)
    for patient in patients:
        for other in alike.get(patient.replace("-", ""), ()):
            one, two = separators_of(patient), separators_of(other)
            if one < two or two < one:
                yield patient, other


def bids_label(text: str, separator: str = "") -> str:
    """A text as a BIDS label, which has ASCII letters and digits only; empty if it has none.

    Other letters and digits become their code points, so that two patients whose names differ only
    in these have different files: ``Jürg`` is ``JU00FCrg``, and ``Jrg`` is ``Jrg``. A ``separator``
    stands between words and becomes its code point, too.
    """
    signs = separator.join(words_of(text))
    return "".join(
        sign if sign.isascii() and sign.isalnum() else f"U{ord(sign):04X}" for sign in signs
    )
