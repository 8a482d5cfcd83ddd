"""Records that rules pass to scripts: one for each scan, network or heatmap, with its files.

The plan makes them as params of a rule, and the script reads them back by the same class. The files
that a record names are inputs of the job as well, on which Snakemake depends.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def as_params(records: Iterable[Any]) -> list[dict[str, Any]]:
    """The fields of each record as a dictionary, which Snakemake can store and compare."""
    return [dict(vars(record)) for record in records]
