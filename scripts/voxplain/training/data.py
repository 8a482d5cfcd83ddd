"""Stored scans as batches of normalised scans on the device that computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from voxplain.faults import ParameterFault
from voxplain.store import StoredScan, open_scan
from voxplain.training.statistics import VoxelStatistics

# Of a GPU's free memory, what a cohort may take; the rest is for the network.
GPU_SHARE = 0.3
# Voxels that a CPU expands at a time: they stay in its cache, and PyTorch starts no threads for so
# few, which would wait for each other wherever cores are shared.
CHUNK = 32768

Window = tuple[tuple[int, int], ...]


class Scans:
    """Stored scans and their classes, opened but not read.

    Parameters
    ----------
    paths
        Files as :func:`voxplain.store.write_scan` leaves them.
    labels
        Class index of each.
    statistics
        Of the split.

    Raises
    ------
    DataFault
        As :func:`voxplain.store.open_scan`.
    """

    def __init__(
        self, paths: Sequence[str | Path], labels: Sequence[int], statistics: VoxelStatistics
    ) -> None:
        self.labels = list(labels)
        self.statistics = statistics
        self.stored: list[StoredScan] = [open_scan(path, statistics.brain) for path in paths]

    def __len__(self) -> int:
        return len(self.stored)


class Batches:
    """Scans as batches on a device, normalised there.

    Brain voxels travel as 16-bit codes. On a GPU all codes stay where they fit in
    :data:`GPU_SHARE` of its free memory. Elsewhere a thread reads the next batch from disk, into
    pinned memory for a GPU, while this one is computed on.

    Every batch lies in the same memory: one is gone when the next is asked for.

    Parameters
    ----------
    scans
        Where they come from.
    device
        Where they go.
    batch_size
        The most scans in a batch.
    window
        First voxel along x, y and z, and the one after the last, of the part of the grid that
        batches show; it must hold the brain. None: the whole grid.

    Raises
    ------
    ValueError
        The window cuts the brain.
    """

    def __init__(
        self, scans: Scans, device: torch.device, batch_size: int, window: Window | None = None
    ) -> None:
        statistics, places = scans.statistics, scans.statistics.brain.places
        window = window or tuple((0, n) for n in statistics.grid.shape)
        shown = statistics.mask[tuple(slice(*side) for side in window)]
        if np.count_nonzero(shown) != len(places):
            raise ValueError(f"the window {window} cuts the brain")
        self._scans, self._device, self._size = scans, device, batch_size
        told = (
            statistics.mean.reshape(-1)[places],
            statistics.sd.reshape(-1)[places],
            np.flatnonzero(shown),
        )
        chunk = CHUNK if device.type == "cpu" else len(places)
        parts = (torch.from_numpy(values).to(device).split(chunk) for values in told)
        # Mean, SD and place in the window of the brain's voxels, chunk by chunk.
        self._chunks = list(zip(*parts, strict=True))
        # Of a single channel both layouts have the same memory, but convolutions take the one that
        # the strides name, and this one is three to ten times as fast on a CPU.
        self._buffer = torch.empty(
            (batch_size, 1, *shown.shape), device=device, memory_format=torch.channels_last_3d
        ).zero_()
        self._labels = torch.tensor(scans.labels, device=device)
        self._resident = self._keep(len(places))
        staged = 0 if self._resident is not None else 2
        self._staging = [
            torch.empty(
                (batch_size, len(places)), dtype=torch.int16, pin_memory=device.type == "cuda"
            )
            for _ in range(staged)
        ]

    def __len__(self) -> int:
        """How many scans there are."""
        return len(self._scans)

    def _keep(self, voxels: int) -> torch.Tensor | None:
        """All codes ``[scans, voxels]`` on the GPU, if there is one and they fit."""
        if self._device.type != "cuda":
            return None  # the system keeps what it read from disk
        free, _ = torch.cuda.mem_get_info(self._device)
        if 2 * voxels * len(self._scans) > GPU_SHARE * free:
            return None
        codes = torch.empty((len(self._scans), voxels), dtype=torch.int16, device=self._device)
        for row, scan in zip(codes, self._scans.stored, strict=True):
            row.copy_(torch.from_numpy(np.array(scan.codes)))
        return codes

    def in_order(self, order: Sequence[int]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Full batches of the scans with these numbers, the last with what is left.

        Returns
        -------
        As :meth:`in_parts`.
        """
        return self.in_parts(_cut(order, self._size))

    def in_parts(
        self, parts: Sequence[Sequence[int]]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One batch for each part, of the scans with its numbers.

        Yields
        ------
        ``[batch, 1, x, y, z]`` float32, and classes ``[batch]``.
        """
        if self._resident is not None:
            for part in parts:
                yield self._expand(part, [self._resident[number] for number in part])
            return
        with ThreadPoolExecutor(1) as reader:
            waiting = [reader.submit(self._read, part, 0) for part in parts[:1]]
            for turn, part in enumerate(parts):
                codes = waiting.pop().result()
                if turn + 1 < len(parts):
                    # The other staging memory: its own batch was expanded a turn ago.
                    waiting.append(reader.submit(self._read, parts[turn + 1], (turn + 1) % 2))
                yield self._expand(part, codes)

    def _read(self, part: Sequence[int], turn: int) -> torch.Tensor:
        """Codes of some scans from disk, ``[scans, voxels]``, in one of two staging memories."""
        staging = self._staging[turn]
        for row, number in zip(staging, part, strict=False):
            row.numpy()[:] = self._scans.stored[number].codes
        return staging[: len(part)]

    def _expand(
        self, part: Sequence[int], codes: Sequence[torch.Tensor] | torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalise scans into the buffer; outside the brain it stays 0."""
        size, scans = len(self._chunks[0][0]), [self._scans.stored[number] for number in part]
        rows = [
            (own.to(self._device).split(size), float(scan.step), float(scan.level), row.view(-1))
            for own, scan, row in zip(codes, scans, self._buffer, strict=False)
        ]
        # Chunk by chunk, since mean, SD and places are most of what is read.
        for turn, (mean, sd, places) in enumerate(self._chunks):
            for split, step, level, target in rows:
                values = split[turn].to(torch.float32).mul_(step).add_(level)
                target.scatter_(0, places, values.sub_(mean).div_(sd))
        return self._buffer[: len(part)], self._labels[part]


def plan_batches(
    labels: Sequence[int],
    batch_size: int,
    generator: torch.Generator,
    every_class: bool = False,
) -> list[list[int]]:
    """Deal the scans of one epoch into batches, none of which has a single scan.

    Without ``every_class`` the scans are shuffled and cut into full batches. Where one scan would
    be left over, the batch before gives it company; with a batch size of two it has none to give,
    and the first scan of the epoch is drawn again.

    With ``every_class`` there are as few batches as hold all that is drawn, of sizes that differ by
    one at most. Each class is shuffled and gives one scan to every batch; a class with fewer scans
    than there are batches is drawn again, in a new order each time that it is through, until it has
    given one to each. What the other classes have left is shuffled together and fills the batches.
    So no scan is left out, none comes twice in a batch, and only those of a class that is rarer
    than one scan in a batch come more than once in an epoch. (The code of Korolev et al. 2017
    leaves out scans of the larger class instead.)

    Parameters
    ----------
    labels
        Class index of each scan.
    batch_size
        The most scans in a batch, 2 or more.
    generator
        Of everything that is drawn.
    every_class
        Whether every batch holds at least one scan of each class in ``labels``.

    Returns
    -------
    The numbers of each batch's scans, in the order of the batches.

    Raises
    ------
    ParameterFault
        The batches are too small for that.
    """
    if batch_size < 2:
        raise ParameterFault(
            "batch_size", f"is {batch_size}, expected 2 or more: batch norm needs several scans"
        )
    classes = sorted(set(labels))
    if every_class and len(classes) > 1:
        return _deal_every_class(labels, classes, batch_size, generator)
    batches = _cut(_shuffled(range(len(labels)), generator), batch_size)
    if len(batches) > 1 and len(batches[-1]) == 1:
        company = batches[-2].pop() if batch_size > 2 else batches[0][0]
        batches[-1].append(company)
    return batches


def _deal_every_class(
    labels: Sequence[int], classes: Sequence[int], batch_size: int, generator: torch.Generator
) -> list[list[int]]:
    if batch_size < len(classes):
        raise ParameterFault(
            "batch_size",
            f"is {batch_size}, but every batch is to hold all of the {len(classes)} classes; "
            f"choose {len(classes)} or more, or switch every_class off",
        )
    members = [[n for n, label in enumerate(labels) if label == each] for each in classes]
    count = -(-len(labels) // batch_size)
    while sum(max(len(own), count) for own in members) > count * batch_size:
        count += 1
    batches: list[list[int]] = [[] for _ in range(count)]
    left = []
    for own in members:
        drawn: list[int] = []
        while len(drawn) < count:
            drawn += _shuffled(own, generator)
        if len(own) < count:
            del drawn[count:]
        for batch, number in zip(batches, drawn, strict=False):
            batch.append(number)
        left += drawn[count:]
    left = _shuffled(left, generator)
    size, larger = divmod(len(left), count)
    for place, batch in enumerate(batches):
        taken = size + (place < larger)
        batch += left[:taken]
        left = left[taken:]
    return batches


def _shuffled(numbers: Sequence[int], generator: torch.Generator) -> list[int]:
    return [numbers[place] for place in torch.randperm(len(numbers), generator=generator).tolist()]


def _cut(numbers: Sequence[int], size: int) -> list[list[int]]:
    return [list(numbers[start : start + size]) for start in range(0, len(numbers), size)]
