"""Sidecars: JSON files beside results with their processing, and the fate of a lost scan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voxplain.faults import Fate


class LostEarlier(Exception):
    """The scan was lost in an earlier stage, with this fate."""

    def __init__(self, fate: Fate) -> None:
        super().__init__(fate.reason)
        self.fate = fate


def read_sidecar(path: str | Path) -> dict[str, Any]:
    """The fields of a sidecar from an earlier stage of a scan.

    Raises
    ------
    LostEarlier
        The scan was lost in that stage or before.
    """
    fields = json.loads(Path(path).read_text(encoding="utf-8"))
    if fields.get("Fate", {}).get("status", "usable") != "usable":
        raise LostEarlier(Fate(**fields["Fate"]))
    return fields


def write_sidecar(path: str | Path, fields: Mapping[str, Any]) -> None:
    """Write a JSON sidecar."""
    text = json.dumps(fields, indent=2, ensure_ascii=False)
    Path(path).write_text(text + "\n", encoding="utf-8")
