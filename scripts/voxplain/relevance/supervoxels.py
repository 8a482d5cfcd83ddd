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
# No segment has less than this part of what those of the finest level have on average: average
# linkage leaves specks to the last, and levels would be specks beside one large segment.
_SMALLEST = 0.1


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
        As :func:`segment`.
    """
    as_input(model, scan)  # refuses a network before the work on the scan
    hierarchy = _Hierarchy.of(_as_array(scan), levels, most_segments, mask)
    change = np.zeros(len(hierarchy.parents))
    for nodes in hierarchy.apart():
        wanted = np.zeros(len(change), np.int32)
        wanted[nodes] = nodes + 1
        # No base segment is in two of them.
        of_base = np.max([wanted[each] for each in hierarchy.levels], axis=0)
        segments = Regions.segments(hierarchy.painted(of_base))
        change[segments.values - 1] = abs(
            occlude(model, scan, segments, memory_mb, "segments")[:, target]
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
    of the scan, smoothed by a Gaussian of one voxel within the mask; watershed cut of that graph
    (Cousty et al. 2009); binary partition tree of the adjacent basins by average linkage, the mean
    difference along their common boundary; and horizontal cuts. Basins are first joined until none
    is smaller than a tenth of the finest level's average segment. Yang et al. 2018 find boundaries
    in another way: by oriented gradients of several scales and the spectrum of their affinities.

    Parameters
    ----------
    scan
        ``[x, y, z]``, as the network is given it.
    levels
        At most so many; fewer where two would have as many segments.
    most_segments
        Of the finest level, if the scan has so many; those of the others fall geometrically to 2.
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
    parents
        ``[nodes]``, of each node the one it is part of; the smallest segments are the first.
    levels
        For each level ``[bases]``: the node that each smallest segment belongs to.
    """

    inside: np.ndarray
    bases: np.ndarray
    parents: np.ndarray
    levels: list[np.ndarray]

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
        least = int(_SMALLEST * np.count_nonzero(inside) / most_segments)
        bases = _join_small(graph, weights, hg.labelisation_watershed(graph, weights), least)
        bases, parents = _tree(graph, weights, bases)
        count = int(bases.max()) + 1
        finest = min(most_segments, count)
        counts = np.unique(np.geomspace(finest, min(2, finest), levels).round().astype(int))
        return cls(inside, bases, parents, [_cut(parents, count, each) for each in counts])

    def painted(self, of_base: np.ndarray) -> np.ndarray:
        """A number for each smallest segment as a volume ``[x, y, z]``, 0 outside the mask."""
        volume = np.zeros(self.inside.shape, of_base.dtype)
        volume[self.inside] = of_base[self.bases]
        return volume

    def apart(self) -> list[np.ndarray]:
        """The segments of all levels, each once, in sets of which no two overlap."""
        height = np.zeros(len(self.parents), int)
        below = np.zeros(len(self.levels[0]), int)  # of each base the height reached so far
        for of_base in reversed(self.levels):
            reached = np.zeros(len(self.parents), int)
            np.maximum.at(reached, of_base, below + 1)
            height = np.where((height == 0) & (reached > 0), reached, height)
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


def _adjacent(
    graph: hg.UndirectedGraph, weights: np.ndarray, labels: np.ndarray
) -> tuple[hg.UndirectedGraph, np.ndarray, np.ndarray, np.ndarray]:
    """The graph of adjacent segments, mean and number of edges between two, segment by voxel."""
    adjacent = hg.make_region_adjacency_graph_from_labelisation(graph, labels)
    mean = hg.rag_accumulate_on_edges(adjacent, hg.Accumulators.mean, weights)
    number = hg.rag_accumulate_on_edges(adjacent, hg.Accumulators.counter, weights)
    return adjacent, mean, number, hg.CptRegionAdjacencyGraph.construct(adjacent)["vertex_map"]


def _join_small(
    graph: hg.UndirectedGraph, weights: np.ndarray, labels: np.ndarray, least: int
) -> np.ndarray:
    """Segments of at least so many voxels, each one or a union of those given."""
    adjacent, mean, number, of_voxel = _adjacent(graph, weights, labels)
    if adjacent.num_vertices() < 2:
        return of_voxel
    tree, altitudes = hg.binary_partition_tree_average_linkage(adjacent, mean, number)
    tree, altitudes = hg.filter_small_nodes_from_tree(tree, altitudes, least)
    return hg.labelisation_horizontal_cut_from_threshold(tree, altitudes, 0)[of_voxel]


def _tree(
    graph: hg.UndirectedGraph, weights: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Segments numbered from 0 on, by voxel, and the parents of a tree in the order of merging."""
    adjacent, mean, number, of_voxel = _adjacent(graph, weights, labels)
    if adjacent.num_vertices() < 2:
        return of_voxel, np.zeros(1, np.int64)
    tree, _ = hg.binary_partition_tree_average_linkage(adjacent, mean, number)
    return of_voxel, tree.parents()


def _cut(parents: np.ndarray, bases: int, count: int) -> np.ndarray:
    """The node of each smallest segment when so many are left of them, ``[bases]``."""
    last = 2 * bases - count  # nodes from here on are not merged yet
    top = np.arange(last)
    for node in range(last - 1, -1, -1):
        if parents[node] < last:
            top[node] = top[parents[node]]
    return top[:bases]
