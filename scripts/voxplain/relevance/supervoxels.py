"""Occlusion of the segments of a hierarchy that is made from the scan itself."""

from __future__ import annotations

from dataclasses import dataclass

import higra as hg
import numpy as np
import torch
from scipy import ndimage
from torch import nn

from voxplain.faults import SetupFault
from voxplain.relevance.inputs import as_input, shape_of
from voxplain.relevance.occlusion import occlude
from voxplain.relevance.regions import Regions

# Of the Gaussian, in voxels. Without it the noise from voxel to voxel makes the boundaries.
_SIGMA = 1.0
# No segment has less than this part of what its level's have on average. Average linkage leaves
# specks to the last: without it nearly all levels are specks beside one segment that is the brain.
_SMALLEST = 0.1
# The same for the basins that segments are made of, of the finest level's average.
_SMALLEST_BASIN = 0.02


def sa_ucm(
    model: nn.Module,
    scan: torch.Tensor | np.ndarray,
    target: int,
    levels: int = 20,
    most_segments: int = 300,
    mask: np.ndarray | None = None,
    memory_mb: float | None = None,
) -> np.ndarray:
    """Mean over a hierarchy's levels of |change| of the probability without the voxel's segment.

    Yang, Rangarajan and Ranka 2018, "Visual Explanations From Deep 3D CNNs for AD Classification",
    sensitivity analysis by hierarchical segmentation (SA-3DUCM): each segment of each level is set
    to 0. The hierarchy is not that paper's, whose boundary detector has no implementation here: see
    :func:`segment`.

    Parameters
    ----------
    levels, most_segments, mask
        As :func:`segment`.
    memory_mb
        As :func:`voxplain.relevance.occlusion.occlude`.

    The other parameters and the return value are as :func:`voxplain.relevance.explain`; outside
    the mask the map is 0.

    Raises
    ------
    SetupFault
        As :func:`segment`; or the network has no such class.
    """
    as_input(model, scan)  # refuses a network before the work on the scan
    hierarchy = _Hierarchy.of(_as_array(scan), levels, most_segments, mask)
    change = np.zeros(hierarchy.segments)
    for nodes in hierarchy.apart():
        wanted = np.zeros(len(change), np.int32)
        wanted[nodes] = nodes + 1
        # No base segment is in two of them.
        of_base = np.max([wanted[each] for each in hierarchy.levels], axis=0)
        segments = Regions.segments(hierarchy.painted(of_base))
        change[segments.values - 1] = abs(
            occlude(model, scan, segments, memory_mb, "segments", target)[:, target]
        )
    mean = np.mean([change[of_base] for of_base in hierarchy.levels], axis=0)
    return hierarchy.painted(mean.astype(np.float32))


