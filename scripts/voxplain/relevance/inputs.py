"""What every method does first: the scan where and as the network wants it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from voxplain.faults import SetupFault


def shape_of(scan: torch.Tensor | np.ndarray) -> tuple[int, int, int]:
    """Voxels of a scan along x, y, z.

    Raises
    ------
    ValueError
        It has not three axes.
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
        what it says, or has batch norms that have no other statistics than the batch's.
    ValueError
        The scan has not three axes.
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
    return torch.as_tensor(scan).to(parameter.device, parameter.dtype)[None, None]
