"""Training by this workflow's engine against a plain PyTorch loop, on synthetic scans of true size.

    python benchmarks/training.py [--device cuda] [--resolution 1] [--scans 10] [--steps 3]

Data: samples a second at the input of the network. The plain side is a DataLoader over .nii.gz,
float32, normalised in numpy, with one worker per core or without workers, whichever is faster. Ours
reads brain voxels in 16 bits, memory-mapped, and expands them on the device. Both read files that
are in the file cache of the system.

Compute: one step of the network of Rieke et al. 2018 at batch size 5 (Adam, dropout). The plain
side runs the model on whole float32 volumes, ours does the same as `train`. The sides alternate;
times are medians after one step for warming up. On a GPU ours computes in bfloat16.

Prints one JSON line last: ratios, both sides, the largest differences, peak memory, the time of the
cross-validation of the paper (5 folds of 775 scans, 20 epochs) at these step times, and the lower
bound by memory and arithmetic of an NVIDIA H200.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import nn
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from voxplain.anatomy.template import make_template
from voxplain.models import build_model
from voxplain.store import Brain, write_scan
from voxplain.training.cropped import CroppedNetwork
from voxplain.training.data import Batches, Scans
from voxplain.training.device import choose_device
from voxplain.training.loop import choose_precision
from voxplain.training.statistics import VoxelStatistics, fit_statistics
from voxplain.volumes import read_array, write_array

BATCH = 5
LEARNING_RATE = 1e-4
FOLDS, EPOCHS, TRAIN_SCANS, TEST_SCANS = 5, 20, 775, 194
# NVIDIA H200: bytes a second, and bfloat16 operations a second (dense).
H200_BYTES, H200_OPERATIONS = 4.8e12, 790e12


class PlainScans(Dataset):
    """Dataset that reads and normalises whole volumes, the common way."""

    def __init__(self, paths: list[Path], fitted: VoxelStatistics) -> None:
        self.paths, self.fitted = paths, fitted

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> torch.Tensor:
        volume, _ = read_array(self.paths[number])
        normalised = np.where(self.fitted.mask, (volume - self.fitted.mean) / self.fitted.sd, 0)
        return torch.from_numpy(normalised.astype(np.float32))[None]


def make_scans(count: int, resolution: float, folder: Path) -> tuple[list[Path], VoxelStatistics]:
    """Brains with smooth noise added to the template, as .nii.gz and in our own format."""
    volume, mask, grid = make_template("packaged", resolution)
    volume = volume / np.percentile(volume[mask], 98)
    paths = [folder / f"scan{number}" for number in range(count)]
    for number, path in enumerate(paths):
        noise = np.random.default_rng(number).normal(size=grid.shape).astype(np.float32)
        scan = np.where(mask, volume + ndimage.uniform_filter(noise, 3), 0).astype(np.float32)
        write_array(path.with_suffix(".nii.gz"), scan, grid)
        write_scan(path.with_suffix(".npy"), scan, Brain(mask))
    return paths, fit_statistics([p.with_suffix(".npy") for p in paths], mask, grid, 0.1)


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of a piece of work, including its work on the device."""
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def exhaust(batches: Iterator[Any]) -> None:
    """Iterate over all batches."""
    for _ in batches:
        pass


def measure_data(
    paths: list[Path], fitted: VoxelStatistics, device: torch.device, turns: int
) -> dict[str, Any]:
    """Samples a second of both sides."""
    plain = PlainScans([path.with_suffix(".nii.gz") for path in paths], fitted)
    loaders = {
        f"plain, {workers} workers": DataLoader(plain, batch_size=BATCH, num_workers=workers)
        for workers in (0, os.cpu_count() or 1)
    }
    scans = Scans([path.with_suffix(".npy") for path in paths], [0] * len(paths), fitted)
    network = CroppedNetwork(build_model("rieke", fitted.grid.shape, 2), fitted.brain)
    batches = Batches(scans, device, BATCH, network.window)
    sides = {
        name: lambda loader=loader: exhaust(batch.to(device) for batch in loader)
        for name, loader in loaders.items()
    }
    sides["ours"] = lambda: exhaust(batches.in_order(range(len(paths))))
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(turns + 1):
        for name, work in sides.items():
            taken = seconds(work, device)
            if turn:
                times[name].append(taken)
    rates = {name: len(paths) / statistics.median(taken) for name, taken in times.items()}
    whole = Batches(scans, device, BATCH).in_order(range(len(paths)))
    # Compare batch by batch: our batches reuse the same memory.
    difference = max(
        (ours - exact.to(device)).abs().max().item()
        for (ours, _), exact in zip(whole, DataLoader(plain, batch_size=BATCH), strict=True)
    )
    return {"samples_per_s": rates, "largest_difference_sd": difference}


