"""A network's forward pass without the background of its scans.

A normalised scan is 0 outside the brain. Where the input of a layer is only background, its output
is one number per channel. So every block of convolution, batch norm, ReLU and max pooling computes
a box around the brain and, once, one voxel of background; batch statistics and gradients weight
this voxel by the number of voxels that it represents. At 1 mm the box is half of the volume.
Nothing is approximated: the sums are those of the whole volume, in another order.

Two more simplifications within a block are exact. With ``a = gamma / sd`` and
``b = beta - a * mean``, the largest ``relu(a z + b)`` is ``relu(a max z + b)`` for ``a >= 0``, and
the same holds for ``-z`` if ``a < 0``: batch norm and ReLU run after the pooling, on an eighth of
the voxels or fewer. And batch norm removes the bias of a convolution, so the bias is left out of
the sums and gets no gradient; its gradient in the whole sum is 0 but for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from voxplain.store import Brain
from voxplain.training.data import Window


@dataclass(frozen=True)
class _Block:
    """Layers that are computed together; ``pool`` is 1 without pooling."""

    convolution: nn.Conv3d
    norm: nn.BatchNorm3d
    pool: int

    @property
    def shrinks(self) -> int:
        """Number of voxels by which the convolution shortens each axis."""
        return self.convolution.kernel_size[0] - 1

    def output_of(self, box: Window, shape: Sequence[int]) -> tuple[Window, tuple[int, ...]]:
        """The box of non-background voxels after the block, and the shape of the whole volume."""
        whole = tuple((n - self.shrinks) // self.pool for n in shape)
        sides = []
        for (start, stop), n in zip(box, whole, strict=True):
            # If the only non-background voxels are left over by the pooling: its last voxel.
            first = min(max(0, start - self.shrinks) // self.pool, n - 1)
            sides.append((first, max(first + 1, min(n, -(-stop // self.pool)))))
        return tuple(sides), whole

    def input_for(self, output: Window, whole: Sequence[int], shape: Sequence[int]) -> Window:
        """The part of the input that is needed for a box of the output.

        A box that reaches the end of the output also reaches that of the input: voxels that are
        left over by the pooling count in the batch's statistics.
        """
        sides = [
            (start * self.pool, n if stop == end else stop * self.pool + self.shrinks)
            for (start, stop), end, n in zip(output, whole, shape, strict=True)
        ]
        return tuple(sides)


class CroppedNetwork:
    """Logits of whole scans, computed from a window around the brain.

    Blocks are searched from the first layer on, in a :class:`torch.nn.Sequential` or in a network
    with an attribute ``layers_in_order`` (all layers in the order of ``forward``). Layers after the
    blocks run unchanged, and so does a network with hooks. The parameters and running statistics of
    the network are used and updated.

    Parameters
    ----------
    model
        From ``[batch, 1, x, y, z]`` to logits.
    brain
        The brain voxels; scans are 0 outside of them.

    Attributes
    ----------
    window
        The part of the grid that the input must cover, see :class:`voxplain.training.data.Batches`.
    """

    def __init__(self, model: nn.Module, brain: Brain) -> None:
        # A subclass of Sequential may override forward.
        in_order = list(model) if type(model) is nn.Sequential else None
        layers = getattr(model, "layers_in_order", in_order)
        self.model = model
        self._blocks, self._rest = find_blocks(layers) if layers and _unhooked(model) else ([], [])
        if not self._blocks:
            self._rest = [model]
        self._shapes: list[tuple[int, ...]] = [brain.mask.shape]
        self._boxes: list[Window] = [brain.box]
        self._windows: list[Window] = []
        for block in self._blocks:
            box, shape = block.output_of(self._boxes[-1], self._shapes[-1])
            self._windows.append(block.input_for(box, shape, self._shapes[-1]))
            self._boxes.append(box)
            self._shapes.append(shape)
        # The layers after the blocks need the whole volume.
        self._windows.append(tuple((0, n) for n in self._shapes[-1]))
        self._boxes[0] = self.window = self._windows[0]

    def __call__(self, scans: Tensor) -> Tensor:
        """Logits ``[batch, classes]`` of the window of scans, ``[batch, 1, *window]`` float32."""
        values, background = scans, scans.new_zeros(scans.shape[1])
        places = zip(self._boxes, self._windows, self._shapes, strict=True)
        for block, (box, window, shape) in zip([*self._blocks, None], places, strict=True):
            if box != window:
                values = _embed(values, box, window, background)
            if block is not None:
                values, background = _run(block, values, background, shape)
        for layer in self._rest:
            values = layer(values)
        return values


def find_blocks(layers: Sequence[nn.Module]) -> tuple[list[_Block], list[nn.Module]]:
    """The blocks at the start of a network, and the layers after them."""
    blocks, rest = [], list(layers)
    while len(rest) >= 3:
        convolution, norm, relu = rest[:3]
        if not (_is_valid(convolution) and _is_plain(norm) and type(relu) is nn.ReLU):
            break
        if not all(map(_unhooked, rest[:4])):
            break
        pool = _edge_of(rest[3]) if len(rest) > 3 else 1
        blocks.append(_Block(convolution, norm, pool))
        rest = rest[4 if pool > 1 else 3 :]
    return blocks, rest


def _unhooked(module: nn.Module) -> bool:
    """Whether a module has no forward hooks."""
    return not (module._forward_hooks or module._forward_pre_hooks)


def _is_valid(layer: nn.Module) -> bool:
    """Whether a layer is a convolution with a cubic kernel, without padding, stride or dilation."""
    return (
        type(layer) is nn.Conv3d
        and len(set(layer.kernel_size)) == 1
        and layer.stride == layer.dilation == (1, 1, 1)
        and layer.padding == (0, 0, 0)
        and layer.groups == 1
    )


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer is a batch norm with weights and running statistics."""
    return (
        type(layer) is nn.BatchNorm3d
        and layer.affine
        and layer.track_running_stats
        and layer.momentum is not None
    )


