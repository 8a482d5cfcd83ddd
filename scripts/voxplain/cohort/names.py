"""How the subjects and other names of tables are read: as patients, and as labels of files."""

from __future__ import annotations

import unicodedata


def patient_of(subject: str) -> str:
    """Who a subject is, in one spelling: ``011_S_0003`` and ``011s0003`` are one patient.

    Letters and digits of any script count; their case, and what stands between them, do not.
    """
    return "".join(words_of(subject.upper()))


def bids_label(text: str) -> str:
    """A text as a BIDS label, which has ASCII letters and digits only; empty if it has none.

    Other letters and digits become their code points, so that the files of two patients whose names
    differ in them alone lie apart: ``Jürg`` is ``JU00FCrg``, and ``Jrg`` is ``Jrg``.
    """
    read = "".join(words_of(text))
    return "".join(sign if sign.isascii() else f"U{ord(sign):04X}" for sign in read)


def words_of(text: str) -> list[str]:
    """The parts of a text that have letters and digits only, split at everything else."""
    # The same letter may be written as one character or two, and as wide as a Chinese one.
    text = unicodedata.normalize("NFKC", text)
    # Letters, the marks that belong to them (vowels, in some scripts), and digits.
    read = (sign if unicodedata.category(sign)[0] in "LMN" else " " for sign in text)
    return "".join(read).split()
