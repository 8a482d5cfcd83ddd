"""Layer-wise relevance propagation (LRP): the logit is propagated back to the voxels.

captum 0.9 has no rules for 3D convolutions, and zennit needs torchvision, whose wheels work only
with torch of the same build; so the rules are implemented here. They are applied to the graph of
the network (:mod:`torch.fx`), so additions and poolings that are not modules have a rule too. A
layer without a rule raises an error. Layers are processed one at a time, in slabs. If the maps that
layers read exceed the memory limit, the earliest maps are dropped and recomputed when needed.
"""

from __future__ import annotations

import copy
import functools
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from voxplain.faults import SetupFault
from voxplain.relevance.behaviour import first_line
from voxplain.relevance.inputs import affine_of, as_input, column_of, in_training, logit, sign_of
from voxplain.relevance.tracing import drop_nothing, follow_in_place, trace

# Alpha and beta for convolutions; None for the epsilon rule, as in dense layers.
COMPOSITES = {
    "epsilon_plus": (1.0, 0.0),
    "epsilon_alpha2_beta1": (2.0, 1.0),
    "epsilon": None,
}
_EPSILON = 1e-6
# Memory for stored maps that layers read on the way back, and for a slab of one layer.
_KEPT_BYTES = 2.5e9
_SLAB_BYTES = 1.5e8
# Largest allowed difference between the logits of the graph and of the network, as a fraction of
# the largest logit, in addition to rounding.
_TRUSTED = 1e-3

_RELUS = (torch.relu, torch.relu_, functional.relu, functional.relu_, "relu", "relu_")
_SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")
_RESHAPES = (torch.flatten, torch.reshape, torch.squeeze, "flatten", "view", "reshape", "squeeze")
_AVERAGES = (functional.avg_pool3d, functional.adaptive_avg_pool3d, torch.mean, "mean")
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm3d)

Planes = tuple[slice, slice, slice]
Contributions = Callable[[list[Tensor], list[Tensor]], Tensor]

# --- batch norms


def merge_batch_norms(model: nn.Module) -> nn.Module:
    """A copy of a network with batch norms merged into the adjacent layers; the logits are equal.

    A batch norm after a convolution or a dense layer is merged into that layer if nothing else
    reads its output. A batch norm before a dense layer is merged into the dense layer if nothing
    else reads it and only dropout lies between. Other batch norms remain: at the start of a
    pre-activation block, the identity reads the sum before it too, and a ReLU follows.

    Parameters
    ----------
    model
        From ``[batch, 1, x, y, z]`` to logits ``[batch, classes]``, in eval mode.

    Raises
    ------
    SetupFault
        The network cannot be traced, or is in training mode.
    """
    if in_training(model):
        raise SetupFault("the network is in training mode; call model.eval() before merging")
    model = _copy(model)
    graph = _trace(model)
    calls = Counter(id(_module_of(node, model)) for node in graph.nodes)
    for node in list(graph.nodes):
        norm = _module_of(node, model)
        if type(norm) not in _BATCH_NORMS or norm.running_mean is None or calls[id(norm)] > 1:
            continue
        source, users = node.args[0], list(node.users)
        before = _module_of(source, model)
        behind = _module_of(users[0], model) if len(users) == 1 else None
        factor, shift = affine_of(norm)
        if type(before) in (nn.Conv3d, nn.Linear) and len(source.users) == calls[id(before)] == 1:
            _merge_into_previous(before, factor, shift)
        elif type(norm) is nn.BatchNorm1d and type(behind) is nn.Linear and calls[id(behind)] == 1:
            _merge_into_next(behind, factor, shift)
        else:
            continue
        parent, _, name = node.target.rpartition(".")
        setattr(model.get_submodule(parent), name, nn.Identity().eval())
        node.replace_all_uses_with(source)
        graph.erase_node(node)
    return model


def _copy(model: nn.Module) -> nn.Module:
    if isinstance(model, torch.jit.ScriptModule):
        raise SetupFault(
            "lrp must know which layer follows which, and the network is scripted; explain it as "
            "it was before torch.jit"
        )
    try:
        return copy.deepcopy(model)
    except Exception as error:  # it may hold anything
        raise SetupFault(
            f"lrp works on a copy of the network, and it cannot be copied: {first_line(error)}"
        ) from error


