"""Which device computes."""

from __future__ import annotations

import torch

from voxplain.faults import ParameterFault


def choose_device(device: str) -> torch.device:
    """The PyTorch device for ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.

    From then on float32 is float32 there: left to itself cuDNN rounds what a convolution multiplies
    to ten bits (TF32).

    Raises
    ------
    ParameterFault
        ``device`` is ``cuda`` and PyTorch finds none.
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
