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


def shape_of(scan: torch.Tensor | np.ndarray) -> tuple[int, int, int]:
    """Voxels of a scan along x, y, z.

    Raises
    ------
    ValueError
        It does not have three axes.
    """
    if scan.ndim != 3:
        raise ValueError(f"a scan has three axes, this one has shape {tuple(scan.shape)}")
    return tuple(scan.shape)


def as_input(model: nn.Module, scan: torch.Tensor | np.ndarray) -> torch.Tensor:
    """A scan ``[x, y, z]`` as a batch of one ``[1, 1, x, y, z]`` on the network's device.

    Raises
    ------
    SetupFault
        The network or a part of it is in training mode, where dropout and batch statistics change
        its output, or it has batch norms without running statistics.
    ValueError
        The scan does not have three axes.
    """
    if any(module.training for module in model.modules()):
        raise SetupFault("the network is in training mode; call model.eval() before explaining it")
    if any(isinstance(m, _BatchNorm) and m.running_mean is None for m in model.modules()):
        raise SetupFault(
            "the network has a batch norm without running statistics (track_running_stats=False): "
            "what it says of a scan depends on the other scans of a batch"
        )
    shape_of(scan)
    if isinstance(scan, np.ndarray):
        scan = np.ascontiguousarray(scan)  # torch refuses an array with a flipped axis
    parameter = next(model.parameters())
    return torch.as_tensor(scan).detach().to(parameter.device, parameter.dtype)[None, None]


def logit(logits: Tensor, target: int) -> Tensor:
    """Logit of the target, a scalar.

    Parameters
    ----------
    logits
        ``[1, classes]``.

    Raises
    ------
    SetupFault
        The logits have another shape, or there is no such class.
    """
    check_target(logits, target)
    return logits[0, target]


def probability(logits: Tensor, target: int) -> Tensor:
    """Softmax probability of the target, a scalar; parameters and faults as :func:`logit`."""
    check_target(logits, target)
    return torch.softmax(logits, dim=1)[0, target]


def check_target(logits: Tensor, target: int) -> None:
    """Check that the network has the class; parameters and faults as :func:`logit`."""
    if logits.ndim != 2 or logits.shape[0] != 1:
        raise SetupFault(
            f"the network gives {list(logits.shape)} for one scan; expected logits [1, classes]"
        )
    if not 0 <= target < logits.shape[1]:
        raise SetupFault(
            f"the target is class {target}, and the network has {logits.shape[1]} classes, "
            f"0 to {logits.shape[1] - 1}"
        )


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
    device = next(model.parameters()).device.type
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
