"""Methods that set parts of a scan to 0, the training mean, and measure the probability."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from voxplain.faults import SetupFault
from voxplain.relevance.behaviour import behaviour_of, check_target, first_time, note_passed, run
from voxplain.relevance.incremental import IncrementalNetwork, NotLocalError
from voxplain.relevance.inputs import as_input, probabilities
from voxplain.relevance.plain import shape_of
from voxplain.relevance.regions import Regions

SPREADS = ("nearest", "average")

# Memory of the batches in work. More does not speed up a CPU thread (`benchmarks/occlusion.py`).
_MEMORY_MB = {"cpu": 64, "cuda": 4000}
# Voxels in one batch of full forward passes: one scan at 1 mm.
_VOXELS_A_BATCH = 8_600_000
# Regions with at least this edge, in voxels, are trimmed to where the scan is not 0. For smaller
# regions the search takes longer than it saves.
_WORTH_TRIMMING = 12
# Largest allowed difference between the logits of the engine and of a full forward pass, as a
# fraction of the change by a region, in addition to rounding. Logits show an error in a layer even
# if the probability is near 0 or 1 and hardly changes.
_TRUSTED = 0.01


@torch.no_grad()
def occlude(
    model: nn.Module,
    scan: Tensor | np.ndarray,
    regions: Regions,
    memory_mb: float | None = None,
    label: str = "occlusion",
    target: int | None = None,
) -> np.ndarray:
    """Drop of each class's probability when a region of the scan is set to 0.

    Only what a region changes is recomputed (:mod:`voxplain.relevance.incremental`). As a check,
    one region and the whole scan are computed in full as well. If the results do not agree, or the
    network cannot be recomputed in parts, all regions are computed in full, with a warning.
    Computations use the data type of the network's parameters.

    Parameters
    ----------
    model
        From ``[batch, 1, x, y, z]`` to logits, in eval mode.
    scan
        ``[x, y, z]``, normalised, so that 0 is the mean of the training scans.
    regions
        Regions to set to 0, one at a time.
    memory_mb
        Memory for batches of regions, without the activations of the whole scan; the result depends
        on it only by rounding. Full forward passes do not use it.
    label
        Label of the progress bar.
    target
        Index of a class that the network must have, checked before the first region; the result
        contains all classes nevertheless.

    Returns
    -------
    ``[regions, classes]`` float64: probability of the whole scan minus that of the occluded scan.

    Raises
    ------
    SetupFault
        There is no such class, or :func:`voxplain.relevance.inputs.as_input` raises it.
    """
    batch = as_input(model, scan)
    if memory_mb is None:
        threads = torch.get_num_threads() if batch.device.type == "cpu" else 1
        memory_mb = _MEMORY_MB.get(batch.device.type, 500) * threads
    filled = (batch[0, 0] != 0).cpu().numpy()
    changing, numbers = regions.touching(filled), slice(None)
    tried = regions[changing]
    if len(tried) and (tried.stop - tried.start).max() >= _WORTH_TRIMMING:
        # At the surface of the brain several cubes contain the same part of it.
        tried, numbers = tried.trimmed(filled).unique()
    with (
        _exact_sums(),
        torch.autocast(batch.device.type, enabled=False),
        tqdm(total=len(regions), desc=label, unit="region", mininterval=5) as progress,
    ):
        progress.update(len(regions) - len(tried))
        whole, occluded = _probabilities(model, batch, tried, memory_mb, progress.update, target)
    drops = np.zeros((len(regions), whole.shape[1]))
    drops[changing] = (whole - occluded).cpu().numpy()[numbers]
    return drops


def _probabilities(
    model: nn.Module,
    batch: Tensor,
    regions: Regions,
    memory_mb: float,
    progress: Callable[[int], Any],
    target: int | None,
) -> tuple[Tensor, Tensor]:
    """Probabilities of the whole scan ``[1, classes]`` and with each region at 0."""
    # Before the engine caches its activations, so that the memory of the two does not add up. A
    # copy, since a network may write to its input.
    whole = run(model, batch)
    if target is not None:
        check_target(whole, target)
    if not len(regions):
        return probabilities(model, whole), probabilities(model, whole)[:0]
    try:
        network = _engine(model, batch, whole, regions, memory_mb)
    except NotLocalError as reason:
        _warn(f"every occlusion is a full forward pass, which is slow, since {reason}")
        in_full = _in_full(model, batch, regions, progress)
        return probabilities(model, whole), probabilities(model, in_full)
    if network.convolutions_in_full:
        _warn(f"from layer {network.in_full} on, the network is computed in full: slow")
    occluded = network.logits_of(regions, memory_mb, progress)
    return probabilities(model, network.logits), probabilities(model, occluded)


def _engine(
    model: nn.Module, batch: Tensor, whole: Tensor, regions: Regions, memory_mb: float
) -> IncrementalNetwork:
    """The engine, if it agrees with the network for the whole scan and for some regions.

    The first time that it runs a network these are several regions in one batch, later one.

    Raises
    ------
    NotLocalError
        The logits differ, or the engine fails.
    """
    if not behaviour_of(model).in_batches:
        raise NotLocalError("it takes one scan at a time")
    # The region in the middle: the first cube touches only the border of the scan.
    places, check = [len(regions) // 2], ("engine", batch.device)
    if first_time(model, check):
        places = sorted({len(regions) * part // 4 for part in (1, 2, 3)})
    checked = regions[np.array(places)]
    expected = _in_full(model, batch, checked, lambda count: None)
    try:
        network = IncrementalNetwork(model, batch)
        recomputed = network.logits_of(checked, memory_mb)
    except NotLocalError:
        note_passed(model, check)  # it will be computed in full for the next scan too
        raise
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the network's own code, run in an unusual way
        raise NotLocalError(f"it fails by parts ({type(error).__name__}: {error})") from error
    rounding = 100 * torch.finfo(whole.dtype).eps * (1 + float(whole.abs().max()))
    allowed = _TRUSTED * float((expected - whole).abs().max()) + rounding
    for ours, theirs in ((network.logits, whole), (recomputed, expected)):
        if not torch.allclose(ours, theirs, rtol=0, atol=allowed):
            raise NotLocalError(
                f"a check failed: logits {ours.tolist()} by parts, {theirs.tolist()} in full"
            )
    note_passed(model, check)
    return network


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)


def _in_full(
    model: nn.Module, batch: Tensor, regions: Regions, progress: Callable[[int], Any]
) -> Tensor:
    """Logits with each region at 0 ``[regions, classes]``, by full forward passes."""
    together = max(1, _VOXELS_A_BATCH // batch.numel()) if behaviour_of(model).in_batches else 1
    logits = []
    for first in range(0, len(regions), together):
        some = regions[first : first + together]
        occluded = batch.repeat(len(some), 1, 1, 1, 1)
        for number, box in enumerate(some.boxes()):
            part = occluded[(number, 0, *box)]
            part[torch.from_numpy(some.inside(number)).to(part.device)] = 0
        logits.append(model(occluded))
        progress(len(some))
    return torch.cat(logits)


def _exact_sums() -> Any:
    """Context without TF32 on a GPU, since the engine adds small changes to large sums."""
    return torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)


def occlusion(
    model: nn.Module,
    scan: Tensor | np.ndarray,
    target: int,
    size: int,
    stride: int,
    spread: str = "nearest",
    mask: np.ndarray | None = None,
    memory_mb: float | None = None,
) -> np.ndarray:
    """Drop of the target's probability when a cube around a voxel is 0; 0 where it rises.

    Zeiler and Fergus 2014; Rieke et al. 2018: cubes of 40 mm every 12 mm, centred on the points of
    a grid that starts at the first voxel, cut at the borders.

    Parameters
    ----------
    size, stride
        Edge of the cube and distance between its positions, in voxels.
    spread
        ``nearest`` gives each voxel the drop of the cube whose centre is nearest (Rieke et al.);
        ``average`` the mean over all cubes that cover it, and 0 where no cube does.
    mask
        ``[x, y, z]`` bool: voxels where the scan is not 0. Cubes outside it are skipped.
    memory_mb
        As :func:`occlude`.

    The other parameters and the return value are as :func:`voxplain.relevance.explain`.
    """
    if spread not in SPREADS:
        raise SetupFault(f"there is no spread {spread!r}; allowed: {', '.join(SPREADS)}")
    if stride < 1:
        raise ValueError(f"a stride is at least 1, not {stride}")
    shape = shape_of(scan)
    _check_grid("mask", mask, shape)
    axes = [np.arange(0, n, stride) for n in shape]
    centres = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    cubes = Regions.cubes(centres, size, shape)
    tried = np.ones(len(cubes), bool) if mask is None else cubes.touching(mask)
    drops = np.zeros(len(cubes))
    of_classes = occlude(model, scan, cubes[tried], memory_mb, target=target)
    drops[tried] = of_classes[:, target].clip(min=0)
    if spread == "average":
        total, count = (_sum_of_boxes(cubes, each, shape) for each in (drops, np.ones(len(cubes))))
        covered = count > 0.5
        return np.divide(total, count, out=np.zeros(shape), where=covered).astype(np.float32)
    coarse = drops.astype(np.float32).reshape([len(axis) for axis in axes])
    nearest = [
        np.minimum((np.arange(n) + stride // 2) // stride, len(axis) - 1)
        for n, axis in zip(shape, axes, strict=True)
    ]
    return coarse[np.ix_(*nearest)]


def _sum_of_boxes(regions: Regions, amounts: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum over the boxes that cover a voxel, ``[x, y, z]`` float64.

    Each box is written as steps at its eight corners; cumulative sums along the axes fill it.
    """
    steps = np.zeros(np.array(shape) + 1)
    for corner in itertools.product((0, 1), repeat=3):
        at = np.where(np.array(corner, bool), regions.stop, regions.start)
        np.add.at(steps, tuple(at.T), amounts * (-1) ** sum(corner))
    return steps.cumsum(0).cumsum(1).cumsum(2)[:-1, :-1, :-1]