def _merge_into_previous(layer: nn.Conv3d | nn.Linear, factor: Tensor, shift: Tensor) -> None:
    weight = layer.weight.detach().double()
    if layer.bias is not None:
        shift = shift + factor * layer.bias.detach().double()
    _set(layer, weight * factor.view(-1, *[1] * (weight.ndim - 1)), shift)


def _merge_into_next(layer: nn.Linear, factor: Tensor, shift: Tensor) -> None:
    weight = layer.weight.detach().double()
    bias = weight @ shift
    if layer.bias is not None:
        bias = bias + layer.bias.detach().double()
    _set(layer, weight * factor, bias)


def _set(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
    dtype = layer.weight.dtype
    layer.weight = nn.Parameter(weight.to(dtype))
    layer.bias = nn.Parameter(bias.to(dtype))


def _trace(model: nn.Module) -> fx.Graph:
    try:
        graph = trace(model)
    except Exception as error:  # it runs the network's own code: anything may be raised
        lines = str(error).strip().splitlines()
        raise SetupFault(
            f"lrp must know which layer follows which, and torch.fx cannot trace the network: "
            f"{lines[0] if lines else error!r}. Write its forward without conditions on tensors"
        ) from error
    drop_nothing(graph, model)
    follow_in_place(graph, model)
    return graph


def _module_of(node: fx.Node, model: nn.Module) -> nn.Module | None:
    return model.get_submodule(node.target) if node.op == "call_module" else None


# --- the rules


@dataclass(frozen=True)
class _Rules:
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
class _PassThrough:
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
class _MaxPool:
    """Max pooling: relevance goes to the voxel with the maximum."""

    function: Callable[[Tensor], Tensor]
    reads = True

    def forward(self, inputs: list[Tensor]) -> Tensor:
        return self.function(inputs[0])

    def back(
        self, inputs: list[Tensor], relevance: Tensor, rules: _Rules, outputs: Tensor | None
    ) -> tuple[list[Tensor], float]:
        with torch.enable_grad():
            read = inputs[0].detach().requires_grad_()
            winners = self.function(read)
        return list(torch.autograd.grad(winners, read, relevance)), 0.0


@dataclass(frozen=True)
class _Linear:
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
        self, inputs: list[Tensor], relevance: Tensor, rules: _Rules, outputs: Tensor | None
    ) -> tuple[list[Tensor], float]:
        """Relevance of each input, and the relevance absorbed by biases."""
        input_relevance, taken = rules.share(
            self.function, inputs[0], self.weight, self.bias, relevance, self.dense, outputs
        )
        return [input_relevance], taken


@dataclass(frozen=True)
class _Convolution:
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
        self, inputs: list[Tensor], relevance: Tensor, rules: _Rules, outputs: Tensor | None
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
class _Elementwise:
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
        self, inputs: list[Tensor], relevance: Tensor, rules: _Rules, outputs: Tensor | None
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


_Layer = _PassThrough | _MaxPool | _Linear | _Convolution | _Elementwise


def _each(function: Callable[..., Tensor]) -> Contributions:
    """Function of several inputs and weights: the sum of ``function`` over the pairs."""

    def of_all(parts: list[Tensor], weights: list[Tensor], *rest: Any) -> Tensor:
        outputs = [function(part, w, *rest) for part, w in zip(parts, weights, strict=True)]
        return functools.reduce(operator.add, outputs)

    return of_all


def _planes(first: int, last: int) -> Planes:
    return slice(None), slice(None), slice(first, last)


def _layer_of(node: fx.Node, model: nn.Module, like: Tensor, plain: dict[fx.Node, Any]) -> _Layer:
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
    module = _module_of(node, model)
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


def _layer_of_module(module: nn.Module, node: fx.Node, like: Tensor) -> _Layer | None:
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
        return _Convolution(module, tuple(before), tuple(behind), bias)
    if kind is nn.Linear:
        bias = None if module.bias is None else module.bias.detach()
        return _Linear(_each(functional.linear), module.weight.detach(), bias, dense=True)
    if kind in _BATCH_NORMS:
        factor, shift = affine_of(module)
        return _Elementwise(factor.to(like.dtype)[None], shift.to(like.dtype))
    if kind is nn.ReLU:
        return _PassThrough(torch.relu, clips=True)
    if kind in (nn.Flatten, nn.Unflatten):
        return _PassThrough(module)
    if kind is nn.MaxPool3d and not module.return_indices:
        return _MaxPool(module)
    if kind in (nn.AvgPool3d, nn.AdaptiveAvgPool3d):
        return _average(module, like)
    return None


