"""Rectifiers in a network that guided backpropagation has no rule for.

The rule is that of ``nn.ReLU`` modules. Anything else that bends, a piecewise linear function of
the activations, would get its plain gradient: the map would be something between the two methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from voxplain.faults import SetupFault

# Backward step in torch to the activation, for activations without a guided rule.
_OTHER_RECTIFIERS = {
    "LeakyReluBackward": "LeakyReLU",
    "PreluKernelBackward": "PReLU",
    "RreluWithNoiseBackward": "RReLU",
    "EluBackward": "ELU or SELU",
    "CeluBackward": "CELU",
    "GeluBackward": "GELU",
    "SiluBackward": "SiLU",
    "MishBackward": "Mish",
    "SoftplusBackward": "Softplus",
    "HardswishBackward": "Hardswish",
    "HardsigmoidBackward": "Hardsigmoid",
    "HardtanhBackward": "ReLU6 or Hardtanh",
    "SoftshrinkBackward": "Softshrink",
    "HardshrinkBackward": "Hardshrink",
    "MaximumBackward": "maximum",
    "MinimumBackward": "minimum",
    "FmaxBackward": "maximum",
    "FminBackward": "minimum",
    "SmoothL1LossBackward": "absolute value",
    "HuberLossBackward": "absolute value",
}
# Backward steps that clip at bounds, with the attributes of the bounds. With a bound of 0 they are
# ReLUs.
_BOUNDS = {
    "ThresholdBackward": ("_saved_threshold",),
    "ClampBackward": ("_saved_min", "_saved_max"),
    "ClampMinBackward": ("_saved_min",),
    "ClampMaxBackward": ("_saved_max",),
}
# Backward steps that select among values along axes. Along x, y, z they are poolings.
_SELECTIONS = tuple(
    f"{name}Backward"
    for name in ("Amax", "Amin", "Aminmax", "Max", "Min", "Sort", "Topk", "Kthvalue", "Median",
                 "Cummax", "Cummin")
)  # fmt: skip
# Operations whose output has steps: its gradient is 0, and times the activations it bends them.
_STEPS = ("gt", "ge", "lt", "le", "sign", "sgn", "signbit", "heaviside", "floor", "ceil", "round",
          "trunc")  # fmt: skip
# Operations that bend activations by a mask of them.
_BENDING = ("mul", "div", "where", "masked_fill", "masked_scatter", "masked_select", "index",
            "index_put", "_index_put_impl", "copysign", "addcmul", "addcdiv", "lerp")  # fmt: skip


def kind_of(step: Any) -> str:
    """Name of a backward step, without its number."""
    return step.name().removeprefix("torch::autograd::").rstrip("0123456789")


def check_is_no_rectifier(step: Any) -> None:
    """Check that a backward step is not that of a rectifier without a rule, or may hide one.

    Raises
    ------
    SetupFault
        It is.
    """
    kind = kind_of(step)
    bounds = [getattr(step, name, None) for name in _BOUNDS.get(kind, ())]
    bounds = [torch.as_tensor(bound) for bound in bounds if bound is not None]
    if any(bool((bound == 0).all()) for bound in bounds) or kind == "ReluBackward":
        raise SetupFault(
            "guided_backprop needs every ReLU as an nn.ReLU module, and this network has one as a "
            f"function too ({step.name()}: torch.relu, functional.relu, clamp or threshold), where "
            "it would be the plain gradient; make it a module"
        )
    name = _OTHER_RECTIFIERS.get(kind)
    if kind in _BOUNDS and _bends(step):
        name = "threshold or clamp"
    elif kind == "AbsBackward" and _bends(step):
        name = "absolute value"
    elif kind == "LinalgVectorNormBackward" and step._saved_ord in (1, float("inf")):
        name = "norm of absolute values"
    elif kind in _SELECTIONS and not _along_space(step):
        name = "maximum over channels"
    if name is not None:
        raise SetupFault(
            f"guided_backprop has a rule for ReLU only, and this network has a {name}; choose "
            "sensitivity or integrated_gradients"
        )
    hides = kind == "CopySlices" or "jit" in step.name()
    if hides or isinstance(step, torch.autograd.function.BackwardCFunction):
        raise SetupFault(
            f"guided_backprop cannot see into {step.name()} (a part of a tensor that is changed in "
            "place, checkpointing, a compiled or scripted network, or an autograd function of its "
            "own), which may hide a ReLU; write it without for explaining"
        )


def _bends(step: Any) -> bool:
    """Whether a step clips some of its inputs, or has inputs on both sides of 0.

    A guard against a division by 0, such as in ``functional.normalize``, clips nothing.
    """
    try:
        values = step._saved_self
    except RuntimeError:  # changed in place since
        return True
    if kind_of(step) == "AbsBackward":
        return bool((values < 0).any() and (values > 0).any())
    low, high = getattr(step, "_saved_min", None), getattr(step, "_saved_max", None)
    low = getattr(step, "_saved_threshold", low)
    sides = [low is not None and (values < low).any(), high is not None and (values > high).any()]
    return any(map(bool, sides))


def _along_space(step: Any) -> bool:
    """Whether a step selects along x, y, z only, or along voxels of maps that were flattened."""
    sizes = getattr(step, "_saved_self_sym_sizes", None)
    if sizes is None:
        try:
            sizes = step._saved_self.shape
        except (AttributeError, RuntimeError):
            return False
    axes = getattr(step, "_saved_dim", None)
    if axes is None or not 2 < len(sizes) < 6:
        return False
    axes = axes if isinstance(axes, (tuple, list)) else [axes]
    # torch gives negative axes as numbers without sign.
    axes = [(axis - 2**64 if axis >= 2**63 else axis) % len(sizes) for axis in axes]
    return bool(axes) and min(axes) > 1


class RefusingMasks(TorchDispatchMode):
    """Mode in which a network must not bend its activations by a mask that it makes of them.

    As in ``h * (h > 0)``, ``torch.where(h > 0, h, 0)`` or ``h[h < 0] = 0``. The backward pass does
    not show where a mask came from. A mask that is the same for all scans is no rectifier.
    """

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run an operation; raise SetupFault if it applies a mask of activations to them."""
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        name = func.overloadpacket.__name__.rstrip("_")
        masks = [each for each in inputs if hasattr(each, "_mask")]
        of_scan = [
            each
            for each in inputs
            if not hasattr(each, "_mask") and (each.requires_grad or hasattr(each, "_of_scan"))
        ]
        if masks and of_scan and name in _BENDING:
            raise SetupFault(
                "guided_backprop has a rule for ReLU only, and this network bends its activations "
                f"by a mask that it makes of them ({name}; as in h * (h > 0) or torch.where); make "
                "it an nn.ReLU module, or choose sensitivity or integrated_gradients"
            )
        output = func(*args, **(kwargs or {}))
        for result in tree_leaves(output):
            if not isinstance(result, Tensor):
                continue
            if name in _STEPS and of_scan:
                if result.numel() > 1 and bool((result != result.flatten()[0]).any()):
                    result._mask = True
            elif masks and not of_scan and result.numel() > 1:
                result._mask = True
            elif of_scan:
                result._of_scan = True
        return output
