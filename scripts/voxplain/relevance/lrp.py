"""Layer-wise relevance propagation: the logit handed back, layer by layer, to the voxels.

captum 0.9 has no rules for 3D convolutions, and zennit needs torchvision, whose wheels work with
the torch of the same build only; so the rules are written here. They are applied to the network's
graph (:mod:`torch.fx`), so additions and poolings that are no modules have a rule too, and whatever
has none is refused. One layer at a time is worked on, in slabs; of what the layers read, the
earliest maps are forgotten where memory ends, and computed once more when their turn comes.
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
from voxplain.relevance.inputs import affine_of, as_input, check_target
from voxplain.relevance.tracing import drop_nothing, follow_in_place

# Alpha and beta for convolutions; None for epsilon there as in the dense layers.
COMPOSITES = {
    "epsilon_plus": (1.0, 0.0),
    "epsilon_alpha2_beta1": (2.0, 1.0),
    "epsilon": None,
}
_EPSILON = 1e-6
# What layers read, kept for the way back, and what a slab of one layer may take.
_KEPT_BYTES = 2.5e9
_SLAB_BYTES = 1.5e8
# How far the logits of the graph may be from the network's own, of the largest, beside rounding.
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
    """A copy of a network with its batch norms in the layers beside them; its logits are the same.

    A batch norm behind a convolution or a dense layer that nothing else reads goes into that; one
    before a dense layer that alone reads it, with nothing but dropout between, into this one. Any
    other stays: at the head of a pre-activation block the sum before it is read by the identity
    too, and a ReLU is behind it.

    Parameters
    ----------
    model
        From ``[batch, 1, x, y, z]`` to logits ``[batch, classes]``, in eval mode.

    Raises
    ------
    SetupFault
        The network cannot be traced, or is in training mode.
    """
    if any(module.training for module in model.modules()):
        raise SetupFault("the network is in training mode; call model.eval() before merging")
    model = copy.deepcopy(model)
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
        graph = fx.Tracer().trace(model)
    except Exception as error:  # it runs the network's own code: anything may be raised
        told = str(error).strip().splitlines()
        raise SetupFault(
            f"lrp must know which layer follows which, and torch.fx cannot trace the network: "
            f"{told[0] if told else error!r}. Write its forward without conditions on tensors"
        ) from error
    drop_nothing(graph, model)
    follow_in_place(graph, model)
    return graph


def _module_of(node: fx.Node, model: nn.Module) -> nn.Module | None:
    return model.get_submodule(node.target) if node.op == "call_module" else None


# --- the rules


@dataclass(frozen=True)
class _Rules:
    """How layers share out relevance; alpha is None where epsilon stands for convolutions too."""

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
        """Relevance of a linear layer's inputs, and what its bias takes.

        Parameters
        ----------
        linear
            From some inputs and as many weights to the sum of their outputs without bias.
        bias
            In a shape that adds to the outputs.
        relevance
            Of the outputs.
        dense
            Of a dense layer.
        outputs
            With the bias; None if none of them below 0 has relevance, so that it needs no asking.
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
        """Contributions above and below 0 apart, Bach et al. 2015, equation 60.

        Alpha goes to the contributions of the output's own sign, so that an output below 0, as
        before a sum, hands its relevance to what made it so. Where nothing pulls the other way,
        alpha is 1 and beta 0: nothing gets lost.
        """
        of_sign = {1: relevance}
        if outputs is not None:
            below = outputs < 0
            parts = {1: relevance.masked_fill(below, 0), -1: relevance.masked_fill(~below, 0)}
            of_sign = {sign: part for sign, part in parts.items() if any(_signs_of(part))}
        # Inputs above and below 0; after a ReLU there are none below.
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
        found, taken = None, 0.0
        for sign in total:
            share = of_sign.get(sign, 0)
            if self.beta:
                share = share * torch.where(total[-sign] == 0, 1, self.alpha)
                share = share - self.beta * of_sign.get(-sign, 0)
            # Where nothing has this sign, nothing gets a share, whatever the quotient.
            share = share / total[sign].masked_fill(total[sign] == 0, 1)
            taken += float((share * _half(bias, sign)).sum()) if bias.any() else 0.0
            for slope, half in zip(torch.autograd.grad(*pulls[sign], share), halves, strict=True):
                slope *= half
                found = slope if found is None else found.add_(slope)
        return found, taken


