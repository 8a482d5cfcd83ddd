"""Layers that carry a local change of their input on to a local change of their output.

A *change* is what an occlusion adds to the activations of the whole scan: 0 but for a box.

- A linear layer maps the change of its input to that of its output, whatever the whole scan is.
- Another layer is computed twice on the box, with the change and without it.

:func:`layer_of` finds a layer for a node of a traced network.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
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
        ``[batch, 3]`` int64, first voxel of each box.
    """

    change: Tensor
    start: np.ndarray


class Kept:
    """Activations of the whole scan, and boxes cut out of them."""

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
        """Keep a map ``[1, channel, x, y, z]`` with so much room around it, filled with a value."""
        if any(before) or any(behind):
            value = functional.pad(value, pads(before, behind), value=fill)
        value = value.contiguous(memory_format=LAST)
        self._maps[key] = value[0].permute(1, 2, 3, 0), np.asarray(before)

    def gather(self, key: Any, start: np.ndarray, size: Sequence[int]) -> Tensor:
        """Boxes ``[batch, channel, *size]`` of a kept map, channels last in memory.

        A row along z is one piece of memory, so boxes are looked up as rows of a table in which rows
        overlap: several times as fast as one slice after the other.
        """
        kept, before = self._maps[key]
        nx, ny, nz, channels = kept.shape
        x, y, z = (int(edge) for edge in size)
        table = kept.as_strided((nx * ny * nz - z + 1, z * channels), (channels, 1))
        place = torch.from_numpy(start + before).to(kept.device)
        rows = (place[:, 0, None] + torch.arange(x, device=kept.device)) * ny
        rows = rows[:, :, None] + (place[:, 1, None] + torch.arange(y, device=kept.device))[:, None]
        rows = rows * nz + place[:, 2, None, None]
        found = table.index_select(0, rows.view(-1))
        return found.view(len(start), x, y, z, channels).permute(0, 4, 1, 2, 3)


