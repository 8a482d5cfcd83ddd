"""Whether a disk is full. Every job asks this, so that it needs no package beside Python."""

from __future__ import annotations

import shutil
from pathlib import Path

# Less free space than this is a full disk: hardly any file of ours fits into it.
FULL_DISK_BYTES = 1_000_000


def is_full(folder: Path) -> bool:
    """Whether a folder's disk has no room for a file of ours."""
    return shutil.disk_usage(folder).free < FULL_DISK_BYTES
