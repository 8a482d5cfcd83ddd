"""Checkpoints of an unfinished training: their paths, and torch files that are whole or absent."""

from __future__ import annotations

import hashlib
import json
import os
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from voxplain.checksums import check_zip


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


def save_whole(state: Any, path: str | Path) -> None:
    """Write a file of torch; under its name there is the old file or all of the new one.

    Its bytes are on the disk before it gets its name: after a power cut a file that was only
    renamed may be empty. A file that was not finished has the suffix ``.partial``.
    """
    path = Path(path)
    unfinished = path.with_suffix(".partial")
    torch.save(state, unfinished)
    _sync(unfinished)
    os.replace(unfinished, path)
    with suppress(OSError):  # some file systems cannot sync a folder
        _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_whole(path: str | Path, device: torch.device | str = "cpu") -> Any:
    """The state of a file of :func:`save_whole`, its tensors on ``device``.

    Raises
    ------
    SetupFault
        The file is not whole, or bytes of it were changed.
    Exception
        Torch cannot read the file; it raises many kinds.
    """
    check_zip(path)  # torch does not compare the checksums
    return torch.load(path, map_location=device, weights_only=True)


def set_aside(path: Path, error: Exception) -> str:
    """Rename a checkpoint that cannot be used; returns the message for the log, one line.

    The next training that ends well removes it, see :func:`remove_checkpoints`.
    """
    aside = path.with_name(f"{path.name}.damaged")
    os.replace(path, aside)
    reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
    return (
        f"checkpoint {path} cannot be read ({reason}): it is set aside as {aside.name}, and the "
        "training begins anew"
    )


def remove_checkpoints(folder: str | Path) -> None:
    """Remove the checkpoints of a folder, including those of other settings."""
    for path in Path(folder).glob(".checkpoint-*"):
        path.unlink()
