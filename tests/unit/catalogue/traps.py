"""Networks that are random, read the batch, cut or change gradients, or change as they run."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from catalogue.bodies import stem
from catalogue.entries import gap, network, sequence, settle
from catalogue.layers import NO_CAM, NO_LRP, Call

MAPS = {"layer": "body.1", "centre": 1}


class Around(nn.Module):
    """Something is done with the scan before a convolution, or with its map after it."""

    def __init__(self, before=None, after=None):
        super().__init__()
        self.before, self.after = before, after
        self.body, self.end = stem(), nn.Sequential(*gap(4))

    def forward(self, scans: Tensor) -> Tensor:
        scans = scans if self.before is None else self.before(scans)
        maps = self.body(scans)
        return self.end(maps if self.after is None else self.after(maps))


def trap(name, kind, before=None, after=None, **rest):
    network(name, kind, lambda: settle(Around(before, after)), **rest)


# --- random

RANDOM = {"refused": {"all": "random"}}


def attended_at_random(maps: Tensor) -> Tensor:
    tokens = maps.flatten(2).transpose(1, 2)
    mixed = functional.scaled_dot_product_attention(tokens, tokens, tokens, dropout_p=0.5)
    return maps + mixed.transpose(1, 2).view_as(maps)


class AlwaysDrops(nn.Dropout):
    """Monte Carlo dropout."""

    def forward(self, maps: Tensor) -> Tensor:
        return functional.dropout(maps, self.p, training=True)


trap(
    "dropout that never ends", "random", after=lambda maps: functional.dropout(maps, 0.5), **RANDOM
)
trap("noise on the scan", "random", before=lambda s: s + 0.1 * torch.randn_like(s), **RANDOM)
trap("noise on the maps", "random", after=lambda m: m * (1 + 0.3 * torch.randn_like(m)), **RANDOM)
trap(
    "flipped at random",
    "random",
    before=lambda s: s.flip(2) if torch.rand(()) < 0.5 else s,
    refused={"all": "random"},
)
trap("attention with dropout", "random", after=attended_at_random, **RANDOM)
network(
    "Monte Carlo dropout", "random", lambda: sequence(*stem(), AlwaysDrops(0.5), *gap(4)), **RANDOM
)

# --- others of the batch, statistics of the scan

BATCH = {"refused": {"all": "batch"}}
trap("mean of the batch taken off", "batch", before=lambda s: s - s.mean(0, keepdim=True), **BATCH)
trap("scaled by the batch's maximum", "batch", before=lambda s: s / s.abs().max(), **BATCH)
trap(
    "normalised over the batch",
    "batch",
    after=lambda m: (m - m.mean((0, 2, 3, 4), keepdim=True)) / m.std((0, 2, 3, 4), keepdim=True),
    **BATCH,
)
trap("softmax across the batch", "batch", after=lambda m: m * m.softmax(0), **BATCH)

ALL = (1, 2, 3, 4)
trap(
    "z-scores inside",
    "scan statistics",
    layer="body.1",
    centre=1,
    refused=NO_LRP,
    before=lambda s: (s - s.mean(ALL, keepdim=True)) / s.std(ALL, keepdim=True),
)
trap(
    "scaled from 0 to 1 inside",
    "scan statistics",
    layer="body.1",
    centre=1,
    refused=NO_LRP | {"guided": "ReLU"},
    hidden=True,
    before=lambda s: (
        (s - s.amin(ALL, keepdim=True)) / (s.amax(ALL, keepdim=True) - s.amin(ALL, keepdim=True))
    ),
)
trap(
    "clipped at a percentile inside",
    "scan statistics",
    layer="body.1",
    refused=NO_LRP | {"guided": "ReLU"},
    hidden=True,
    step=None,
    before=lambda s: torch.minimum(s, s.flatten(1).quantile(0.9, 1).view(-1, 1, 1, 1, 1)),
)
trap(
    "mean of the brain taken off",
    "scan statistics",
    layer="body.1",
    centre=1,
    refused=NO_LRP,
    before=lambda s: s - (s.sum(ALL) / (s != 0).sum(ALL)).view(-1, 1, 1, 1, 1),
)

# --- gradients that are cut or changed

CUT = {"gradient": "gradient", "guided": "gradient|no nn.ReLU between"}
OWN_STEP = "gradient|autograd function of its own"


def without_gradient(function):
    def run(values: Tensor) -> Tensor:
        with torch.no_grad():
            return function(values)

    return run


def in_inference(values: Tensor) -> Tensor:
    with torch.inference_mode():
        return values * 1.5


def scaled_backwards(maps: Tensor) -> Tensor:
    maps = maps.clone()
    if maps.requires_grad:
        maps.register_hook(
            lambda slope: slope * torch.linspace(0, 2, slope.shape[2])[:, None, None]
        )
    return maps


class Straight(torch.autograd.Function):
    """Rounds, and gives the gradient as if it did not."""

    @staticmethod
    def forward(ctx, values):
        return (values * 4).round() / 4

    @staticmethod
    def backward(ctx, slope):
        return slope


class Reversed(torch.autograd.Function):
    """Changes the sign of half the gradient (domain adversarial training)."""

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, slope):
        slope = slope.clone()
        slope[:, :2] *= -1
        return slope


def written(maps: Tensor) -> Tensor:
    """Doubles the first channel, past autograd."""
    maps = maps.clone()
    maps.data[:, 0] *= 3
    return maps


trap(
    "stem without gradients",
    "gradients",
    before=without_gradient(lambda s: s * 1.5),
    **MAPS,
    refused=CUT | NO_LRP,
)
trap(
    "stem in inference mode",
    "gradients",
    before=in_inference,
    **MAPS,
    refused=CUT | NO_LRP,
    truth=lambda: settle(Around(lambda s: s * 1.5)),
)
trap("scan detached", "gradients", before=lambda s: s.detach() * 1.5, **MAPS, refused=CUT | NO_LRP)
trap(
    "part of the scan detached",
    "gradients",
    before=lambda s: s + 0.7 * s.detach().abs(),
    **MAPS,
    refused=CUT | NO_LRP,
)
trap(
    "maps detached",
    "gradients",
    after=lambda m: m.detach(),
    **MAPS,
    refused=CUT | NO_LRP | {"maps": "gradient"},
)
trap(
    "a gate detached",
    "gradients",
    after=lambda m: m * m.detach().mean(ALL, keepdim=True).exp(),
    **MAPS,
    refused=CUT | NO_LRP | {"maps": "gradient", "cam": "nn.Linear"},
)
trap(
    "gradient scaled by a hook inside",
    "gradients",
    after=scaled_backwards,
    **MAPS,
    refused=CUT | NO_LRP | {"maps": "gradient"},
)
trap(
    "rounded, straight through",
    "gradients",
    after=Straight.apply,
    **MAPS,
    refused=CUT
    | {"guided": OWN_STEP, "lrp": "no rule|cannot trace", "maps": "gradient", "cam": "nn.Linear"},
)
trap(
    "gradient reversed",
    "gradients",
    after=Reversed.apply,
    **MAPS,
    refused=CUT | {"guided": OWN_STEP, "lrp": "no rule|cannot trace", "maps": "gradient"},
)
trap(
    "written past autograd",
    "gradients",
    after=written,
    **MAPS,
    refused=CUT | NO_LRP | {"maps": "gradient", "cam": "nn.Linear"},
)
trap(
    "through numpy",
    "gradients",
    before=lambda s: torch.from_numpy(s.detach().numpy() * 1.5),
    layer="body.1",
    step=None,
    refused=CUT | {"lrp": "no rule|cannot trace"},
)

# --- in-place operations and hooks


class WritesScan(nn.Module):
    """Changes its input in place."""

    def __init__(self):
        super().__init__()
        self.body, self.end = stem(), nn.Sequential(*gap(4))

    def forward(self, scans: Tensor) -> Tensor:
        scans -= 0.5
        scans.mul_(0.7)
        return self.end(self.body(scans))


network(
    "the scan changed in place", "in place", lambda: settle(WritesScan()), **MAPS, refused=NO_LRP
)


class WritesPart(nn.Module):
    """Changes a part of its maps in place."""

    def __init__(self):
        super().__init__()
        self.body, self.relu = nn.Conv3d(1, 4, 3), nn.ReLU()
        self.end = nn.Sequential(*gap(4))

    def forward(self, scans: Tensor) -> Tensor:
        maps = self.body(scans)
        maps[:, :2] = maps[:, :2] * 2
        return self.end(self.relu(maps))


network(
    "a part of the maps changed in place",
    "in place",
    lambda: settle(WritesPart()),
    layer="relu",
    step=None,
    refused={"lrp": "no rule|cannot trace", "guided": "in place"},
    hidden=True,
)


class WritesLogits(nn.Module):
    """Changes the logits of its last dense layer in place."""

    def __init__(self):
        super().__init__()
        self.body, self.end = stem(), nn.Sequential(*gap(4))

    def forward(self, scans: Tensor) -> Tensor:
        logits = self.end(self.body(scans))
        logits *= 2
        logits[:, 0] += logits[:, 1] ** 2
        return logits


network(
    "logits changed in place",
    "in place",
    lambda: settle(WritesLogits()),
    **MAPS,
    refused={"cam": "nn.Linear", "lrp": "no rule|cannot trace"}
    | dict.fromkeys(("gradient", "maps", "guided"), "in.?place"),
)


def hooked(kind: str) -> nn.Module:
    model = sequence(*stem(), *gap(4))
    if kind == "output":
        model[0].register_forward_hook(lambda module, inputs, output: output * 1.5 - 0.2)
    elif kind == "input":
        model.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 1.5,))
    elif kind == "watched":
        model.seen = []
        model[1].register_forward_hook(lambda module, inputs, output: None)
    else:
        model[1].register_full_backward_hook(
            lambda module, to_input, to_output: tuple(
                s if s is None else 3 * s - 1 for s in to_input
            )
        )
    return model


FIRST = {"layer": "1", "centre": 1}
network(
    "hook that changes an output",
    "hooks",
    lambda: hooked("output"),
    **FIRST,
    refused={"lrp": "no rule|hook"},
)
network(
    "hook that changes the scan", "hooks", lambda: hooked("input"), **FIRST, refused={"lrp": "hook"}
)
network(
    "hook that only watches",
    "hooks",
    lambda: hooked("watched"),
    **FIRST,
    refused={"lrp": "no rule|hook"},
)
network(
    "hook that changes gradients",
    "hooks",
    lambda: hooked("backward"),
    **FIRST,
    truth=lambda: sequence(*stem(), *gap(4)),
    refused=CUT | {"guided": OWN_STEP},
)


class HooksInside(nn.Module):
    """Registers a hook as it runs, as code that keeps its own Grad-CAM does."""

    def __init__(self):
        super().__init__()
        self.body, self.end, self.slopes = stem(), nn.Sequential(*gap(4)), []

    def forward(self, scans: Tensor) -> Tensor:
        maps = self.body(scans)
        maps.register_hook(self.slopes.append)
        return self.end(maps)


network("hook registered inside", "hooks", HooksInside, refused={"all": "hook"})


class Patched(nn.Module):
    """A part whose forward has been replaced by another function."""

    def __init__(self):
        super().__init__()
        self.body, self.end = stem(), nn.Sequential(*gap(4))
        plain = self.body[0].forward
        self.body[0].forward = lambda maps: plain(maps * 1.5) - 0.1

    def forward(self, scans: Tensor) -> Tensor:
        return self.end(self.body(scans))


network("forward replaced", "hooks", Patched, **MAPS, refused={"lrp": "forward|torch.fx"})
network(
    "lambda after the pooling",
    "hooks",
    lambda: sequence(
        *stem(), nn.AdaptiveAvgPool3d(1), Call(lambda m: m.flatten(1).tanh()), nn.Linear(4, 3)
    ),
    **FIRST,
    refused=NO_CAM | NO_LRP,
)
