"""Paths of the checkpoints of an unfinished training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def checkpoint_path(
    folder: str | Path, made_by: Sequence[Any], volumes: Iterable[str | Path]
) -> Path:
    """Path of a hidden file in a folder, named by a digest of everything that determines its state.

    A training with any change has another path, so that it finds no checkpoint and starts anew.

    Parameters
    ----------
    made_by
        Settings, seed, members, ...: any values that JSON can write.
    volumes
        Files whose content is part of the digest.
    """
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode())
    for path in volumes:
        digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return Path(folder) / f".checkpoint-{digest.hexdigest()[:20]}.pt"


def remove_checkpoints(folder: str | Path) -> None:
    """Remove the checkpoints of a folder, including those of other settings."""
    for path in Path(folder).glob(".checkpoint-*"):
        path.unlink()
