"""Shared first steps of all methods: input tensor, target, and gradients with little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import _BatchNorm

from voxplain.faults import SetupFault
from voxplain.relevance.behaviour import Head, behaviour_of, check_target
from voxplain.relevance.plain import place_of, plain_scan

# Beyond it the probability of one logit is 0 or 1 in float64.
_LARGEST_LOGIT = 36.0


def as_input(model: nn.Module, scan: torch.Tensor | np.ndarray) -> torch.Tensor:
    """A scan ``[x, y, z]`` as a batch of one ``[1, 1, x, y, z]`` on the network's device.

    Raises
    ------
    SetupFault
        The network or a part of it is in training mode, where dropout and batch statistics change
        its output, or it has batch norms without running statistics; or a voxel of the scan is no
        finite number.
    ValueError
        The scan does not have three axes.
    """
    if in_training(model):
        raise SetupFault("the network is in training mode; call model.eval() before explaining it")
    if any(isinstance(m, _BatchNorm) and m.running_mean is None for m in model.modules()):
        raise SetupFault(
            "the network has a batch norm without running statistics (track_running_stats=False): "
            "what it says of a scan depends on the other scans of a batch"
        )
    values = plain_scan(scan)
    device, dtype = place_of(model)
    batch = values.to(device or values.device, dtype)[None, None]
    if not torch.isfinite(batch).all():
        raise SetupFault(
            f"the scan has values beyond {dtype}, in which the network computes; normalise it"
        )
    return batch


def in_training(model: nn.Module) -> bool:
    """Whether a network or a part of it is in training mode; a frozen network cannot be."""
    return any(getattr(module, "training", False) for module in model.modules())


def logit(model: nn.Module, outputs: Tensor, target: int) -> Tensor:
    """Logit of the target, a scalar.

    A network with one output z has two classes, of the logits -z and z.

    Parameters
    ----------
    model
        The network of the outputs.
    outputs
        ``[1, classes]``, or ``[1, 1]``.

    Raises
    ------
    SetupFault
        The outputs have another shape, there is no such class, or the network ends in a softmax or
        sigmoid.
    """
    check_target(outputs, target)
    head = behaviour_of(model).head
    if head is not Head.LOGITS:
        raise SetupFault(
            f"the method explains the logit, and the network gives {head.value} (it ends in a "
            "softmax, log-softmax or sigmoid); explain the network without that last step"
        )
    return outputs[0, column_of(outputs, target)] * sign_of(outputs, target)


def probability(model: nn.Module, outputs: Tensor, target: int) -> Tensor:
    """Probability of the target, a scalar; parameters and faults as :func:`logit`.

    Of one logit z, class 1 has the probability sigmoid(z) and class 0 the rest. It is float64, in
    which it has a gradient also where it is near 1.
    """
    check_target(outputs, target)
    return probabilities(model, outputs)[0, target]


def probabilities(model: nn.Module, outputs: Tensor) -> Tensor:
    """Probabilities of the classes ``[batch, classes]`` float64; parameters as :func:`logit`."""
    outputs, head = outputs.double(), behaviour_of(model).head
    if outputs.shape[1] == 1 and head is Head.PROBABILITIES:
        return torch.cat([1 - outputs, outputs], dim=1)
    if head is Head.PROBABILITIES:
        return outputs
    if outputs.shape[1] == 1:
        if bool((outputs.detach().abs() > _LARGEST_LOGIT).any()):
            raise SetupFault(
                f"the network's only output is {float(outputs.detach().flatten()[0]):.5g}: read as "
                "a logit its probability is 0 or 1 to the last digit, and heatmaps of it are 0; of "
                "a regression choose a method that explains the logit, such as grad_cam"
            )
        outputs = torch.cat([torch.zeros_like(outputs), outputs], dim=1)
    return torch.softmax(outputs, dim=1)  # of log-probabilities it is their exponential


def column_of(outputs: Tensor, target: int) -> int:
    """Number of the output from which the target's logit is taken."""
    return target if outputs.shape[1] > 1 else 0


def sign_of(outputs: Tensor, target: int) -> int:
    """1, or -1 where the logit of the target is minus the network's output."""
    return -1 if outputs.shape[1] == 1 and target == 0 else 1


@contextmanager
def differentiating(model: nn.Module) -> Iterator[None]:
    """Context in which gradients by the scan or by feature maps take little memory.

    No parameter requires a gradient. Modules save only what the gradient by their input needs: 3D
    batch norms, whose statistics are fixed in eval mode, and convolutions save nothing; ReLUs save
    where their output is above 0. In the first layers of a network at 1 mm, each saved map would
    take a gigabyte. Sums are exact (no TF32, no autocast). The network is restored afterwards.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # A subclass, or a module with a replaced forward, may compute anything.
    replaced = [m for m in model.modules() if type(m) in _SPARING and "forward" not in vars(m)]
    device = (place_of(model)[0] or torch.device("cpu")).type
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        for module in replaced:
            module.forward = _SPARING[type(module)](module)
        with ExitStack() as stack:
            stack.enter_context(torch.enable_grad())
            stack.enter_context(torch.autocast(device, enabled=False))
            stack.enter_context(
                torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
            )
            yield
    finally:
        for module in replaced:
            vars(module).pop("forward", None)
        for parameter in trainable:
            parameter.requires_grad_()


def affine_of(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Factor and shift of each channel of a batch norm in eval mode, float64."""
    factor = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight.detach().double()
    shift = -norm.running_mean.double() * factor
    return factor, shift if norm.bias is None else shift + norm.bias.detach().double()


def _sparing_norm(norm: nn.BatchNorm3d) -> Callable[[Tensor], Tensor]:
    """A batch norm as a product and a sum; factors computed in float64, rounded once."""
    factor, shift = (
        number.to(norm.running_mean.dtype).view(-1, 1, 1, 1) for number in affine_of(norm)
    )
    return lambda maps: (maps * factor).add_(shift)


def _sparing_convolution(convolution: nn.Conv3d) -> Callable[[Tensor], Tensor]:
    """A convolution that does not save its input, which only the weights' gradient needs."""

    def forward(maps: Tensor) -> Tensor:
        place, like = maps.data_ptr(), (maps.shape, maps.dtype, maps.device)

        def pack(saved: Tensor) -> Any:
            return like if (saved.data_ptr(), saved.shape) == (place, like[0]) else saved

        def unpack(saved: Any) -> Tensor:
            if isinstance(saved, Tensor):
                return saved
            # On a CPU, memory that is never written to is not allocated.
            shape, dtype, device = saved
            return torch.empty(shape, dtype=dtype, device=device)

        with saved_tensors_hooks(pack, unpack):
            return nn.Conv3d.forward(convolution, maps)

    return forward


def _sparing_relu(relu: nn.ReLU) -> Callable[[Tensor], Tensor]:
    """A ReLU that saves where its output is above 0, a quarter of the memory of the output."""

    def forward(maps: Tensor) -> Tensor:
        dtype = maps.dtype
        with saved_tensors_hooks(lambda saved: saved > 0, lambda saved: saved.to(dtype)):
            return nn.ReLU.forward(relu, maps)

    return forward


_SPARING = {
    nn.BatchNorm3d: _sparing_norm,
    nn.Conv3d: _sparing_convolution,
    nn.ReLU: _sparing_relu,
}
