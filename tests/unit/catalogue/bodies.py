"""Networks that differ in their shape: residual, dense, recurrent, attention, transformers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from catalogue.entries import dense, gap, network, sequence, settle
from catalogue.layers import NO_CAM, NO_LRP, NO_RELU, Call


def stem(channels: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(1, channels, 3), nn.ReLU())


def of_body(name, make, **rest):
    network(name, "bodies", lambda: settle(make()), **rest)


class Residual(nn.Module):
    def __init__(self, before: bool):
        super().__init__()
        self.stem, self.before = nn.Conv3d(1, 4, 3), before
        self.one, self.two = nn.Conv3d(4, 4, 3, padding=1), nn.Conv3d(4, 4, 3, padding=1)
        self.norm1, self.norm2 = nn.BatchNorm3d(4), nn.BatchNorm3d(4)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.end = nn.Sequential(*gap(4))

    def forward(self, scans: Tensor) -> Tensor:
        maps = self.stem(scans)
        if self.before:
            changed = self.one(self.relu1(self.norm1(maps)))
            maps = maps + self.two(self.relu2(self.norm2(changed)))
        else:
            changed = self.norm2(self.two(self.relu1(self.norm1(self.one(maps)))))
            changed += maps
            maps = self.relu2(changed)
        return self.end(maps)


of_body(
    "residual, activation first",
    lambda: Residual(True),
    layer="two",
    centre=1,
    refused=NO_CAM,
    merged=(("one", "norm2"),),
)
of_body(
    "residual, activation last",
    lambda: Residual(False),
    layer="relu2",
    centre=1,
    merged=(("one", "norm1"), ("two", "norm2")),
)


class Branches(nn.Module):
    """Parallel convolutions, concatenated: an inception block, or a dense connection."""

    def __init__(self, dense_connection: bool):
        super().__init__()
        self.dense = dense_connection
        self.one = nn.Conv3d(1, 3, 3, padding=1)
        self.two = nn.Conv3d(4 if dense_connection else 1, 3, 1)
        self.relu, self.mix = nn.ReLU(), nn.Conv3d(7 if dense_connection else 6, 4, 2)
        self.last = nn.ReLU()
        self.end = nn.Sequential(*gap(4))

    def forward(self, scans: Tensor) -> Tensor:
        maps = [self.relu(self.one(scans))]
        if self.dense:
            maps = [scans, *maps]
            maps = [*maps, self.relu(self.two(torch.cat(maps, 1)))]
        else:
            maps = [*maps, self.relu(self.two(scans))]
        return self.end(self.last(self.mix(torch.cat(maps, dim=1))))


of_body("inception block", lambda: Branches(False), layer="last", centre=0.5, refused=NO_LRP)
of_body("dense connections", lambda: Branches(True), layer="last", centre=0.5, refused=NO_LRP)


class Gate(nn.Module):
    """Squeeze and excitation, or an attention to places."""

    def __init__(self, places: bool):
        super().__init__()
        self.body, self.places = stem(), places
        self.gate = nn.Sequential(
            *([nn.Conv3d(4, 1, 1)] if places else [nn.AdaptiveAvgPool3d(1), nn.Conv3d(4, 4, 1)]),
            nn.Sigmoid(),
        )
        self.mix = nn.Sequential(nn.Conv3d(4, 4, 1), nn.ReLU())
        self.end = nn.Sequential(*gap(4))

    def forward(self, scans: Tensor) -> Tensor:
        maps = self.body(scans)
        return self.end(self.mix(maps * self.gate(maps)))


of_body("squeeze and excitation", lambda: Gate(False), layer="mix.1", centre=1, refused=NO_LRP)
of_body("attention to places", lambda: Gate(True), layer="mix.1", centre=1, refused=NO_LRP)


class Weighted(nn.Module):
    """Pooling by a softmax over places (multiple instance learning)."""

    def __init__(self, as_map: bool):
        super().__init__()
        self.body, self.end, self.as_map = stem(), nn.Linear(4, 3), as_map
        self.score = nn.Conv3d(4, 1, 1) if as_map else nn.Linear(4, 1)

    def forward(self, scans: Tensor) -> Tensor:
        maps = self.body(scans)
        places = maps.flatten(2).transpose(1, 2)
        scores = self.score(maps).flatten(1)[..., None] if self.as_map else self.score(places)
        return self.end((places * scores.softmax(1)).sum(1))


of_body(
    "pooling by attention",
    lambda: Weighted(False),
    layer="body.1",
    centre=1,
    refused=NO_CAM | NO_LRP,
)
of_body(
    "pooling by attention, scores as a map",
    lambda: Weighted(True),
    layer="score",
    centre=1,
    refused=NO_CAM | NO_LRP | dict.fromkeys(("grad_cam", "guided_grad_cam"), "cancel"),
)


class Pyramid(nn.Module):
    """A U-Net of two levels."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU())
        self.pool = nn.MaxPool3d(2, ceil_mode=True)
        self.deep = nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), nn.ReLU())
        self.mix = nn.Sequential(nn.Conv3d(8, 4, 1), nn.ReLU())
        self.end = nn.Sequential(*gap(4))

    def forward(self, scans: Tensor) -> Tensor:
        fine = self.down(scans)
        deep = functional.interpolate(self.deep(self.pool(fine)), fine.shape[2:])
        return self.end(self.mix(torch.cat([fine, deep], 1)))


