"""Layers that propagate changes, made from the nodes of a traced network."""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from voxplain.relevance.inputs import affine_of
from voxplain.relevance.layers import (
    AveragePool,
    BatchNorm,
    Convolution,
    Join,
    Layer,
    MaxPool,
    Mean,
    Pointwise,
)

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
# In-place functions are replaced, since the engine reads a map again after the function.
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
_IN_PLACE_OPERATORS = ("iadd", "isub", "imul", "itruediv")


def _changes_nothing(node: fx.Node, model: nn.Module) -> bool:
    """Whether a node returns its input tensor unchanged in eval mode."""
    if node.op == "call_module":
        module = model.get_submodule(node.target)
        return type(module) in _NOTHING and _is_plain(node, module)
    return node.target is functional.dropout and not node.kwargs.get("training", True)


def _is_plain(node: fx.Node, module: nn.Module) -> bool:
    """Whether a module is called with one input and has no hooks."""
    hooked = module._forward_hooks or module._forward_pre_hooks
    return len(node.args) == 1 and not node.kwargs and not hooked


def layer_of(node: fx.Node, model: nn.Module, sources: list[fx.Node]) -> Layer | None:
    """The layer for a node whose inputs are all maps.

    Parameters
    ----------
    sources
        Inputs of the node, in their order.

    Returns
    -------
    The layer; None for a node that needs the whole map or is not known.
    """
    if node.op == "call_module":
        module = model.get_submodule(node.target)
        return _layer_of_module(module, node, sources) if _is_plain(node, module) else None
    # Inputs given by keyword are rare and not supported.
    if node.op not in ("call_function", "call_method") or not node.args:
        return None
    return _layer_of_call(node, sources)


def _layer_of_module(module: nn.Module, node: fx.Node, sources: list[fx.Node]) -> Any:
    # The forward of a subclass may compute anything: only the classes themselves are known.
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
    """Factor and shift of each channel, computed in float64 and rounded once."""
    factor, shift = affine_of(module)
    dtype = module.running_mean.dtype
    return factor.to(dtype), shift.to(dtype)


def _triple(value: int | Sequence[int]) -> np.ndarray:
    return np.array([value] * 3 if isinstance(value, int) else list(value), np.int64)


class _OfTheScan(fx.Tracer):
    """Tracer of a network as it is called: with the scan alone, other arguments at their defaults.

    By itself torch.fx would take ``if age is None`` for false, since it gives each argument a node.
    """

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        """The function to trace and its arguments."""
        known = inspect.signature(inspect.unwrap(root_fn)).parameters
        root_fn, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        for place, arg in enumerate(args[2:], start=2):
            name = arg.node.target
            if name.startswith("*"):
                args[place] = {} if name.startswith("**") else ()
            elif known[name].default is not inspect.Parameter.empty:
                args[place] = known[name].default
            else:
                continue  # without a default the network could not be called either
            self.graph.erase_node(arg.node)
        return root_fn, args


def trace(model: nn.Module) -> fx.Graph:
    """Graph of a network that is called with a scan alone; any error of its code may be raised."""
    return _OfTheScan().trace(model)


def reason_of(error: Exception) -> str:
    """Why :func:`trace` failed: the first line of the error's message, if it has one."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else repr(error)


def drop_nothing(graph: fx.Graph, model: nn.Module) -> None:
    """Remove nodes that return their input unchanged, so that a map has one node."""
    for node in list(graph.nodes):
        if _changes_nothing(node, model):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def follow_in_place(graph: fx.Graph, model: nn.Module) -> None:
    """Connect nodes that read a map after an in-place change to the changed map.

    The layers here do not write in place, so the map before and after the change are two nodes.
    """
    order = {node: place for place, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if not node.args or not isinstance(node.args[0], fx.Node) or not _in_place(node, model):
            continue
        changed = node.args[0]
        later = [user for user in changed.users if order[user] > order[node]]
        for user in later:
            user.replace_input_with(changed, node)


def _in_place(node: fx.Node, model: nn.Module) -> bool:
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(node.target), "inplace", False))
    if node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        called = name.endswith("_") and not name.endswith("__")
        return called or name in _IN_PLACE_OPERATORS or bool(node.kwargs.get("inplace"))
    return node.op == "call_method" and node.target.endswith("_")
