"""Batches of normalised scans on a device, from stored scans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from voxplain.faults import ParameterFault
from voxplain.store import StoredScan, open_scan
from voxplain.training.statistics import VoxelStatistics

# Largest fraction of a GPU's free memory for the scans; the rest is for the network.
GPU_SHARE = 0.3
# Number of voxels that a CPU expands at a time. They fit into its cache, and PyTorch starts no
# threads for so few, which would wait for each other on shared cores.
CHUNK = 32768

Window = tuple[tuple[int, int], ...]


class Scans:
    """Stored scans and their classes, opened but not read.

    Parameters
    ----------
    paths
        Files written by :func:`voxplain.store.write_scan`.
    labels
        Class index of each scan.
    statistics
        Statistics of the split.

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
    """Batches of scans, which are transferred to a device and normalised there.

    Brain voxels are transferred as 16-bit codes. All codes stay on a GPU if they fit into
    :data:`GPU_SHARE` of its free memory. Otherwise a thread reads the next batch from disk (into
    pinned memory for a GPU) while the current one is used.

    All batches use the same memory: a batch is overwritten when the next one is requested.

    Parameters
    ----------
    scans
        Stored scans.
    device
        Device of the batches.
    batch_size
        Largest number of scans in a batch.
    window
        For x, y and z the first voxel, and the one after the last, of the part of the grid that
        batches cover; it must contain the brain. None: the whole grid.

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
        per_voxel = (
            statistics.mean.reshape(-1)[places],
            statistics.sd.reshape(-1)[places],
            np.flatnonzero(shown),
        )
        chunk = CHUNK if device.type == "cpu" else len(places)
        parts = (torch.from_numpy(values).to(device).split(chunk) for values in per_voxel)
        # Mean, SD and flat index in the window of the brain's voxels, chunk by chunk.
        self._chunks = list(zip(*parts, strict=True))
        # With a single channel both layouts have the same memory, but convolutions use the layout
        # of the strides, and this one is three to ten times as fast on a CPU.
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
        """Number of scans."""
        return len(self._scans)

    def _keep(self, voxels: int) -> torch.Tensor | None:
        """All codes ``[scans, voxels]`` on the GPU; None without a GPU or if they do not fit."""
        if self._device.type != "cuda":
            return None  # the operating system caches files that were read
        free, _ = torch.cuda.mem_get_info(self._device)
        if 2 * voxels * len(self._scans) > GPU_SHARE * free:
            return None
        codes = torch.empty((len(self._scans), voxels), dtype=torch.int16, device=self._device)
        for row, scan in zip(codes, self._scans.stored, strict=True):
            row.copy_(torch.from_numpy(np.array(scan.codes)))
        return codes

    def in_order(self, order: Sequence[int]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Full batches of the scans with these indices; the last has the remaining scans.

        Returns
        -------
        As :meth:`in_parts`.
        """
        return self.in_parts(_cut(order, self._size))

    def in_parts(
        self, parts: Sequence[Sequence[int]]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """One batch for each part, of the scans with the indices in the part.

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
                    # The other staging memory: its batch was expanded one turn before.
                    waiting.append(reader.submit(self._read, parts[turn + 1], (turn + 1) % 2))
                yield self._expand(part, codes)

    def _read(self, part: Sequence[int], turn: int) -> torch.Tensor:
        """Codes of scans from disk, ``[scans, voxels]``, in one of two staging memories."""
        staging = self._staging[turn]
        for row, number in zip(staging, part, strict=False):
            row.numpy()[:] = self._scans.stored[number].codes
        return staging[: len(part)]

    def _expand(
        self, part: Sequence[int], codes: Sequence[torch.Tensor] | torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised scans in the buffer, which stays 0 outside the brain, and their classes."""
        size, scans = len(self._chunks[0][0]), [self._scans.stored[number] for number in part]
        rows = [
            (
                scan_codes.to(self._device).split(size),
                float(scan.step),
                float(scan.level),
                row.view(-1),
            )
            for scan_codes, scan, row in zip(codes, scans, self._buffer, strict=False)
        ]
        # Chunk by chunk, since mean, SD and indices are most of the memory that is read.
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
    """The batches of one epoch, as indices of scans; no batch has a single scan.

    Without ``every_class`` the scans are shuffled and cut into full batches. If the last batch
    would have a single scan, it gets one from the batch before; with a batch size of two, it gets
    the first scan of the epoch a second time.

    With ``every_class`` the number of batches is the smallest that holds all drawn scans, and batch
    sizes differ by at most one. Each class is shuffled and gives one scan to every batch; a class
    with fewer scans than batches is drawn again, each time in a new order, until every batch has
    one of its scans. The remaining scans of the other classes are shuffled together and fill the
    batches. So no scan is left out, no scan is twice in a batch, and only scans of a class with
    fewer scans than batches occur more than once in an epoch. (The code of Korolev et al. 2017
    leaves out scans of the larger class instead.)

    Parameters
    ----------
    labels
        Class index of each scan.
    batch_size
        Largest number of scans in a batch, 2 or more.
    generator
        Random generator of all draws.
    every_class
        Whether every batch holds at least one scan of each class in ``labels``.

    Returns
    -------
    The indices of each batch's scans, in the order of the batches.

    Raises
    ------
    ParameterFault
        The batch size is too small.
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
    while sum(max(len(scans_of_class), count) for scans_of_class in members) > count * batch_size:
        count += 1
    batches: list[list[int]] = [[] for _ in range(count)]
    left = []
    for scans_of_class in members:
        drawn: list[int] = []
        while len(drawn) < count:
            drawn += _shuffled(scans_of_class, generator)
        if len(scans_of_class) < count:
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
