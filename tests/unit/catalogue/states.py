"""Networks that keep something, choose among voxels, or run several times."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from catalogue.bodies import stem
from catalogue.entries import SHAPE, gap, network, sequence, settle
from catalogue.layers import NO_CAM, NO_LRP, Call
from catalogue.traps import CUT, Around

MAPS = {"layer": "body.1", "centre": 1}
FIRST = {"layer": "1", "centre": 1}


class Keeps(nn.Module):
    """Keeps a mean of the scans it has seen, or its first answer."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind, self.body, self.end = kind, stem(), nn.Sequential(*gap(4))
        self.register_buffer("mean", torch.zeros(1, 1, *SHAPE))
        self.answer = None

    def forward(self, scans: Tensor) -> Tensor:
        if self.kind == "mean":
            self.mean = 0.7 * self.mean + 0.3 * scans.detach().mean(0, keepdim=True)
            return self.end(self.body(scans - self.mean))
        if self.answer is None or self.kind != "answer":
            self.answer = self.end(self.body(scans))
        return self.answer


network("a running mean of scans", "states", lambda: Keeps("mean"), refused={"all": "batch|last"})
network(
    "the first answer for ever", "states", lambda: Keeps("answer"), refused={"all": "first answer"}
)
network(
    "the last answer kept",
    "states",
    lambda: settle(Keeps("last")),
    **MAPS,
)


class Several(nn.Module):
    """Averages the answers to flipped copies, or to crops."""

    def __init__(self, crops: bool):
        super().__init__()
        self.crops, self.body, self.end = crops, stem(), nn.Sequential(*gap(4))

    def forward(self, scans: Tensor) -> Tensor:
        copies = [scans, scans.flip(2)]
        if self.crops:
            copies = [scans[:, :, :6], scans[:, :, 3:]]
        return torch.stack([self.end(self.body(each)) for each in copies]).mean(0)


TWICE = {"maps": "called (twice|2 times)", "cam": "called twice"}
network("flipped copies averaged", "states", lambda: settle(Several(False)), refused=NO_LRP | TWICE)
network("crops averaged", "states", lambda: settle(Several(True)), refused=NO_LRP | TWICE)
network(
    "crops in one batch",
    "states",
    lambda: settle(Around(lambda s: torch.cat([s[:, :, :6], s[:, :, 3:]]), None)),
    refused={"all": "logits"},
)

# --- a choice among voxels


def chooses(name: str, after, **rest) -> None:
    network(name, "states", lambda: settle(Around(None, after)), **(MAPS | rest))


def largest(maps: Tensor) -> Tensor:
    means = maps.flatten(2).topk(20, dim=2).values.mean(2)
    return means[..., None, None, None].expand_as(maps)


chooses("mean of the largest voxels", largest, refused=NO_LRP | NO_CAM)
chooses(
    "median of the voxels",
    lambda m: m.flatten(2).median(2).values[..., None, None, None],
    refused=NO_LRP | NO_CAM,
)
chooses(
    "sorted voxels", lambda m: m * m.flatten(2).sort(2).values.view_as(m), refused=NO_LRP | NO_CAM
)
network(
    "projection to the maximum",
    "states",
    lambda: sequence(
        *stem(), Call(lambda m: m.amax(2)), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.LazyLinear(3)
    ),
    **FIRST,
    refused=NO_LRP | NO_CAM,
)


class Shifted(nn.Module):
    """Moves the scan by a learned transform (a spatial transformer)."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.tensor([[1, 0.1, 0, 0.1], [0, 1, 0, 0], [0, 0.1, 1, 0.0]]))
        self.body, self.end = stem(), nn.Sequential(*gap(4))

    def forward(self, scans: Tensor) -> Tensor:
        places = self.place.expand(len(scans), -1, -1).to(scans.dtype)
        grid = functional.affine_grid(places, list(scans.shape), align_corners=False)
        return self.end(self.body(functional.grid_sample(scans, grid, align_corners=False)))


network(
    "moved by a transform",
    "states",
    lambda: settle(Shifted()),
    layer="body.1",
    step=None,
    refused=NO_LRP,
)


# --- weights of other kinds


def pruned() -> nn.Module:
    model = sequence(*stem(), *gap(4))
    prune.l1_unstructured(model[0], "weight", 0.4)
    return model


def channels_last() -> nn.Module:
    return sequence(*stem(), *gap(4)).to(memory_format=torch.channels_last_3d)


def tied() -> nn.Module:
    model = sequence(
        nn.Conv3d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.Conv3d(3, 3, 1),
        nn.ReLU(),
        nn.Conv3d(3, 3, 1),
        nn.ReLU(),
        *gap(3),
    )
    model[4].weight = model[2].weight
    return model


network("pruned weights", "states", pruned, **FIRST, refused={"lrp": "no rule"})
network("channels last in memory", "states", channels_last, **FIRST)
network("weights of two layers are one", "states", tied, seed=1, layer="5")
network(
    "lazy layers that never ran",
    "states",
    lambda: nn.Sequential(*stem(), nn.Flatten(), nn.LazyLinear(3)),
    refused={"all": "no values yet"},
)
network(
    "compiled, not run yet",
    "states",
    lambda: torch.compile(sequence(*stem(), *gap(4))),
    truth=lambda: sequence(*stem(), *gap(4)),
    **FIRST,
)

# --- sure, unsure, cut at the end


def scaled(factor: float) -> nn.Module:
    model = sequence(*stem(), *gap(4))
    with torch.no_grad():
        model[4].weight *= factor
        model[4].bias *= factor
    return model


network("very sure", "states", lambda: scaled(100), seed=8, **FIRST)
network("hardly sure", "states", lambda: scaled(0.02), seed=1, **FIRST)
network(
    "logits detached",
    "states",
    lambda: sequence(*stem(), *gap(4), Call(lambda z: z.detach() * 2)),
    **FIRST,
    refused=CUT | NO_LRP | NO_CAM | {"maps": "gradient"},
)
