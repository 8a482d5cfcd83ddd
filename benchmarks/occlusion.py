"""Speed of recomputing only what an occlusion changes, compared with full forward passes.

    python benchmarks/occlusion.py [--cases rieke_40 ...] [--device cpu] [--full-map]

Both sides run in one process, on the same network and scan: captum's FeatureAblation (the base of
its Occlusion) and MONAI's OcclusionSensitivity, each timed on a sample of places for several batch
sizes, and voxplain's engine for several memory budgets, on enough places for a second or more.
Times are medians of the repeats; the best setting of each side counts. A ratio is the time per
place of the faster library divided by ours. It excludes the setup (ours: two forward passes a scan,
which are reported).

Prints tables for the docs, and one JSON line last.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from captum.attr import FeatureAblation
from monai.visualize import OcclusionSensitivity

warnings.filterwarnings("ignore", message="Using a non-tuple sequence")  # in MONAI

from voxplain.anatomy.template import make_template
from voxplain.atlas import read_aal
from voxplain.models import build_model
from voxplain.relevance.incremental import IncrementalNetwork
from voxplain.relevance.regions import Regions

SAMPLE = 4  # places on which full forward passes are timed
BATCHES = (1, 2, 4)
MEMORY_MB = (16, 64, 128, 256)


@dataclass
class Case:
    """A network, a scan, and the regions to occlude.

    Attributes
    ----------
    cube
        Edge in voxels; None for areas.
    stride
        Distance between cubes in voxels.
    """

    model: nn.Module
    scan: Tensor
    regions: Regions
    cube: int | None = None
    stride: int = 1


class Counting(nn.Module):
    """A network that counts its input scans."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.scans = model, 0

    def forward(self, scans: Tensor) -> Tensor:
        """Logits of scans."""
        self.scans += len(scans)
        return self.model(scans)


# --- networks -------------------------------------------------------------------------------------


def voxcnn() -> nn.Module:
    """The layers of VoxCNN (Korolev et al. 2017; Yang et al. 2018) on 110^3."""
    layers, before = [], 1
    for block in ((8, 8), (16, 16), (32, 32, 32), (64, 64, 64)):
        for channels in block:
            layers += [nn.Conv3d(before, channels, 3), nn.ReLU()]
            before = channels
        layers.append(nn.MaxPool3d(2))
    head = [nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.BatchNorm1d(128), nn.Dropout(0.7)]
    return nn.Sequential(*layers, *head, nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 2))


class Residual(nn.Module):
    """Two times batch norm, ReLU and convolution, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = []
        for _ in range(2):
            layers += [nn.BatchNorm3d(channels), nn.ReLU()]
            layers.append(nn.Conv3d(channels, channels, 3, padding=1))
        self.branch = nn.Sequential(*layers)

    def forward(self, maps: Tensor) -> Tensor:
        """A map of the same size."""
        return maps + self.branch(maps)


def voxresnet() -> nn.Module:
    """The layers of VoxResNet (Korolev et al. 2017; Yang et al. 2018) on 110^3."""

    def normed(before: int, channels: int) -> list[nn.Module]:
        conv = nn.Conv3d(before, channels, 3, padding=1)
        return [conv, nn.BatchNorm3d(channels), nn.ReLU()]

    def halved(before: int, channels: int) -> nn.Module:
        return nn.Conv3d(before, channels, 3, stride=2, padding=1)

    return nn.Sequential(
        *normed(1, 32),
        *normed(32, 32),
        halved(32, 64),
        Residual(64),
        Residual(64),
        nn.BatchNorm3d(64),
        nn.ReLU(),
        halved(64, 64),
        Residual(64),
        Residual(64),
        nn.BatchNorm3d(64),
        nn.ReLU(),
        halved(64, 128),
        Residual(128),
        Residual(128),
        nn.MaxPool3d(7),
        nn.Flatten(),
        nn.Linear(1024, 128),
        nn.ReLU(),
        nn.Linear(128, 2),
    )


def with_statistics(model: nn.Module) -> nn.Module:
    """The network with random statistics in its batch norms, as after training."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d | nn.BatchNorm1d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.weight, mean=1, std=0.2)
            nn.init.normal_(module.bias, std=0.1)
    return model.eval()


# --- scans and places -----------------------------------------------------------------------------


