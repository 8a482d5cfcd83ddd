"""Networks and scans of other types: precisions, tensor subclasses, scripts, arrays."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from catalogue.bodies import stem
from catalogue.entries import gap, head_scan, network, sequence, settle
from catalogue.traps import Around

FIRST = {"layer": "1", "centre": 1}
MAPS = {"layer": "body.1", "centre": 1}


def plain() -> nn.Module:
    return sequence(*stem(), *gap(4))


def typed(name, make=plain, **rest):
    network(name, "types", make, **({**FIRST, "truth": plain} | rest))


class Named(Tensor):
    """A tensor with metadata that every operation keeps, as MONAI's MetaTensor."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return super().__torch_function__(func, types, args, kwargs or {})


def as_named(model: nn.Module) -> nn.Module:
    for part in model.modules():
        for name, value in list(part._parameters.items()):
            if value is not None:
                part._parameters[name] = nn.Parameter(value.detach().as_subclass(Named))
        for name, value in list(part._buffers.items()):
            part._buffers[name] = value.as_subclass(Named)
    return model


def monai_scan() -> Tensor:
    from monai.data import MetaTensor

    return MetaTensor(torch.from_numpy(head_scan()), affine=torch.eye(4))


STRIDED = {
    "make": lambda: sequence(nn.Conv3d(1, 4, 3, stride=2, padding=1), nn.ReLU(), *gap(4)),
    "truth": None,
    "step": 2,
    "centre": 0,
}
typed("MetaTensor", **STRIDED, scan=monai_scan)
typed("weights of a tensor subclass", lambda: as_named(plain()))
typed(
    "scan that wants a gradient",
    scan=lambda: torch.from_numpy(head_scan()).requires_grad_(),
)
typed("big-endian scan", scan=lambda: head_scan().astype(">f4"))
typed("float64 scan", scan=lambda: head_scan().astype(np.float64))
typed("scan that cannot be written to", scan=lambda: read_only(head_scan()))
typed(
    "flipped view of a scan", scan=lambda: np.flip(np.ascontiguousarray(np.flip(head_scan(), 0)), 0)
)


def read_only(scan: np.ndarray) -> np.ndarray:
    scan.flags.writeable = False
    return scan


def spoilt(value: float) -> np.ndarray:
    scan = head_scan()
    scan[4, 4, 4] = value
    return scan


typed("not a number in the scan", scan=lambda: spoilt(np.nan), refused={"all": "finite|NaN"})
typed("infinity in the scan", scan=lambda: spoilt(np.inf), refused={"all": "finite|infinit"})


def with_bad_weights() -> nn.Module:
    model = plain()
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0, 0] = float("nan")
    return model


network("not a number in the weights", "types", with_bad_weights, refused={"all": "finite|NaN"})

# --- precisions

network("float64", "types", lambda: plain().double(), **FIRST)
network("float16", "types", lambda: plain().half(), **FIRST)
network("bfloat16", "types", lambda: plain().bfloat16(), **FIRST)


class Mixed(nn.Module):
    """Convolutions in bfloat16, norms in float32."""

    def __init__(self, low=torch.bfloat16):
        super().__init__()
        self.conv = nn.Conv3d(1, 4, 3).to(low)
        self.norm, self.relu, self.end = nn.BatchNorm3d(4), nn.ReLU(), nn.Linear(4, 3)

    def forward(self, scans: Tensor) -> Tensor:
        maps = self.conv(scans.to(self.conv.weight.dtype))
        return self.end(self.relu(self.norm(maps.to(self.norm.weight.dtype))).mean((2, 3, 4)))


network(
    "bfloat16 convolutions and float32 norms",
    "types",
    lambda: settle(Mixed()),
    layer="relu",
    centre=1,
    refused={"lrp": "no rule|cannot trace"},
)


class Autocast(nn.Module):
    """Switches mixed precision on by itself."""

    def __init__(self):
        super().__init__()
        self.body, self.end = stem(), nn.Sequential(*gap(4))

    def forward(self, scans: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return self.end(self.body(scans)).float()


network(
    "autocast inside", "types", lambda: settle(Autocast()), refused={"all": "bfloat16|autocast"}
)

# --- scripts


def scripted() -> nn.Module:
    return torch.jit.script(plain())


def frozen() -> nn.Module:
    return torch.jit.freeze(torch.jit.script(plain()))


def traced() -> nn.Module:
    return torch.jit.trace(plain(), torch.zeros(1, 1, 9, 10, 8))


NO_LAYERS = dict.fromkeys(("guided", "cam", "maps", "lrp"), "script")
typed("scripted", scripted, refused=NO_LAYERS)
typed("scripted and frozen", frozen, refused=NO_LAYERS)
typed("traced by torch.jit", traced, refused=NO_LAYERS)
typed(
    "exported graph",
    lambda: torch.fx.symbolic_trace(plain()),
)
typed(
    "quantised dense layers",
    lambda: torch.ao.quantization.quantize_dynamic(plain()),
    refused={"all": "quanti"},
)
network(
    "wrapped in DataParallel", "types", lambda: nn.DataParallel(plain()), layer="module.1", centre=1
)


class Fixed(nn.Module):
    """Numbers and no parameters: a smoothing and two means."""

    def __init__(self, buffers: bool):
        super().__init__()
        numbers = torch.linspace(-1, 1, 2 * 27).view(2, 1, 3, 3, 3) ** 3
        if buffers:
            self.register_buffer("kernel", numbers)
        else:
            self.kernel = numbers
        self.relu = nn.ReLU()

    def forward(self, scans: Tensor) -> Tensor:
        kernel = self.kernel.to(scans.dtype)
        return self.relu(nn.functional.conv3d(scans, kernel)).mean((2, 3, 4))


network(
    "buffers and no parameters",
    "types",
    lambda: Fixed(True),
    layer="relu",
    centre=1,
    refused={"lrp": "no rule", "cam": "nn.Linear"},
)
network(
    "no parameters and no buffers",
    "types",
    lambda: Fixed(False),
    layer="relu",
    centre=1,
    refused={"lrp": "no rule|cannot trace", "cam": "nn.Linear"},
)
network("parameters without gradients", "types", lambda: plain().requires_grad_(False), **FIRST)
typed("parameters made in inference mode", lambda: in_inference_mode())


def in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return plain()


class Inference(nn.Module):
    """All of it in inference mode, as code for serving has it."""

    def __init__(self):
        super().__init__()
        self.body, self.end = stem(), nn.Sequential(*gap(4))

    @torch.inference_mode()
    def forward(self, scans: Tensor) -> Tensor:
        return self.end(self.body(scans))


network(
    "served in inference mode",
    "types",
    Inference,
    layer="body.1",
    centre=1,
    truth=lambda: settle(Around()),
    refused={
        "gradient": "gradient|inference",
        "guided": "gradient|inference",
        "maps": "gradient|inference",
    },
)
network("training mode", "types", lambda: sequence(*stem(), nn.Dropout(), *gap(4)), **FIRST)
network("a part in training mode", "types", lambda: TrainsAlways(), refused={"all": "training"})


class TrainsAlways(Around):
    """A part stays in training mode, whatever is called."""

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        self.body.training = True
        return self
