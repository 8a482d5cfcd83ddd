"""Volumes on disk as a dataset of normalised scans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from voxplain.training.statistics import VoxelStatistics, read_scan


class ScanDataset(Dataset):
    """Preprocessed scans, normalised as they are read.

    Parameters
    ----------
    paths
        Volumes in template space.
    labels
        Class index of each.
    statistics
        Of the split.
    cache_mb
        Scans are kept in memory up to this; the others are read again each time, so that memory
        does not grow with the cohort.

    Raises
    ------
    DataFault
        On reading, as :func:`voxplain.training.statistics.read_scan`.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        labels: Sequence[int],
        statistics: VoxelStatistics,
        cache_mb: float = 1000,
    ) -> None:
        self.paths = list(paths)
        self.labels = list(labels)
        self.statistics = statistics
        scan_mb = statistics.mean.nbytes / 1e6
        self._room = min(len(self.paths), int(cache_mb // scan_mb))
        self._kept: dict[int, np.ndarray] = {}

    @property
    def fits_in_cache(self) -> bool:
        """Whether every scan is read from disk only once."""
        return self._room == len(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """One scan ``[1, x, y, z]`` float32, and its class."""
        volume = self._kept.get(index)
        if volume is None:
            raw = read_scan(self.paths[index], self.statistics.grid)
            volume = self.statistics.normalise(raw)
            # A worker process ends with its epoch, and what it kept with it.
            if len(self._kept) < self._room and get_worker_info() is None:
                self._kept[index] = volume
        return torch.from_numpy(volume)[None], self.labels[index]


def batches(
    scans: ScanDataset, batch_size: int, workers: int = 0, generator: torch.Generator | None = None
) -> DataLoader:
    """Batches of scans, shuffled by a generator or in their order without one.

    Parameters
    ----------
    workers
        Processes that read ahead where not all scans fit in memory.
    """
    return DataLoader(
        scans,
        batch_size=batch_size,
        shuffle=generator is not None,
        generator=generator,
        num_workers=0 if scans.fits_in_cache else workers,
        pin_memory=torch.cuda.is_available(),
    )
