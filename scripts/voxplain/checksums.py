"""Checks of files against the checksums that they carry, which common readers ignore.

PyTorch ignores the CRC-32 of each part of a zip archive, and nibabel stops reading a gzip stream
before its CRC-32: a file with a flipped bit is read with other values than it was written with.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from voxplain.faults import SetupFault


def check_zip(path: str | Path) -> None:
    """Check every part of a zip archive, such as a file of ``torch.save``, by its CRC-32.

    Raises
    ------
    SetupFault
        The file is not a zip archive, or a part of it does not have its checksum.
    FileNotFoundError
        The file does not exist.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        raise SetupFault(f"it is not a complete zip archive: {error}") from error
    if damaged is not None:
        raise SetupFault(f"it is damaged: its part {damaged} does not match its checksum")
