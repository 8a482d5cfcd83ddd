"""Methods that weight the feature maps of a layer: class activation maps and their relatives.

All explain the logit. A map is that of one layer, so it is coarse, and it is brought onto the
scan's grid by where the layer's voxels look (:mod:`voxplain.relevance.placement`). Only what
follows the layer is differentiated. The sums are by hand: captum differentiates the whole network
for a Grad-CAM and enlarges its guided ones to the nearest voxel, and it has no Grad-CAM++.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from voxplain.faults import SetupFault
from voxplain.relevance.gradient import as_map, check_has_relus, guided_slope, relus_called
from voxplain.relevance.inputs import as_input, check_target, differentiating, logit
from voxplain.relevance.placement import Field, Layer, bring_onto_grid, check_placement, follow

# exp of a logit beyond it is near the ends of float32.
_LARGEST_EXPONENT = 60.0


@dataclass(frozen=True)
class Seen:
    """What a layer says of a scan.

    Attributes
    ----------
    features
        ``[channel, x', y', z']``, its output.
    gradient
        The logit's gradient by them.
    logit
        Of the target.
    field
        Where the voxels lie on the scan, None if it is not known.
    guided
        ``[1, 1, x, y, z]``, guided gradient of the logit by the scan, if asked for.
    """

    features: Tensor
    gradient: Tensor
    logit: float
    field: Field | None
    guided: Tensor | None = None


def cam(
    model: nn.Module,
    scan: Tensor | np.ndarray,
    target: int,
    placement: str = "receptive_field",
) -> np.ndarray:
    """|Sum of the feature maps by their weights for the target| of a network that averages them.

    Zhou et al. 2016 (arXiv 1512.04150), equation 2; absolute value as in Yang et al. 2018.

    Parameters
    ----------
    placement
        ``receptive_field`` or ``stretch``, see
        :func:`voxplain.relevance.placement.bring_onto_grid`.

    The other parameters and the return value are as :func:`voxplain.relevance.explain`.

    Raises
    ------
    SetupFault
        The network does not end in feature maps, their global average and one ``nn.Linear``.

    Warns
    -----
    RuntimeWarning
        The maps cannot be followed back to the scan, and are stretched over it.
    """
    check_placement(placement)
    raw, field = raw_cam(model, scan, target)
    return bring_onto_grid(raw.abs(), field, scan.shape, placement)


def grad_cam(
    model: nn.Module,
    scan: Tensor | np.ndarray,
    target: int,
    layer: str | None = None,
    placement: str = "receptive_field",
) -> np.ndarray:
    """Feature maps weighted with the logit's mean gradient by each, where their sum is above 0.

    Selvaraju et al. 2017 (arXiv 1610.02391), equations 1 and 2, the mean taken over all three axes.

    Parameters
    ----------
    layer
        Name of the module whose output is read, as in ``dict(model.named_modules())``. Left out, it
        is what the network's attribute ``cam_layer`` names, or if there is none, the last module
        whose output is a feature map of more than one voxel and does not come out of a pooling.
    placement
        As :func:`cam`.

    The other parameters and the return value are as :func:`voxplain.relevance.explain`.

    Raises
    ------
    SetupFault
        There is no such layer, it is called more than once, its map has one voxel (the heatmap
        would be the same everywhere), or the logit does not depend on it.

    Warns
    -----
    RuntimeWarning
        As :func:`cam`.
    """
    check_placement(placement)
    seen = look(model, scan, target, layer)
    return _positive(raw_grad_cam(seen), seen, scan.shape, placement)


def grad_cam_pp(
    model: nn.Module,
    scan: Tensor | np.ndarray,
    target: int,
    layer: str | None = None,
    placement: str = "receptive_field",
) -> np.ndarray:
    """Grad-CAM++: as Grad-CAM, but weights are sums of positive gradients, each by its own alpha.

    Chattopadhay et al. 2018 (arXiv 1710.11063), equations 10, 11 and 19, for the exponential of the
    logit. It is meant for layers behind a ReLU: with features below 0 alphas can be of any size.

    Parameters, return value, faults and warnings as :func:`grad_cam`.
    """
    check_placement(placement)
    seen = look(model, scan, target, layer)
    return _positive(raw_grad_cam_pp(seen), seen, scan.shape, placement)


def guided_grad_cam(
    model: nn.Module,
    scan: Tensor | np.ndarray,
    target: int,
    layer: str | None = None,
    placement: str = "receptive_field",
) -> np.ndarray:
    """Grad-CAM times guided backpropagation, both of the logit.

    Selvaraju et al. 2017 (arXiv 1610.02391), section 3.2; absolute value of the guided gradient.

    Parameters, return value, faults and warnings as :func:`grad_cam`, faults also as
    :func:`voxplain.relevance.gradient.guided_backprop`.
    """
    check_placement(placement)
    seen = look(model, scan, target, layer, guided=True)
    return _positive(raw_grad_cam(seen), seen, scan.shape, placement) * as_map(seen.guided)


def guided_grad_cam_pp(
    model: nn.Module,
    scan: Tensor | np.ndarray,
    target: int,
    layer: str | None = None,
    placement: str = "receptive_field",
) -> np.ndarray:
    """Grad-CAM++ times guided backpropagation, both of the logit.

    Chattopadhay et al. 2018 (arXiv 1710.11063), section 3.3.

    Parameters, return value, faults and warnings as :func:`guided_grad_cam`.
    """
    check_placement(placement)
    seen = look(model, scan, target, layer, guided=True)
    return _positive(raw_grad_cam_pp(seen), seen, scan.shape, placement) * as_map(seen.guided)


def _positive(raw: Tensor, seen: Seen, shape: Any, placement: str) -> np.ndarray:
    return bring_onto_grid(raw.clamp(min=0), seen.field, shape, placement)


# --- signed maps of the layer's own size ----------------------------------------------------------


@torch.no_grad()
def raw_cam(
    model: nn.Module, scan: Tensor | np.ndarray, target: int
) -> tuple[Tensor, Field | None]:
    """CAM with its sign, ``[x', y', z']`` float64, and where its voxels lie on the scan.

    Raises
    ------
    SetupFault
        As :func:`cam`.
    """
    batch = as_input(model, scan)
    layer = _last(follow(model, batch))
    denses: list[tuple[nn.Linear, Tensor, Tensor]] = []
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(batch.device.type, enabled=False))
        held = stack.enter_context(_held(model, layer))
        for module in model.modules():
            if isinstance(module, nn.Linear):
                handle = module.register_forward_hook(
                    lambda module, inputs, output: denses.append((module, inputs[0], output))
                )
                stack.callback(handle.remove)
        logits = model(batch.clone())
    check_target(logits, target)
    needs = "cam needs a network that ends in feature maps, their global average and one nn.Linear"
    if not denses or not torch.equal(denses[-1][2], logits):
        raise SetupFault(f"{needs}; this one's logits are no nn.Linear's output. Choose grad_cam")
    dense, averages, _ = denses[-1]
    features = held[0][0]
    means = features.mean(dim=(1, 2, 3), dtype=torch.float64)
    if averages.shape != (1, len(means)) or not torch.allclose(
        averages[0].double(), means, rtol=0, atol=1e-3 * float(features.abs().mean())
    ):
        raise SetupFault(
            f"{needs}; this one's last nn.Linear reads {list(averages.shape)} that are not the "
            f"means of {layer.name}'s {len(features)} maps. Choose grad_cam"
        )
    return _weighted(dense.weight[target].double(), features), layer.field


def raw_grad_cam(seen: Seen) -> Tensor:
    """Grad-CAM before its ReLU, ``[x', y', z']`` float64.

    Of a network for :func:`raw_cam` it is that, divided by the number of the map's voxels.
    """
    return _weighted(seen.gradient.mean(dim=(1, 2, 3), dtype=torch.float64), seen.features)


def raw_grad_cam_pp(seen: Seen) -> Tensor:
    """Grad-CAM++ before its last ReLU, ``[x', y', z']`` float64.

    The logit enters its exponential, a factor of the whole map, at most as 60 and at least as -60.
    """
    weights = []
    for maps, slopes in zip(seen.features, seen.gradient, strict=True):
        # One channel at a time: those of an early layer take gigabytes. The exponential is a factor
        # of all its derivatives, and falls out of alpha.
        slopes = slopes.double()
        second, third = slopes**2, slopes**3
        below = 2 * second + maps.sum(dtype=torch.float64) * third
        alphas = torch.where(below != 0, second / below, 0)
        weights.append((alphas * slopes.clamp(min=0)).sum())
    factor = math.exp(max(-_LARGEST_EXPONENT, min(seen.logit, _LARGEST_EXPONENT)))
    return factor * _weighted(torch.stack(weights), seen.features)


def _weighted(weights: Tensor, features: Tensor) -> Tensor:
    total = torch.zeros(features.shape[1:], dtype=torch.float64, device=features.device)
    for weight, one in zip(weights, features, strict=True):
        total.add_(one.double() * weight)
    return total


# --- the layer ------------------------------------------------------------------------------------


def look(
    model: nn.Module,
    scan: Tensor | np.ndarray,
    target: int,
    layer: str | None = None,
    guided: bool = False,
) -> Seen:
    """Run a scan through a network and differentiate the logit by a layer's output.

    Parameters
    ----------
    layer
        As :func:`grad_cam`.
    guided
        Whether to find the guided gradient by the scan too, from the same forward pass.

    Raises
    ------
    SetupFault
        As :func:`grad_cam` and :func:`guided_grad_cam`.
    """
    batch = as_input(model, scan)
    if guided:
        check_has_relus(model)
    chosen = _choose(model, follow(model, batch), layer)
    batch.requires_grad_(guided)
    with ExitStack() as stack:
        stack.enter_context(differentiating(model))
        # Before the layer's own hook: the layer may be a ReLU.
        relus = stack.enter_context(relus_called(model)) if guided else {}
        held = stack.enter_context(_held(model, chosen))
        score = logit(model(batch.clone()), target)
        gradient = None
        if score.requires_grad:
            (gradient,) = torch.autograd.grad(
                score, held[0], retain_graph=guided, allow_unused=True
            )
        if gradient is None:
            raise SetupFault(
                f"the logit does not depend on layer {chosen.name!r} through any gradient; "
                "name another in `layer`"
            )
        found = guided_slope(score, batch, relus) if guided else None
    return Seen(held[0].detach()[0], gradient[0], float(score.detach()), chosen.field, found)


@contextmanager
def _held(model: nn.Module, layer: Layer) -> Iterator[list[Tensor]]:
    """The output of a layer's call within, from which on gradients are recorded."""
    held: list[Tensor] = []

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        recorded = output if output.requires_grad else output.detach().requires_grad_()
        held.append(recorded)
        return recorded.clone()  # which what follows may change in place

    handle = model.get_submodule(layer.name).register_forward_hook(hook)
    try:
        yield held
    finally:
        handle.remove()


def _choose(model: nn.Module, layers: list[Layer], name: str | None) -> Layer:
    """The layer of a name, or without one that of the network's ``cam_layer``, or the last."""
    name = getattr(model, "cam_layer", None) if name is None else name
    if name is None:
        return _last([layer for layer in layers if not layer.pooled])
    calls = [layer for layer in layers if layer.name == name]
    if not calls:
        names = dict.fromkeys(layer.name for layer in layers if math.prod(layer.shape) > 1)
        raise SetupFault(
            f"the network has no layer {name!r} that gives a feature map [1, channel, x, y, z]; "
            f"those that do: {', '.join(names)}"
        )
    if len(calls) > 1:
        raise SetupFault(
            f"layer {name!r} is called {len(calls)} times in a pass, so its output is not one map; "
            "name another in `layer`"
        )
    if math.prod(calls[0].shape) == 1:
        raise SetupFault(
            f"the map of layer {name!r} has one voxel: its heatmap would be the same everywhere; "
            "name an earlier layer in `layer`"
        )
    return calls[0]


def _last(layers: list[Layer]) -> Layer:
    """The module that makes the last map of more than one voxel."""
    maps = [layer for layer in layers if math.prod(layer.shape) > 1]
    if not maps:
        raise SetupFault("no module of the network gives a feature map of more than one voxel")
    names = [layer.name for layer in maps]
    # Blocks and dropouts hand on the same map. A module that is called twice has no map of its own.
    same = [layer for layer in maps if layer.output is maps[-1].output]
    once = [layer for layer in same if names.count(layer.name) == 1]
    if not once:
        raise SetupFault(
            f"the last feature map is that of {same[0].name!r}, a module that is called twice; "
            "name another in `layer`"
        )
    return once[0]