def _edge_of(layer: nn.Module) -> int:
    """Edge of a max pooling with adjacent cubes; 1 for other layers."""
    if type(layer) is not nn.MaxPool3d or layer.padding != 0 or layer.dilation != 1:
        return 1
    edge, step = layer.kernel_size, layer.stride
    plain = isinstance(edge, int) and edge == step and not (layer.ceil_mode or layer.return_indices)
    return edge if plain else 1


def _embed(values: Tensor, box: Window, window: Window, background: Tensor) -> Tensor:
    """A window with the values of a box inside and background around it."""
    size = [stop - start for start, stop in window]
    whole = _per_channel(background.to(values.dtype)).expand(*values.shape[:2], *size)
    whole = whole.clone(memory_format=torch.channels_last_3d)
    inside = [
        slice(start - first, stop - first)
        for (start, stop), (first, _) in zip(box, window, strict=True)
    ]
    whole[:, :, inside[0], inside[1], inside[2]] = values
    return whole


def _run(
    block: _Block, values: Tensor, background: Tensor, shape: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The output of a block for its window and for background.

    Parameters
    ----------
    values
        ``[batch, channels, *window]``.
    background
        ``[channels]``, a voxel of background before the block.
    shape
        Shape of the whole volume before the block.
    """
    layer, norm = block.convolution, block.norm
    # The sign of gamma is the sign of the factor of batch norm.
    sign = torch.where(norm.weight.detach() < 0, -1.0, 1.0).to(norm.weight.dtype)
    weight = layer.weight * sign[:, None, None, None, None]
    wide = weight.contiguous(memory_format=torch.channels_last_3d)
    sums = functional.conv3d(values, wide).contiguous(memory_format=torch.channels_last_3d)
    bias = 0 if layer.bias is None else layer.bias
    if layer.bias is not None and norm.training:
        bias = bias.detach()  # batch norm removes it: its gradient would be rounding errors
    with torch.autocast(sums.device.type, enabled=False):
        outside = weight.sum((2, 3, 4)) @ background
        gamma = norm.weight * sign
        if norm.training:
            count = len(values) * math.prod(n - block.shrinks for n in shape)
            output, background, mean, variance = _NormReluPool.apply(
                sums, outside, gamma, norm.bias, count, block.pool, norm.eps
            )
            _keep_running(norm, mean * sign + bias, variance * count / max(count - 1, 1))
            return output, background
        slope = gamma * torch.rsqrt(norm.running_var + norm.eps)
        offset = norm.bias - slope * (norm.running_mean - bias) * sign
        pooled = _widen(functional.max_pool3d(sums, block.pool))
        output = torch.relu(pooled * _per_channel(slope) + _per_channel(offset))
        return output.to(sums.dtype), torch.relu(slope * outside + offset)


@torch.no_grad()
def _keep_running(norm: nn.BatchNorm3d, mean: Tensor, variance: Tensor) -> None:
    """Update a batch norm's running statistics."""
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), norm.momentum)
    norm.num_batches_tracked.add_(1)


