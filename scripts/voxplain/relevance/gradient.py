"""Methods that use the gradient of the probability with respect to the voxels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from captum.attr import Saliency
from torch import Tensor, nn
from tqdm import tqdm

from voxplain.faults import SetupFault
from voxplain.relevance.behaviour import first_line
from voxplain.relevance.inputs import as_input, differentiating, probability
from voxplain.relevance.plain import shape_of
from voxplain.relevance.rectifiers import RefusingMasks, check_is_no_rectifier, kind_of
from voxplain.relevance.slopes import check_slope


def sensitivity(model: nn.Module, scan: Tensor | np.ndarray, target: int) -> np.ndarray:
    """|d p(target) / d voxel|, with p the softmax probability.

    Simonyan et al. 2014 (arXiv 1312.6034), section 3; Rieke et al. 2018, section 2.3.

    Parameters and return value as :func:`voxplain.relevance.explain`.

    Raises
    ------
    SetupFault
        As :func:`voxplain.relevance.slopes.check_slope`.
    """
    batch = as_input(model, scan)
    check_slope(model, batch)
    with differentiating(model):
        return as_map(slope(model, batch, target))


def slope(model: nn.Module, batch: Tensor, target: int) -> Tensor:
    """Signed d p(target) / d voxel of a scan, ``[1, 1, x, y, z]``.

    Call it within :func:`voxplain.relevance.inputs.differentiating`.
    """

    def forward(scans: Tensor) -> Tensor:
        # A copy, since a network may write to its input.
        return probability(model, model(scans.clone()), target)[None]

    return Saliency(forward).attribute(batch.detach().requires_grad_(), abs=False)


def guided_backprop(model: nn.Module, scan: Tensor | np.ndarray, target: int) -> np.ndarray:
    """The gradient with its negative entries set to 0 at every ReLU of the backward pass.

    Springenberg et al. 2015 (arXiv 1412.6806); absolute value as in Rieke et al. 2018. It does not
    use captum, which applies its rule to the tensor that enters a ReLU: if another layer reads that
    tensor too, its part of the gradient is clipped as well. Gates (sigmoid, tanh) keep their plain
    gradient.

    Parameters and return value as :func:`voxplain.relevance.explain`.

    Raises
    ------
    SetupFault
        The network has no ``nn.ReLU`` module, a ReLU that is not a module (``torch.relu``), another
        rectifier such as LeakyReLU or a product with ``h > 0``, for which the paper has no rule, or
        code that hides its ReLUs. The result would be the plain gradient without a warning.
    """
    batch = as_input(model, scan).requires_grad_()
    check_has_relus(model)
    with differentiating(model), relus_called(model) as relus:
        with RefusingMasks():
            outputs = model(batch.clone())
        score = probability(model, outputs, target)
        heatmap = as_map(guided_slope(score, batch, relus))
    # Afterwards, since what hides a ReLU is named above.
    check_slope(model, batch)
    return heatmap


def check_has_relus(model: nn.Module) -> None:
    """Check that a network has an ``nn.ReLU``, before it runs.

    Raises
    ------
    SetupFault
        It has no ``nn.ReLU``.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise SetupFault(
            "guided_backprop needs the network's ReLUs as nn.ReLU modules, and a scripted network "
            "does not show them; explain it as it was before torch.jit"
        )
    if not any(isinstance(module, nn.ReLU) for module in model.modules()):
        raise SetupFault(
            "guided_backprop needs the network's ReLUs as nn.ReLU modules, and this one has none; "
            "with torch.relu or functional.relu it would equal sensitivity"
        )


@contextmanager
def relus_called(model: nn.Module) -> Iterator[dict[Any, str]]:
    """Backward step to module name, for the ``nn.ReLU`` modules called within the context.

    Raises
    ------
    SetupFault
        A ReLU runs without recorded gradients, or in place on a part of a tensor.
    """
    steps: dict[Any, str] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if not torch.is_grad_enabled():
                raise SetupFault(
                    f"guided_backprop cannot act on the ReLU {name!r}: it runs without gradients "
                    "(reentrant checkpointing or torch.no_grad); switch that off for explaining"
                )
            if not output.requires_grad:
                return  # does not depend on the scan
            if kind_of(output.grad_fn) != "ReluBackward":
                raise SetupFault(
                    f"guided_backprop cannot act on the ReLU {name!r}: it works in place on a view "
                    "of another tensor, or is no plain ReLU; set inplace=False"
                )
            steps[output.grad_fn] = name

        return hook

    # Before all other hooks, which may replace the output.
    handles = [
        module.register_forward_hook(note(name), prepend=True)
        for name, module in model.named_modules()
        if isinstance(module, nn.ReLU)
    ]
    try:
        yield steps
    finally:
        for handle in handles:
            handle.remove()