def brain(resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """A normalised scan, 0 outside the template's brain, and the brain's mask."""
    _, mask, _ = make_template("packaged", resolution)
    noise = np.random.default_rng(0).normal(size=mask.shape).astype(np.float32)
    return np.where(mask, noise, 0), mask


def fitted(edge: int) -> tuple[np.ndarray, np.ndarray]:
    """A normalised scan and the mask of the brain, on a cube of voxels that just fits the brain."""
    _, mask, grid = make_template("packaged", 1)
    filled = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    low, high = (np.array([f[end] for f in filled]) for end in (0, -1))
    step = (high - low).max() / (edge - 6)
    places = [
        np.clip(np.round((a + b) / 2 + (np.arange(edge) - edge / 2) * step), 0, n - 1).astype(int)
        for a, b, n in zip(low, high, grid.shape, strict=True)
    ]
    mask = mask[np.ix_(*places)]
    noise = np.random.default_rng(0).normal(size=mask.shape).astype(np.float32)
    return np.where(mask, noise, 0), mask


def as_batch(scan: np.ndarray, device: torch.device) -> Tensor:
    """A scan as a batch of one."""
    return torch.from_numpy(scan)[None, None].to(device)


def every_voxel(mask: np.ndarray, period: int, count: int) -> Regions:
    """Cubes of 7 voxels at brain voxels: a consecutive part of the order used by the engine."""
    centres = np.argwhere(mask)
    cubes = Regions.cubes(centres, 7, mask.shape)
    order = np.lexsort((cubes.start % period).T[::-1])
    return cubes[order[len(order) // 2 :][:count]]


def make_case(name: str, device: torch.device) -> Case:
    """A case by name."""
    torch.manual_seed(0)
    if name.startswith("rieke"):
        scan, mask = brain(2 if name.endswith("2mm") else 1)
        model = with_statistics(build_model("rieke", mask.shape, 2)).to(device)
        batch = as_batch(scan, device)
        if name == "rieke_40":
            axes = [np.arange(0, n, 12) for n in mask.shape]
            centres = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
            cubes = Regions.cubes(centres, 40, mask.shape)
            return Case(model, batch, cubes[cubes.touching(mask)][::4], 40, 12)
        if name == "rieke_areas":
            _, _, grid = make_template("packaged", 1)
            labels = read_aal().on_grid(grid).labels
            return Case(model, batch, Regions.segments(np.where(mask, labels, 0)))
        return Case(model, batch, every_voxel(mask, 36, 10_000), 7)
    scan, mask = fitted(110)
    model = with_statistics(voxcnn() if name == "voxcnn_7" else voxresnet()).to(device)
    period, count = (16, 2000) if name == "voxcnn_7" else (8, 100)
    return Case(model, as_batch(scan, device), every_voxel(mask, period, count), 7)


CASES = ("rieke_40", "rieke_7", "rieke_7_2mm", "rieke_areas", "voxcnn_7", "voxresnet_7")


# --- the sides ------------------------------------------------------------------------------------


def timed(work: Callable[[], int], repeats: int, device: torch.device) -> float:
    """Median seconds per place; ``work`` returns the number of places that it did."""
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        count = work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - begun) / count)
    return statistics.median(seconds)


def peak_mb(work: Callable[[], int], device: torch.device) -> float:
    """Peak memory in MB during the work, minus the memory in use before it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1e3


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def by_captum(case: Case, batch_size: int) -> Callable[[], int]:
    """Function that runs FeatureAblation on a sample of the places."""
    chosen = np.linspace(0, len(case.regions) - 1, SAMPLE).astype(int)
    features = np.zeros(case.scan.shape[2:], np.int64)
    for number, region in enumerate(chosen, start=1):
        box = case.regions[[region]].boxes()[0]
        features[box][case.regions.inside(region)] = number
    mask = torch.from_numpy(features)[None, None].to(case.scan.device)
    counting = Counting(case.model).eval()

    def work() -> int:
        counting.scans = 0
        FeatureAblation(counting).attribute(
            case.scan, target=0, feature_mask=mask, perturbations_per_eval=batch_size
        )
        return counting.scans

    return work


def by_monai(case: Case, batch_size: int) -> Callable[[], int]:
    """Function that runs OcclusionSensitivity around one place."""
    shape, stride = case.scan.shape[2:], case.stride
    steps = (stride, stride, 0)  # two places along x and along y
    box = [edge for n, step in zip(shape, steps, strict=True) for edge in (n // 2, n // 2 + step)]
    counting = Counting(case.model).eval()

    def work() -> int:
        counting.scans = 0
        OcclusionSensitivity(
            counting,
            mask_size=case.cube,
            n_batch=batch_size,
            mode=0.0,
            overlap=1 - stride / case.cube,
            verbose=False,
        )(case.scan, b_box=box)
        return counting.scans

    return work


def differences(case: Case, network: IncrementalNetwork) -> float:
    """Largest difference of a probability from full forward passes, on the sample."""
    chosen = np.linspace(0, len(case.regions) - 1, SAMPLE).astype(int)
    probabilities = torch.softmax(network.logits_of(case.regions[chosen], 128).double(), dim=1)
    worst = 0.0
    for row, number in enumerate(chosen):
        occluded = case.scan.clone()
        part = occluded[(0, 0, *case.regions[[number]].boxes()[0])]
        part[torch.from_numpy(case.regions.inside(number)).to(part.device)] = 0
        full = torch.softmax(case.model(occluded).double(), dim=1)[0]
        worst = max(worst, float((full - probabilities[row]).abs().max()))
    return worst


def throughput(device: torch.device) -> float:
    """Multiply-adds a second of a large convolution, as the speed of the machine."""
    maps = torch.randn(2, 64, 40, 40, 40, device=device)
    conv = nn.Conv3d(64, 64, 3, padding=1).to(device)

    def work() -> int:
        conv(maps)
        return 1

    work()
    return maps.numel() * 27 * 64 / timed(work, 3, device)


def measure(name: str, device: torch.device, repeats: int) -> dict[str, float]:
    """Measurements of both sides for a case."""
    case = make_case(name, device)
    sweep: dict[str, float] = {}
    libraries = {"captum": by_captum} | ({"monai": by_monai} if case.cube else {})
    for library, side in libraries.items():
        for size in BATCHES:
            sweep[f"{library}, batch {size}"] = timed(side(case, size), repeats, device)
    best = min((sweep[key], key) for key in sweep)
    library, size = best[1].split(", batch ")
    theirs_mb = peak_mb(libraries[library](case, int(size)), device)

    regions = case.regions
    if (regions.stop - regions.start).max() >= 12:  # as the method does before it calls the engine
        regions, _ = regions.trimmed((case.scan[0, 0] != 0).cpu().numpy()).unique()
    ours, engine = sweep_engine(case, regions, repeats, device)
    quickest = next(mb for mb in MEMORY_MB if ours[mb] <= 1.05 * min(ours.values()))

    def whole() -> int:
        IncrementalNetwork(case.model, case.scan).logits_of(regions[: 10 * SAMPLE], quickest)
        return 1

    ours_mb = peak_mb(whole, device)
    print(f"\n{name}: {len(case.regions):,} places, grid {tuple(case.scan.shape[2:])}")
    for key, seconds in sweep.items():
        print(f"  {key:>16}: {1e3 * seconds:10.2f} ms a place")
    for memory, seconds in ours.items():
        print(f"  ours, {memory:>7} MB: {1e3 * seconds:10.4f} ms a place")
    return {
        "ratio": best[0] / ours[quickest],
        "theirs_ms": 1e3 * best[0],
        "theirs": best[1],
        "ours_ms": 1e3 * ours[quickest],
        "ours_mb": quickest,
        "places": len(case.regions),
        "peak_mb": {"theirs": round(theirs_mb), "ours": round(ours_mb)},
        "used": engine["multiply_adds"]["needed"] / ours[quickest],
        **engine,
    }


def sweep_engine(
    case: Case, regions: Regions, repeats: int, device: torch.device
) -> tuple[dict[int, float], dict[str, Any]]:
    """Seconds per place by memory budget, and other measurements of the engine.

    ``regions`` are the distinct regions of the case, trimmed to where the scan is not 0.
    """
    begun = time.perf_counter()
    network = IncrementalNetwork(case.model, case.scan)
    start_s = time.perf_counter() - begun

    def within(memory: int) -> int:
        network.logits_of(regions, memory)
        return len(case.regions)

    seconds = {mb: timed(functools.partial(within, mb), repeats, device) for mb in MEMORY_MB}
    needed = float(network.multiply_adds(regions).sum() / len(case.regions))
    in_full = network.multiply_adds_in_full()
    return seconds, {
        "start_s": start_s,
        "largest_difference": differences(case, network),
        "multiply_adds": {"in_full": in_full, "needed": needed, "ratio": in_full / needed},
    }


def full_map(device: torch.device, resolution: int) -> float:
    """Total seconds for a map of all brain voxels of one scan."""
    from voxplain.relevance import explain

    scan, mask = brain(resolution)
    torch.manual_seed(0)
    model = with_statistics(build_model("rieke", mask.shape, 2)).to(device)
    begun = time.perf_counter()
    explain("voxel_occlusion", model, scan, 0, size=7, mask=mask)
    return time.perf_counter() - begun


@torch.no_grad()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--full-map", type=int, nargs="*", default=[], metavar="MM")
    options = parser.parse_args()
    device = torch.device(options.device)
    results = {name: measure(name, device, options.repeats) for name in options.cases}
    peak = throughput(device)
    print("\n| case | theirs, ms | ours, ms | ratio | of multiply-adds | of this machine's speed |")
    print("|---|---|---|---|---|---|")
    for name, result in results.items():
        share = result["used"] / peak
        print(
            f"| {name} | {result['theirs_ms']:,.0f} ({result['theirs']}) | "
            f"{result['ours_ms']:.3f} | "
            f"{result['ratio']:,.0f} | {result['multiply_adds']['ratio']:,.0f} | {share:.0%} |"
        )
    maps = {f"{mm} mm": round(full_map(device, mm), 1) for mm in options.full_map}
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads()}
    versions = {name: version(name) for name in ("torch", "captum", "monai")}
    print(
        json.dumps(
            {
                "name": "occlusion",
                "ratios": {name: round(result["ratio"], 1) for name, result in results.items()},
                "cases": results,
                "full_map_s": maps,
                "multiply_adds_per_s": peak,
                "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
                "machine": platform.machine(),
                **machine,
                "versions": versions,
            }
        )
    )


if __name__ == "__main__":
    main()