def _signs_of(values: Tensor) -> tuple[bool, bool]:
    """Whether some are below 0, and some above."""
    low, high = torch.aminmax(values)
    return bool(low < 0), bool(high > 0)


def _half(values: Tensor, sign: int) -> Tensor:
    """What is above 0, or below it."""
    return values.detach().clamp(min=0) if sign > 0 else values.detach().clamp(max=0)


# --- the layers


@dataclass(frozen=True)
class _Pass:
    """A ReLU, or a change of shape: relevance goes through as it is.

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
class _Winner:
    """Max pooling: relevance goes to the voxel that was handed on."""

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
    """A layer whose outputs are linear in its inputs but for a bias.

    Attributes
    ----------
    function
        From some inputs and as many weights to the sum of their outputs without bias.
    bias
        In a shape that adds to the outputs.
    dense
        Whether the rule is that of dense layers.
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
        """Relevance of each input, and what biases take."""
        found, taken = rules.share(
            self.function, inputs[0], self.weight, self.bias, relevance, self.dense, outputs
        )
        return [found], taken


@dataclass(frozen=True)
class _Convolution:
    """A 3D convolution, in slabs along x.

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
        found, taken = torch.zeros_like(inputs[0]), 0.0
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
            found[read] += part
            taken += of_bias
        return [found], taken

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
        """Parts of the inputs and the outputs, and the convolution from one to the other."""
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
                if of.groups == 1:  # together they take half the time
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
        ``[inputs, channels]``; one channel stands for all.
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
        found, taken = [torch.empty_like(each) for each in inputs], 0.0
        for planes in self._slabs(inputs[0]):
            part, of_shift = rules.share(
                _each(lambda terms, weight: (terms * weight).sum(0)),
                torch.stack([each[planes] for each in inputs]),
                factors, shift, relevance[planes], False,
                None if outputs is None else outputs[planes],
            )  # fmt: skip
            for each, of_input in zip(found, part, strict=True):
                each[planes] = of_input
            taken += of_shift
        return found, taken

    def _shaped(self, dimensions: int) -> tuple[Tensor, Tensor | None]:
        ones = [1] * (dimensions - 2)
        shift = None if self.shift is None else self.shift.view(1, -1, *ones)
        return self.factors.view(len(self.factors), 1, -1, *ones), shift

    def _slabs(self, values: Tensor) -> Iterator[Any]:
        if values.ndim < 3:
            yield ...
            return
        plane = values[:, :, 0].numel() * values.element_size() * len(self.factors)
        thick = max(1, int(_SLAB_BYTES // 10 // plane))  # small ones stay in the cache
        for first in range(0, values.shape[2], thick):
            yield _planes(first, first + thick)


_Layer = _Pass | _Winner | _Linear | _Convolution | _Elementwise


def _each(function: Callable[..., Tensor]) -> Contributions:
    """A function of an input and a weight, for several of them; the outputs are added."""

    def of_all(parts: list[Tensor], weights: list[Tensor], *rest: Any) -> Tensor:
        found = [function(part, w, *rest) for part, w in zip(parts, weights, strict=True)]
        return functools.reduce(operator.add, found)

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
        Values of the nodes that are no maps, at the time when the layer is used.

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
    # A subclass may do anything in its forward, and so may a hook.
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
        return _Pass(torch.relu, clips=True)
    if kind in (nn.Flatten, nn.Unflatten):
        return _Pass(module)
    if kind is nn.MaxPool3d and not module.return_indices:
        return _Winner(module)
    if kind in (nn.AvgPool3d, nn.AdaptiveAvgPool3d):
        return _average(module, like)
    return None


def _layer_of_call(node: fx.Node, like: Tensor, plain: dict[fx.Node, Any]) -> _Layer | None:
    target, args, kwargs = node.target, node.args, dict(node.kwargs)
    if target in _SUMS:
        two = len(args) == 2 and all(isinstance(arg, fx.Node) for arg in args) and not kwargs
        return _Elementwise(like.new_ones(2, 1)) if two else None
    if target in _RELUS:
        return _Pass(torch.relu, clips=True)

    def call(values: Tensor) -> Tensor:
        rest = fx.node.map_arg(args[1:], plain.__getitem__)
        if node.op == "call_method":
            return getattr(values, target)(*rest, **kwargs)
        return target(values, *rest, **kwargs)

    if target in _RESHAPES:
        return _Pass(call)
    if target is functional.max_pool3d and not kwargs.get("return_indices") and len(args) < 7:
        return _Winner(call)
    return _average(call, like) if target in _AVERAGES else None


def _average(function: Callable[[Tensor], Tensor], like: Tensor) -> _Linear:
    return _Linear(_each(lambda values, weight: function(values) * weight), like.new_ones(()))


# --- the network


class _Passage:
    """A network's graph with one scan in it: forward, and back.

    Parameters
    ----------
    model
        In eval mode; its batch norms may be merged.
    batch
        ``[1, 1, x, y, z]`` on the device and of the type of the parameters.
    kept_bytes
        What the maps that layers read may take until their turn comes on the way back.
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
            if node.op == "get_attr" or (maps & set(node.all_input_nodes) and not _asks(node)):
                maps.add(node)
                self._layers[node] = _layer_of(node, model, batch, self._plain)
        if self._output not in self._layers:
            raise SetupFault("lrp wants a network that gives one tensor of logits")
        self._kept_bytes = kept_bytes
        self._shapes = {self._input: batch.shape}
        self._kept = {self._input: batch}
        # For each map, how many layers read its values that have not had their turn.
        self._readers = Counter([self._output])
        for node in self._layers:
            self._readers.update(self._read_by(node))
        self.logits = self._value(self._output)

    def _asks_sign(self, node: fx.Node) -> bool:
        """Whether outputs below 0 can have relevance: not if nothing but ReLUs reads them."""
        layer, users = self._layers[node], [self._layers.get(user) for user in node.users]
        if isinstance(layer, _Pass | _Winner) or (isinstance(layer, _Linear) and layer.dense):
            return False
        return not all(isinstance(user, _Pass) and user.clips for user in users)

    def _read_by(self, node: fx.Node) -> list[fx.Node]:
        """Maps whose values a node's rule reads; a convolution's own, as it costs most to ask."""
        if not self._layers[node].reads:
            return []
        own = isinstance(self._layers[node], _Convolution) and self._asks_sign(node)
        return [*self._sources[node], node] if own else self._sources[node]

    def _value(self, wanted: fx.Node) -> Tensor:
        """A map, kept or computed once more."""
        if wanted not in self._kept:
            self._run(wanted)
        return self._kept[wanted]

    def _run(self, wanted: fx.Node) -> None:
        """Forward from what is kept to a map."""
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
                self._plain[node] = self._answer(node)
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
        if isinstance(layer, _Pass) and layer.clips and fresh and len(source.users) == 1:
            return inputs[0].relu_()  # nothing else reads it
        return layer.forward(inputs)

    def _answer(self, node: fx.Node) -> Any:
        """What a node gives that is no map: a shape, or a number from shapes."""
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
        """Keep a map; where that is too much, forget the earliest, which are needed last."""
        self._kept[node] = value
        others = sorted(self._kept.keys() - {self._input, node}, key=self._place.get)
        size = sum(self._kept[other].nbytes for other in [*others, node])
        for other in others:
            if size <= self._kept_bytes:
                break
            size -= self._kept.pop(other).nbytes

    def back(self, target: int, rules: _Rules) -> tuple[Tensor, float]:
        """Relevance of the voxels ``[1, 1, x, y, z]``, and what biases take of the logit."""
        relevance = {self._output: torch.zeros_like(self.logits)}
        relevance[self._output][:, target] = self.logits[:, target]
        taken = 0.0
        for node in reversed(self._layers):
            if node not in relevance:
                continue
            layer, sources, own = self._layers[node], self._sources[node], relevance.pop(node)
            if layer.reads:
                inputs, outputs = [self._value(source) for source in sources], None
                if self._asks_sign(node):
                    outputs = self._kept.get(node)
                    outputs = layer.forward(inputs) if outputs is None else outputs
                found, of_bias = layer.back(inputs, own, rules, outputs)
                taken += of_bias
                del inputs, outputs
                for read in self._read_by(node):
                    self._readers[read] -= 1
                    if not self._readers[read] and read is not self._input:
                        self._kept.pop(read, None)
            else:
                found = [own.reshape(self._shapes[sources[0]])]
            for source, part in zip(sources, found, strict=True):
                relevance[source] = relevance[source] + part if source in relevance else part
        return relevance[self._input], taken


