"""Choice of the device."""

from __future__ import annotations

import torch

from voxplain.faults import ParameterFault


def choose_device(device: str) -> torch.device:
    """The PyTorch device for ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``.

    It also disables TF32 in cuDNN, which would round the factors of convolutions to ten bits.

    Raises
    ------
    ParameterFault
        ``device`` is ``cuda`` and PyTorch finds no usable GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        built = torch.version.cuda or "none"
        raise ParameterFault(
            "device",
            f"is cuda, but PyTorch {torch.__version__} (built for CUDA {built}) finds no usable "
            "GPU here; allowed here: cpu, auto",
        )
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