def _layer_of_call(node: fx.Node, like: Tensor, plain: dict[fx.Node, Any]) -> _Layer | None:
    target, args, kwargs = node.target, node.args, dict(node.kwargs)
    if target in _SUMS:
        two = len(args) == 2 and all(isinstance(arg, fx.Node) for arg in args) and not kwargs
        return _Elementwise(like.new_ones(2, 1)) if two else None
    if target in _RELUS:
        return _PassThrough(torch.relu, clips=True)

    def call(values: Tensor) -> Tensor:
        rest = fx.node.map_arg(args[1:], plain.__getitem__)
        if node.op == "call_method":
            return getattr(values, target)(*rest, **kwargs)
        return target(values, *rest, **kwargs)

    if target in _RESHAPES:
        return _PassThrough(call)
    if target is functional.max_pool3d and not kwargs.get("return_indices") and len(args) < 7:
        return _MaxPool(call)
    return _average(call, like) if target in _AVERAGES else None


def _average(function: Callable[[Tensor], Tensor], like: Tensor) -> _Linear:
    return _Linear(_each(lambda values, weight: function(values) * weight), like.new_ones(()))


# --- the network


class _Propagation:
    """Forward pass of one scan through the graph of a network, and propagation of relevance back.

    Parameters
    ----------
    model
        In eval mode; its batch norms may be merged.
    batch
        ``[1, 1, x, y, z]`` on the device and of the type of the parameters.
    kept_bytes
        Memory for maps that layers read, until they are used on the way back.
    """

    def __init__(self, model: nn.Module, batch: Tensor, kept_bytes: float) -> None:
        graph = _trace(model)
        nodes = list(graph.nodes)
        self._input = next(node for node in nodes if node.op == "placeholder")
        self._output = next(node for node in nodes if node.op == "output").args[0]
        self._place = {node: place for place, node in enumerate(nodes)}
        self._plain: dict[fx.Node, Any] = {}
        self._sources: dict[fx.Node, list[fx.Node]] = {}
        self._layers: dict[fx.Node, _Layer] = {}
        maps = {self._input}
        for node in nodes:
            if node.op == "placeholder" and node is not self._input:
                self._plain[node] = node.args[0] if node.args else None
            if node.op in ("placeholder", "output"):
                continue
            self._sources[node] = [a for a in node.args if isinstance(a, fx.Node) and a in maps]
            if node.op == "get_attr" or (
                maps & set(node.all_input_nodes) and not _reads_shape(node)
            ):
                maps.add(node)
                self._layers[node] = _layer_of(node, model, batch, self._plain)
        if not isinstance(self._output, fx.Node) or self._output not in self._layers:
            raise SetupFault("lrp wants a network that gives one tensor of logits")
        self._kept_bytes = kept_bytes
        self._shapes = {self._input: batch.shape}
        self._kept = {self._input: batch}
        # For each map, the number of layers that still have to read its values.
        self._readers = Counter([self._output])
        for node in self._layers:
            self._readers.update(self._read_by(node))
        self.logits = self._value(self._output)

    def _needs_sign(self, node: fx.Node) -> bool:
        """Whether outputs below 0 can have relevance: not if only ReLUs read them."""
        layer, users = self._layers[node], [self._layers.get(user) for user in node.users]
        if isinstance(layer, _PassThrough | _MaxPool) or (
            isinstance(layer, _Linear) and layer.dense
        ):
            return False
        return not all(isinstance(user, _PassThrough) and user.clips for user in users)

    def _read_by(self, node: fx.Node) -> list[fx.Node]:
        """Maps whose values the rule of a node reads: inputs, and the output of a convolution."""
        if not self._layers[node].reads:
            return []
        # The output of a convolution is stored, since it is the most expensive to recompute.
        reads_output = isinstance(self._layers[node], _Convolution) and self._needs_sign(node)
        return [*self._sources[node], node] if reads_output else self._sources[node]

    def _value(self, wanted: fx.Node) -> Tensor:
        """A map, stored or recomputed."""
        if wanted not in self._kept:
            self._run(wanted)
        return self._kept[wanted]

    def _run(self, wanted: fx.Node) -> None:
        """Compute a map from the stored maps."""
        needed = {wanted}
        for node in reversed(list(self._sources)):
            if node in needed and node not in self._kept:
                needed.update(self._sources[node])
                needed.update(set(node.all_input_nodes) - self._plain.keys())
        todo = [node for node in self._sources if node in needed and node not in self._kept]
        pending = Counter(source for node in todo for source in self._sources[node])
        live = {node: self._kept[node] for node in needed if node in self._kept}
        for node in todo:
            sources = self._sources[node]
            if node not in self._layers:
                self._plain[node] = self._plain_value(node)
            else:
                live[node] = self._forward(node, [live[source] for source in sources])
                self._shapes[node] = live[node].shape
                if self._readers[node]:
                    self._keep(node, live[node])
            for source in sources:
                pending[source] -= 1
                if not pending[source]:
                    del live[source]

    def _forward(self, node: fx.Node, inputs: list[Tensor]) -> Tensor:
        layer, source = self._layers[node], self._sources[node][0]
        fresh = isinstance(self._layers.get(source), _Linear | _Convolution | _Elementwise)
        if isinstance(layer, _PassThrough) and layer.clips and fresh and len(source.users) == 1:
            return inputs[0].relu_()  # in place, since nothing else reads it
        return layer.forward(inputs)

    def _plain_value(self, node: fx.Node) -> Any:
        """Value of a node that is not a map: a shape, or a number from shapes."""
        if not self._sources[node]:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), self._plain.__getitem__)
            if node.op == "call_method":
                return getattr(args[0], node.target)(*args[1:], **kwargs)
            return node.target(*args, **kwargs)
        shape = self._shapes[self._sources[node][0]]
        if node.target in ("dim", "ndim") or node.args[1:] == ("ndim",):
            return len(shape)
        return shape[node.args[1]] if node.target == "size" and len(node.args) > 1 else shape

    def _keep(self, node: fx.Node, value: Tensor) -> None:
        """Store a map; above the memory limit drop the earliest maps, which are needed last."""
        self._kept[node] = value
        candidates = sorted(self._kept.keys() - {self._input, node}, key=self._place.get)
        size = sum(self._kept[candidate].nbytes for candidate in [*candidates, node])
        for candidate in candidates:
            if size <= self._kept_bytes:
                break
            size -= self._kept.pop(candidate).nbytes

    def back(self, target: int, rules: _Rules) -> tuple[Tensor, float]:
        """Relevance of the voxels ``[1, 1, x, y, z]``, and the part absorbed by biases."""
        relevance = {self._output: torch.zeros_like(self.logits)}
        column = column_of(self.logits, target)
        relevance[self._output][:, column] = self.logits[:, column] * sign_of(self.logits, target)
        taken = 0.0
        for node in reversed(self._layers):
            if node not in relevance:
                continue
            layer, sources, output_relevance = (
                self._layers[node],
                self._sources[node],
                relevance.pop(node),
            )
            if layer.reads:
                inputs, outputs = [self._value(source) for source in sources], None
                if self._needs_sign(node):
                    outputs = self._kept.get(node)
                    outputs = layer.forward(inputs) if outputs is None else outputs
                input_relevances, of_bias = layer.back(inputs, output_relevance, rules, outputs)
                taken += of_bias
                del inputs, outputs
                for read in self._read_by(node):
                    self._readers[read] -= 1
                    if not self._readers[read] and read is not self._input:
                        self._kept.pop(read, None)
            else:
                input_relevances = [output_relevance.reshape(self._shapes[sources[0]])]
            for source, part in zip(sources, input_relevances, strict=True):
                relevance[source] = relevance[source] + part if source in relevance else part
        return relevance[self._input], taken