def voxel_occlusion(
    model: nn.Module,
    scan: Tensor | np.ndarray,
    target: int,
    size: int = 7,
    stride: int = 1,
    mask: np.ndarray | None = None,
    memory_mb: float | None = None,
) -> np.ndarray:
    """|Change| of the target's probability when a cube around a voxel is set to 0.

    One cube for every voxel; the baseline of Yang et al. 2018, after Korolev et al. 2017.

    Parameters
    ----------
    size
        Edge of the cube in voxels.
    stride
        Distance between cubes along each axis, in voxels; above 1, a voxel takes the change of the
        nearest cube.
    mask
        ``[x, y, z]`` bool: voxels to compute, the map is 0 elsewhere. Default: all voxels.
    memory_mb
        As :func:`occlude`.

    The other parameters and the return value are as :func:`voxplain.relevance.explain`.
    """
    shape = shape_of(scan)
    _check_grid("mask", mask, shape)
    chosen = np.ones(shape, bool) if mask is None else np.asarray(mask, bool)
    if stride < 1:
        raise ValueError(f"a stride is at least 1, not {stride}")
    voxels = np.argwhere(chosen)
    centres = voxels
    if stride > 1:
        # The last position along an axis is clipped to the scan. Several voxels share a cube.
        nearest = (voxels + stride // 2) // stride * stride
        centres, number = np.unique(
            np.minimum(nearest, np.array(shape) - 1), axis=0, return_inverse=True
        )
    cubes = Regions.cubes(centres, size, shape)
    changes = np.abs(occlude(model, scan, cubes, memory_mb, "voxels", target)[:, target])
    heatmap = np.zeros(shape, np.float32)
    heatmap[chosen] = changes if stride == 1 else changes[number.ravel()]
    return heatmap


def area_occlusion(
    model: nn.Module,
    scan: Tensor | np.ndarray,
    target: int,
    labels: np.ndarray,
    memory_mb: float | None = None,
) -> np.ndarray:
    """Drop of the target's probability when the area of a voxel is set to 0.

    Rieke et al. 2018, section 2.3, "brain area occlusion"; 0 where the probability rises and
    outside every area.

    Parameters
    ----------
    labels
        ``[x, y, z]`` integers on the scan's grid, 0 outside every area.
    memory_mb
        As :func:`occlude`.

    The other parameters and the return value are as :func:`voxplain.relevance.explain`.
    """
    _check_grid("labels", labels, shape_of(scan))
    areas = Regions.segments(labels)
    labels = areas.labels
    drops = occlude(model, scan, areas, memory_mb, "area occlusion", target)
    drops = drops[:, target].clip(min=0)
    of_label = np.zeros(int(labels.max(initial=0)) + 1, np.float32)
    of_label[areas.values] = drops
    return of_label[labels]


def _check_grid(name: str, volume: np.ndarray | None, shape: tuple[int, ...]) -> None:
    if volume is not None and volume.shape != shape:
        raise ValueError(f"{name} {volume.shape} lies not on the scan's grid {shape}")
