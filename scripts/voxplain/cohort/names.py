"""Subjects and other names of tables, as patients and as labels of files."""

from __future__ import annotations

import unicodedata


def patient_of(subject: str) -> str:
    """The patient of a subject, in one spelling: ``011_S_0003`` and ``011s0003`` are one patient.

    Letters and digits of any script count; case and separators do not.
    """
    return "".join(words_of(subject.upper()))


def bids_label(text: str) -> str:
    """A text as a BIDS label, which has ASCII letters and digits only; empty if it has none.

    Other letters and digits become their code points, so that two patients whose names differ only
    in these have different files: ``Jürg`` is ``JU00FCrg``, and ``Jrg`` is ``Jrg``.
    """
    signs = "".join(words_of(text))
    return "".join(sign if sign.isascii() else f"U{ord(sign):04X}" for sign in signs)


def words_of(text: str) -> list[str]:
    """The parts of a text that have letters and digits only, split at everything else."""
    # The same letter may be written as one character or as two, and in full width.
    text = unicodedata.normalize("NFKC", text)
    # Letters, the marks that belong to them (vowels, in some scripts), and digits.
    signs = (sign if unicodedata.category(sign)[0] in "LMN" else " " for sign in text)
    return "".join(signs).split()
