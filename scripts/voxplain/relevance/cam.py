"""Methods that weight the feature maps of a layer: class activation maps (CAM) and Grad-CAM.

All explain the logit. A map belongs to one layer, so it is coarse. It is brought onto the grid of
the scan by the receptive fields of the layer's voxels (:mod:`voxplain.relevance.placement`). Only
the part of the network after the layer is differentiated. The methods do not use captum: it
differentiates the whole network for a Grad-CAM, enlarges guided maps by the nearest voxel, and has
no Grad-CAM++.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from voxplain.faults import SetupFault
from voxplain.relevance.behaviour import run
from voxplain.relevance.gradient import as_map, check_has_relus, guided_slope, relus_called
from voxplain.relevance.inputs import as_input, column_of, differentiating, logit, sign_of
from voxplain.relevance.placement import Field, Layer, bring_onto_grid, check_placement, follow
from voxplain.relevance.rectifiers import RefusingMasks
from voxplain.relevance.slopes import check_slope, check_slope_of, first_time_of_slope

# The exponential of a larger logit approaches the limits of float32.
_LARGEST_EXPONENT = 60.0
# Mean gradients that are no larger than this part of the mean absolute ones are rounding.
_CANCELLED = 1e-6


@dataclass(frozen=True)
class LayerActivations:
    """Activations of a layer for one scan, and the gradient of the logit.

    Attributes
    ----------
    features
        ``[channel, x', y', z']``, output of the layer.
    gradient
        Gradient of the logit with respect to ``features``, of the same shape.
    logit
        Logit of the target.
    field
        Receptive fields of the voxels on the scan; None if unknown.
    guided
        ``[1, 1, x, y, z]``, guided gradient of the logit with respect to the scan; None if it was
        not requested.
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
    """Absolute value of the sum of feature maps times their weights for the target class.

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
        The receptive fields are unknown, so the maps are stretched over the scan.
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
    """Positive part of the sum of feature maps, weighted by the mean gradient of the logit.

    Selvaraju et al. 2017 (arXiv 1610.02391), equations 1 and 2, the mean taken over all three axes.

    Parameters
    ----------
    layer
        Name of the module whose output is read, as in ``dict(model.named_modules())``. The default
        is the network's attribute ``cam_layer``. Without that attribute it is the last module whose
        output is a feature map of more than one voxel that does not come directly from a pooling.
    placement
        As :func:`cam`.

    The other parameters and the return value are as :func:`voxplain.relevance.explain`.

    Raises
    ------
    SetupFault
        There is no such layer, it is called more than once, its map has one voxel (the heatmap
        would be constant), or the logit does not depend on it.

    Warns
    -----
    RuntimeWarning
        As :func:`cam`.
    """
    check_placement(placement)
    activations = activations_of_layer(model, scan, target, layer)
    return _positive(raw_grad_cam(activations), activations, scan.shape, placement)


def grad_cam_pp(
    model: nn.Module,
    scan: Tensor | np.ndarray,
    target: int,
    layer: str | None = None,
    placement: str = "receptive_field",
) -> np.ndarray:
    """Grad-CAM++: as Grad-CAM, but the weights are sums of positive gradients times their alphas.

    Chattopadhay et al. 2018 (arXiv 1710.11063), equations 10, 11 and 19, for the exponential of the
    logit. It is meant for layers after a ReLU: with features below 0, alphas can be of any size.

    Parameters, return value, faults and warnings as :func:`grad_cam`.
    """
    check_placement(placement)
    activations = activations_of_layer(model, scan, target, layer)
    return _positive(raw_grad_cam_pp(activations), activations, scan.shape, placement)


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
    activations = activations_of_layer(model, scan, target, layer, guided=True)
    return _positive(raw_grad_cam(activations), activations, scan.shape, placement) * as_map(
        activations.guided
    )


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
    activations = activations_of_layer(model, scan, target, layer, guided=True)
    return _positive(raw_grad_cam_pp(activations), activations, scan.shape, placement) * as_map(
        activations.guided
    )


def _positive(raw: Tensor, activations: LayerActivations, shape: Any, placement: str) -> np.ndarray:
    return bring_onto_grid(raw.clamp(min=0), activations.field, shape, placement)


# --- signed maps of the layer's own size ----------------------------------------------------------


@torch.no_grad()
def raw_cam(
    model: nn.Module, scan: Tensor | np.ndarray, target: int
) -> tuple[Tensor, Field | None]:
    """CAM with its sign, ``[x', y', z']`` float64, and the receptive fields of its voxels.

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
        outputs = stack.enter_context(_output_of(model, layer))
        for module in model.modules():
            if isinstance(module, nn.Linear):
                handle = module.register_forward_hook(
                    # Copies: what follows may change them in place.
                    lambda module, inputs, output: denses.append(
                        (module, inputs[0].clone(), output.clone())
                    )
                )
                stack.callback(handle.remove)
        logits = model(batch.clone())
    logit(model, logits, target)
    needs = "cam needs a network that ends in feature maps, their global average and one nn.Linear"
    if not denses or not torch.equal(denses[-1][2], logits):
        raise SetupFault(f"{needs}; this one's logits are no nn.Linear's output. Choose grad_cam")
    dense, averages, _ = denses[-1]
    features = outputs[0][0]
    means = features.mean(dim=(1, 2, 3), dtype=torch.float64)
    if averages.shape != (1, len(means)) or not torch.allclose(
        averages[0].double(), means, rtol=0, atol=1e-3 * float(features.abs().mean())
    ):
        raise SetupFault(
            f"{needs}; this one's last nn.Linear reads {list(averages.shape)} that are not the "
            f"means of {layer.name}'s {len(features)} maps. Choose grad_cam"
        )
    weights = dense.weight[column_of(logits, target)].double() * sign_of(logits, target)
    return _weighted(weights, features), layer.field


def raw_grad_cam(activations: LayerActivations) -> Tensor:
    """Grad-CAM before its ReLU, ``[x', y', z']`` float64.

    For a network that :func:`raw_cam` accepts, it is the CAM divided by the voxels of the map.

    Raises
    ------
    SetupFault
        The mean gradients are 0 up to rounding though the gradients are not, as before a softmax
        over the voxels.
    """
    means, sizes = (
        values.mean(dim=(1, 2, 3), dtype=torch.float64)
        for values in (activations.gradient, activations.gradient.abs())
    )
    if sizes.max() > 0 and means.abs().max() <= _CANCELLED * sizes.max():
        raise SetupFault(
            "the gradients by the layer's voxels cancel each other, as before a softmax over the "
            "voxels: their mean, by which grad_cam weights the maps, is 0 up to rounding; name "
            "another in `layer`"
        )
    return _weighted(means, activations.features)


def raw_grad_cam_pp(activations: LayerActivations) -> Tensor:
    """Grad-CAM++ before its last ReLU, ``[x', y', z']`` float64.

    The exponential of the logit is a factor of the whole map; the logit is clipped to -60 to 60.
    """
    weights = []
    for maps, slopes in zip(activations.features, activations.gradient, strict=True):
        # One channel at a time: all channels of an early layer take gigabytes. The exponential is
        # a factor of all its derivatives and cancels in alpha.
        slopes = slopes.double()
        second, third = slopes**2, slopes**3
        below = 2 * second + maps.sum(dtype=torch.float64) * third
        alphas = torch.where(below != 0, second / below, 0)
        weights.append((alphas * slopes.clamp(min=0)).sum())
    factor = math.exp(max(-_LARGEST_EXPONENT, min(activations.logit, _LARGEST_EXPONENT)))
    return factor * _weighted(torch.stack(weights), activations.features)


def _weighted(weights: Tensor, features: Tensor) -> Tensor:
    total = torch.zeros(features.shape[1:], dtype=torch.float64, device=features.device)
    for weight, one in zip(weights, features, strict=True):
        total.add_(one.double() * weight)
    return total


# --- the layer ------------------------------------------------------------------------------------


def activations_of_layer(
    model: nn.Module,
    scan: Tensor | np.ndarray,
    target: int,
    layer: str | None = None,
    guided: bool = False,
) -> LayerActivations:
    """Activations of a layer for a scan, and the gradient of the logit with respect to them.

    Parameters
    ----------
    layer
        As :func:`grad_cam`.
    guided
        Whether to compute the guided gradient by the scan too, from the same forward pass.

    Raises
    ------
    SetupFault
        As :func:`grad_cam` and :func:`guided_grad_cam`.
    """
    batch = as_input(model, scan)
    if guided:
        check_has_relus(model)
    chosen = _choose(model, follow(model, batch), layer)
    _check_slope_of_layer(model, batch, chosen)
    batch.requires_grad_(guided)
    with ExitStack() as stack:
        stack.enter_context(differentiating(model))
        # Before the hook of the layer itself: the layer may be a ReLU.
        relus = stack.enter_context(relus_called(model)) if guided else {}
        outputs = stack.enter_context(_output_of(model, chosen))
        with RefusingMasks() if guided else nullcontext():
            logits = model(batch.clone())
        score = logit(model, logits, target)
        gradient = None
        if score.requires_grad:
            (gradient,) = torch.autograd.grad(
                score, outputs[0], retain_graph=guided, allow_unused=True
            )
        if gradient is None:
            raise SetupFault(
                f"the logit does not depend on layer {chosen.name!r} through any gradient; "
                "name another in `layer`"
            )
        guided_gradient = guided_slope(score, batch, relus) if guided else None
    if guided:
        check_slope(model, batch)
    return LayerActivations(
        outputs[0].detach()[0], gradient[0], float(score.detach()), chosen.field, guided_gradient
    )


def _check_slope_of_layer(model: nn.Module, batch: Tensor, layer: Layer) -> None:
    """Check that the gradient by the layer's output is the slope, once a network and layer."""
    check = "layer", layer.name
    if not first_time_of_slope(model, check, batch):
        return
    with torch.no_grad(), _output_of(model, layer) as outputs:
        run(model, batch)

    def from_layer(point: Tensor) -> Tensor:
        handle = model.get_submodule(layer.name).register_forward_hook(
            lambda module, inputs, output: point.clone()
        )
        try:
            return model(batch.to(point.dtype, copy=True))  # it may write to its input
        finally:
            handle.remove()

    by = f"by the output of layer {layer.name!r}"
    check_slope_of(model, outputs[0], from_layer, check, by, batch.numel())


@contextmanager
def _output_of(model: nn.Module, layer: Layer) -> Iterator[list[Tensor]]:
    """List that holds the output of the layer after a call; gradients are recorded from there."""
    outputs: list[Tensor] = []

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        recorded = output if output.requires_grad else output.detach().requires_grad_()
        outputs.append(recorded)
        return recorded.clone()  # later layers may change it in place

    handle = model.get_submodule(layer.name).register_forward_hook(hook)
    try:
        yield outputs
    finally:
        handle.remove()


def _choose(model: nn.Module, layers: list[Layer], name: str | None) -> Layer:
    """The layer of that name; without a name that of ``cam_layer``, else the last layer."""
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
    """The module whose output is the last map of more than one voxel."""
    maps = [layer for layer in layers if math.prod(layer.shape) > 1]
    if not maps:
        raise SetupFault(
            "no module of the network gives a feature map of more than one voxel (those of a "
            "scripted, traced or frozen network do not show theirs: explain it as it was before)"
        )
    names = [layer.name for layer in maps]
    # Blocks and dropouts pass on the same map. A module that is called twice has no single map.
    same = [layer for layer in maps if layer.output is maps[-1].output]
    once = [layer for layer in same if names.count(layer.name) == 1]
    if not once:
        raise SetupFault(
            f"the last feature map is that of {same[0].name!r}, a module that is called twice; "
            "name another in `layer`"
        )
    return once[0]
