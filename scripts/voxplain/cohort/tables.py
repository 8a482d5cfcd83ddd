"""Reading of the user's tables. Only the standard library is needed."""

from __future__ import annotations

import codecs
import csv
import io
from pathlib import Path

from voxplain.faults import ParameterFault, SetupFault

# Column of rows made from several tables: which line a table lacks, or empty.
MISSING_LINE = "missing line"
_MOST_BYTES = 2**29  # a thousand times the size of ADNI's largest table of visits


def read_table(table: str | Path, empty: bool = False) -> list[dict[str, str]]:
    """Rows of a CSV or TSV table of scans, column to text.

    Parameters
    ----------
    table
        Path of the file.
    empty
        Whether the table may have no rows.

    Raises
    ------
    SetupFault
        The file is missing, is not text, or has no rows.
    """
    path = Path(table)
    if path.exists() and not path.is_file():
        raise ParameterFault("table", f"is {path}, which is a folder, a pipe or a device")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise SetupFault(f"scan table {path} has more than {_MOST_BYTES} bytes: it is no table")
        text = _decoded(path.read_bytes())
    except FileNotFoundError:
        raise ParameterFault("table", f"is {path}, which does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SetupFault(
            f"scan table {path} cannot be read as text ({error}); save it as CSV or TSV in UTF-8"
        ) from None
    if "\0" in text:
        raise SetupFault(
            f"scan table {path} is no text: give it as CSV or TSV (a spreadsheet saves as CSV)"
        )
    header = text.lstrip().split("\n", 1)[0]
    delimiter = max(",\t;", key=header.count)
    try:
        rows = [
            {_one_line(key): _cell(value) for key, value in row.items() if key is not None}
            for row in csv.DictReader(
                io.StringIO(text, newline=""), delimiter=delimiter, strict=True
            )
        ]
    except csv.Error as error:
        raise SetupFault(
            f"scan table {path} is not well-formed ({error}); export it again"
        ) from None
    rows = [row for row in rows if any(row.values())]  # spreadsheets leave empty lines behind
    if not rows and not empty:
        raise SetupFault(f"scan table {path} has no rows below its header")
    return rows


def _cell(value: str | None) -> str:
    """A cell's text; empty for a missing value (n/a, NA, nan)."""
    text = _one_line(value or "")
    return "" if text.lower() in ("na", "n/a", "nan") else text


def _one_line(text: str) -> str:
    """A text in one line; cells of spreadsheets may have several."""
    return " ".join(text.split())


def _decoded(raw: bytes) -> str:
    """Text decoded from UTF-8, or from UTF-16, which spreadsheets call Unicode."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16")
    return raw.decode("utf-8-sig")
