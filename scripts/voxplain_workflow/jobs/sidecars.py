"""JSON files beside results: what was done, and a scan's fate where it was lost on the way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voxplain.faults import Fate


class LostEarlier(Exception):
    """An earlier stage gave the scan up; its fate is handed on."""

    def __init__(self, fate: Fate) -> None:
        super().__init__(fate.reason)
        self.fate = fate


def read_sidecar(path: str | Path) -> dict[str, Any]:
    """The fields of a sidecar that an earlier stage of a scan wrote.

    Raises
    ------
    LostEarlier
        The scan was given up in that stage or before.
    """
    fields = json.loads(Path(path).read_text(encoding="utf-8"))
    if fields.get("Fate", {}).get("status", "usable") != "usable":
        raise LostEarlier(Fate(**fields["Fate"]))
    return fields


def write_sidecar(path: str | Path, fields: Mapping[str, Any]) -> None:
    """Write a JSON sidecar."""
    text = json.dumps(fields, indent=2, ensure_ascii=False)
    Path(path).write_text(text + "\n", encoding="utf-8")
