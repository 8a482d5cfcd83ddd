"""Layers with a rule of LRP, and how relevance goes from their output to their inputs.

Every class of a layer has the same members: ``reads``, whether its rule reads the values of its
inputs; ``forward``, from the inputs to the output; and, where it reads them, ``back``, from the
relevance of the output to that of each input, and the part that its bias absorbs.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from voxplain.faults import SetupFault
from voxplain.relevance.inputs import affine_of
from voxplain.relevance.lrp_network import BATCH_NORMS, module_of

# Memory for a slab of one layer.
_SLAB_BYTES = 1.5e8

_RELUS = (torch.relu, torch.relu_, functional.relu, functional.relu_, "relu", "relu_")
_SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")
_RESHAPES = (torch.flatten, torch.reshape, torch.squeeze, "flatten", "view", "reshape", "squeeze")
_AVERAGES = (functional.avg_pool3d, functional.adaptive_avg_pool3d, torch.mean, "mean")

Planes = tuple[slice, slice, slice]
Contributions = Callable[[list[Tensor], list[Tensor]], Tensor]


@dataclass(frozen=True)
class Rules:
    """Rules of relevance propagation; alpha is None if epsilon is used for convolutions too."""

    alpha: float | None
    beta: float
    epsilon: float

    def share(
        self,
        linear: Contributions,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        relevance: Tensor,
        dense: bool,
        outputs: Tensor | None,
    ) -> tuple[Tensor, float]:
        """Relevance of the inputs of a linear layer, and the relevance absorbed by its bias.

        Parameters
        ----------
        linear
            Function from inputs and as many weights to the sum of their outputs without bias.
        bias
            In a shape that broadcasts to the outputs.
        relevance
            Relevance of the outputs.
        dense
            Whether it is a dense layer.
        outputs
            Outputs with the bias; None if no output below 0 has relevance, so that the signs are
            not needed.
        """
        bias = relevance.new_zeros([1] * relevance.ndim) if bias is None else bias
        if dense or self.alpha is None:
            return self._by_epsilon(linear, inputs, weight, bias, relevance)
        return self._by_sign(linear, inputs, weight, bias, relevance, outputs)

    def _by_epsilon(
        self, linear: Contributions, inputs: Tensor, weight: Tensor, bias: Tensor, relevance: Tensor
    ) -> tuple[Tensor, float]:
        """In proportion to the contributions, Bach et al. 2015, equation 58."""
        with torch.enable_grad():
            read = inputs.detach().requires_grad_()
            outputs = linear([read], [weight])
        total = outputs.detach() + bias
        each = relevance / (total + torch.where(total < 0, -self.epsilon, self.epsilon))
        (slope,) = torch.autograd.grad(outputs, read, each)
        return slope.mul_(inputs), float((each * bias).sum())

    def _by_sign(
        self,
        linear: Contributions,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor,
        relevance: Tensor,
        outputs: Tensor | None,
    ) -> tuple[Tensor, float]:
        """Contributions above and below 0 separately, Bach et al. 2015, equation 60.

        Alpha applies to the contributions with the sign of the output. So an output below 0, as
        before a sum, passes its relevance to the contributions that made it negative. If there are
        no contributions of the other sign, alpha is 1 and beta 0: no relevance is lost.
        """
        of_sign = {1: relevance}
        if outputs is not None:
            below = outputs < 0
            parts = {1: relevance.masked_fill(below, 0), -1: relevance.masked_fill(~below, 0)}
            of_sign = {sign: part for sign, part in parts.items() if any(_signs_of(part))}
        # Inputs above and below 0; after a ReLU no input is below 0.
        signs = [sign for sign, some in zip((-1, 1), _signs_of(inputs), strict=True) if some]
        if not of_sign or not signs:
            return torch.zeros_like(inputs), float(relevance.sum())
        halves = [inputs.detach() if len(signs) == 1 else _half(inputs, sign) for sign in signs]
        pulls, total = {}, {}
        for sign in (1, -1) if self.beta else of_sign:
            with torch.enable_grad():
                reads = [half.detach().requires_grad_() for half in halves]
                weights = [_half(weight, sign * of_half) for of_half in signs]
                pulls[sign] = linear(reads, weights), reads
            total[sign] = pulls[sign][0].detach() + _half(bias, sign)
        input_relevance, taken = None, 0.0
        for sign in total:
            share = of_sign.get(sign, 0)
            if self.beta:
                share = share * torch.where(total[-sign] == 0, 1, self.alpha)
                share = share - self.beta * of_sign.get(-sign, 0)
            # If no contribution has this sign, no input gets a share, whatever the quotient.
            share = share / total[sign].masked_fill(total[sign] == 0, 1)
            taken += float((share * _half(bias, sign)).sum()) if bias.any() else 0.0
            for slope, half in zip(torch.autograd.grad(*pulls[sign], share), halves, strict=True):
                slope *= half
                input_relevance = slope if input_relevance is None else input_relevance.add_(slope)
        return input_relevance, taken


def _signs_of(values: Tensor) -> tuple[bool, bool]:
    """Whether some values are below 0, and whether some are above 0."""
    low, high = torch.aminmax(values)
    return bool(low < 0), bool(high > 0)


def _half(values: Tensor, sign: int) -> Tensor:
    """Values above 0 for a positive sign, values below 0 otherwise; the rest is 0."""
    return values.detach().clamp(min=0) if sign > 0 else values.detach().clamp(max=0)


# --- the layers


@dataclass(frozen=True)
class PassThrough:
    """A ReLU, or a change of shape: relevance passes through unchanged.

    Attributes
    ----------
    clips
        Whether it is a ReLU.
    """

    function: Callable[[Tensor], Tensor]
    clips: bool = False
    reads = False

    def forward(self, inputs: list[Tensor]) -> Tensor:
        return self.function(inputs[0])


@dataclass(frozen=True)
class MaxPool:
    """Max pooling: relevance goes to the voxel with the maximum."""

    function: Callable[[Tensor], Tensor]
    reads = True

    def forward(self, inputs: list[Tensor]) -> Tensor:
        return self.function(inputs[0])

    def back(
        self, inputs: list[Tensor], relevance: Tensor, rules: Rules, outputs: Tensor | None
    ) -> tuple[list[Tensor], float]:
        with torch.enable_grad():
            read = inputs[0].detach().requires_grad_()
            winners = self.function(read)
        return list(torch.autograd.grad(winners, read, relevance)), 0.0


@dataclass(frozen=True)
class Linear:
    """A layer whose outputs are linear in its inputs, plus a bias.

    Attributes
    ----------
    function
        Function from inputs and as many weights to the sum of their outputs without bias.
    bias
        In a shape that broadcasts to the outputs.
    dense
        Whether the rule of dense layers applies.
    """

    function: Contributions
    weight: Tensor
    bias: Tensor | None = None
    dense: bool = False
    reads = True

    def forward(self, inputs: list[Tensor]) -> Tensor:
        outputs = self.function(inputs, [self.weight])
        return outputs if self.bias is None else outputs + self.bias

    def back(
        self, inputs: list[Tensor], relevance: Tensor, rules: Rules, outputs: Tensor | None
    ) -> tuple[list[Tensor], float]:
        """Relevance of each input, and the relevance absorbed by biases."""
        input_relevance, taken = rules.share(
            self.function, inputs[0], self.weight, self.bias, relevance, self.dense, outputs
        )
        return [input_relevance], taken


@dataclass(frozen=True)
class Convolution:
    """A 3D convolution, computed in slabs along x.

    Attributes
    ----------
    before, behind
        Padding along x, y, z.
    bias
        ``[1, channels, 1, 1, 1]``.
    """

    module: nn.Conv3d
    before: tuple[int, ...]
    behind: tuple[int, ...]
    bias: Tensor | None
    reads = True

    def forward(self, inputs: list[Tensor]) -> Tensor:
        outputs = inputs[0].new_empty(self._shape(inputs[0].shape))
        for read, written, function in self._slabs(inputs[0].shape):
            part = function([inputs[0][read]], [self.module.weight.detach()])
            outputs[written] = part if self.bias is None else part.add_(self.bias)
        return outputs

    def back(
        self, inputs: list[Tensor], relevance: Tensor, rules: Rules, outputs: Tensor | None
    ) -> tuple[list[Tensor], float]:
        input_relevance, taken = torch.zeros_like(inputs[0]), 0.0
        weight = self.module.weight.detach()
        for read, written, function in self._slabs(inputs[0].shape):
            part, of_bias = rules.share(
                function,
                inputs[0][read],
                weight,
                self.bias,
                relevance[written],
                False,
                None if outputs is None else outputs[written],
            )
            input_relevance[read] += part
            taken += of_bias
        return [input_relevance], taken

    def _shape(self, shape: Sequence[int]) -> list[int]:
        of = self.module
        sizes = [
            (shape[2 + axis] + self.before[axis] + self.behind[axis] - self._reach(axis))
            // of.stride[axis]
            + 1
            for axis in range(3)
        ]
        return [shape[0], of.out_channels, *sizes]

    def _reach(self, axis: int) -> int:
        return self.module.dilation[axis] * (self.module.kernel_size[axis] - 1) + 1

    def _slabs(self, shape: Sequence[int]) -> Iterator[tuple[Planes, Planes, Callable]]:
        """Slabs of the inputs and the outputs, and the convolution from one to the other."""
        of, outputs = self.module, self._shape(shape)
        planes = [
            channels * y * z * of.weight.element_size() for _, channels, _, y, z in (shape, outputs)
        ]
        thick = max(1, int(_SLAB_BYTES // (planes[0] * of.stride[0] + planes[1])))
        for first in range(0, outputs[2], thick):
            last = min(first + thick, outputs[2])
            start = first * of.stride[0] - self.before[0]
            stop = (last - 1) * of.stride[0] - self.before[0] + self._reach(0)
            low, high = max(start, 0), min(stop, shape[2])
            padding = [
                self.before[2], self.behind[2], self.before[1], self.behind[1],
                low - start, stop - high,
            ]  # fmt: skip

            def convolve(
                parts: list[Tensor], weights: list[Tensor], padding: list[int] = padding
            ) -> Tensor:
                if of.groups == 1:  # one call for all takes half the time
                    parts, weights = [torch.cat(parts, 1)], [torch.cat(weights, 1)]
                if any(padding):
                    parts = [functional.pad(part, padding) for part in parts]
                return _each(functional.conv3d)(
                    parts, weights, None, of.stride, 0, of.dilation, of.groups
                )

            yield _planes(low, high), _planes(first, last), convolve


@dataclass(frozen=True)
class Elementwise:
    """A sum of maps, or a batch norm: a factor for each channel of each input, and a shift.

    Attributes
    ----------
    factors
        ``[inputs, channels]``; a single channel applies to all.
    shift
        ``[channels]``.
    """

    factors: Tensor
    shift: Tensor | None = None
    reads = True

    def forward(self, inputs: list[Tensor]) -> Tensor:
        factors, shift = self._shaped(inputs[0].ndim)
        outputs = inputs[0] * factors[0]
        for each, factor in zip(inputs[1:], factors[1:], strict=True):
            outputs.addcmul_(each, factor)
        return outputs if shift is None else outputs.add_(shift)

    def back(
        self, inputs: list[Tensor], relevance: Tensor, rules: Rules, outputs: Tensor | None
    ) -> tuple[list[Tensor], float]:
        factors, shift = self._shaped(inputs[0].ndim)
        input_relevances, taken = [torch.empty_like(each) for each in inputs], 0.0
        for planes in self._slabs(inputs[0]):
            part, of_shift = rules.share(
                _each(lambda terms, weight: (terms * weight).sum(0)),
                torch.stack([each[planes] for each in inputs]),
                factors, shift, relevance[planes], False,
                None if outputs is None else outputs[planes],
            )  # fmt: skip
            for each, of_input in zip(input_relevances, part, strict=True):
                each[planes] = of_input
            taken += of_shift
        return input_relevances, taken

    def _shaped(self, dimensions: int) -> tuple[Tensor, Tensor | None]:
        ones = [1] * (dimensions - 2)
        shift = None if self.shift is None else self.shift.view(1, -1, *ones)
        return self.factors.view(len(self.factors), 1, -1, *ones), shift

    def _slabs(self, values: Tensor) -> Iterator[Any]:
        if values.ndim < 3:
            yield ...
            return
        plane = values[:, :, 0].numel() * values.element_size() * len(self.factors)
        thick = max(1, int(_SLAB_BYTES // 10 // plane))  # small slabs fit into the cache
        for first in range(0, values.shape[2], thick):
            yield _planes(first, first + thick)


Layer = PassThrough | MaxPool | Linear | Convolution | Elementwise


def _each(function: Callable[..., Tensor]) -> Contributions:
    """Function of several inputs and weights: the sum of ``function`` over the pairs."""

    def of_all(parts: list[Tensor], weights: list[Tensor], *rest: Any) -> Tensor:
        outputs = [function(part, w, *rest) for part, w in zip(parts, weights, strict=True)]
        return functools.reduce(operator.add, outputs)

    return of_all


def _planes(first: int, last: int) -> Planes:
    return slice(None), slice(None), slice(first, last)


def layer_of(node: fx.Node, model: nn.Module, like: Tensor, plain: dict[fx.Node, Any]) -> Layer:
    """The layer of a node.

    Parameters
    ----------
    like
        A tensor of the network's type and device.
    plain
        Values of the nodes that are not maps, at the time when the layer is used.

    Raises
    ------
    SetupFault
        There is no rule for it.
    """
    module = module_of(node, model)
    if module is not None:
        layer = _layer_of_module(module, node, like)
    else:
        layer = _layer_of_call(node, like, plain) if node.op != "get_attr" else None
    if layer is None:
        what = node.target if module is None else type(module)
        name = node.name if module is None else node.target
        raise SetupFault(
            f"lrp has no rule for layer {name!r} ({getattr(what, '__name__', what)}); it has rules "
            "for Conv3d, Linear, BatchNorm1d and 3d, ReLU, MaxPool3d, AvgPool3d, "
            "AdaptiveAvgPool3d, means, the addition of two maps, dropout and changes of shape. "
            "Write the network with these, or leave lrp out for it"
        )
    return layer


def _layer_of_module(module: nn.Module, node: fx.Node, like: Tensor) -> Layer | None:
    # The forward of a subclass, or a hook, may compute anything.
    kind, hooked = type(module), module._forward_hooks or module._forward_pre_hooks
    if hooked or len(node.args) != 1 or node.kwargs:
        return None
    if kind is nn.Conv3d and module.padding_mode == "zeros":
        before = behind = (0, 0, 0) if module.padding == "valid" else module.padding
        if module.padding == "same":
            total = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
            before, behind = [n // 2 for n in total], [n - n // 2 for n in total]
        bias = None if module.bias is None else module.bias.detach().view(1, -1, 1, 1, 1)
        return Convolution(module, tuple(before), tuple(behind), bias)
    if kind is nn.Linear:
        bias = None if module.bias is None else module.bias.detach()
        return Linear(_each(functional.linear), module.weight.detach(), bias, dense=True)
    if kind in BATCH_NORMS:
        factor, shift = affine_of(module)
        return Elementwise(factor.to(like.dtype)[None], shift.to(like.dtype))
    if kind is nn.ReLU:
        return PassThrough(torch.relu, clips=True)
    if kind in (nn.Flatten, nn.Unflatten):
        return PassThrough(module)
    if kind is nn.MaxPool3d and not module.return_indices:
        return MaxPool(module)
    if kind in (nn.AvgPool3d, nn.AdaptiveAvgPool3d):
        return _average(module, like)
    return None


def _layer_of_call(node: fx.Node, like: Tensor, plain: dict[fx.Node, Any]) -> Layer | None:
    target, args, kwargs = node.target, node.args, dict(node.kwargs)
    if target in _SUMS:
        two = len(args) == 2 and all(isinstance(arg, fx.Node) for arg in args) and not kwargs
        return Elementwise(like.new_ones(2, 1)) if two else None
    if target in _RELUS:
        return PassThrough(torch.relu, clips=True)

    def call(values: Tensor) -> Tensor:
        rest = fx.node.map_arg(args[1:], plain.__getitem__)
        if node.op == "call_method":
            return getattr(values, target)(*rest, **kwargs)
        return target(values, *rest, **kwargs)

    if target in _RESHAPES:
        return PassThrough(call)
    if target is functional.max_pool3d and not kwargs.get("return_indices") and len(args) < 7:
        return MaxPool(call)
    return _average(call, like) if target in _AVERAGES else None


def _average(function: Callable[[Tensor], Tensor], like: Tensor) -> Linear:
    return Linear(_each(lambda values, weight: function(values) * weight), like.new_ones(()))
