"""Preprocessed scans in the format that networks read: brain voxels in 16 bits, memory-mapped.

A file is a ``.npy`` file with one record. It describes its own format, and any numpy reads it::

    record = np.load(path, mmap_mode="r")[0]
    values = record["level"] + record["step"] * record["voxels"].astype("f4")

``voxels`` are the voxels of the template's brain mask in C order of ``[x, y, z]``. All steps are
equal, so that the error of a voxel is at most half a step: the scan's range / 131,068 (float16 has
steps of up to range / 1,024 in the brightest voxels).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from voxplain.faults import DataFault

# Codes are symmetric about 0: -32767 to 32767.
_TOP = 32767


@dataclass(frozen=True, eq=False)
class Brain:
    """The voxels that are stored.

    Attributes
    ----------
    mask
        ``[x, y, z]`` bool, the template's brain.
    """

    mask: np.ndarray

    @cached_property
    def places(self) -> np.ndarray:
        """Flat indices of the voxels in C order, ``[voxels]`` int64."""
        return np.flatnonzero(self.mask)

    @cached_property
    def digest(self) -> bytes:
        """Digest of the grid's shape and the mask, 32 hexadecimal digits."""
        hasher = hashlib.sha256(repr(self.mask.shape).encode())
        hasher.update(np.packbits(self.mask).tobytes())
        return hasher.hexdigest()[:32].encode()

    @cached_property
    def box(self) -> tuple[tuple[int, int], ...]:
        """Bounding box of the mask: for x, y and z the first voxel, and the one after the last.

        Raises
        ------
        ValueError
            The mask is empty.
        """
        if not self.mask.any():
            raise ValueError("the brain mask is empty")
        sides = []
        for axis in range(3):
            filled = self.mask.any(axis=tuple(other for other in range(3) if other != axis))
            (inside,) = filled.nonzero()
            sides.append((int(inside[0]), int(inside[-1]) + 1))
        return tuple(sides)


@dataclass(frozen=True, eq=False)
class StoredScan:
    """One scan on disk.

    Attributes
    ----------
    codes
        ``[voxels]`` int16, memory-mapped.
    level, step
        A voxel's value is ``level + step * code``, in the units of the intensity scale.
    """

    codes: np.ndarray
    level: np.float32
    step: np.float32

    def values(self) -> np.ndarray:
        """The voxels' values, ``[voxels]`` float32."""
        return self.codes.astype(np.float32) * self.step + self.level


def write_scan(path: str | Path, volume: np.ndarray, brain: Brain) -> None:
    """Store a volume ``[x, y, z]``; voxels outside the brain are left out.

    Raises
    ------
    DataFault
        A voxel of the brain is not finite.
    ValueError
        The volume has another shape than the mask.
    """
    if volume.shape != brain.mask.shape:
        raise ValueError(f"a volume of {volume.shape} does not lie on a mask of {brain.mask.shape}")
    values = volume.reshape(-1)[brain.places].astype(np.float64)
    if not np.isfinite(values).all():
        raise DataFault(
            f"the scan to be stored in {path} has voxels that are no finite number",
            "look at the scan and its registration",
        )
    low, high = float(values.min()), float(values.max())
    level, step = np.float32((low + high) / 2), np.float32((high - low) / (2 * _TOP))
    codes = np.rint((values - level) / step) if step > 0 else np.zeros_like(values)
    record = np.zeros(1, _record_of(brain))
    record["mask"], record["level"], record["step"] = brain.digest, level, step
    record["voxels"] = np.clip(codes, -_TOP, _TOP)
    with open(path, "wb") as stream:
        np.save(stream, record)


def open_scan(path: str | Path, brain: Brain) -> StoredScan:
    """A stored scan, memory-mapped; its voxels are read when they are used.

    Raises
    ------
    DataFault
        The file is missing, empty (its scan failed in an earlier stage), not a stored scan,
        truncated, or stored for another brain mask.
    """
    path = Path(path)
    if not path.is_file():
        raise DataFault(f"scan {path} is missing", "run its registration again")
    if path.stat().st_size == 0:
        raise DataFault(
            f"scan {path} is empty: it failed in an earlier stage",
            "see its fate in scans.tsv and leave the scan out",
        )
    try:
        stored = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise DataFault(
            f"scan {path} is not a readable .npy file ({error})",
            "delete it and run again",
        ) from error
    if not stored.dtype.names or set(stored.dtype.names) != set(_record_of(brain).names):
        raise DataFault(f"{path} holds no stored scan", "delete it and run again")
    (record,) = stored
    if stored.dtype != _record_of(brain) or bytes(record["mask"]) != brain.digest:
        raise DataFault(
            f"scan {path} was stored for another brain mask ({len(record['voxels']):,} voxels; "
            f"this run's has {len(brain.places):,})",
            "delete it and run again, so that it is registered to this run's template",
        )
    return StoredScan(stored["voxels"][0], record["level"], record["step"])


def _record_of(brain: Brain) -> np.dtype:
    """The numpy type of a file's record."""
    voxels = ("voxels", "<i2", (len(brain.places),))
    return np.dtype([("mask", "S32"), ("level", "<f4"), ("step", "<f4"), voxels])