def _asks(node: fx.Node) -> bool:
    """Whether a node reads a map's shape only."""
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
    """Relevance of either sign ``[1, 1, x, y, z]``, and what biases take of the logit.

    The two add up to the logit, but for what ``epsilon`` takes and rounding.
    """
    if composite not in COMPOSITES:
        raise SetupFault(f"there is no composite {composite!r}; allowed: {', '.join(COMPOSITES)}")
    with torch.autocast(batch.device.type, enabled=False):
        own = model(batch.clone())
        check_target(own, target)
        passage = _Passage(merge_batch_norms(model), batch, kept_bytes)
        rounding = 1e3 * torch.finfo(own.dtype).eps
        allowed = (_TRUSTED if own.dtype != torch.float64 else 0) + rounding
        if not torch.allclose(passage.logits, own, rtol=0, atol=allowed * float(own.abs().max())):
            raise SetupFault(
                f"lrp reads the network as one whose logits are {passage.logits.tolist()}, and it "
                f"says {own.tolist()}: it does something that torch.fx does not see. Write "
                "it with plain modules, without hooks"
            )
        alpha, beta = COMPOSITES[composite] or (None, 0.0)
        return passage.back(target, _Rules(alpha, beta, epsilon))


def lrp(
    model: nn.Module, scan: Tensor | np.ndarray, target: int, composite: str = "epsilon_plus"
) -> np.ndarray:
    """Layer-wise relevance propagation of the target's logit; its positive part.

    Bach et al. 2015 (doi 10.1371/journal.pone.0130140), with a composite of rules as Montavon et
    al. 2019 and Kohlbrenner et al. 2020 advise, after the batch norms are merged
    (:func:`merge_batch_norms`). Dense layers share out relevance by the epsilon rule. For
    convolutions, averages, additions and the batch norms that remain, the alpha-beta rule counts
    the contributions ``input * weight`` of the output's sign and of the other apart; so relevance
    that is positive speaks for the class. Max pooling gives all to the voxel it hands on.

    The first layer has no other rule than the convolutions behind it: counted are contributions, so
    a voxel below the mean of the training scans can carry relevance as one above it, and a voxel at
    the mean, such as those outside the brain, carries none. The rule of squared weights and the
    flat one would give it some; that for bounded inputs needs bounds, which z-scores have not.

    Relevance sums to the logit but for what biases take (alpha-beta: those of the output's sign).

    Parameters
    ----------
    composite
        ``epsilon_plus`` (alpha 1, beta 0), ``epsilon_alpha2_beta1``, or ``epsilon`` in all layers,
        which for a network of ReLUs and max pools is gradient times input.

    The other parameters and the return value are as :func:`voxplain.relevance.explain`; the logit
    is explained, and where relevance is below 0 the map is 0.

    Raises
    ------
    SetupFault
        A layer has no rule, the network cannot be traced or does not do what its graph says, or
        there is no such composite or class.
    """
    found, _ = _signed(model, as_input(model, scan), target, composite)
    return found[0, 0].clamp(min=0).float().cpu().numpy()


def lrp_grad_cam_pp(
    model: nn.Module,
    scan: Tensor | np.ndarray,
    target: int,
    layer: str | None = None,
    placement: str = "receptive_field",
    composite: str = "epsilon_plus",
) -> np.ndarray:
    """The map of :func:`lrp` times that of Grad-CAM++, voxel by voxel.

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