@dataclass(eq=False)
class Layer:
    """A layer of a network.

    Attributes
    ----------
    node
        What it computes.
    sources
        What it computes that from.
    shape
        Voxels of its output along x, y, z; known when it has computed a whole scan.
    """

    node: fx.Node
    sources: list[fx.Node]
    shape: np.ndarray = field(init=False)

    def whole(self, *inputs: Tensor) -> Tensor:
        """Its output for a whole scan ``[1, channel, x, y, z]``."""
        raise NotImplementedError

    def keep(self, kept: Kept, inputs: list[Tensor], output: Tensor) -> None:
        """Keep what :meth:`carry` reads of a whole scan."""

    def grow(self, boxes: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        """Starts and stops ``[batch, 3]`` of what changes in the output, from those of its inputs."""
        return boxes[0]

    def frame(self, size: np.ndarray) -> np.ndarray:
        """Edges of the box of its input that a box of its output is computed from."""
        return size

    def carry(self, blocks: list[Block], start: np.ndarray, size: np.ndarray, kept: Kept) -> Tensor:
        """Change of boxes of the output ``[batch, channel, *size]``, from those of its inputs."""
        raise NotImplementedError


@dataclass(eq=False)
class Window(Layer):
    """A layer whose every output sees a window of the input.

    Attributes
    ----------
    kernel, stride, dilation
        Along x, y, z.
    padding
        Before the first voxel.
    """

    kernel: np.ndarray
    stride: np.ndarray
    dilation: np.ndarray
    padding: np.ndarray

    def grow(self, boxes: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        start, stop = boxes[0]
        reach = self.dilation * (self.kernel - 1)
        # A change that no window sees (behind the last stride) still has a box, of zeros.
        first = (-(-(start + self.padding - reach) // self.stride)).clip(0, self.shape - 1)
        behind = ((stop - 1 + self.padding) // self.stride + 1).clip(max=self.shape)
        return first, np.maximum(behind, first + 1)

    def frame(self, size: np.ndarray) -> np.ndarray:
        return (size - 1) * self.stride + self.dilation * (self.kernel - 1) + 1

    def frame_start(self, start: np.ndarray) -> np.ndarray:
        """First voxel of the input's box for boxes of the output that start there."""
        return start * self.stride - self.padding


@dataclass(eq=False)
class Convolution(Window):
    """A convolution padded with zeros.

    Attributes
    ----------
    padding_behind
        Behind the last voxel.
    """

    weight: Tensor
    bias: Tensor | None
    groups: int
    padding_behind: np.ndarray

    def whole(self, *inputs: Tensor) -> Tensor:
        scan, padding = inputs[0], self.padding.tolist()
        if (self.padding != self.padding_behind).any():
            scan, padding = functional.pad(scan, pads(self.padding, self.padding_behind)), 0
        weight = self.weight.contiguous(memory_format=LAST)
        return self._convolve(scan, weight, self.bias, padding)

    def carry(self, blocks: list[Block], start: np.ndarray, size: np.ndarray, kept: Kept) -> Tensor:
        change, frame = blocks[0].change, self.frame(size)
        offset = blocks[0].start - self.frame_start(start)
        before, behind = offset[0], frame - offset[0] - change.shape[2:]
        alike = (offset == offset[0]).all()
        if not alike and (self.stride == 1).all():
            # All that the change reaches, beyond the map's borders too: the same for all.
            before = behind = self.dilation * (self.kernel - 1)
            reached = Block(self._pad_and_convolve(change, before, behind), blocks[0].start)
            reached.start = reached.start + self.padding - before
            return place(reached, start, size)
        if not alike:
            change, before, behind = (
                place(blocks[0], self.frame_start(start), frame),
                [0] * 3,
                [0] * 3,
            )
        return self._pad_and_convolve(change, before, behind)

    def _pad_and_convolve(self, change: Tensor, before: Any, behind: Any) -> Tensor:
        if self.weight.shape[1] < 4:
            change = functional.pad(change, pads(before, behind))
            return self._convolve(change, self.weight.clone(memory_format=LAST), None, 0)
        if (np.asarray(before) == behind).all() and (np.asarray(before) >= 0).all():
            # Zeros that the convolution adds by itself it need not multiply by. Not channels last:
            # oneDNN's own order of memory is faster for small boxes.
            return self._convolve(change.contiguous(), self.weight, None, list(map(int, before)))
        change = functional.pad(change, pads(before, behind))
        return self._convolve(change.contiguous(), self.weight, None, 0)

    def _convolve(self, scan: Tensor, weight: Tensor, bias: Tensor | None, padding: Any) -> Tensor:
        stride, dilation = self.stride.tolist(), self.dilation.tolist()
        return functional.conv3d(scan, weight, bias, stride, padding, dilation, self.groups)

    def absorb(self, norm: BatchNorm) -> None:
        """Do what a batch norm behind it does."""
        self.weight = self.weight * norm.factor.view(-1, 1, 1, 1, 1)
        self.bias = norm.shift if self.bias is None else self.bias * norm.factor + norm.shift


@dataclass(eq=False)
class MaxPool(Window):
    """Maximum of a window.

    Attributes
    ----------
    rectified
        Whether it does the work of a ReLU in front of it, afterwards and so on fewer voxels: the
        maximum of ReLUs is the ReLU of the maximum.
    """

    ceil_mode: bool
    rectified: bool = False

    def whole(self, *inputs: Tensor) -> Tensor:
        padding = self.padding.tolist()
        return self._pool(inputs[0], padding, self.ceil_mode)

    def keep(self, kept: Kept, inputs: list[Tensor], output: Tensor) -> None:
        edges = np.array(inputs[0].shape[2:])
        behind = self.frame(self.shape) - self.padding - edges
        kept.add((self, "in"), inputs[0], self.padding, behind.clip(min=0), -torch.inf)
        kept.add((self, "out"), output)

    def carry(self, blocks: list[Block], start: np.ndarray, size: np.ndarray, kept: Kept) -> Tensor:
        frame_start = self.frame_start(start)
        values = kept.gather((self, "in"), frame_start, self.frame(size))
        add_at(values, blocks[0].change, blocks[0].start - frame_start)
        return self._pool(values, 0, False).sub_(kept.gather((self, "out"), start, size))

    def _pool(self, values: Tensor, padding: Any, ceil_mode: bool) -> Tensor:
        kernel, stride = self.kernel.tolist(), self.stride.tolist()
        dilation = self.dilation.tolist()
        found = functional.max_pool3d(values, kernel, stride, padding, dilation, ceil_mode)
        return found.relu_() if self.rectified else found


@dataclass(eq=False)
class AveragePool(Window):
    """Mean of a window, padded zeros counted."""

    def whole(self, *inputs: Tensor) -> Tensor:
        return self._pool(inputs[0], self.padding.tolist())

    def carry(self, blocks: list[Block], start: np.ndarray, size: np.ndarray, kept: Kept) -> Tensor:
        return self._pool(place(blocks[0], self.frame_start(start), self.frame(size)), 0)

    def _pool(self, values: Tensor, padding: Any) -> Tensor:
        return functional.avg_pool3d(values, self.kernel.tolist(), self.stride.tolist(), padding)


@dataclass(eq=False)
class Pointwise(Layer):
    """A function of each voxel by itself."""

    function: Callable[[Tensor], Tensor]
    is_relu: bool

    def whole(self, *inputs: Tensor) -> Tensor:
        return self.function(inputs[0])

    def keep(self, kept: Kept, inputs: list[Tensor], output: Tensor) -> None:
        kept.add((self, "in"), inputs[0])

    def carry(self, blocks: list[Block], start: np.ndarray, size: np.ndarray, kept: Kept) -> Tensor:
        values = kept.gather((self, "in"), start, size)
        before = self.function(values)
        add_at(values, blocks[0].change, blocks[0].start - start)
        return self.function(values).sub_(before)


@dataclass(eq=False)
class BatchNorm(Layer):
    """Multiplies and shifts each channel by numbers that training has fixed."""

    factor: Tensor
    shift: Tensor

    def whole(self, *inputs: Tensor) -> Tensor:
        return inputs[0] * self.factor.view(1, -1, 1, 1, 1) + self.shift.view(1, -1, 1, 1, 1)

    def carry(self, blocks: list[Block], start: np.ndarray, size: np.ndarray, kept: Kept) -> Tensor:
        return place(blocks[0], start, size) * self.factor.view(1, -1, 1, 1, 1)


@dataclass(eq=False)
class Join(Layer):
    """Maps on one grid: summed with signs, or without signs one behind the other as channels."""

    signs: tuple[int, ...] | None
    channels: tuple[int, ...] = ()

    def whole(self, *inputs: Tensor) -> Tensor:
        self.channels = tuple(value.shape[1] for value in inputs)
        if self.signs is None:
            return torch.cat(inputs, dim=1)
        return torch.add(*inputs, alpha=self.signs[1])

    def grow(self, boxes: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        starts, stops = zip(*boxes, strict=True)
        return np.minimum.reduce(starts), np.maximum.reduce(stops)

    def carry(self, blocks: list[Block], start: np.ndarray, size: np.ndarray, kept: Kept) -> Tensor:
        if self.signs is not None:
            joined = place(blocks[0], start, size).clone()
            add_at(joined, blocks[1].change, blocks[1].start - start, self.signs[1])
            return joined
        return torch.cat([place(block, start, size) for block in blocks], dim=1)


@dataclass(eq=False)
class Mean(Layer):
    """Mean of each channel over the whole map; what follows has no map any more."""

    keepdim: bool

    def whole(self, *inputs: Tensor) -> Tensor:
        return inputs[0].mean(dim=(2, 3, 4), keepdim=self.keepdim)

    def of_change(self, block: Block, voxels: int) -> Tensor:
        """How much the mean over so many voxels changes."""
        return block.change.sum(dim=(2, 3, 4), keepdim=self.keepdim) / voxels


def pads(before: Sequence[int], behind: Sequence[int]) -> list[int]:
    """Room along x, y, z as ``functional.pad`` takes it: last axis first."""
    pairs = [(int(a), int(b)) for a, b in zip(before, behind, strict=True)]
    return [edge for pair in reversed(pairs) for edge in pair]


def place(block: Block, start: np.ndarray, size: Sequence[int]) -> Tensor:
    """The change on other boxes ``[batch, channel, *size]``: zeros where its own do not reach."""
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


def add_at(frame: Tensor, change: Tensor, offset: np.ndarray, sign: int = 1) -> None:
    """Add changes to boxes, in place; what lies outside a box is left out.

    Parameters
    ----------
    frame
        ``[batch, channel, *size]``.
    offset
        ``[batch, 3]``, where in its box each change starts; may be negative.
    """
    edges, size = np.array(change.shape[2:]), np.array(frame.shape[2:])
    # Neighbours in a batch lie mostly in the same way: one addition for each run of them.
    turns = 1 + np.flatnonzero((offset[1:] != offset[:-1]).any(axis=1))
    for first, last in zip([0, *turns], [*turns, len(offset)], strict=True):
        way = offset[first]
        low, high = way.clip(min=0), np.minimum(way + edges, size)
        if (high > low).all():
            to = [slice(a, b) for a, b in zip(low, high, strict=True)]
            of = [slice(a, b) for a, b in zip(low - way, high - way, strict=True)]
            some = slice(first, last), slice(None)
            frame[(*some, *to)].add_(change[(*some, *of)], alpha=sign)


# --- from nodes to layers

_POINTWISE_MODULES = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Sigmoid,
    nn.LogSigmoid,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.Tanh,
    nn.Softplus,
    nn.Softsign,
)
_RELUS = (nn.ReLU, torch.relu, torch.relu_, functional.relu, functional.relu_, "relu", "relu_")
# In-place ones stand for those that are not: the engine reads a map again after the function.
_POINTWISE = {
    torch.relu: torch.relu,
    torch.relu_: torch.relu,
    torch.sigmoid: torch.sigmoid,
    torch.tanh: torch.tanh,
    functional.relu: torch.relu,
    functional.relu_: torch.relu,
    functional.relu6: functional.relu6,
    functional.leaky_relu: functional.leaky_relu,
    functional.elu: functional.elu,
    functional.selu: functional.selu,
    functional.gelu: functional.gelu,
    functional.silu: functional.silu,
    functional.mish: functional.mish,
    functional.softplus: functional.softplus,
    functional.hardswish: functional.hardswish,
    functional.hardtanh: functional.hardtanh,
    "relu": torch.relu,
    "relu_": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
_SUMS = {
    operator.add: 1,
    operator.iadd: 1,
    torch.add: 1,
    "add": 1,
    "add_": 1,
    operator.sub: -1,
    operator.isub: -1,
    torch.sub: -1,
    "sub": -1,
    "sub_": -1,
}
_POOLS = {
    functional.max_pool3d: (
        nn.MaxPool3d,
        ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    ),
    functional.avg_pool3d: (
        nn.AvgPool3d,
        (
            "kernel_size",
            "stride",
            "padding",
            "ceil_mode",
            "count_include_pad",
            "divisor_override",
        ),
    ),
}
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def changes_nothing(node: fx.Node, model: nn.Module) -> bool:
    """Whether a node hands on its input, the very same tensor, in eval mode."""
    if node.op == "call_module":
        module = model.get_submodule(node.target)
        return type(module) in _NOTHING and _is_plain(node, module)
    return node.target is functional.dropout and not node.kwargs.get("training", True)


def _is_plain(node: fx.Node, module: nn.Module) -> bool:
    """Whether a module is called with one input, and nothing is hooked to it."""
    hooked = module._forward_hooks or module._forward_pre_hooks
    return len(node.args) == 1 and not node.kwargs and not hooked


def layer_of(node: fx.Node, model: nn.Module, sources: list[fx.Node]) -> Layer | None:
    """The layer of a node all of whose inputs are maps.

    Parameters
    ----------
    sources
        Its inputs, in their order.

    Returns
    -------
    None for a node that needs the whole map or is not known.
    """
    if node.op == "call_module":
        module = model.get_submodule(node.target)
        return _layer_of_module(module, node, sources) if _is_plain(node, module) else None
    # An input given by its keyword is rare: not known.
    if node.op not in ("call_function", "call_method") or not node.args:
        return None
    return _layer_of_call(node, sources)


def _layer_of_module(module: nn.Module, node: fx.Node, sources: list[fx.Node]) -> Any:
    # A subclass may do anything in its forward: only the classes themselves are known.
    kind = type(module)
    if kind in _POINTWISE_MODULES:
        function = copy.copy(module)
        if hasattr(function, "inplace"):
            function.inplace = False
        return Pointwise(node, sources, function, kind is nn.ReLU)
    if kind is nn.Conv3d and module.padding_mode == "zeros":
        return _convolution(module, node, sources)
    if kind is nn.BatchNorm3d and module.running_mean is not None:
        factor, shift = _norm(module)
        return BatchNorm(node, sources, factor, shift)
    if kind is nn.MaxPool3d and not module.return_indices:
        stride = module.kernel_size if module.stride is None else module.stride
        of_axes = map(_triple, (module.kernel_size, stride, module.dilation, module.padding))
        return MaxPool(node, sources, *of_axes, module.ceil_mode)
    if kind is nn.AvgPool3d and not module.ceil_mode and module.divisor_override is None:
        padding = _triple(module.padding)
        if module.count_include_pad or not padding.any():
            stride = module.kernel_size if module.stride is None else module.stride
            kernel = _triple(module.kernel_size)
            return AveragePool(node, sources, kernel, _triple(stride), _triple(1), padding)
    if kind is nn.AdaptiveAvgPool3d and module.output_size in (1, (1, 1, 1)):
        return Mean(node, sources, keepdim=True)
    return None


def _layer_of_call(node: fx.Node, sources: list[fx.Node]) -> Any:
    target, args, kwargs = node.target, node.args, dict(node.kwargs)
    if target in _POINTWISE and len(sources) == 1 and len(args) == 1:
        kwargs.pop("inplace", None)
        function = _POINTWISE[target]
        partial = (lambda values: function(values, **kwargs)) if kwargs else function
        return Pointwise(node, sources, partial, target in _RELUS)
    if target in _SUMS and len(args) == 2 and not kwargs:
        # x + x has one source; a sum with a number or a parameter has other arguments.
        if all(isinstance(arg, fx.Node) for arg in args) and len(sources) == 2:
            return Join(node, sources, (1, _SUMS[target]))
        return None
    if target is torch.cat and len(sources) == len(args[0]):
        axis = args[1] if len(args) > 1 else kwargs.get("dim", 0)
        return Join(node, sources, None) if axis in (1, -4) else None
    if target in _POOLS and len(sources) == 1 and not isinstance(args[0], tuple):
        kind, names = _POOLS[target]
        module = kind(**dict(zip(names, args[1:], strict=False)), **kwargs)
        return _layer_of_module(module, node, sources)
    if target in (torch.mean, "mean") and len(sources) == 1:
        axes = args[1] if len(args) > 1 else kwargs.pop("dim", None)
        keepdim = args[2] if len(args) > 2 else kwargs.pop("keepdim", False)
        axes = {axis % 5 for axis in axes} if isinstance(axes, (tuple, list)) else None
        return Mean(node, sources, bool(keepdim)) if axes == {2, 3, 4} and not kwargs else None
    if target is functional.adaptive_avg_pool3d and len(sources) == 1:
        size = args[1] if len(args) > 1 else kwargs.get("output_size")
        return Mean(node, sources, keepdim=True) if size in (1, (1, 1, 1), [1, 1, 1]) else None
    return None


def _convolution(module: nn.Conv3d, node: fx.Node, sources: list[fx.Node]) -> Convolution:
    kernel, dilation = _triple(module.kernel_size), _triple(module.dilation)
    if module.padding == "same":
        total = dilation * (kernel - 1)
        before, behind = total // 2, total - total // 2
    else:
        before = behind = _triple(0 if module.padding == "valid" else module.padding)
    bias = None if module.bias is None else module.bias.detach()
    return Convolution(
        node,
        sources,
        kernel,
        _triple(module.stride),
        dilation,
        before,
        module.weight.detach(),
        bias,
        module.groups,
        behind,
    )


def _norm(module: nn.BatchNorm3d) -> tuple[Tensor, Tensor]:
    """Factor and shift of each channel; in float64, rounded once."""
    mean, variance = module.running_mean.double(), module.running_var.double()
    factor = (variance + module.eps).rsqrt()
    if module.weight is not None:
        factor = factor * module.weight.detach().double()
    shift = -mean * factor
    if module.bias is not None:
        shift = shift + module.bias.detach().double()
    dtype = module.running_mean.dtype
    return factor.to(dtype), shift.to(dtype)


def _triple(value: int | Sequence[int]) -> np.ndarray:
    return np.array([value] * 3 if isinstance(value, int) else list(value), np.int64)
