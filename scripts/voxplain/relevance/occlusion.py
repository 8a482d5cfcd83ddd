"""Methods that set parts of a scan to 0, the training mean, and watch the probability."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from voxplain.faults import SetupFault
from voxplain.relevance.inputs import as_input

SPREADS = ("nearest", "average")

# Voxels that are sent through the network at once: one scan at 1 mm, some sixty at 4 mm.
_VOXELS_A_BATCH = 8_600_000


@dataclass(frozen=True)
class Region:
    """Part of a scan.

    Attributes
    ----------
    box
        One slice an axis, within the scan.
    inside
        ``[x, y, z]`` bool on the box; None for all of it.
    """

    box: tuple[slice, slice, slice]
    inside: np.ndarray | None = None


@torch.no_grad()
def occlude(
    model: nn.Module,
    scan: torch.Tensor | np.ndarray,
    regions: Sequence[Region],
    batch_size: int | None = None,
    label: str = "occlusion",
) -> np.ndarray:
    """How each class's probability falls when a region of the scan is set to 0.

    Parameters
    ----------
    model
        From ``[batch, 1, x, y, z]`` to logits, in eval mode.
    scan
        ``[x, y, z]``, normalised, so that 0 is the mean of the training scans.
    regions
        What to set to 0, one at a time.
    batch_size
        Occluded scans in one forward pass; the outcome does not depend on it.
    label
        Of the progress bar.

    Returns
    -------
    ``[regions, classes]`` float64: the whole scan's probability minus the occluded one's.
    """
    batch = as_input(model, scan)
    if batch_size is None:
        batch_size = max(1, _VOXELS_A_BATCH // batch.numel())
    whole = torch.softmax(model(batch).double(), dim=1)
    drops = []
    progress = tqdm(total=len(regions), desc=label, unit="region", mininterval=5)
    for first in range(0, len(regions), batch_size):
        some = regions[first : first + batch_size]
        occluded = batch.repeat(len(some), 1, 1, 1, 1)
        for copy, region in zip(occluded, some, strict=True):
            part = copy[(0, *region.box)]
            if region.inside is None:
                part.zero_()
            else:
                part[torch.as_tensor(region.inside, device=part.device)] = 0
        drops.append((whole - torch.softmax(model(occluded).double(), dim=1)).cpu().numpy())
        progress.update(len(some))
    progress.close()
    return np.concatenate(drops) if drops else np.zeros((0, whole.shape[1]))


def occlusion(
    model: nn.Module,
    scan: torch.Tensor | np.ndarray,
    target: int,
    size: int,
    stride: int,
    spread: str = "nearest",
    mask: np.ndarray | None = None,
    batch_size: int | None = None,
) -> np.ndarray:
    """Drop of the target's probability under a cube that slides over the scan, 0 where it rises.

    Zeiler and Fergus 2014; Rieke et al. 2018: cubes of 40 mm every 12 mm, centred on points of a
    grid that starts at the first voxel, cut at the borders.

    Parameters
    ----------
    size, stride
        Edge of the cube and distance of its places, in voxels.
    spread
        ``nearest`` gives each voxel the drop of the cube whose centre is nearest (Rieke et al.);
        ``average`` the mean over all cubes that cover it, and 0 where none does.
    mask
        ``[x, y, z]`` bool: where the scan is not 0 anyway. Cubes beside it are not tried.

    The other parameters and the return value are as :func:`voxplain.relevance.explain`.
    """
    if spread not in SPREADS:
        raise SetupFault(f"there is no spread {spread!r}; allowed: {', '.join(SPREADS)}")
    if mask is not None and mask.shape != tuple(scan.shape):
        raise ValueError(f"mask {mask.shape} does not lie on the scan's grid {tuple(scan.shape)}")
    places = [range(0, n, stride) for n in scan.shape]
    corners = list(itertools.product(*places))
    regions = {corner: Region(cube_at(corner, size, scan.shape)) for corner in corners}
    if mask is not None:
        regions = {corner: r for corner, r in regions.items() if mask[r.box].any()}
    drops = occlude(model, scan, list(regions.values()), batch_size)[:, target].clip(min=0)
    found = dict(zip(regions, drops, strict=True))
    if spread == "average":
        total, count = np.zeros(scan.shape), np.zeros(scan.shape)
        for corner in corners:
            box = cube_at(corner, size, scan.shape)
            total[box] += found.get(corner, 0.0)
            count[box] += 1
        return np.divide(total, count, out=total, where=count > 0).astype(np.float32)
    coarse = np.zeros([len(axis) for axis in places], np.float32)
    for corner, drop in found.items():
        coarse[tuple(c // stride for c in corner)] = drop
    nearest = [
        np.minimum((np.arange(n) + stride // 2) // stride, len(axis) - 1)
        for n, axis in zip(scan.shape, places, strict=True)
    ]
    return coarse[np.ix_(*nearest)]


def cube_at(centre: Sequence[int], size: int, shape: Sequence[int]) -> tuple[slice, slice, slice]:
    """The cube of ``size`` voxels around a voxel, cut at the borders.

    An even cube has one voxel more before its centre than behind it.
    """
    starts = [c - size // 2 for c in centre]
    return tuple(
        slice(max(start, 0), min(start + size, n)) for start, n in zip(starts, shape, strict=True)
    )


def area_occlusion(
    model: nn.Module,
    scan: torch.Tensor | np.ndarray,
    target: int,
    labels: np.ndarray,
    batch_size: int | None = None,
) -> np.ndarray:
    """Drop of the target's probability when an area is set to 0, written to its voxels.

    Rieke et al. 2018, section 2.3, "brain area occlusion"; 0 where the probability rises and
    outside every area.

    Parameters
    ----------
    labels
        ``[x, y, z]`` integers on the scan's grid, 0 outside every area.

    The other parameters and the return value are as :func:`voxplain.relevance.explain`.
    """
    if labels.shape != tuple(scan.shape):
        raise ValueError(f"labels {labels.shape} do not lie on the scan's grid {scan.shape}")
    values = [int(value) for value in np.unique(labels) if value]
    regions = list(area_regions(labels, values))
    drops = occlude(model, scan, regions, batch_size, "area occlusion")[:, target].clip(min=0)
    heatmap = np.zeros(labels.shape, np.float32)
    for region, drop in zip(regions, drops, strict=True):
        heatmap[region.box][region.inside] = drop
    return heatmap


def area_regions(labels: np.ndarray, values: Iterable[int]) -> Iterator[Region]:
    """The areas of a label volume, each in its smallest box."""
    for value in values:
        inside = labels == value
        box = []
        for axis in range(3):
            filled = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
            box.append(slice(int(filled[0]), int(filled[-1]) + 1))
        yield Region(tuple(box), inside[tuple(box)])
