"""Methods that differentiate the probability by the voxels."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from captum.attr import GuidedBackprop, Saliency
from torch import nn

from voxplain.faults import SetupFault
from voxplain.relevance.inputs import as_input


def sensitivity(model: nn.Module, scan: torch.Tensor | np.ndarray, target: int) -> np.ndarray:
    """|d p(target) / d voxel|, with p the softmax probability.

    Simonyan et al. 2014 (arXiv 1312.6034), section 3; Rieke et al. 2018, section 2.3.

    Parameters and return value as :func:`voxplain.relevance.explain`.
    """
    batch = as_input(model, scan).requires_grad_()
    found = Saliency(_probability(model)).attribute(batch, target=target, abs=True)
    return _as_map(found)


def guided_backprop(model: nn.Module, scan: torch.Tensor | np.ndarray, target: int) -> np.ndarray:
    """The gradient with its negative entries set to 0 at every ReLU of the backward pass.

    Springenberg et al. 2015 (arXiv 1412.6806); absolute value as in Rieke et al. 2018.

    Parameters and return value as :func:`voxplain.relevance.explain`.

    Raises
    ------
    SetupFault
        The network has no ``nn.ReLU`` module. One that calls ``torch.relu`` has no place for the
        rule to act: the result would silently be the plain gradient.
    """
    if not any(isinstance(module, nn.ReLU) for module in model.modules()):
        raise SetupFault(
            "guided_backprop needs the network's ReLUs as nn.ReLU modules, and this one has none; "
            "with torch.relu or functional.relu it would equal sensitivity"
        )
    batch = as_input(model, scan).requires_grad_()
    with warnings.catch_warnings():
        # captum says at every call that it sets hooks on the ReLUs.
        warnings.filterwarnings("ignore", message="Setting backward hooks on ReLU")
        found = GuidedBackprop(_probability(model)).attribute(batch, target=target)
    return _as_map(found.abs())


def _probability(model: nn.Module) -> nn.Module:
    return nn.Sequential(model, nn.Softmax(dim=1)).eval()


def _as_map(found: torch.Tensor) -> np.ndarray:
    return found.detach()[0, 0].float().cpu().numpy()
