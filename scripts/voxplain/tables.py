"""Tables that the workflow writes and reads again: one dialect of TSV.

A tab between cells, one line a row, a header, UTF-8; ``n/a`` for what is missing, as BIDS writes
it. Only pandas' own tables need pandas: rows of text need nothing but the standard library.

Tables that users bring are as they are: :func:`voxplain.cohort.tables.read_table` reads those.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

MISSING = "n/a"
# Columns of names, in whatever table: text, even where all names look like numbers, or one is a
# word that means a missing value elsewhere (a patient 007, a cohort called null).
TEXT = frozenset(
    {
        *("cohort", "tested_on", "task", "split", "side"),
        *("image", "patient", "class", "predicted", "trained_on", "path"),
        *("model", "method", "method_a", "method_b", "layer"),
        *("area", "region", "measure", "direction"),
    }
)


def read_tsv(path: str | Path, all_text: bool = False) -> pd.DataFrame:
    """A table with the columns of :data:`TEXT` as text, and numbers in the others.

    Text stays what it is, also where it is empty or ``n/a``. In the other columns these are missing
    numbers.

    Parameters
    ----------
    all_text
        Whether the other columns are read as text as well.
    """
    import pandas as pd

    if all_text:
        return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    # By converters, which no rule for missing values touches; a type of text has one, too.
    names = dict.fromkeys(TEXT, str)
    missing = [MISSING, ""]
    return pd.read_csv(path, sep="\t", converters=names, na_values=missing, keep_default_na=False)


def write_tsv(table: pd.DataFrame, path: str | Path, floats: str | None = "%.6g") -> None:
    """Write a table without its index.

    Parameters
    ----------
    floats
        Format of numbers that are not whole; None writes as many digits as tell them apart.
    """
    table.to_csv(
        path, sep="\t", index=False, na_rep=MISSING, float_format=floats, lineterminator="\n"
    )


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """The rows of a table, column to text."""
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def write_rows(rows: Iterable[Mapping[str, Any]], path: str | Path, columns: Sequence[str]) -> None:
    """Write rows that have all of these columns and no others; None is a missing value."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: MISSING if cell is None else cell for key, cell in row.items()})
