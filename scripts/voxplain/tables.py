"""Reading and writing of the workflow's tables, in one TSV format.

Cells are separated by tabs, each row is one line, the first line is the header, the encoding is
UTF-8, and missing values are ``n/a``, as in BIDS. Data frames need pandas; rows of text need only
the standard library.

Tables of the user have other formats: :func:`voxplain.cohort.tables.read_table` reads them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

MISSING = "n/a"
# Columns with names, in any table. They are text, even if all names look like numbers or a name
# looks like a missing value (a patient 007, a cohort called null).
TEXT = frozenset(
    {
        *("cohort", "tested_on", "task", "split", "side"),
        *("image", "patient", "class", "predicted", "trained_on", "path"),
        *("model", "method", "method_a", "method_b", "layer"),
        *("area", "region", "measure", "direction"),
    }
)


def read_tsv(path: str | Path, all_text: bool = False) -> pd.DataFrame:
    """A table with the columns of :data:`TEXT` as text; the types of the others are inferred.

    Text is not changed, even if it is empty or ``n/a``. In the other columns these are missing
    values.

    Parameters
    ----------
    all_text
        Whether all columns are read as text.
    """
    import pandas as pd

    if all_text:
        return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    # Converters, since the rules for missing values do not apply to them, but to dtype=str.
    names = dict.fromkeys(TEXT, str)
    missing = [MISSING, ""]
    return pd.read_csv(path, sep="\t", converters=names, na_values=missing, keep_default_na=False)


def write_tsv(table: pd.DataFrame, path: str | Path, floats: str | None = "%.6g") -> None:
    """Write a table without its index.

    Parameters
    ----------
    floats
        Format of numbers that are not integers; None writes as many digits as they need.
    """
    table.to_csv(
        path, sep="\t", index=False, na_rep=MISSING, float_format=floats, lineterminator="\n"
    )


def read_rows(path: str | Path) -> list[dict[str, str]]:
    """The rows of a table, column to text."""
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def write_rows(rows: Iterable[Mapping[str, Any]], path: str | Path, columns: Sequence[str]) -> None:
    """Write rows that have exactly these columns; None is a missing value."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: MISSING if cell is None else cell for key, cell in row.items()})