of_body("U-Net", Pyramid, layer="mix.1", step=None, refused=NO_LRP)


class Slices(nn.Module):
    """Slices through a 2D network, in one batch, and a GRU, a mean or a 1D convolution of them."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        self.slice = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.along = nn.GRU(4, 5, batch_first=True) if kind == "gru" else nn.Conv1d(4, 5, 3)
        self.relu, self.end = nn.ReLU(), nn.Linear(5, 3)

    def forward(self, scans: Tensor) -> Tensor:
        batch, channels, x, y, z = scans.shape
        each = self.slice(scans.permute(0, 2, 1, 3, 4).reshape(batch * x, channels, y, z))
        each = each.view(batch, x, -1)
        if self.kind == "gru":
            return self.end(self.along(each)[1][-1])
        return self.end(self.relu(self.along(each.transpose(1, 2))).mean(2))


NO_MAPS = {"maps": "feature map", "cam": "feature map"}
of_body("slices and a GRU", lambda: Slices("gru"), refused=NO_MAPS | NO_LRP)
of_body("slices and a 1D convolution", lambda: Slices("conv"), refused=NO_MAPS | NO_LRP)


class Patches(nn.Module):
    """A vision transformer: patches, a class token, positions, attention."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.patch = nn.Conv3d(1, 8, 3, stride=3)
        self.token = nn.Parameter(torch.randn(1, 1, 8) / 3)
        self.position = nn.Parameter(torch.randn(1, 19, 8) / 3)
        self.encoder, self.norm, self.end = encoder, nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, scans: Tensor) -> Tensor:
        tokens = self.patch(scans).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], 1)
        return self.end(self.norm(self.encoder(tokens + self.position))[:, 0])


class Attention(nn.Module):
    """Attention written out, or by torch's function."""

    def __init__(self, written: bool):
        super().__init__()
        self.three, self.out, self.written = nn.Linear(8, 24), nn.Linear(8, 8), written

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.three(tokens).chunk(3, dim=-1)
        if self.written:
            weights = torch.einsum("bqc,bkc->bqk", query, key) / 8**0.5
            mixed = torch.einsum("bqk,bkc->bqc", weights.softmax(-1), value)
        else:
            mixed = functional.scaled_dot_product_attention(query, key, value)
        return tokens + self.out(mixed)


def encoder(**rest) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, **rest)
    return nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)


