"""Occlusion of the segments of a hierarchical segmentation of the scan."""

from __future__ import annotations

from dataclasses import dataclass

import higra as hg
import numpy as np
import torch
from scipy import ndimage
from torch import nn

from voxplain.faults import SetupFault
from voxplain.relevance.inputs import as_input
from voxplain.relevance.occlusion import occlude
from voxplain.relevance.plain import shape_of
from voxplain.relevance.regions import Regions

# Sigma of the Gaussian, in voxels. Without it, voxel noise determines the boundaries.
_SIGMA = 1.0
# Smallest size of a segment, as a fraction of the average of its level. Average linkage merges
# specks last: without a limit, nearly all levels would be specks and one segment with the brain.
_SMALLEST = 0.1
# The same for the basins that make up segments, as a fraction of the average of the finest level.
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
    to 0. The hierarchy differs from the paper, whose boundary detector is not implemented here: see
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
    as_input(model, scan)  # checks the network before the work on the scan
    hierarchy = _Hierarchy.of(_as_array(scan), levels, most_segments, mask)
    change = np.zeros(hierarchy.segments)
    for nodes in hierarchy.apart():
        wanted = np.zeros(len(change), np.int32)
        wanted[nodes] = nodes + 1
        # Each base segment is in at most one of them.
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

    An ultrametric contour map in three dimensions. The scan is smoothed by a Gaussian of one voxel
    within the mask, and differences between neighbours (six for a voxel) give a graph. Its
    hierarchical watershed (Cousty and Najman 2011) is cut where no basin is tiny. The graph of
    touching basins gives a binary partition tree by average linkage, of the mean difference across
    common boundaries, which is cut horizontally. Each segment has at least a tenth of the average
    size of its level. Yang et al. 2018 find boundaries in another way, by oriented gradients and
    the spectrum of affinities.

    Parameters
    ----------
    scan
        ``[x, y, z]``, as it is given to the network.
    levels
        Largest number of levels; there are fewer if two would be equal.
    most_segments
        Largest number of segments on the finest level. On coarser levels the number falls
        geometrically to 2, or slightly less if segments would be too small.
    mask
        ``[x, y, z]`` bool, voxels to divide; default: where the scan is not 0. A segment is
        connected unless the mask is not: a part that is too small is joined to another segment.

    Returns
    -------
    ``[levels, x, y, z]`` int32, the coarsest level first: segments are numbered from 1, 0 is
    outside the mask. Each segment is one segment of the next level or a union of several. The
    result is deterministic.

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
        ``[voxels of the mask]``, the smallest segment of each voxel, from 0.
    levels
        For each level, the coarsest first, ``[bases]``: the segment of each smallest segment. A
        segment that occurs in several levels has the same number in all of them.
    segments
        Number of segments in all levels together.
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
        segments, of_base, cuts = single.joined(bases), np.arange(bases.max() + 1), []
        for most in np.geomspace(most_segments, 2, levels).round().astype(int):
            unions = segments.unions(most)
            if unions.max() == 0 and cuts:
                break  # a single segment, the whole mask, has no information about location
            segments, of_base = segments.joined(unions), unions[of_base]
            cuts.append(of_base)
        cuts, count = _number_alike(cuts)
        return cls(inside, bases, cuts[::-1], count)

    def painted(self, of_base: np.ndarray) -> np.ndarray:
        """Volume ``[x, y, z]`` with the number of each smallest segment, 0 outside the mask."""
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
    """Graph of the voxels in the mask with edges between neighbours, and their differences."""
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
    # Separate parts of the mask are connected by edges with a larger difference than all others.
    parts, count = ndimage.label(inside)
    _, first = np.unique(parts[inside], return_index=True)
    ends.append((np.repeat(first[:1], count - 1), first[1:]))
    strongest = max((each.max() for each in differences if each.size), default=0)
    differences.append(np.full(count - 1, 2 * strongest + 1))
    graph = hg.UndirectedGraph(int(np.count_nonzero(inside)))
    graph.add_edges(*(np.concatenate(end) for end in zip(*ends, strict=True)))
    return graph, np.concatenate(differences)


def _basins(graph: hg.UndirectedGraph, weights: np.ndarray, least: float) -> np.ndarray:
    """Catchment basin of each vertex, numbered from 0; each has more than ``least`` voxels."""
    if not len(weights):  # of one voxel, at which higra crashes
        return np.zeros(1, np.int64)
    tree, areas = hg.watershed_hierarchy_by_area(graph, weights)
    basins = hg.labelisation_horizontal_cut_from_threshold(tree, areas, least)
    return np.unique(basins, return_inverse=True)[1]


@dataclass(frozen=True)
class _Segments:
    """Segments of one level with their neighbours.

    Attributes
    ----------
    areas
        Number of voxels of each segment.
    pairs
        ``[borders, 2]`` segments that touch.
    differences, sizes
        For each border the mean difference across it, and its number of voxel pairs.
    """

    areas: np.ndarray
    pairs: np.ndarray
    differences: np.ndarray
    sizes: np.ndarray

    def joined(self, of_segment: np.ndarray) -> _Segments:
        """Unions of the segments; ``of_segment`` is the union of each segment, from 0."""
        areas = np.bincount(of_segment, self.areas)
        low, high = np.sort(of_segment[self.pairs], axis=1).T
        between = low != high
        # One number for each pair, since numbers are sorted much faster than rows.
        keys, border = np.unique((low * len(areas) + high)[between], return_inverse=True)
        sizes = np.bincount(border, self.sizes[between])
        sums = np.bincount(border, (self.sizes * self.differences)[between])
        pairs = np.stack(np.divmod(keys, len(areas)), axis=1)
        return _Segments(areas, pairs, sums / sizes, sizes)

    def unions(self, most: int) -> np.ndarray:
        """Union of each segment, ``[segments]``: at most ``most``, all of a minimum size."""
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
        labels = hg.labelisation_horizontal_cut_from_num_regions(
            tree, altitudes, most, mode="at_most"
        )
        return np.unique(labels, return_inverse=True)[1]


def _number_alike(levels: list[np.ndarray]) -> tuple[list[np.ndarray], int]:
    """Levels renumbered so that a segment has the same number in all levels where it occurs.

    Parameters
    ----------
    levels
        For each level, the finest first, ``[bases]``: the segment of each base, from 0.

    Returns
    -------
    The levels with new numbers, without levels equal to the one before, and the number of
    segments.
    """
    numbered, total = [levels[0]], int(levels[0].max()) + 1
    for of_base in levels[1:]:
        low = np.full(of_base.max() + 1, total)
        high = np.full(of_base.max() + 1, -1)
        np.minimum.at(low, of_base, numbered[-1])
        np.maximum.at(high, of_base, numbered[-1])
        new = low != high
        if not new.any():
            continue
        low[new] = total + np.arange(np.count_nonzero(new))
        total += int(np.count_nonzero(new))
        numbered.append(low[of_base])
    return numbered, total