def guided_slope(score: Tensor, batch: Tensor, relus: dict[Any, str]) -> Tensor:
    """Guided gradient of a score by the scan, in the scan's shape; it frees the score's graph.

    Parameters
    ----------
    relus
        From :func:`relus_called`, around the forward pass of the score.

    Raises
    ------
    SetupFault
        As :func:`guided_backprop`.
    """
    _check_every_rectifier(score, relus)

    def clip(to_input: tuple[Tensor, ...], to_output: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (to_input[0].clamp(min=0),)

    for step in relus:
        step.register_hook(clip)
    try:
        return torch.autograd.grad(score, batch)[0]
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a part of the network without a backward pass
        raise SetupFault(f"the network cannot be differentiated: {first_line(error)}") from error


def _check_every_rectifier(score: Tensor, relus: dict[Any, str]) -> None:
    """Raise SetupFault if the graph has a rectifier that is not one of the known ReLUs."""
    if score.grad_fn is None:
        raise SetupFault("the network's output does not depend on the scan through any gradient")
    seen, waiting = {score.grad_fn}, [score.grad_fn]
    while waiting:
        step = waiting.pop()
        if step not in relus:
            check_is_no_rectifier(step)
        following = {before for before, _ in step.next_functions if before is not None} - seen
        seen |= following
        waiting.extend(following)
    if not seen & relus.keys():
        raise SetupFault(
            "guided_backprop found no nn.ReLU between the scan and the class's output: "
            "it would equal sensitivity"
        )


def smoothgrad(
    model: nn.Module,
    scan: Tensor | np.ndarray,
    target: int,
    samples: int = 25,
    noise: float = 0.1,
    seed: int = 0,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """|Mean gradient of the probability| over noisy copies of the scan.

    Smilkov et al. 2017 (arXiv 1706.03825), section 3.1. It does not use captum, whose NoiseTunnel
    draws from torch's global generator.

    Parameters
    ----------
    samples
        Number of copies; one is in memory at a time.
    noise
        SD of the Gaussian noise, as a fraction of the scan's range (inside the mask).
    seed
        Seed of the noise; torch's global generator is not used.
    mask
        ``[x, y, z]`` bool: voxels that get noise. Default: all voxels.

    The other parameters and the return value are as :func:`voxplain.relevance.explain`.

    Raises
    ------
    SetupFault
        ``samples`` is below 1, the noise is below 0, or the mask is empty.
    ValueError
        The mask is not on the scan's grid.
    """
    if samples < 1 or noise < 0:
        raise SetupFault(
            f"smoothgrad takes at least 1 sample and noise from 0 on, not {samples} and {noise}"
        )
    batch = as_input(model, scan)
    noisy = torch.ones(shape_of(scan), dtype=torch.bool, device=batch.device)
    if mask is not None:
        if mask.shape != shape_of(scan):
            raise ValueError(f"mask {mask.shape} lies not on the scan's grid {shape_of(scan)}")
        noisy = torch.as_tensor(np.array(mask, bool)).to(batch.device)
        if not noisy.any():
            raise SetupFault("smoothgrad's mask has no voxel")
    check_slope(model, batch)
    values = batch[0, 0][noisy]
    sd = noise * (values.max() - values.min()) * noisy
    draw = torch.Generator(batch.device).manual_seed(seed)
    total = torch.zeros_like(batch)
    with differentiating(model):
        for _ in tqdm(range(samples), desc="smoothgrad", unit="sample", mininterval=5):
            shift = torch.randn(
                batch.shape, generator=draw, dtype=batch.dtype, device=batch.device
            ).mul_(sd)
            total += slope(model, batch + shift, target)
    return as_map(total / samples)


def integrated_gradients(
    model: nn.Module, scan: Tensor | np.ndarray, target: int, steps: int = 50
) -> np.ndarray:
    """|Voxel times its mean gradient of the probability| along the line from 0 to the scan.

    Sundararajan et al. 2017 (arXiv 1703.01365), equation 1, with the baseline 0, the mean of the
    training scans.

    Parameters
    ----------
    steps
        Points of the Gauss-Legendre quadrature; one is in memory at a time.

    The other parameters and the return value are as :func:`voxplain.relevance.explain`.

    Raises
    ------
    SetupFault
        ``steps`` is below 1.
    """
    return as_map(signed_integrated_gradients(model, as_input(model, scan), target, steps))


def signed_integrated_gradients(model: nn.Module, batch: Tensor, target: int, steps: int) -> Tensor:
    """Integrated gradients with their signs, ``[1, 1, x, y, z]``.

    Their sum is p(scan) - p(0), up to the error of the quadrature. With 50 steps it is rounding
    error for a smooth network, and some percent for a network with ReLUs, where gradients jump.

    Raises
    ------
    SetupFault
        As :func:`integrated_gradients`.
    """
    if steps < 1:
        raise SetupFault(f"integrated_gradients takes at least 1 step, not {steps}")
    check_slope(model, batch)
    # Nodes on [-1, 1] are mapped to [0, 1].
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros_like(batch)
    with differentiating(model):
        points = tqdm(
            zip((nodes + 1) / 2, weights / 2, strict=True),
            total=steps,
            desc="integrated gradients",
            unit="step",
            mininterval=5,
        )
        for part, weight in points:
            total.add_(slope(model, batch * part, target), alpha=weight)
    return total * batch


def as_map(signed: Tensor) -> np.ndarray:
    """The absolute values of ``[1, 1, x, y, z]`` as a heatmap ``[x, y, z]`` float32."""
    return signed.detach()[0, 0].abs().float().cpu().numpy()