def segment(
    scan: torch.Tensor | np.ndarray,
    levels: int = 20,
    most_segments: int = 300,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """A hierarchy of segmentations of a scan, from two segments on to the finest.

    An ultrametric contour map in three dimensions: differences between neighbours (six to a voxel)
    of the scan, smoothed by a Gaussian of one voxel within the mask; hierarchical watershed of that
    graph (Cousty and Najman 2011), cut where no basin is tiny; graph of the basins that touch;
    binary partition tree by average linkage, of the mean difference across common boundaries; and
    horizontal cuts. No segment has fewer voxels than a tenth of its level's share of them. Yang et
    al. 2018 find boundaries in another way, by oriented gradients and the spectrum of affinities.

    Parameters
    ----------
    scan
        ``[x, y, z]``, as the network is given it.
    levels
        At most so many; fewer where two would be the same.
    most_segments
        At most so many on the finest level; on the others they fall geometrically to 2, or a few
        less where segments would be too small.
    mask
        ``[x, y, z]`` bool, what to divide; where the scan is not 0 if left out. A segment is
        connected, unless the mask is not: a part that is no segment by itself is joined to another.

    Returns
    -------
    ``[levels, x, y, z]`` int32, the coarsest level first: the segments of each from 1 on, 0
    outside the mask. Each segment is one, or a union of several, of the next level. The same for
    the same scan.

    Raises
    ------
    SetupFault
        The mask is empty or of another shape, the scan is not finite in it, or the number of levels
        or segments is too small.
    """
    hierarchy = _Hierarchy.of(_as_array(scan), levels, most_segments, mask)
    numbered = [np.unique(each, return_inverse=True)[1] + 1 for each in hierarchy.levels]
    return np.stack([hierarchy.painted(each.astype(np.int32)) for each in numbered])


def _as_array(scan: torch.Tensor | np.ndarray) -> np.ndarray:
    shape_of(scan)
    values = scan.detach().cpu().numpy() if isinstance(scan, torch.Tensor) else scan
    return np.asarray(values, np.float32)


@dataclass(frozen=True)
class _Hierarchy:
    """Segments as the nodes of a tree.

    Attributes
    ----------
    inside
        ``[x, y, z]`` bool, the mask.
    bases
        ``[voxels of the mask]``, the smallest segment of each, from 0 on.
    levels
        For each level, the coarsest first, ``[bases]``: the number of the segment that each
        smallest one belongs to; a segment has the same number in all levels that it stands in.
    segments
        How many there are in all levels together.
    """

    inside: np.ndarray
    bases: np.ndarray
    levels: list[np.ndarray]
    segments: int

    @classmethod
    def of(
        cls, scan: np.ndarray, levels: int, most_segments: int, mask: np.ndarray | None
    ) -> _Hierarchy:
        """As :func:`segment`."""
        if levels < 1 or most_segments < 2:
            raise SetupFault(
                f"sa_ucm wants at least 1 level and 2 segments, not levels {levels} and "
                f"most_segments {most_segments}"
            )
        inside = scan != 0 if mask is None else np.asarray(mask, bool)
        if inside.shape != scan.shape:
            raise SetupFault(
                f"the mask of sa_ucm has shape {inside.shape} and the scan {scan.shape}; give a "
                "mask on the scan's grid"
            )
        if not inside.any():
            raise SetupFault(
                "sa_ucm has nothing to divide: the mask is empty, or without one the scan is 0 "
                "everywhere"
            )
        if not np.isfinite(scan[inside]).all():
            raise SetupFault("sa_ucm cannot divide a scan that is not finite inside the mask")
        graph, weights = _graph(scan, inside)
        voxels = graph.num_vertices()
        bases = _basins(graph, weights, _SMALLEST_BASIN * voxels / most_segments)
        pairs = np.stack(graph.edge_list(), axis=1)
        single = _Segments(np.ones(voxels), pairs, weights, np.ones(len(weights)))
        segments, of_base, found = single.joined(bases), np.arange(bases.max() + 1), []
        for most in np.geomspace(most_segments, 2, levels).round().astype(int):
            unions = segments.unions(most)
            if unions.max() == 0 and found:
                break  # one segment, the whole mask, tells nothing of where
            segments, of_base = segments.joined(unions), unions[of_base]
            found.append(of_base)
        found, count = _number_alike(found)
        return cls(inside, bases, found[::-1], count)

    def painted(self, of_base: np.ndarray) -> np.ndarray:
        """A number for each smallest segment as a volume ``[x, y, z]``, 0 outside the mask."""
        volume = np.zeros(self.inside.shape, of_base.dtype)
        volume[self.inside] = of_base[self.bases]
        return volume

    def apart(self) -> list[np.ndarray]:
        """The segments of all levels, each once, in sets of which no two overlap."""
        height = np.zeros(self.segments, int)
        below = np.zeros(len(self.levels[0]), int)  # of each base the height reached so far
        for of_base in reversed(self.levels):
            reached = np.zeros(self.segments, int)
            np.maximum.at(reached, of_base, below + 1)
            height = np.where(height == 0, reached, height)
            below = height[of_base]
        return [np.flatnonzero(height == each) for each in range(1, height.max() + 1)]


def _graph(scan: np.ndarray, inside: np.ndarray) -> tuple[hg.UndirectedGraph, np.ndarray]:
    """The mask's voxels with an edge between neighbours, and the edges' differences."""
    whole = ndimage.find_objects(inside.astype(np.int8))[0]
    scan, inside = scan[whole], inside[whole]
    weight = ndimage.gaussian_filter(inside.astype(np.float32), _SIGMA)
    smooth = ndimage.gaussian_filter(np.where(inside, scan, 0), _SIGMA)
    smooth = np.divide(smooth, weight, out=np.zeros_like(smooth), where=inside)
    number = np.full(inside.shape, -1, np.int64)
    number[inside] = np.arange(np.count_nonzero(inside))
    ends, differences = [], []
    for axis in range(3):
        low = tuple(slice(None, -1) if axis == each else slice(None) for each in range(3))
        high = tuple(slice(1, None) if axis == each else slice(None) for each in range(3))
        both = inside[low] & inside[high]
        ends.append((number[low][both], number[high][both]))
        differences.append(abs(smooth[low][both] - smooth[high][both]).astype(np.float64))
    # Parts that do not touch hang together by edges that are stronger than any other.
    parts, count = ndimage.label(inside)
    _, first = np.unique(parts[inside], return_index=True)
    ends.append((np.repeat(first[:1], count - 1), first[1:]))
    strongest = max((each.max() for each in differences if each.size), default=0)
    differences.append(np.full(count - 1, 2 * strongest + 1))
    graph = hg.UndirectedGraph(int(np.count_nonzero(inside)))
    graph.add_edges(*(np.concatenate(end) for end in zip(*ends, strict=True)))
    return graph, np.concatenate(differences)


def _basins(graph: hg.UndirectedGraph, weights: np.ndarray, least: float) -> np.ndarray:
    """Catchment basins of more than so many voxels, by vertex, numbered from 0 on."""
    if not len(weights):  # of one voxel, at which higra crashes
        return np.zeros(1, np.int64)
    tree, areas = hg.watershed_hierarchy_by_area(graph, weights)
    basins = hg.labelisation_horizontal_cut_from_threshold(tree, areas, least)
    return np.unique(basins, return_inverse=True)[1]


@dataclass(frozen=True)
class _Segments:
    """Segments, which lie side by side.

    Attributes
    ----------
    areas
        Voxels of each.
    pairs
        ``[borders, 2]`` segments that touch.
    differences, sizes
        Of each border the mean difference across it, and how many pairs of voxels it has.
    """

    areas: np.ndarray
    pairs: np.ndarray
    differences: np.ndarray
    sizes: np.ndarray

    def joined(self, of_segment: np.ndarray) -> _Segments:
        """Unions of the segments; ``of_segment`` numbers them from 0 on."""
        areas = np.bincount(of_segment, self.areas)
        low, high = np.sort(of_segment[self.pairs], axis=1).T
        between = low != high
        # As one number each, which are sorted far faster than rows.
        keys, border = np.unique((low * len(areas) + high)[between], return_inverse=True)
        sizes = np.bincount(border, self.sizes[between])
        sums = np.bincount(border, (self.sizes * self.differences)[between])
        pairs = np.stack(np.divmod(keys, len(areas)), axis=1)
        return _Segments(areas, pairs, sums / sizes, sizes)

    def unions(self, most: int) -> np.ndarray:
        """At most so many unions, none far smaller than the average: ``[segments]`` numbers."""
        if len(self.areas) < 2:
            return np.zeros(1, np.int64)
        graph = hg.UndirectedGraph(len(self.areas))
        graph.add_edges(*self.pairs.T.copy())
        tree, altitudes = hg.binary_partition_tree_average_linkage(
            graph, self.differences, self.sizes
        )
        least = _SMALLEST * self.areas.sum() / most

        def small(tree: hg.Tree, altitudes: np.ndarray) -> np.ndarray:
            areas = hg.accumulate_sequential(tree, self.areas, hg.Accumulators.sum)
            return hg.accumulate_parallel(tree, areas, hg.Accumulators.min) < least

        tree, altitudes = hg.filter_non_relevant_node_from_tree(tree, altitudes, small)
        found = hg.labelisation_horizontal_cut_from_num_regions(
            tree, altitudes, most, mode="at_most"
        )
        return np.unique(found, return_inverse=True)[1]


def _number_alike(levels: list[np.ndarray]) -> tuple[list[np.ndarray], int]:
    """Segments of levels, the finest first, numbered so that one of several levels has one number.

    Parameters
    ----------
    levels
        For each level ``[bases]`` which segment each base belongs to, from 0 on.

    Returns
    -------
    The levels with their new numbers, without those that are the same as the one before, and how
    many segments there are.
    """
    found, total = [levels[0]], int(levels[0].max()) + 1
    for of_base in levels[1:]:
        low = np.full(of_base.max() + 1, total)
        high = np.full(of_base.max() + 1, -1)
        np.minimum.at(low, of_base, found[-1])
        np.maximum.at(high, of_base, found[-1])
        new = low != high
        if not new.any():
            continue
        low[new] = total + np.arange(np.count_nonzero(new))
        total += int(np.count_nonzero(new))
        found.append(low[of_base])
    return found, total