def measure_steps(
    paths: list[Path], fitted: VoxelStatistics, device: torch.device, steps: int
) -> dict[str, Any]:
    """Seconds of a step of both sides and of testing a batch, differences of losses, memory."""
    shape = fitted.grid.shape
    torch.manual_seed(0)
    model = build_model("rieke", shape, 2).to(device)
    other = copy.deepcopy(model)
    network = CroppedNetwork(other, fitted.brain)
    scans = Scans([path.with_suffix(".npy") for path in paths[:BATCH]], [0, 1, 0, 1, 1], fitted)
    cropped, labels = next(Batches(scans, device, BATCH, network.window).in_order(range(BATCH)))
    whole, _ = next(Batches(scans, device, BATCH).in_order(range(BATCH)))
    whole = whole.contiguous().clone(memory_format=torch.contiguous_format)
    kind = choose_precision("auto", device)
    plain_adam = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    our_adam = torch.optim.Adam(other.parameters(), lr=LEARNING_RATE, fused=True)
    losses: dict[str, list[float]] = {"plain": [], "ours": []}

    def plain_step() -> None:
        plain_adam.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(model(whole), labels)
        loss.backward()
        plain_adam.step()
        losses["plain"].append(loss.item())

    def our_step() -> None:
        our_adam.zero_grad(set_to_none=True)
        with torch.autocast(device.type, kind, enabled=kind != torch.float32):
            logits = network(cropped)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        loss.backward()
        our_adam.step()
        losses["ours"].append(loss.item())

    @torch.no_grad()
    def test() -> None:
        other.eval()
        network(cropped)
        other.train()

    times: dict[str, list[float]] = {"ours": [], "plain": [], "test": []}
    peaks = {}
    for turn in range(steps + 1):
        for name, work in (("ours", our_step), ("plain", plain_step)):
            torch.manual_seed(turn)  # same dropout on both sides
            taken = seconds(work, device)
            peaks.setdefault(name, peak_mb(device))
            if turn:
                times[name].append(taken)
        times["test"].append(seconds(test, device))
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    apart = np.abs(np.subtract(losses["ours"], losses["plain"]))
    per_scan = {name: taken / BATCH for name, taken in medians.items()}
    whole_run = FOLDS * EPOCHS
    return {
        "step_s": {name: medians[name] for name in ("plain", "ours")},
        "test_batch_s": medians["test"],
        "precision": str(kind),
        "first_loss_difference": float(apart[0]),
        "largest_loss_difference": float(apart.max()),
        "peak_mb": peaks,
        "cross_validation_s": whole_run
        * (TRAIN_SCANS * per_scan["ours"] + TEST_SCANS * per_scan["test"]),
        "h200_bound": bound_of(network, shape),
    }


def peak_mb(device: torch.device) -> float:
    """Peak memory in MB so far, of the GPU or of this process. (Ours runs first.)"""
    if device.type == "cuda":
        most = torch.cuda.max_memory_allocated(device) / 1e6
        torch.cuda.reset_peak_memory_stats(device)
        return most
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def bound_of(network: CroppedNetwork, shape: tuple[int, ...]) -> dict[str, float]:
    """Bytes and operations of a step per scan in bfloat16, and the lower bound of time on an H200.

    Bytes are counted as if each operation read and wrote the memory of the GPU once, without any
    cache. Weights and the dense layers (below one per cent) are left out.
    """
    moved = operations = 0
    for number, (block, window) in enumerate(zip(network._blocks, network._windows, strict=False)):
        layer = block.convolution
        sides = [stop - start for start, stop in window]
        read = layer.in_channels * math.prod(sides)
        sums = layer.out_channels * math.prod(n - block.shrinks for n in sides)
        pooled = layer.out_channels * math.prod((n - block.shrinks) // block.pool for n in sides)
        passes = 2 if number == 0 else 3  # forward, by the weights, by the input
        operations += passes * 2 * layer.in_channels * layer.kernel_size[0] ** 3 * sums
        moved += passes * 2 * (read + sums)
        moved += (2 + 4 + 2 * 4) * sums  # moments: widened, then read for sums and for squares
        moved += 2 * sums + (2 + 8) * pooled  # pooling, with its choice
        moved += 4 * 2 * sums  # the gradient of batch norm, in place: times, plus
        moved += 60 * pooled  # about ten operations on pooled maps
    least = max(moved / H200_BYTES, operations / H200_OPERATIONS)
    return {
        "bytes_per_scan": moved,
        "operations_per_scan": operations,
        "cross_validation_s": least * FOLDS * EPOCHS * TRAIN_SCANS,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--resolution", type=int, default=1, choices=[1, 2], help="mm")
    parser.add_argument("--scans", type=int, default=10, help="of the data's passes, at least 5")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--only", choices=["data", "steps"], help="one half of it")
    options = parser.parse_args()
    device = choose_device(options.device)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        count = max(BATCH, options.scans)
        paths, fitted = make_scans(count, options.resolution, Path(scratch))
        if options.only != "steps":
            results["data"] = measure_data(paths, fitted, device, options.steps)
        if options.only != "data":
            results["compute"] = measure_steps(paths, fitted, device, options.steps)
    ratios = {}
    if "data" in results:
        rates = dict(results["data"]["samples_per_s"])
        ratios["samples_per_second"] = rates.pop("ours") / max(rates.values())
    if "compute" in results:
        step = results["compute"]["step_s"]
        ratios["step"] = step["plain"] / step["ours"]
    print(
        json.dumps(
            {
                "name": "training",
                "ratios": {name: round(ratio, 2) for name, ratio in ratios.items()},
                **results,
                "grid": fitted.grid.shape,
                "brain_voxels": len(fitted.brain.places),
                "batch_size": BATCH,
                "scans": count,
                "steps": options.steps,
                "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
                "threads": torch.get_num_threads(),
                "machine": platform.machine(),
                "torch": str(torch.__version__),
            }
        )
    )


if __name__ == "__main__":
    main()
