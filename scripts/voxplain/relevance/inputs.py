"""What every method does first: the scan where and as the network wants it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from voxplain.faults import SetupFault


def as_input(model: nn.Module, scan: torch.Tensor | np.ndarray) -> torch.Tensor:
    """A scan ``[x, y, z]`` as a batch of one ``[1, 1, x, y, z]`` on the network's device.

    Raises
    ------
    SetupFault
        The network or a part of it is in training mode, where dropout and batch statistics change
        what it says.
    ValueError
        The scan has not three axes.
    """
    if any(module.training for module in model.modules()):
        raise SetupFault("the network is in training mode; call model.eval() before explaining it")
    if scan.ndim != 3:
        raise ValueError(f"a scan has three axes, this one has shape {tuple(scan.shape)}")
    if isinstance(scan, np.ndarray):
        scan = np.ascontiguousarray(scan)  # torch refuses an array with a flipped axis
    parameter = next(model.parameters())
    return torch.as_tensor(scan).to(parameter.device, parameter.dtype)[None, None]
