"""Logits of many occluded copies of one scan, by recomputing only what changes.

The activations of the whole scan are computed once and cached. An occlusion changes a box of each
feature map; the box is small if the occlusion is small. Only the boxes are computed, layer by
layer, for many occlusions at a time (:mod:`voxplain.relevance.layers`). If a layer needs the whole
map (such as a dense layer) or is not known, the change is added to the cached map. From there on
the network is computed in full, with its own code.

The results equal those of full forward passes up to rounding. The order of layers is read by
:mod:`torch.fx`, so any network can be used, not only those of this package.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from voxplain.relevance.layers import (
    ActivationCache,
    BatchNorm,
    Block,
    Convolution,
    Layer,
    MaxPool,
    Mean,
    NotLocalError,
    Pointwise,
    Window,
    add_to_whole,
    place,
)
from voxplain.relevance.regions import Regions
from voxplain.relevance.tracing import drop_nothing, follow_in_place, layer_of, reason_of, trace

# Regions whose boxes are computed at once: boxes for all voxels of a scan would take gigabytes.
_REGIONS_AT_ONCE = 65536
# All boxes of a batch have the same size. Regions share a batch as long as the work is at most this
# multiple of the work without sharing.
_MOST_EXTRA_WORK = 1.25


@dataclass(eq=False)
class _InFull:
    """A node that is computed from whole maps, as in the network itself."""

    node: fx.Node
    sources: list[fx.Node]
    elements: int = 0  # of its output for one scan


Boxes = dict[fx.Node, tuple[np.ndarray, np.ndarray]]


class IncrementalNetwork:
    """A network with the cached activations of one scan, for logits of its occluded copies.

    Parameters
    ----------
    model
        From ``[batch, 1, x, y, z]`` to logits ``[batch, classes]``, in eval mode.
    batch
        The whole scan ``[1, 1, x, y, z]``, on the device and of the type of the parameters.

    Attributes
    ----------
    logits
        ``[1, classes]``, logits of the whole scan.
    in_full
        Name of the first layer that is computed in full.

    Raises
    ------
    NotLocalError
        The network cannot be traced, its first layer is not known, or it sums maps of different
        shapes.
    """

    def __init__(self, model: nn.Module, batch: Tensor) -> None:
        self._model = model
        if model._forward_hooks or model._forward_pre_hooks:
            raise NotLocalError("it has hooks, which torch.fx does not see")
        attributes = set(vars(model))
        try:
            graph = trace(model)
        except Exception as error:  # it runs the network's own code: anything may be raised
            raise NotLocalError(f"torch.fx cannot trace it: {reason_of(error)}") from error
        finally:
            # torch.fx leaves tensors that forward creates as attributes of the network.
            self._constants = {name: vars(model)[name] for name in set(vars(model)) - attributes}
            for name in self._constants:
                delattr(model, name)
        drop_nothing(graph, model)
        follow_in_place(graph, model)
        self._input = next(node for node in graph.nodes if node.op == "placeholder")
        self._output = next(node for node in graph.nodes if node.op == "output").args[0]
        self._layers: dict[fx.Node, Layer] = {}
        self._means: dict[fx.Node, Mean] = {}
        self._rest: list[_InFull] = []
        self.in_full: str | None = None
        self._plan(graph)
        if not self._layers:
            raise NotLocalError(f"its first layer, {self.in_full}, is not known")
        self._run_whole(batch)

    # --- order of the layers

    def _plan(self, graph: fx.Graph) -> None:
        for node in graph.nodes:
            if node.op in ("placeholder", "output"):
                continue
            sources = node.all_input_nodes
            maps = [source is self._input or source in self._layers for source in sources]
            layer = layer_of(node, self._model, sources) if maps and all(maps) else None
            if layer is None:
                if any(maps) and self.in_full is None and not _reads_shape(node):
                    self.in_full = self._name(node)
                self._rest.append(_InFull(node, sources))
            elif isinstance(layer, Mean):
                self._means[node] = layer
            else:
                self._layers[node] = layer
                self._merge(layer)

    def _merge(self, layer: Layer) -> None:
        """Merge a batch norm into the convolution before it, and a ReLU into the pooling after it.

        Only if nothing else reads the map between the two.
        """
        before = self._layers.get(layer.sources[0])
        if before is None or len(before.node.users) > 1:
            return
        if isinstance(layer, BatchNorm) and isinstance(before, Convolution):
            before.absorb(layer)
            del self._layers[layer.node], self._layers[before.node]
            before.node = layer.node
            self._layers[layer.node] = before
        elif isinstance(layer, MaxPool) and isinstance(before, Pointwise) and before.is_relu:
            layer.rectified = True
            layer.sources = before.sources
            del self._layers[before.node]
        elif isinstance(layer, Pointwise) and before.sources == [self._input]:
            layer.first = before if isinstance(before, Convolution) else None

    def _name(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return f"{node.target} ({type(self._model.get_submodule(node.target)).__name__})"
        return str(getattr(node.target, "__name__", node.target))

    @property
    def convolutions_in_full(self) -> bool:
        """Whether a convolution, the most expensive layer, is among the layers run in full."""
        modules = [step.node.target for step in self._rest if step.node.op == "call_module"]
        return any(isinstance(self._model.get_submodule(name), nn.Conv3d) for name in modules)

    # --- the whole scan

    def _run_whole(self, batch: Tensor) -> None:
        """Run the scan through the network once and cache what the layers read of it."""
        self._cache = ActivationCache()
        self._maps: dict[fx.Node, Tensor] = {}  # whole maps read by layers in full
        in_order = [*self._layers.values(), *self._means.values()]
        read, shape_only = {self._output}, set()
        for step in self._rest:
            (shape_only if _reads_shape(step.node) else read).update(step.sources)
        # Maps whose changes must not extend beyond the borders of the map.
        self._bordered = {s for la in in_order if la.needs_borders for s in la.sources} | read
        recomputed = [layer.first for layer in in_order if isinstance(layer, Pointwise)]
        pending = Counter(source for layer in in_order for source in layer.sources)
        values: dict[fx.Node, Any] = {self._input: batch}
        self._cache.add("scan", batch)
        self._shapes = {self._input: np.array(batch.shape[2:])}
        self._channels = {self._input: 1}
        for layer in in_order:
            inputs = [values[source] for source in layer.sources]
            output = values[layer.node] = layer.whole(*inputs)
            self._shapes[layer.node] = layer.shape = np.array(output.shape[2:])
            self._channels[layer.node] = output.shape[1]
            if isinstance(layer, Convolution) and layer in recomputed:
                layer.keep_input(self._cache, batch)
            layer.keep(self._cache, inputs, output)
            if layer.node in read:
                # As the network's own code expects it: contiguous, and free to be written to.
                self._maps[layer.node] = output.clone(memory_format=torch.contiguous_format)
            del inputs, output
            for source in layer.sources:
                pending[source] -= 1
                if not pending[source]:
                    del values[source]
        if self._input in read:
            self._maps[self._input] = batch
        # If only the shape of a map is read, it is not computed: one number is expanded.
        self._shown = {
            node: batch.new_zeros(()).expand(1, self._channels[node], *self._shapes[node].tolist())
            for node in shape_only - read
            if node in self._shapes
        }
        maps = {node: value.clone() for node, value in self._maps.items()}
        results = self._run_rest({**self._shown, **maps})
        for step in self._rest:
            value = results[step.node]
            step.elements = value.numel() if isinstance(value, Tensor) else 0
        self.logits = results[self._output]

    def _run_rest(self, values: dict[fx.Node, Any]) -> dict[fx.Node, Any]:
        """Values of the nodes that are computed in full, from the whole maps that they read."""
        results = dict(values)

        def at(node: fx.Node) -> Any:
            if node not in results and node.op == "placeholder":
                return node.args[0] if node.args else None  # default of an argument of forward
            return results[node]

        for step in self._rest:
            node = step.node
            args, kwargs = fx.node.map_arg(node.args, at), fx.node.map_arg(node.kwargs, at)
            if node.op == "call_module":
                results[node] = self._model.get_submodule(node.target)(*args, **kwargs)
            elif node.op == "call_function":
                results[node] = node.target(*args, **kwargs)
            elif node.op == "call_method":
                results[node] = getattr(args[0], node.target)(*args[1:], **kwargs)
            elif node.target in self._constants:
                results[node] = self._constants[node.target]
            else:
                results[node] = operator.attrgetter(node.target)(self._model)
        return results

    # --- occluded copies

    def logits_of(
        self,
        regions: Regions,
        memory_mb: float,
        progress: Callable[[int], Any] = lambda count: None,
    ) -> Tensor:
        """Logits with each region of the scan set to 0, ``[regions, classes]``.

        On a CPU torch uses one thread meanwhile, and as many batches run in parallel as it had
        threads.

        Parameters
        ----------
        regions
            Regions on the scan's grid.
        memory_mb
            Memory for the boxes of all batches that run in parallel; the results depend on it only
            by rounding.
        progress
            Function that is called with the number of regions done since its last call.
        """
        device = self.logits.device
        if regions.labels is not None:
            self._cache.add("labels", torch.from_numpy(regions.labels)[None, None].to(device))
        # Layers are small: one thread for each batch is faster than many threads for each layer.
        workers = torch.get_num_threads() if device.type == "cpu" else 1
        all_logits = self.logits.new_empty((len(regions), self.logits.shape[1]))
        # Regions with equal offsets to all strides get boxes with equal offsets in every layer.
        period = math.prod(
            int(layer.stride.max()) for layer in self._layers.values() if isinstance(layer, Window)
        )
        order = np.lexsort((regions.start % period).T[::-1])
        for first in range(0, len(regions), _REGIONS_AT_ONCE):
            numbers = order[first : first + _REGIONS_AT_ONCE]
            some = regions[numbers]
            boxes = self._boxes(some)
            batches = list(self._batches(boxes, memory_mb * 1e6 / workers, workers))

            def run(members: np.ndarray, some: Regions = some, boxes: Boxes = boxes) -> Tensor:
                return self._run_batch(some[members], boxes, members)

            with _in_threads(workers) as mapped:
                for members, logits in zip(batches, mapped(run, batches), strict=True):
                    all_logits[torch.from_numpy(numbers[members]).to(device)] = logits
                    progress(len(members))
        return all_logits

    def multiply_adds(self, regions: Regions) -> np.ndarray:
        """Smallest number of multiply-adds of the convolutions for each region, ``[regions]``.

        It is the smaller of two counts: each changed input voxel times all kernel elements, or each
        changed output voxel times all kernel elements.
        """
        boxes = self._boxes(regions)
        total = np.zeros(len(regions))
        for node, layer in self._layers.items():
            if isinstance(layer, Convolution):
                start, stop = boxes[layer.sources[0]]
                read = (stop - start).prod(axis=1) / layer.stride.prod()
                start, stop = boxes[node]
                total += np.minimum(read, (stop - start).prod(axis=1)) * layer.weight.numel()
        return total

    def multiply_adds_in_full(self) -> int:
        """Multiply-adds of the convolutions in a forward pass, without layers run in full."""
        layers = [layer for layer in self._layers.values() if isinstance(layer, Convolution)]
        return sum(int(layer.shape.prod()) * layer.weight.numel() for layer in layers)

    def _boxes(self, regions: Regions) -> Boxes:
        """Box that each region changes in each map: starts and stops, ``[regions, 3]``."""
        boxes = {self._input: (regions.start, regions.stop)}
        for node, layer in self._layers.items():
            boxes[node] = layer.grow([boxes[source] for source in layer.sources])
        return boxes

    def _batches(self, boxes: Boxes, budget: float, workers: int) -> Iterator[np.ndarray]:
        """Numbers of the regions in each batch.

        All boxes of a batch get the size of the largest, so regions with boxes of similar sizes are
        grouped. So are regions with the same offsets to the windows of the layers, since these are
        placed in one operation.
        """
        sizes = np.stack([stop - start for start, stop in boxes.values()], axis=1)  # [n, maps, 3]
        offsets = [
            boxes[layer.sources[0]][0] - layer.frame_start(boxes[node][0])
            for node, layer in self._layers.items()
            if isinstance(layer, Window)
        ]
        ways = np.stack(offsets or [boxes[self._input][0]], axis=1)
        # One number for each combination, since numbers are sorted much faster than rows.
        mixer = np.random.default_rng(0).integers(1 << 62, size=sizes[0].size)
        of_way = [(ways[:, :, axis] * mixer[: ways.shape[1]]).sum(axis=1) for axis in range(3)]
        of_size = (sizes.reshape(len(sizes), -1) * mixer).sum(axis=1)
        _, one, kind = np.unique(of_size, return_index=True, return_inverse=True)
        members = np.split(
            np.argsort(kind.ravel(), kind="stable"), np.bincount(kind.ravel()).cumsum()
        )

        def cut(kinds: list[int], largest: np.ndarray) -> Iterator[np.ndarray]:
            chosen = np.concatenate([members[number] for number in kinds])
            chosen = chosen[np.lexsort([way[chosen] for way in reversed(of_way)])]
            parts = -(-len(chosen) // max(1, int(budget // self._bytes(largest))))
            if len(chosen) >= 8 * workers:  # enough for all threads
                parts = -(-parts // workers) * workers
            yield from np.array_split(chosen, min(parts, len(chosen)))

        work = self._work(sizes[one])
        together: list[int] = []
        largest, alone, count = sizes[one[0]], 0.0, 0
        for number in np.argsort(-work, kind="stable").tolist():
            joint = np.maximum(largest, sizes[one[number]])
            joint_count = count + len(members[number])
            joint_alone = alone + work[number] * len(members[number])
            if self._work(joint[None])[0] * joint_count > _MOST_EXTRA_WORK * joint_alone:
                if together:
                    yield from cut(together, largest)
                together, joint = [], sizes[one[number]]
                joint_count, joint_alone = joint_count - count, joint_alone - alone
            together.append(number)
            largest, alone, count = joint, joint_alone, joint_count
        yield from cut(together, largest)

    def _work(self, sizes: np.ndarray) -> np.ndarray:
        """Approximate multiply-adds ``[n]`` for boxes of these sizes ``[n, maps, 3]``."""
        voxels = sizes.prod(axis=2).astype(float)
        total = voxels[:, 0].copy()
        for number, (node, layer) in enumerate(self._layers.items(), start=1):
            convolves = isinstance(layer, Convolution)
            total += voxels[:, number] * (
                layer.weight.numel() if convolves else self._channels[node]
            )
        return total

    def _bytes(self, sizes: np.ndarray) -> float:
        """Memory for one region whose boxes have these sizes ``[maps, 3]``."""
        nodes = [self._input, *self._layers]
        boxes = {
            node: size.prod() * self._channels[node]
            for node, size in zip(nodes, sizes, strict=True)
        }
        most = boxes[self._input]
        for (node, layer), size in zip(self._layers.items(), sizes[1:], strict=True):
            frame = layer.frame(size).prod() * self._channels[layer.sources[0]]
            most = max(most, 2 * frame + 3 * boxes[node])
        rest = sum(step.elements for step in self._rest)
        rest += sum(value.numel() for value in self._maps.values())
        return float(most + sum(boxes.values()) / 2 + rest) * self.logits.element_size()

    @torch.no_grad()
    def _run_batch(self, regions: Regions, boxes: Boxes, members: np.ndarray) -> Tensor:
        """Logits of some regions ``[batch, classes]``."""

        def common(node: fx.Node) -> tuple[np.ndarray, np.ndarray]:
            """Starts of all boxes when each has the size of the largest, and that size."""
            start, stop = (edge[members] for edge in boxes[node])
            size = (stop - start).max(axis=0)
            return np.minimum(start, self._shapes[node] - size), size

        start, size = common(self._input)
        blocks = {self._input: Block(self._change_of_scan(regions, start, size), start)}
        maps = {}
        pending = Counter(s for layer in self._layers.values() for s in layer.sources)
        pending.update(s for layer in self._means.values() for s in layer.sources)

        def hand_on(node: fx.Node) -> None:
            """Add the change to its whole map if needed; drop it if no layer reads it."""
            if node in self._maps:
                maps[node] = add_to_whole(self._maps[node], blocks[node])
            if not pending[node]:
                blocks.pop(node)

        hand_on(self._input)
        for node, layer in self._layers.items():
            of_sources = [blocks[source] for source in layer.sources]
            block_start, block_size = common(node)
            block = layer.carry(of_sources, block_start, block_size, self._cache)
            if node in self._bordered and block.sticks_out(layer.shape):
                block = Block(place(block, block_start, block_size), block_start)
            blocks[node] = block
            for source in layer.sources:
                pending[source] -= 1
                if not pending[source]:
                    blocks.pop(source)
            hand_on(node)
        for node, layer in self._means.items():
            source = layer.sources[0]
            if node in self._maps:
                voxels = int(self._shapes[source].prod())
                maps[node] = self._maps[node] + layer.of_change(blocks[source], voxels)
        for node, value in self._shown.items():
            maps[node] = value.expand(len(members), *value.shape[1:])
        return self._run_rest(maps)[self._output]

    def _change_of_scan(self, regions: Regions, start: np.ndarray, size: np.ndarray) -> Tensor:
        """Change of the scan when the regions are set to 0, on boxes of one size."""
        change = self._cache.gather("scan", start, size).neg_()
        if regions.labels is not None:
            values = torch.from_numpy(regions.values).to(change.device)
            labels = self._cache.gather("labels", start, size)
            change *= labels == values.view(-1, 1, 1, 1, 1)
        for axis in range(3):
            low = (regions.start - start)[:, axis]
            high = (regions.stop - start)[:, axis]
            if low.any() or (high < size[axis]).any():
                place = np.arange(size[axis])
                inside = (place >= low[:, None]) & (place < high[:, None])
                shape = [len(inside), 1, 1, 1, 1]
                shape[2 + axis] = -1
                change *= torch.from_numpy(inside).to(change.device).view(shape)
        return change


@contextmanager
def _in_threads(workers: int) -> Iterator[Callable]:
    """A ``map`` in that many threads; torch uses a single thread in each."""
    if workers == 1:
        yield map
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _reads_shape(node: fx.Node) -> bool:
    """Whether a node reads only the shape or type of a map, not its voxels."""
    if node.target is getattr:
        return node.args[1] in ("shape", "ndim", "dtype", "device")
    return node.op == "call_method" and node.target in ("size", "dim")
