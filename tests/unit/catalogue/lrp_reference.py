"""LRP with the rules of `epsilon_plus`, by another way than the library: as gradients of autograd.

Whatever functions a network calls, each is replaced while it runs by one whose backward step is the
rule, and relevance takes the place of the gradient. Sequences, branches and changes of shape are
left to autograd.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.overrides import TorchFunctionMode

_EPSILON = 1e-6
_SAME = {
    functional.dropout, torch.flatten, Tensor.flatten, Tensor.view, Tensor.reshape, torch.reshape,
    Tensor.squeeze, torch.squeeze, Tensor.clone, functional.max_pool3d, torch.max_pool3d,
    Tensor.size, Tensor.dim, Tensor.unflatten, Tensor.contiguous, functional.dropout3d,
}  # fmt: skip
_ADDS = {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__}
_RELUS = {functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
_MEANS = {
    functional.avg_pool3d, functional.adaptive_avg_pool3d, torch.mean, Tensor.mean,
    torch._C._nn.avg_pool3d,
}  # fmt: skip


class NoRuleError(Exception):
    """A network calls a function without a rule."""


def relevance_of(
    model: nn.Module, scan: Tensor, target: int, merged: tuple[tuple[str, str], ...]
) -> np.ndarray:
    """Signed relevance ``[x, y, z]`` of the voxels of a scan for a logit.

    Parameters
    ----------
    model
        In eval mode and float64; it is changed.
    merged
        As :class:`catalogue.entries.Entry`.
    """
    for name, parent in list(model.named_modules()):
        parts = list(parent.named_children()) if isinstance(parent, nn.Sequential) else []
        prefix = f"{name}." if name else ""
        for (one, layer), (two, norm) in itertools.pairwise(parts):
            if isinstance(layer, (nn.Conv3d, nn.Linear)) and isinstance(
                norm, (nn.BatchNorm3d, nn.BatchNorm1d)
            ):
                merged = (*merged, (prefix + one, prefix + two))
    for one, two in merged:
        layer, norm = model.get_submodule(one), model.get_submodule(two)
        fuse = fuse_conv_bn_eval if isinstance(layer, nn.Conv3d) else fuse_linear_bn_eval
        _replace(model, one, fuse(layer, norm))
        _replace(model, two, nn.Identity())
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    read = scan.detach().clone()[None, None].requires_grad_()
    with _Rules():
        logits = model(read)
    first = torch.zeros_like(logits)
    if logits.shape[1] == 1:  # of the second class of two
        first[:] = (2 * target - 1) * logits.detach()
    else:
        first[:, target] = logits.detach()[:, target]
    (relevance,) = torch.autograd.grad(logits, read, first)
    return relevance[0, 0].numpy()


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


class _Rules(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        maps = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
        if not maps or func in _SAME or getattr(func, "__name__", "") == "__get__":
            return func(*args, **kwargs)
        if func in (torch.conv3d, functional.conv3d):
            values, weight, bias, *rest = args
            shift = 0 if bias is None else bias.view(-1, 1, 1, 1)
            linear = lambda x, w: torch.conv3d(x, w, None, *rest, **kwargs)  # noqa: E731
            return _Share.apply(values, weight, shift, linear, False)
        if func is functional.linear:
            values, weight, bias = (*args, None)[:3]
            shift = 0 if bias is None else bias
            return _Share.apply(values, weight, shift, functional.linear, True)
        if func is functional.batch_norm:
            values, mean, variance = args
            factor = (variance + kwargs["eps"]).rsqrt()
            factor = factor if kwargs["weight"] is None else factor * kwargs["weight"]
            shift = -factor * mean
            shift = shift if kwargs["bias"] is None else shift + kwargs["bias"]
            shape = (-1, *[1] * (values.ndim - 2))
            return _Share.apply(values, factor.view(shape), shift.view(shape), torch.mul, False)
        if func in _RELUS:
            return _Relu.apply(args[0])
        if func in _ADDS and len(maps) == 2:
            two = torch.stack(args)
            linear = lambda x, w: (x * w).sum(0)  # noqa: E731
            return _Share.apply(two, torch.ones(2, *[1] * maps[0].ndim).double(), 0, linear, False)
        if func in _MEANS:
            linear = lambda x, w: func(x, *args[1:], **kwargs) * w  # noqa: E731
            return _Share.apply(args[0], torch.ones(()).double(), 0, linear, False)
        raise NoRuleError(f"no rule for {func}")


class _Relu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> Tensor:
        return relevance


class _Share(torch.autograd.Function):
    """A linear function, whose outputs share their relevance among its inputs."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        weight: Tensor,
        bias: Any,
        linear: Callable[[Tensor, Tensor], Tensor],
        dense: bool,
    ) -> Tensor:
        ctx.given = values.detach(), weight.detach(), torch.as_tensor(bias), linear, dense
        return linear(values, weight) + bias

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor | None, ...]:
        values, weight, bias, linear, dense = ctx.given

        def pull(share: Tensor, weights: Tensor) -> Tensor:
            """The transposed linear function."""
            with torch.enable_grad():
                read = torch.zeros_like(values).requires_grad_()
                return torch.autograd.grad(linear(read, weights), read, share)[0]

        outputs = linear(values, weight) + bias
        if dense:
            sign = torch.where(outputs < 0, -1.0, 1.0)
            found = values * pull(relevance / (outputs + _EPSILON * sign), weight)
            return found, None, None, None, None
        found = torch.zeros_like(values)
        above, below = values.clamp(min=0), values.clamp(max=0)
        for positive in (True, False):
            with_sign, against = weight.clamp(min=0), weight.clamp(max=0)
            if not positive:
                with_sign, against = against, with_sign
            total = linear(above, with_sign) + linear(below, against)
            total = total + (bias.clamp(min=0) if positive else bias.clamp(max=0))
            concerned = (outputs >= 0) == positive
            share = torch.where(concerned & (total != 0), relevance / total, 0.0)
            share = torch.nan_to_num(share)
            found += above * pull(share, with_sign) + below * pull(share, against)
        return found, None, None, None, None
