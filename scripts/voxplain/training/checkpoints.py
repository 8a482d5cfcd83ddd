"""Where an unfinished training keeps its state."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def checkpoint_path(
    folder: str | Path, made_by: Sequence[Any], volumes: Iterable[str | Path]
) -> Path:
    """A hidden file in a folder, named by a digest of everything that makes the state in it.

    A training that was changed in any way finds no checkpoint and starts anew.

    Parameters
    ----------
    made_by
        Settings, seed, members, ...: what JSON can write.
    volumes
        Files whose content counts as well.
    """
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode())
    for path in volumes:
        digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return Path(folder) / f".checkpoint-{digest.hexdigest()[:20]}.pt"


def remove_checkpoints(folder: str | Path) -> None:
    """Remove the checkpoints of a folder, those of abandoned settings too."""
    for path in Path(folder).glob(".checkpoint-*"):
        path.unlink()