AS_A_TRANSFORMER = {"layer": "patch", "centre": 1, "step": 3}
of_body(
    "transformer",
    lambda: Patches(encoder()),
    **AS_A_TRANSFORMER,
    hidden=True,
    refused=NO_CAM | NO_LRP | NO_RELU,
)
of_body(
    "transformer, norm first, GELU",
    lambda: Patches(encoder(norm_first=True, activation="gelu")),
    **AS_A_TRANSFORMER,
    hidden=True,
    refused=NO_CAM | NO_LRP | NO_RELU,
)
of_body(
    "attention written out",
    lambda: Patches(Attention(True)),
    **AS_A_TRANSFORMER,
    hidden=True,
    refused=NO_CAM | NO_LRP | NO_RELU,
)
of_body(
    "attention by torch's function",
    lambda: Patches(Attention(False)),
    **AS_A_TRANSFORMER,
    hidden=True,
    refused=NO_CAM | NO_LRP | NO_RELU,
)


class Mixer(nn.Module):
    """Patches by reshapes, as einops writes them, and two dense layers across them."""

    def __init__(self):
        super().__init__()
        self.patch, self.across, self.relu = nn.Linear(60, 6), nn.Linear(12, 12), nn.ReLU()
        self.end = nn.Linear(6, 3)

    def forward(self, scans: Tensor) -> Tensor:
        parts = scans.reshape(-1, 1, 3, 3, 2, 5, 2, 4).permute(0, 2, 4, 6, 1, 3, 5, 7)
        tokens = self.patch(parts.reshape(-1, 12, 60))
        tokens = tokens + self.relu(self.across(tokens.transpose(1, 2))).transpose(1, 2)
        return self.end(tokens.mean(1))


of_body("mixer of reshaped patches", Mixer, refused=NO_MAPS | NO_LRP)


class Twice(nn.Module):
    """Weights that are used twice: the two halves of a brain, or the same block in a loop."""

    def __init__(self, halves: bool):
        super().__init__()
        self.halves = halves
        self.stem, self.block = nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 4, 3, padding=1)
        self.relu, self.mix, self.last = nn.ReLU(), nn.Conv3d(4, 4, 1), nn.ReLU()
        self.end = nn.Sequential(*gap(4))

    def forward(self, scans: Tensor) -> Tensor:
        maps = self.relu(self.stem(scans))
        if self.halves:
            maps = self.relu(self.block(maps)) - self.relu(self.block(maps.flip(2)))
        else:
            maps = self.relu(self.block(self.relu(self.block(maps))))
        return self.end(self.last(self.mix(maps)))


of_body("one block for both halves", lambda: Twice(True), layer="last", step=None, refused=NO_LRP)
of_body("one block in a loop", lambda: Twice(False), layer="last")


