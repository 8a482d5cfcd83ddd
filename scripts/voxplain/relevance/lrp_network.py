"""The network as LRP reads it: its graph, and batch norms merged into neighbouring layers."""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import Tensor, fx, nn

from voxplain.faults import SetupFault
from voxplain.relevance.behaviour import first_line
from voxplain.relevance.inputs import affine_of, in_training
from voxplain.relevance.tracing import drop_nothing, follow_in_place, reason_of, trace

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm3d)


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
    graph = trace_network(model)
    calls = Counter(id(module_of(node, model)) for node in graph.nodes)
    for node in list(graph.nodes):
        norm = module_of(node, model)
        if type(norm) not in BATCH_NORMS or norm.running_mean is None or calls[id(norm)] > 1:
            continue
        source, users = node.args[0], list(node.users)
        before = module_of(source, model)
        behind = module_of(users[0], model) if len(users) == 1 else None
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


def trace_network(model: nn.Module) -> fx.Graph:
    """The graph of a network without dropout, in which changes in place are followed.

    Raises
    ------
    SetupFault
        torch.fx cannot trace the network.
    """
    try:
        graph = trace(model)
    except Exception as error:  # it runs the network's own code: anything may be raised
        raise SetupFault(
            f"lrp must know which layer follows which, and torch.fx cannot trace the network: "
            f"{reason_of(error)}. Write its forward without conditions on tensors"
        ) from error
    drop_nothing(graph, model)
    follow_in_place(graph, model)
    return graph


def module_of(node: fx.Node, model: nn.Module) -> nn.Module | None:
    """The module that a node of the graph calls; None for other nodes."""
    return model.get_submodule(node.target) if node.op == "call_module" else None
