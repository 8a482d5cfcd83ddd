"""A scan and a network in plain tensors of at least float32, as the methods expect them.

Subclasses of tensors, such as MONAI's ``MetaTensor``, intercept operations and so escape what the
methods attach to them. In half precision gradients fall below the smallest number, and the change
by a small occlusion below the rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin

from voxplain.faults import SetupFault

HALF = (torch.float16, torch.bfloat16)


def shape_of(scan: Tensor | np.ndarray) -> tuple[int, int, int]:
    """Voxels of a scan along x, y, z.

    Raises
    ------
    ValueError
        It does not have three axes.
    """
    if scan.ndim != 3:
        raise ValueError(f"a scan has three axes, this one has shape {tuple(scan.shape)}")
    return tuple(scan.shape)


def plain_scan(scan: Tensor | np.ndarray) -> Tensor:
    """A scan ``[x, y, z]`` as a plain tensor without gradient, on its device.

    Arrays may have flipped axes, another byte order, or more digits than torch knows.

    Raises
    ------
    SetupFault
        It is no array or tensor of real numbers, has no voxel, or has a voxel that is no finite
        number.
    ValueError
        It does not have three axes.
    """
    if not isinstance(scan, (Tensor, np.ndarray)):
        raise SetupFault(f"a scan is a numpy array or a tensor, not a {type(scan).__name__}")
    shape = shape_of(scan)
    if not all(shape):
        raise SetupFault(f"the scan has no voxel: its shape is {shape}")
    values = _plain_tensor(scan, "the scan") if isinstance(scan, Tensor) else _of_array(scan)
    if values.dtype.is_complex:
        raise SetupFault("the scan has complex numbers; take their magnitude")
    if not torch.isfinite(values).all():
        count = int((~torch.isfinite(values)).sum())
        raise SetupFault(
            f"{count} of the scan's {values.numel()} voxels are NaN or infinite, and a heatmap of "
            "them would be too; set them to a number, such as 0"
        )
    return values.detach()


def _of_array(scan: np.ndarray) -> Tensor:
    if np.ma.is_masked(scan):
        raise SetupFault("the scan has masked voxels; fill them, such as by scan.filled(0)")
    if scan.dtype.kind not in "fiubc":
        raise SetupFault(f"a scan has real numbers, and this array has {scan.dtype}")
    dtype = scan.dtype.newbyteorder("=")
    if dtype.kind in "iu" or (dtype.kind == "f" and dtype.itemsize > 8):
        dtype = np.dtype(np.float64)  # torch knows neither longer numbers nor all of whole ones
    # torch refuses an array with a flipped axis.
    return torch.from_numpy(np.array(scan, dtype, order="C", subok=False))


def _plain_tensor(value: Tensor, what: str) -> Tensor:
    """A tensor without its subclass; it shares the memory.

    Raises
    ------
    SetupFault
        Its values are not in memory of its own, or it is sparse or quantised.
    """
    kind = type(value)
    if isinstance(value, UninitializedTensorMixin):
        raise SetupFault(f"{what} has no values yet; run the network on one scan first")
    if value.layout is not torch.strided or value.is_quantized or value.is_meta:
        raise SetupFault(f"{what} is a {_kind_of(value)} tensor; give a dense tensor of numbers")
    if kind not in (Tensor, nn.Parameter):
        own = kind.__torch_dispatch__ is not Tensor.__torch_dispatch__
        if own and not hasattr(value, "as_tensor"):
            raise SetupFault(f"{what} is a {kind.__name__}, which cannot be read as a plain tensor")
        with torch._C.DisableTorchFunctionSubclass():
            value = value.as_subclass(Tensor)
    if value.is_inference():
        value = value.clone()  # outside of inference mode: gradients can be recorded from it
    return value


def _kind_of(value: Tensor) -> str:
    if value.is_meta:
        return "meta"
    return "quantised" if value.is_quantized else str(value.layout).removeprefix("torch.")


def place_of(model: nn.Module) -> tuple[torch.device | None, torch.dtype]:
    """Device and type of a network's weights; of a network without weights None and float32."""
    for values in (model.parameters(), model.buffers()):
        for value in values:
            if value.dtype.is_floating_point:
                return value.device, value.dtype
    return None, torch.float32


@contextmanager
def in_plain_tensors(model: nn.Module) -> Iterator[None]:
    """Context in which a network has plain tensors only, of float32 where it has half precision.

    The network has its own tensors again afterwards.

    Raises
    ------
    SetupFault
        A tensor of the network cannot be read as a plain one.
    """

    def plain(name: str, value: Tensor) -> Tensor:
        value = _plain_tensor(value, f"the network's tensor {name!r}")
        below = value.dtype.is_floating_point and value.dtype.itemsize < 4
        return value.float() if below else value

    with _with_tensors(model, plain):
        yield


@contextmanager
def in_float64(model: nn.Module) -> Iterator[None]:
    """Context in which a network's weights are float64."""
    with _with_tensors(
        model, lambda name, value: value.double() if value.dtype.is_floating_point else value
    ):
        yield


@contextmanager
def _with_tensors(model: nn.Module, change: Callable[[str, Tensor], Tensor]) -> Iterator[None]:
    """Context in which each tensor of a network is the changed one, where the two differ."""
    given: list[tuple[nn.Module, str, Tensor]] = []
    made: dict[int, Tensor] = {}  # a tensor of two modules stays one

    def replaced(name: str, value: Tensor) -> Tensor:
        if id(value) not in made:
            new = change(name, value)
            # A parameter stays one, since modules take no other tensor in its place.
            if new is not value and isinstance(value, nn.Parameter):
                new = nn.Parameter(new.detach(), requires_grad=value.requires_grad)
            made[id(value)] = new
        return made[id(value)]

    try:
        for path, module in model.named_modules():
            for key, value in _tensors_of(module):
                new = replaced(f"{path}.{key}".lstrip("."), value)
                if new is value:
                    continue
                if isinstance(module, torch.jit.ScriptModule):
                    raise SetupFault(
                        f"the scripted network's tensor {key!r} is no plain float32 tensor outside "
                        "of inference mode, and cannot be replaced by one; explain the network as "
                        "it was before it is scripted"
                    )
                given.append((module, key, value))
                setattr(module, key, new)
        yield
    finally:
        for module, key, value in given:
            setattr(module, key, value)


def _tensors_of(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters, buffers and other tensors of a module, without those of its submodules."""
    attributes: dict[str, Any] = {
        **dict(module._parameters.items()),
        **dict(module._buffers.items()),
        **vars(module),
    }
    return [(key, value) for key, value in attributes.items() if isinstance(value, Tensor)]
