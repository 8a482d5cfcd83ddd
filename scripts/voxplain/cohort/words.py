"""Comparison of words from tables and headers."""

from __future__ import annotations

import re
import unicodedata


def plain(text: str) -> str:
    """A word reduced to its letters and digits in lower case, for comparisons."""
    # Of any script: two words of another one than ASCII's would have nothing left, and be the same.
    return "".join(words_of(text.lower()))


def words_of(text: str) -> list[str]:
    """The parts of a text that have letters and digits only, split at everything else."""
    if text.isascii():  # nearly all are, and a table has thousands
        return re.findall("[A-Za-z0-9]+", text)
    # The same letter may be written as one character or as two, and in full width.
    text = unicodedata.normalize("NFKC", text)
    return "".join(sign if _counts(sign) else " " for sign in text).split()


def _counts(sign: str) -> bool:
    """Whether a character tells names apart: letters, their marks, digits, symbols beyond ASCII."""
    category = unicodedata.category(sign)
    # Marks belong to letters: vowels, in some scripts. Of the rest, users type only those of ASCII
    # as separators; symbols, private and half characters are signs of some system.
    return category[0] in "LMN" or (
        not sign.isascii() and (category[0] == "S" or category in ("Co", "Cn", "Cs"))
    )
