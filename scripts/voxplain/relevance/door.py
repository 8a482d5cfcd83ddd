"""The door of :func:`voxplain.relevance.explain`: what is given is made plain and looked at."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from voxplain.faults import SetupFault
from voxplain.relevance.behaviour import observe
from voxplain.relevance.inputs import as_input
from voxplain.relevance.plain import in_plain_tensors, plain_scan


def explain_at_door(
    method: Callable[..., np.ndarray],
    model: nn.Module,
    scan: Tensor | np.ndarray,
    target: int,
    options: Mapping[str, Any],
) -> np.ndarray:
    """Heatmap by a method of the network and the scan in plain tensors.

    Parameters and faults as :func:`voxplain.relevance.explain`.
    """
    if not isinstance(model, nn.Module):
        raise SetupFault(f"a network is a torch.nn.Module, not a {type(model).__name__}")
    inspect.signature(method).bind(model, scan, target, **options)  # TypeError for an option
    target = operator.index(target)  # also from numpy and torch
    options = {name: _as_array(value) for name, value in options.items()}
    # Gradients can be recorded even if the caller is in inference mode.
    with torch.inference_mode(False):
        model = _uncompiled(model)
        plain = plain_scan(scan)
        with in_plain_tensors(model):
            observe(model, as_input(model, plain), target)
            heatmap = method(model, plain, target, **options)
    if not np.isfinite(heatmap).all():
        raise SetupFault(
            f"{method.__name__} gives values that are no finite numbers for this network and scan: "
            "its activations or gradients exceed the range of float32"
        )
    return heatmap


def _uncompiled(model: nn.Module) -> nn.Module:
    """A network without torch.compile or DataParallel around it."""
    if isinstance(model, nn.DataParallel):
        return model.module
    return getattr(model, "_orig_mod", model)


def _as_array(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value
