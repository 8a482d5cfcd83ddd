"""Check for full disks; every job imports this, so it needs only the standard library."""

from __future__ import annotations

import shutil
from pathlib import Path

# A disk with less free space counts as full: hardly any output file fits into it.
FULL_DISK_BYTES = 1_000_000


def is_full(folder: Path) -> bool:
    """Whether the disk of a folder has less than `FULL_DISK_BYTES` of free space."""
    return shutil.disk_usage(folder).free < FULL_DISK_BYTES
