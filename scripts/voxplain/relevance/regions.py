"""Regions of a scan to occlude: boxes, or segments of any shape in their boxes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage


@dataclass(frozen=True)
class Regions:
    """Regions of a scan, each occluded separately.

    Attributes
    ----------
    start, stop
        ``[regions, 3]`` int64, first voxel of the box of each region, and the voxel after the last;
        each box lies in the scan and has at least one voxel.
    labels, values
        For regions that do not fill their boxes: ``[x, y, z]`` int32 on the scan's grid, and
        ``[regions]`` the label of each. None for boxes.
    """

    start: np.ndarray
    stop: np.ndarray
    labels: np.ndarray | None = None
    values: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, chosen: np.ndarray | slice) -> Regions:
        """A selection of the regions, by numbers, a slice, or a bool for each region."""
        values = None if self.values is None else self.values[chosen]
        return Regions(self.start[chosen], self.stop[chosen], self.labels, values)

    @classmethod
    def cubes(cls, centres: np.ndarray, size: int, shape: Sequence[int]) -> Regions:
        """Cubes of ``size`` voxels around voxels ``[regions, 3]``, cut at the scan's borders.

        A cube with an even size has one voxel more before its centre than after it.
        """
        if size < 1:
            raise ValueError(f"a cube's edge is at least one voxel, not {size}")
        start = np.asarray(centres, np.int64).reshape(-1, 3) - size // 2
        return cls(start.clip(min=0), np.minimum(start + size, shape))

    @classmethod
    def segments(cls, labels: np.ndarray, values: Iterable[int] | None = None) -> Regions:
        """The segments of a label volume ``[x, y, z]``, each in its smallest box.

        Parameters
        ----------
        values
            Labels above 0; default: all labels that occur, in ascending order.

        Raises
        ------
        ValueError
            A label is below 0 or not a whole number, or a label of ``values`` does not occur.
        """
        given = np.asarray(labels)
        labels = np.ascontiguousarray(given, np.int32)
        if (labels != given).any() or labels.min(initial=0) < 0:
            raise ValueError("labels are whole numbers from 0 on, 0 outside every segment")
        boxes = ndimage.find_objects(labels)
        if values is None:
            values = [place + 1 for place, box in enumerate(boxes) if box is not None]
        values = np.asarray(list(values), np.int32)
        absent = [int(v) for v in values if not 0 < v <= len(boxes) or boxes[v - 1] is None]
        if absent:
            raise ValueError(f"no voxel has the label {', '.join(map(str, absent))}")
        chosen = [boxes[value - 1] for value in values]
        start = np.array([[axis.start for axis in box] for box in chosen], np.int64).reshape(-1, 3)
        stop = np.array([[axis.stop for axis in box] for box in chosen], np.int64).reshape(-1, 3)
        return cls(start, stop, labels, values)

    def boxes(self) -> list[tuple[slice, slice, slice]]:
        """The regions' boxes as slices of a volume."""
        return [
            tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
            for start, stop in zip(self.start, self.stop, strict=True)
        ]

    def inside(self, number: int) -> np.ndarray:
        """Mask of the voxels in a region's box that belong to the region, bool."""
        box = self[[number]].boxes()[0]
        if self.labels is None:
            return np.ones([axis.stop - axis.start for axis in box], bool)
        return self.labels[box] == self.values[number]

    def unique(self) -> tuple[Regions, np.ndarray]:
        """The distinct regions, and the number of each region among them."""
        values = () if self.values is None else (self.values[:, None],)
        rows = np.ascontiguousarray(np.concatenate([self.start, self.stop, *values], axis=1))
        # One item for each row: items are sorted ten times as fast as rows.
        items = rows.view([("", rows.dtype)] * rows.shape[1]).ravel()
        _, first, number = np.unique(items, return_index=True, return_inverse=True)
        return self[first], number.ravel()

    def touching(self, filled: np.ndarray) -> np.ndarray:
        """Whether each box holds a filled voxel, ``[regions]`` bool.

        Parameters
        ----------
        filled
            ``[x, y, z]`` bool.
        """
        return _count(_sums(filled), self.start, self.stop) > 0

    def trimmed(self, filled: np.ndarray) -> Regions:
        """The boxes without outer layers that have no filled voxel; an empty box has no voxel.

        Where a scan is 0, setting it to 0 changes nothing. At the surface of the brain, boxes
        become much smaller.

        Parameters
        ----------
        filled
            ``[x, y, z]`` bool.
        """
        sums = _sums(filled)
        start, stop = self.start.copy(), self.stop.copy()
        empty = _count(sums, start, stop) == 0
        stop[empty] = start[empty]
        for axis in range(3):
            for lower in (True, False):
                active = np.flatnonzero(~empty)
                while active.size:
                    low, high = start[active], stop[active]
                    if lower:
                        high[:, axis] = low[:, axis] + 1
                    else:
                        low[:, axis] = high[:, axis] - 1
                    active = active[_count(sums, low, high) == 0]
                    (start if lower else stop)[active, axis] += 1 if lower else -1
        return Regions(start, stop, self.labels, self.values)


def _sums(filled: np.ndarray) -> np.ndarray:
    """Number of filled voxels before each corner of a voxel along all axes."""
    sums = np.zeros(np.array(filled.shape) + 1, np.int32)
    sums[1:, 1:, 1:] = filled.cumsum(0, np.int32).cumsum(1, np.int32).cumsum(2, np.int32)
    return sums


def _count(sums: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Number of filled voxels in boxes, from the cumulative sums of :func:`_sums`."""
    total = np.zeros(len(low), np.int64)
    for corner in np.ndindex(2, 2, 2):
        at = np.where(np.array(corner, bool), high, low)
        total += (-1) ** (3 - sum(corner)) * sums[at[:, 0], at[:, 1], at[:, 2]].astype(np.int64)
    return total
