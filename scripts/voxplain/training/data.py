"""Stored scans as batches of normalised scans on the device that computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

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
        Scans in a batch; the last of a pass may have fewer.
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
        """Batches of the scans with these numbers: ``[batch, 1, x, y, z]`` float32, and classes."""
        parts = [
            list(order[start : start + self._size]) for start in range(0, len(order), self._size)
        ]
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

    def _read(self, part: list[int], turn: int) -> torch.Tensor:
        """Codes of some scans from disk, ``[scans, voxels]``, in one of two staging memories."""
        staging = self._staging[turn]
        for row, number in zip(staging, part, strict=False):
            row.numpy()[:] = self._scans.stored[number].codes
        return staging[: len(part)]

    def _expand(
        self, part: list[int], codes: Sequence[torch.Tensor] | torch.Tensor
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