class Averaged(nn.Module):
    """An ensemble of two networks, by their logits."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(
            sequence(nn.Conv3d(1, 3, 3), nn.ReLU(), *gap(3)) for _ in range(2)
        )

    def forward(self, scans: Tensor) -> Tensor:
        return torch.stack([part(scans) for part in self.parts]).mean(0)


of_body("ensemble", Averaged, layer="parts.1.1", centre=1, refused=NO_CAM | NO_LRP)


class Condition(nn.Module):
    """Code that depends on values, which cannot be traced."""

    def __init__(self):
        super().__init__()
        self.body, self.other = stem(), stem()
        self.end = nn.Sequential(*gap(4))

    def forward(self, scans: Tensor) -> Tensor:
        maps = self.body(scans) if scans.abs().max() < 100 else self.other(scans)
        return self.end(maps)


of_body(
    "condition on the scan", Condition, layer="body.1", centre=1, refused={"lrp": "cannot trace"}
)


class Recomputed(nn.Module):
    """Checkpointed, which computes the maps anew on the way back."""

    def __init__(self, reentrant: bool):
        super().__init__()
        self.reentrant, self.body = reentrant, stem()
        self.last = nn.Sequential(nn.Conv3d(4, 4, 1), nn.ReLU())
        self.end = nn.Sequential(*gap(4))

    def forward(self, scans: Tensor) -> Tensor:
        maps = checkpoint(self.body, scans, use_reentrant=self.reentrant)
        return self.end(self.last(maps))


of_body("checkpointed", lambda: Recomputed(False), layer="last.1", centre=1)
of_body(
    "checkpointed, reentrant",
    lambda: Recomputed(True),
    layer="last.1",
    centre=1,
    truth=lambda: settle(Recomputed(False)),
    refused=dict.fromkeys(("gradient", "guided"), "checkpoint"),
)


class Depth(nn.Module):
    """Stochastic depth, of which nothing is left in eval mode, and a normalised temperature."""

    def __init__(self):
        super().__init__()
        self.body, self.block = stem(), nn.Conv3d(4, 4, 1)
        self.relu, self.drop = nn.ReLU(), nn.Dropout3d(0.3)
        self.end = nn.Sequential(*gap(4))

    def forward(self, scans: Tensor) -> Tensor:
        maps = self.body(scans)
        if not self.training or torch.rand(()) > 0.5:
            maps = self.relu(maps + self.drop(self.block(maps)))
        return self.end(maps)


of_body("stochastic depth", Depth, layer="relu", centre=1)


class Places(nn.Module):
    """Coordinates as channels, and a stem of Fourier coefficients."""

    def __init__(self, fourier: bool):
        super().__init__()
        self.fourier = fourier
        self.body = nn.Sequential(nn.Conv3d(2 if fourier else 4, 4, 3), nn.ReLU())
        self.end = nn.Sequential(*gap(4))

    def forward(self, scans: Tensor) -> Tensor:
        if self.fourier:
            waves = torch.fft.rfftn(scans, dim=(2, 3, 4), norm="ortho")
            maps = torch.cat([waves.real, waves.imag], 1)
        else:
            axes = [torch.linspace(-1, 1, n, dtype=scans.dtype) for n in scans.shape[2:]]
            places = torch.stack(torch.meshgrid(*axes, indexing="ij"))
            maps = torch.cat([scans, places.expand(len(scans), -1, -1, -1, -1)], 1)
        return self.end(self.body(maps))


of_body(
    "coordinates as channels",
    lambda: Places(False),
    layer="body.1",
    centre=1,
    refused={"lrp": "cannot trace|no rule"},
)
of_body("Fourier transform", lambda: Places(True), layer="body.1", step=None, refused=NO_LRP)


def normed(function):
    return sequence(function(nn.Conv3d(1, 4, 3)), nn.ReLU(), *gap(4))


network(
    "weight norm",
    "bodies",
    lambda: normed(parametrizations.weight_norm),
    layer="1",
    centre=1,
    refused={"lrp": "no rule|parametri"},
)
network(
    "spectral norm",
    "bodies",
    lambda: normed(parametrizations.spectral_norm),
    layer="1",
    centre=1,
    refused={"lrp": "no rule|parametri"},
)
network(
    "weight norm by a hook",
    "bodies",
    lambda: normed(torch.nn.utils.weight_norm),
    layer="1",
    centre=1,
    refused={"lrp": "no rule|hook"},
)


class Masked(nn.Module):
    """Reads the brain's outline of the scan: where it is not 0."""

    def __init__(self):
        super().__init__()
        self.body, self.end = stem(), nn.Linear(4, 3)

    def forward(self, scans: Tensor) -> Tensor:
        maps = self.body(scans)
        brain = (scans != 0).to(maps.dtype)[..., 1:-1, 1:-1, 1:-1]
        return self.end((maps * brain).mean((2, 3, 4)))


of_body("masked by the scan", Masked, layer="body.1", centre=1, refused=NO_LRP)
network(
    "cropped by slicing",
    "bodies",
    lambda: sequence(Call(lambda scans: scans[:, :, 1:-1, 2:, :-1]), *stem(), *gap(4)),
    layer="2",
    centre=(2, 3, 1),
    refused=NO_LRP,
)
network(
    "dense layers only",
    "bodies",
    lambda: sequence(nn.Flatten(), nn.LazyLinear(6), nn.ReLU(), nn.Linear(6, 3)),
    refused=NO_MAPS,
)
network(
    "logistic regression",
    "bodies",
    lambda: sequence(*dense()),
    refused=NO_MAPS | NO_RELU | {"maps": "feature map|ReLU"},
    hidden=True,
)
