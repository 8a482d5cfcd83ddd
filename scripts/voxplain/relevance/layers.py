"""Layers that compute the local change of their output from a local change of their input.

A *change* is the difference between the activations of the occluded and of the whole scan: 0
outside a box.

- A linear layer maps the change of its input to that of its output, whatever the whole scan is.
- Any other layer is computed twice on the box, with the change and without it.

:mod:`voxplain.relevance.tracing` finds these layers in a network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.nn import functional

LAST = torch.channels_last_3d


@dataclass(eq=False)
class Block:
    """A box of a feature map, for each occlusion of a batch.

    Attributes
    ----------
    change
        ``[batch, channel, x, y, z]``: occluded minus whole; it is 0 outside the box.
    start
        ``[batch, 3]`` int64, first voxel of each box. A box may reach beyond the borders of its
        map; the values there are meaningless.
    """

    change: Tensor
    start: np.ndarray

    def sticks_out(self, shape: np.ndarray) -> bool:
        """Whether a box reaches beyond the borders of a map."""
        behind = self.start + self.change.shape[2:]
        return bool((self.start < 0).any() or (behind > shape).any())


class NotLocalError(Exception):
    """A network cannot be recomputed in parts; the message gives the reason."""


class ActivationCache:
    """Cache of the activations of the whole scan, from which boxes are cut."""

    def __init__(self) -> None:
        self._maps: dict[Any, tuple[Tensor, np.ndarray]] = {}

    def add(
        self,
        key: Any,
        value: Tensor,
        before: Sequence[int] = (0, 0, 0),
        behind: Sequence[int] = (0, 0, 0),
        fill: float = 0.0,
    ) -> None:
        """Store a map ``[1, channel, x, y, z]`` with padding around it, filled with a value."""
        if any(before) or any(behind):
            value = functional.pad(value, pads(before, behind), value=fill)
        value = value.contiguous(memory_format=LAST)
        self._maps[key] = value[0].permute(1, 2, 3, 0), np.asarray(before)

    def gather(self, key: Any, start: np.ndarray, size: Sequence[int]) -> Tensor:
        """Boxes ``[batch, channel, *size]`` of a stored map, channels last in memory.

        A row along z is contiguous in memory. Boxes are therefore looked up as rows of a table with
        overlapping rows, which is several times as fast as slicing one box after the other.
        """
        stored, before = self._maps[key]
        nx, ny, nz, channels = stored.shape
        x, y, z = (int(edge) for edge in size)
        table = stored.as_strided((nx * ny * nz - z + 1, z * channels), (channels, 1))
        place = torch.from_numpy(start + before).to(stored.device)
        rows = (place[:, 0, None] + torch.arange(x, device=stored.device)) * ny
        rows = (
            rows[:, :, None] + (place[:, 1, None] + torch.arange(y, device=stored.device))[:, None]
        )
        rows = rows * nz + place[:, 2, None, None]
        boxes = table.index_select(0, rows.view(-1))
        return boxes.view(len(start), x, y, z, channels).permute(0, 4, 1, 2, 3)


@dataclass(eq=False)
class Layer:
    """A layer of a network.

    Attributes
    ----------
    node
        The node that it computes.
    sources
        The nodes of its inputs.
    shape
        Voxels of its output along x, y, z; set after it has computed a whole scan.
    """

    node: fx.Node
    sources: list[fx.Node]
    shape: np.ndarray = field(init=False)

    # Whether it assumes 0 around a change, also beyond the borders of the map.
    needs_borders = False

    def whole(self, *inputs: Tensor) -> Tensor:
        """Output of the layer for a whole scan, ``[1, channel, x, y, z]``."""
        raise NotImplementedError

    def keep(self, cache: ActivationCache, inputs: list[Tensor], output: Tensor) -> None:
        """Store in the cache what :meth:`carry` reads of a whole scan."""

    def grow(self, boxes: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        """Starts and stops ``[batch, 3]`` of the changed output, from those of the inputs."""
        return boxes[0]

    def frame(self, size: np.ndarray) -> np.ndarray:
        """Size of the input box that is needed for an output box of this size."""
        return size

    def carry(
        self, blocks: list[Block], start: np.ndarray, size: np.ndarray, cache: ActivationCache
    ) -> Block:
        """Change of the output, from the changes of the inputs.

        The result has boxes with that start ``[batch, 3]`` and size, which contain all changes, or
        larger boxes.
        """
        raise NotImplementedError


@dataclass(eq=False)
class Window(Layer):
    """A layer in which each output voxel depends on a window of the input.

    Attributes
    ----------
    kernel, stride, dilation
        Along x, y, z.
    padding
        Padding before the first voxel.
    """

    kernel: np.ndarray
    stride: np.ndarray
    dilation: np.ndarray
    padding: np.ndarray

    def grow(self, boxes: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        start, stop = boxes[0]
        reach = self.dilation * (self.kernel - 1)
        # A change outside all windows (after the last stride) still gets a box of zeros.
        first = (-(-(start + self.padding - reach) // self.stride)).clip(0, self.shape - 1)
        behind = ((stop - 1 + self.padding) // self.stride + 1).clip(max=self.shape)
        return first, np.maximum(behind, first + 1)

    def frame(self, size: np.ndarray) -> np.ndarray:
        return (size - 1) * self.stride + self.dilation * (self.kernel - 1) + 1

    def frame_start(self, start: np.ndarray) -> np.ndarray:
        """First voxel of the input box for output boxes with this start."""
        return start * self.stride - self.padding


@dataclass(eq=False)
class Convolution(Window):
    """A convolution padded with zeros.

    Attributes
    ----------
    padding_behind
        Padding after the last voxel.
    """

    weight: Tensor
    bias: Tensor | None
    groups: int
    padding_behind: np.ndarray
    needs_borders = True

    def whole(self, *inputs: Tensor) -> Tensor:
        scan, padding = inputs[0], self.padding.tolist()
        if (self.padding != self.padding_behind).any():
            scan, padding = functional.pad(scan, pads(self.padding, self.padding_behind)), 0
        weight = self.weight.clone(memory_format=LAST)  # sets the strides of one channel too
        return self._convolve(scan, weight, self.bias, padding)

    def carry(
        self, blocks: list[Block], start: np.ndarray, size: np.ndarray, cache: ActivationCache
    ) -> Block:
        change, frame = blocks[0].change, self.frame(size)
        offset = blocks[0].start - self.frame_start(start)
        before, behind = offset[0], frame - offset[0] - change.shape[2:]
        alike = (offset == offset[0]).all()
        if not alike and (self.stride == 1).all():
            # The full reach of the change, also beyond the borders: equal for all boxes.
            reach = self.dilation * (self.kernel - 1)
            reached = self._pad_and_convolve(change, reach, reach)
            return Block(reached, blocks[0].start + self.padding - reach)
        if not alike:
            change, before, behind = (
                place(blocks[0], self.frame_start(start), frame),
                [0] * 3,
                [0] * 3,
            )
        return Block(self._pad_and_convolve(change, before, behind), start)

    def keep_input(self, cache: ActivationCache, scan: Tensor) -> None:
        """Store its input instead of its output, for :meth:`of_whole`."""
        behind = self.frame(self.shape) - self.padding - np.array(scan.shape[2:])
        cache.add((self, "in"), scan, self.padding, behind.clip(min=0))

    def of_whole(self, start: np.ndarray, size: np.ndarray, cache: ActivationCache) -> Tensor:
        """Output for the whole scan on boxes ``[batch, channel, *size]``, recomputed."""
        values = cache.gather((self, "in"), self.frame_start(start), self.frame(size))
        return self._convolve(values, self.weight.clone(memory_format=LAST), self.bias, 0)

    def _pad_and_convolve(self, change: Tensor, before: Any, behind: Any) -> Tensor:
        if self.weight.shape[1] < 4:
            change = functional.pad(change, pads(before, behind))
            return self._convolve(change, self.weight.clone(memory_format=LAST), None, 0)
        if (np.asarray(before) == behind).all() and (np.asarray(before) >= 0).all():
            # Padding inside the convolution saves multiplications by 0. Not channels last:
            # oneDNN's own memory order is faster for small boxes.
            return self._convolve(change.contiguous(), self.weight, None, list(map(int, before)))
        change = functional.pad(change, pads(before, behind))
        return self._convolve(change.contiguous(), self.weight, None, 0)

    def _convolve(self, scan: Tensor, weight: Tensor, bias: Tensor | None, padding: Any) -> Tensor:
        stride, dilation = self.stride.tolist(), self.dilation.tolist()
        return functional.conv3d(scan, weight, bias, stride, padding, dilation, self.groups)

    def absorb(self, norm: BatchNorm) -> None:
        """Merge the batch norm that follows into the weights and the bias."""
        self.weight = self.weight * norm.factor.view(-1, 1, 1, 1, 1)
        self.bias = norm.shift if self.bias is None else self.bias * norm.factor + norm.shift


@dataclass(eq=False)
class MaxPool(Window):
    """Maximum of a window.

    Attributes
    ----------
    rectified
        Whether it includes the ReLU before it. The ReLU is applied after the pooling, to fewer
        voxels: the maximum of ReLUs is the ReLU of the maximum.
    """

    ceil_mode: bool
    rectified: bool = False

    def whole(self, *inputs: Tensor) -> Tensor:
        padding = self.padding.tolist()
        return self._pool(inputs[0], padding, self.ceil_mode)

    def keep(self, cache: ActivationCache, inputs: list[Tensor], output: Tensor) -> None:
        edges = np.array(inputs[0].shape[2:])
        behind = self.frame(self.shape) - self.padding - edges
        cache.add((self, "in"), inputs[0], self.padding, behind.clip(min=0), -torch.inf)
        cache.add((self, "out"), output)

    def carry(
        self, blocks: list[Block], start: np.ndarray, size: np.ndarray, cache: ActivationCache
    ) -> Block:
        frame_start = self.frame_start(start)
        values = cache.gather((self, "in"), frame_start, self.frame(size))
        add_at(values, blocks[0].change, blocks[0].start - frame_start)
        pooled = self._pool(values, 0, False).sub_(cache.gather((self, "out"), start, size))
        return Block(pooled, start)

    def _pool(self, values: Tensor, padding: Any, ceil_mode: bool) -> Tensor:
        kernel, stride = self.kernel.tolist(), self.stride.tolist()
        dilation = self.dilation.tolist()
        pooled = functional.max_pool3d(values, kernel, stride, padding, dilation, ceil_mode)
        return pooled.relu_() if self.rectified else pooled


@dataclass(eq=False)
class AveragePool(Window):
    """Mean of a window, padded zeros counted."""

    needs_borders = True

    def whole(self, *inputs: Tensor) -> Tensor:
        return self._pool(inputs[0], self.padding.tolist())

    def carry(
        self, blocks: list[Block], start: np.ndarray, size: np.ndarray, cache: ActivationCache
    ) -> Block:
        placed = place(blocks[0], self.frame_start(start), self.frame(size))
        return Block(self._pool(placed, 0), start)

    def _pool(self, values: Tensor, padding: Any) -> Tensor:
        return functional.avg_pool3d(values, self.kernel.tolist(), self.stride.tolist(), padding)


@dataclass(eq=False)
class Pointwise(Layer):
    """A function that acts on each voxel separately.

    Attributes
    ----------
    function
        From a tensor to a tensor of the same shape.
    is_relu
        Whether it is a ReLU.
    first
        The convolution before it, if that reads the scan itself. With one input channel it is
        recomputed rather than cached, since its output maps are the largest of all.
    """

    function: Callable[[Tensor], Tensor]
    is_relu: bool
    first: Convolution | None = None

    def whole(self, *inputs: Tensor) -> Tensor:
        return self.function(inputs[0])

    def keep(self, cache: ActivationCache, inputs: list[Tensor], output: Tensor) -> None:
        if self.first is None:
            cache.add((self, "in"), inputs[0])

    def carry(
        self, blocks: list[Block], start: np.ndarray, size: np.ndarray, cache: ActivationCache
    ) -> Block:
        if self.first is None:
            values = cache.gather((self, "in"), start, size)
        else:
            values = self.first.of_whole(start, size, cache)
        before = self.function(values)
        add_at(values, blocks[0].change, blocks[0].start - start)
        return Block(self.function(values).sub_(before), start)


@dataclass(eq=False)
class BatchNorm(Layer):
    """Batch norm in eval mode: a fixed factor and shift for each channel."""

    factor: Tensor
    shift: Tensor

    def whole(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * self.factor.view(1, -1, 1, 1, 1) + self.shift.view(1, -1, 1, 1, 1)

    def carry(
        self, blocks: list[Block], start: np.ndarray, size: np.ndarray, cache: ActivationCache
    ) -> Block:
        return Block(blocks[0].change * self.factor.view(1, -1, 1, 1, 1), blocks[0].start)


@dataclass(eq=False)
class Join(Layer):
    """Sum of maps on one grid, with signs; without signs their concatenation as channels."""

    signs: tuple[int, ...] | None
    channels: tuple[int, ...] = ()

    def whole(self, *inputs: Tensor) -> Tensor:
        self.channels = tuple(value.shape[1] for value in inputs)
        if self.signs is None:
            return torch.cat(inputs, dim=1)
        if inputs[0].shape != inputs[1].shape:
            shapes = " and ".join("x".join(map(str, value.shape[1:])) for value in inputs)
            raise NotLocalError(f"it sums maps of different shapes, {shapes} ({self.node.name})")
        return torch.add(*inputs, alpha=self.signs[1])

    def grow(self, boxes: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        starts, stops = zip(*boxes, strict=True)
        return np.minimum.reduce(starts), np.maximum.reduce(stops)

    def carry(
        self, blocks: list[Block], start: np.ndarray, size: np.ndarray, cache: ActivationCache
    ) -> Block:
        if self.signs is not None:
            joined = place(blocks[0], start, size).clone()
            add_at(joined, blocks[1].change, blocks[1].start - start, self.signs[1])
            return Block(joined, start)
        return Block(torch.cat([place(block, start, size) for block in blocks], dim=1), start)


@dataclass(eq=False)
class Mean(Layer):
    """Mean of each channel over the whole map; later layers get no map."""

    keepdim: bool
    needs_borders = True

    def whole(self, *inputs: Tensor) -> Tensor:
        return inputs[0].mean(dim=(2, 3, 4), keepdim=self.keepdim)

    def of_change(self, block: Block, voxels: int) -> Tensor:
        """Change of the mean over that many voxels."""
        return block.change.sum(dim=(2, 3, 4), keepdim=self.keepdim) / voxels


def pads(before: Sequence[int], behind: Sequence[int]) -> list[int]:
    """Padding along x, y, z in the order of ``functional.pad``: last axis first."""
    pairs = [(int(a), int(b)) for a, b in zip(before, behind, strict=True)]
    return [edge for pair in reversed(pairs) for edge in pair]


def place(block: Block, start: np.ndarray, size: Sequence[int]) -> Tensor:
    """The change on other boxes ``[batch, channel, *size]``, with zeros outside its own boxes."""
    offset, edges = block.start - start, np.array(block.change.shape[2:])
    size = np.asarray(size)
    if (offset == offset[0]).all():
        before, behind = offset[0], size - offset[0] - edges
        if not before.any() and not behind.any():
            return block.change
        return functional.pad(block.change, pads(before, behind))
    placed = block.change.new_zeros((*block.change.shape[:2], *size.tolist()))
    placed = placed.contiguous(memory_format=LAST)
    add_at(placed, block.change, offset)
    return placed


def add_to_whole(whole: Tensor, block: Block) -> Tensor:
    """A whole map ``[1, channel, x, y, z]`` with each change of a batch added to it."""
    changed = whole.expand(len(block.start), *whole.shape[1:])
    changed = changed.clone(memory_format=torch.contiguous_format)
    batch, channels, nx, ny, nz = changed.shape
    _, _, x, y, z = block.change.shape
    device = changed.device
    start = torch.from_numpy(block.start).to(device)
    # Flat index in its map of each voxel of the boxes; each box has another offset.
    at = torch.arange(channels, device=device)[:, None] * nx + torch.arange(x, device=device)
    at = (at + start[:, 0, None, None])[..., None] * ny + torch.arange(y, device=device)
    at = (at + start[:, 1, None, None, None])[..., None] * nz + torch.arange(z, device=device)
    at = (at + start[:, 2, None, None, None, None]).view(batch, -1)
    changed.view(batch, -1).scatter_add_(1, at, block.change.reshape(batch, -1))
    return changed


def add_at(frame: Tensor, change: Tensor, offset: np.ndarray, sign: int = 1) -> None:
    """Add changes to boxes in place; parts outside a box are left out.

    Parameters
    ----------
    frame
        ``[batch, channel, *size]``.
    offset
        ``[batch, 3]``, start of each change in its box; may be negative.
    """
    edges, size = np.array(change.shape[2:]), np.array(frame.shape[2:])
    # Neighbours in a batch mostly have equal offsets: one addition for each run of them.
    turns = 1 + np.flatnonzero((offset[1:] != offset[:-1]).any(axis=1))
    for first, last in zip([0, *turns], [*turns, len(offset)], strict=True):
        way = offset[first]
        low, high = way.clip(min=0), np.minimum(way + edges, size)
        if (high > low).all():
            to = [slice(a, b) for a, b in zip(low, high, strict=True)]
            of = [slice(a, b) for a, b in zip(low - way, high - way, strict=True)]
            some = slice(first, last), slice(None)
            frame[(*some, *to)].add_(change[(*some, *of)], alpha=sign)