class _NormReluPool(torch.autograd.Function):
    """Batch norm with the batch's statistics, ReLU and max pooling, for gamma >= 0."""

    @staticmethod
    def forward(
        ctx: Any,
        sums: Tensor,
        outside: Tensor,
        gamma: Tensor,
        beta: Tensor,
        count: int,
        pool: int,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pooled values, background, and the batch's mean and variance (float64) per channel.

        Parameters
        ----------
        sums, outside
            Output of the convolution, ``[batch, channels, x, y, z]``, channels last in memory, and
            ``[channels]`` for background.
        gamma, beta
            ``[channels]``.
        count
            Number of voxels of the whole batch, with background.
        pool
            Edge of the pooling.
        eps
            Added to the variance.
        """
        beyond = count - sums.numel() // sums.shape[1]
        total, squares = _moments(sums)
        outer = outside.double()
        mean = (total + beyond * outer) / count
        variance = (squares + beyond * outer**2) / count - mean**2
        variance = variance.clamp_min(0)
        scale = torch.rsqrt(variance + eps)
        pooled, chosen = functional.max_pool3d(sums, pool, return_indices=True)
        slope = gamma.double() * scale
        offset = beta.double() - slope * mean
        output = _widen(pooled) * _per_channel(slope.to(gamma.dtype))
        output = output.add_(_per_channel(offset.to(gamma.dtype))).relu_().to(sums.dtype)
        background = (slope * outer + offset).relu().to(outside.dtype)
        ctx.save_for_backward(sums, outside, gamma, mean, scale, pooled, chosen, output, background)
        ctx.count, ctx.beyond = count, beyond
        ctx.mark_non_differentiable(mean, variance)
        return output, background, mean, variance

    @staticmethod
    def backward(
        ctx: Any, by_output: Tensor, by_background: Tensor, *_: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Gradients of the inputs; that of ``sums`` overwrites the memory of ``sums``."""
        sums, outside, gamma, mean, scale, pooled, chosen, output, background = ctx.saved_tensors
        channels = sums.shape[1]
        passed = _rows(by_output * (output > 0))
        outer = (by_background * (background > 0)).double()
        inner = passed.sum(0, dtype=torch.float64)
        crossed = (_widen(passed) * _rows(pooled)).sum(0, dtype=torch.float64)
        centred = (outside.double() - mean) * scale
        by_beta = inner + outer
        by_gamma = (crossed - mean * inner) * scale + outer * centred
        slope = gamma.double() * scale
        by_outside = slope * (outer - ctx.beyond / ctx.count * (by_beta + centred * by_gamma))
        # slope * (passed - by_beta / n - normalised * by_gamma / n): one part in every voxel, and
        # one in the voxels that the pooling chose, each at most once.
        tilt = -slope * scale * by_gamma / ctx.count
        shift = -slope * by_beta / ctx.count - tilt * mean
        by_sums = sums.detach()
        by_sums.mul_(_per_channel(tilt.to(gamma.dtype)))
        by_sums.add_(_per_channel(shift.to(gamma.dtype)))
        sparse = (passed * slope.to(gamma.dtype)).to(sums.dtype).view(len(sums), -1, channels)
        everywhere = by_sums.permute(0, 2, 3, 4, 1).view(len(sums), -1, channels)
        everywhere.scatter_add_(1, _rows(chosen).view(sparse.shape), sparse)
        gradients = by_outside.to(outside.dtype), by_gamma.to(gamma.dtype), by_beta.to(gamma.dtype)
        return (by_sums, *gradients, None, None, None)


def _moments(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Sum and sum of squares of every channel, float64; only planes along x use float32."""
    total = squares = torch.zeros(sums.shape[1], dtype=torch.float64, device=sums.device)
    for scan in sums:
        planes = _widen(scan.permute(1, 2, 3, 0).flatten(1, 2))
        ones = planes.new_ones(1, 1, planes.shape[1]).expand(len(planes), -1, -1)
        total = total + torch.bmm(ones, planes).sum((0, 1), dtype=torch.float64)
        products = torch.bmm(planes.transpose(1, 2), planes)
        squares = squares + products.diagonal(dim1=1, dim2=2).sum(0, dtype=torch.float64)
    return total, squares


def _rows(values: Tensor) -> Tensor:
    """``[batch, channels, x, y, z]`` as ``[voxels of the batch, channels]``."""
    return values.permute(0, 2, 3, 4, 1).reshape(-1, values.shape[1])


def _per_channel(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _widen(values: Tensor) -> Tensor:
    """The values in float32, or in float64 if they are."""
    return values if values.dtype == torch.float64 else values.float()