def _reads_shape(node: fx.Node) -> bool:
    """Whether a node reads only the shape of a map."""
    if node.target is getattr:
        return node.args[1] in ("shape", "ndim")
    return node.op == "call_method" and node.target in ("size", "dim")


@torch.no_grad()
def _signed(
    model: nn.Module,
    batch: Tensor,
    target: int,
    composite: str = "epsilon_plus",
    epsilon: float = _EPSILON,
    kept_bytes: float = _KEPT_BYTES,
) -> tuple[Tensor, float]:
    """Signed relevance ``[1, 1, x, y, z]``, and the part of the logit absorbed by biases.

    The two add up to the logit, except for the part absorbed by ``epsilon`` and rounding.
    """
    if composite not in COMPOSITES:
        raise SetupFault(f"there is no composite {composite!r}; allowed: {', '.join(COMPOSITES)}")
    with torch.autocast(batch.device.type, enabled=False):
        logits = model(batch.clone())
        logit(model, logits, target)
        merged = merge_batch_norms(model)
        try:
            propagation = _Propagation(merged, batch, kept_bytes)
        except (SetupFault, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # the network's layers, put together in an unusual way
            raise SetupFault(
                f"lrp cannot follow the network's layers: {first_line(error)}; write it with plain "
                "modules, or leave lrp out for it"
            ) from error
        rounding = 1e3 * torch.finfo(logits.dtype).eps
        allowed = (_TRUSTED if logits.dtype != torch.float64 else 0) + rounding
        if not torch.allclose(
            propagation.logits, logits, rtol=0, atol=allowed * float(logits.abs().max())
        ):
            raise SetupFault(
                "lrp reads the network as one whose logits are "
                f"{propagation.logits.tolist()}, and it says {logits.tolist()}: it does something "
                "that torch.fx does not see. Write "
                "it with plain modules, without hooks"
            )
        alpha, beta = COMPOSITES[composite] or (None, 0.0)
        return propagation.back(target, _Rules(alpha, beta, epsilon))


def lrp(
    model: nn.Module, scan: Tensor | np.ndarray, target: int, composite: str = "epsilon_plus"
) -> np.ndarray:
    """Positive part of the layer-wise relevance propagation of the target's logit.

    Bach et al. 2015 (doi 10.1371/journal.pone.0130140), with a composite of rules as recommended by
    Montavon et al. 2019 and Kohlbrenner et al. 2020, after the batch norms are merged
    (:func:`merge_batch_norms`). Dense layers use the epsilon rule. Convolutions, averages,
    additions and the remaining batch norms use the alpha-beta rule, which separates the
    contributions ``input * weight`` with the sign of the output from those with the other sign; so
    positive relevance supports the class. Max pooling passes all relevance to the voxel with the
    maximum.

    The first layer has the same rule as the later convolutions. The rule uses contributions, so a
    voxel below the mean of the training scans can have relevance like one above it. A voxel at the
    mean, such as a voxel outside the brain, has none. The rule of squared weights and the flat rule
    would give it relevance; the rule for bounded inputs needs bounds, which z-scores do not have.

    Relevance sums to the logit except for the part absorbed by biases (alpha-beta rule: biases with
    the sign of the output).

    Parameters
    ----------
    composite
        ``epsilon_plus`` (alpha 1, beta 0), ``epsilon_alpha2_beta1``, or ``epsilon`` in all layers,
        which equals gradient times input for a network of ReLUs and max pooling.

    The other parameters and the return value are as :func:`voxplain.relevance.explain`; the logit
    is explained, and the map is 0 where relevance is below 0.

    Raises
    ------
    SetupFault
        A layer has no rule, the network cannot be traced or does not agree with its graph, or there
        is no such composite or class.
    """
    relevance, _ = _signed(model, as_input(model, scan), target, composite)
    return relevance[0, 0].clamp(min=0).float().cpu().numpy()


def lrp_grad_cam_pp(
    model: nn.Module,
    scan: Tensor | np.ndarray,
    target: int,
    layer: str | None = None,
    placement: str = "receptive_field",
    composite: str = "epsilon_plus",
) -> np.ndarray:
    """Voxelwise product of the maps of :func:`lrp` and Grad-CAM++.

    Kennedy, Shi and Cha, "Studying the Interpretability of Brain MR Image Deep Learning Modelling".

    Parameters
    ----------
    layer, placement
        As :func:`voxplain.relevance.cam.grad_cam_pp`.
    composite
        As :func:`lrp`.

    The other parameters and the return value are as :func:`voxplain.relevance.explain`.
    """
    from voxplain.relevance.cam import grad_cam_pp

    relevance = lrp(model, scan, target, composite)
    return relevance * grad_cam_pp(model, scan, target, layer, placement)
