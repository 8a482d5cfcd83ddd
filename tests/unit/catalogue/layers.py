"""Networks that differ in one layer: convolutions, norms, poolings, activations."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from catalogue.entries import dense, gap, network, sequence, settle

NO_CAM = {"cam": "nn.Linear"}
NO_LRP = {"lrp": "no rule|cannot trace"}
NO_RELU = {"guided": "ReLU"}


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, maps: Tensor) -> Tensor:
        return self.function(maps)


class Axes(nn.Module):
    """A change of shape by `permute` and `reshape`."""

    def __init__(self, order, shape=None):
        super().__init__()
        self.order, self.shape = order, shape

    def forward(self, maps: Tensor) -> Tensor:
        maps = maps.permute(self.order)
        return maps if self.shape is None else maps.reshape(maps.shape[0], *self.shape)


# --- convolutions


def of_convolution(name, *convolutions, **rest):
    """A network of one or two convolutions and a dense layer of the pooled map."""
    first, *second = convolutions
    rest = {"layer": "1", "refused": NO_CAM} | rest

    def make():
        torch_layers = [first(), nn.ReLU(), *(each() for each in second)]
        return sequence(*torch_layers, nn.AdaptiveAvgPool3d(2), *dense())

    network(name, "convolutions", make, **rest)


network(
    "two convolutions, global average",
    "convolutions",
    lambda: sequence(
        nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 4, 3), nn.ReLU(), *gap(4)
    ),
    layer="3",
    centre=1,
)
network(
    "two convolutions, dense layers",
    "convolutions",
    lambda: sequence(
        nn.Conv3d(1, 4, 3),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Conv3d(4, 4, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(6),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(6, 3),
    ),
    layer="4",
    centre=2.5,
    step=2,
    refused=NO_CAM,
)
of_convolution("strided convolution", lambda: nn.Conv3d(1, 4, 3, stride=2, padding=1), step=2)
of_convolution("even kernel", lambda: nn.Conv3d(1, 4, 2), centre=0.5)
of_convolution(
    "padding same", lambda: nn.Conv3d(1, 4, (2, 3, 4), padding="same"), centre=(0.5, 0, 0.5)
)
of_convolution("dilated convolution", lambda: nn.Conv3d(1, 4, 3, dilation=2), centre=2)
of_convolution(
    "grouped and pointwise convolutions",
    lambda: nn.Conv3d(1, 4, 1),
    lambda: nn.Sequential(nn.Conv3d(4, 4, 3, padding=1, groups=4), nn.ReLU(), nn.Conv3d(4, 5, 1)),
    layer="2",
)
of_convolution(
    "flat kernels",
    lambda: nn.Conv3d(1, 3, (1, 3, 3)),
    lambda: nn.Conv3d(3, 4, (3, 1, 1), stride=(2, 1, 1)),
    layer="2",
    centre=1,
    step=(2, 1, 1),
)
of_convolution("convolution without bias", lambda: nn.Conv3d(1, 4, 3, bias=False), centre=1)
of_convolution("large stride", lambda: nn.Conv3d(1, 6, 4, stride=4), centre=1.5, step=4)
of_convolution(
    "transposed convolution",
    lambda: nn.Conv3d(1, 4, 2, stride=2),
    lambda: nn.ConvTranspose3d(4, 3, 2, stride=2),
    layer="2",
    step=None,
    refused=NO_CAM | NO_LRP,
)
of_convolution(
    "padded by reflection",
    lambda: nn.Conv3d(1, 4, 3, padding=1, padding_mode="reflect"),
    refused=NO_CAM | NO_LRP,
)
of_convolution(
    "padded around",
    lambda: nn.Conv3d(1, 4, 3, padding=1, padding_mode="circular"),
    step=None,
    refused=NO_CAM | NO_LRP | {"guided": "in place"},
)
network(
    "padding module",
    "convolutions",
    lambda: sequence(
        nn.ConstantPad3d((1, 0, 2, 0, 0, 1), 0.0),
        nn.Conv3d(1, 4, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(2),
        *dense(),
    ),
    layer="2",
    centre=(1, -1, 0),
    refused=NO_CAM | NO_LRP,
)
network(
    "convolution as a function of parameters",
    "convolutions",
    lambda: settle(FunctionalConvolution()),
    layer="relu",
    centre=1,
    refused={"lrp": "no rule"},
)


class FunctionalConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 1, 3, 3, 3) / 5)
        self.relu, self.end = nn.ReLU(), nn.Linear(4, 3)

    def forward(self, scans: Tensor) -> Tensor:
        maps = self.relu(functional.conv3d(scans, self.weight))
        return self.end(maps.mean((2, 3, 4)))


class StandardisedConvolution(nn.Conv3d):
    """With standardised weights (Qiao et al. 2019)."""

    def forward(self, maps: Tensor) -> Tensor:
        mean = self.weight.mean((1, 2, 3, 4), keepdim=True)
        deviation = self.weight.std((1, 2, 3, 4), keepdim=True)
        return functional.conv3d(maps, (self.weight - mean) / (deviation + 1e-5), self.bias)


of_convolution(
    "standardised weights",
    lambda: StandardisedConvolution(1, 4, 3),
    centre=1,
    refused=NO_CAM | NO_LRP,
)

# --- norms


def of_norm(name, norm, **rest):
    rest = {"layer": "2", "centre": 1} | rest
    network(
        name,
        "norms",
        lambda: sequence(nn.Conv3d(1, 4, 3), norm(), nn.ReLU(), *gap(4)),
        **rest,
    )


class ChannelsLast(nn.Module):
    """A layer norm of the channels, as in ConvNeXt."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, maps: Tensor) -> Tensor:
        return self.norm(maps.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)


of_norm("batch norm", lambda: nn.BatchNorm3d(4))
of_norm("batch norm without weights", lambda: nn.BatchNorm3d(4, affine=False, momentum=None))
of_norm("synchronised batch norm", lambda: nn.SyncBatchNorm(4), refused=NO_LRP)
of_norm("instance norm", lambda: nn.InstanceNorm3d(4, affine=True), refused=NO_LRP)
of_norm(
    "instance norm with running statistics",
    lambda: nn.InstanceNorm3d(4, affine=True, track_running_stats=True),
    refused=NO_LRP,
)
of_norm("group norm", lambda: nn.GroupNorm(2, 4), refused=NO_LRP)
of_norm("layer norm of all voxels", lambda: nn.LayerNorm((4, 7, 8, 6)), refused=NO_LRP)
of_norm("layer norm of channels", lambda: ChannelsLast(nn.LayerNorm(4)), step=None, refused=NO_LRP)
of_norm("RMS norm", lambda: ChannelsLast(nn.RMSNorm(4)), step=None, refused=NO_LRP)
of_norm("local response norm", lambda: nn.LocalResponseNorm(3), step=None, refused=NO_LRP)
network(
    "batch norm in the dense layers",
    "norms",
    lambda: sequence(
        nn.Conv3d(1, 4, 3, stride=2),
        nn.BatchNorm3d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(5),
        nn.BatchNorm1d(5),
        nn.ReLU(),
        nn.Linear(5, 3),
    ),
    layer="2",
    centre=1,
    step=2,
    refused=NO_CAM,
)
network(
    "batch norm of the scan, before all",
    "norms",
    lambda: sequence(nn.BatchNorm3d(1), nn.Conv3d(1, 4, 3), nn.ReLU(), *gap(4)),
    layer="2",
    centre=1,
)
network(
    "batch norm without running statistics",
    "norms",
    lambda: sequence(
        nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4, track_running_stats=False), nn.ReLU(), *gap(4)
    ),
    refused={"all": "running statistics"},
)

# --- poolings


def of_pool(name, pool, **rest):
    rest = {"layer": "1", "refused": NO_CAM} | rest
    network(
        name,
        "poolings",
        lambda: sequence(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), pool(), *dense()),
        **rest,
    )


class Generalised(nn.Module):
    """Generalised mean pooling with a learned exponent."""

    def __init__(self):
        super().__init__()
        self.power = nn.Parameter(torch.tensor(3.0))

    def forward(self, maps: Tensor) -> Tensor:
        means = functional.adaptive_avg_pool3d(maps.clamp(min=1e-3) ** self.power, 2)
        return means ** (1 / self.power)


class Indices(nn.Module):
    """A max pooling that gives the places too."""

    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool3d(2, return_indices=True)

    def forward(self, maps: Tensor) -> Tensor:
        values, _ = self.pool(maps)
        return values


class Blur(nn.Module):
    """Anti-aliased subsampling."""

    def __init__(self):
        super().__init__()
        one = torch.tensor([1.0, 2.0, 1.0]) / 4
        cube = one[:, None, None] * one[:, None] * one
        self.register_buffer("kernel", cube.repeat(4, 1, 1, 1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        return functional.conv3d(maps, self.kernel, stride=2, padding=1, groups=4)


of_pool("overlapping max pooling", lambda: nn.MaxPool3d(3, 2, padding=1))
of_pool("max pooling with ceil mode", lambda: nn.MaxPool3d(2, ceil_mode=True))
of_pool("dilated max pooling", lambda: nn.MaxPool3d(2, stride=2, dilation=2))
of_pool("average pooling", lambda: nn.AvgPool3d(2))
of_pool(
    "average pooling without its padding",
    lambda: nn.AvgPool3d(3, 2, padding=1, count_include_pad=False),
)
of_pool("uneven adaptive average pooling", lambda: nn.AdaptiveAvgPool3d((4, 3, 2)))
of_pool("adaptive max pooling", lambda: nn.AdaptiveMaxPool3d(2), refused=NO_CAM | NO_LRP)
of_pool(
    "power pooling",
    lambda: nn.LPPool3d(2, 2),
    layer="2",
    centre=0.5,
    step=2,
    refused=NO_CAM | NO_LRP | NO_RELU,
    hidden=True,
)
of_pool(
    "generalised mean pooling",
    Generalised,
    layer="2",
    step=None,
    refused=NO_CAM | NO_LRP | NO_RELU,
    hidden=True,
)
of_pool("max pooling with places", Indices, refused=NO_CAM | NO_LRP)
of_pool("blurred subsampling", Blur, layer="2", step=2, refused=NO_CAM | NO_LRP)
of_pool(
    "every second voxel",
    lambda: Call(lambda maps: maps[..., ::2, ::2, ::2]),
    layer="2",
    step=2,
    refused=NO_CAM | NO_LRP,
)
of_pool(
    "nearest upsampling",
    lambda: nn.Upsample(scale_factor=2),
    layer="2",
    step=None,
    refused=NO_CAM | NO_LRP,
)
of_pool("global maximum", lambda: Call(lambda maps: maps.amax((2, 3, 4))), refused=NO_CAM | NO_LRP)
of_pool(
    "random places in fractional pooling",
    lambda: nn.FractionalMaxPool3d(2, output_ratio=0.5),
    refused={"all": "random"},
)

# --- activations


def of_activation(name, activation, **rest):
    rest = {"layer": "1", "refused": NO_LRP | NO_RELU, "hidden": True, "centre": 1} | rest
    network(
        name,
        "activations",
        lambda: sequence(nn.Conv3d(1, 4, 3), activation(), nn.Conv3d(4, 4, 1), nn.ReLU(), *gap(4)),
        **({"layer": "3"} | {key: value for key, value in rest.items() if key != "layer"}),
    )


for module in (
    nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Softplus, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.RReLU, nn.Softshrink, nn.Hardshrink,
):  # fmt: skip
    of_activation(module.__name__, module)
of_activation("Softsign", nn.Softsign)
for module in (nn.Tanh, nn.Sigmoid, nn.Tanhshrink, nn.LogSigmoid):
    of_activation(module.__name__, module, refused=NO_LRP, hidden=False)
of_activation("ReLU in place", lambda: nn.ReLU(inplace=True), refused={}, hidden=False)
of_activation("functional ReLU", lambda: Call(functional.relu), refused=NO_RELU)
of_activation("threshold of 0", lambda: nn.Threshold(0, 0))
of_activation("threshold of 0.1", lambda: nn.Threshold(0.1, 0))
of_activation("rectified by where", lambda: Call(lambda h: torch.where(h > 0, h, 0 * h)))
of_activation("rectified by a mask", lambda: Call(lambda h: h * (h > 0)))
of_activation("clamp", lambda: Call(lambda h: h.clamp(-0.3, 0.3)))
of_activation("maximum with 0", lambda: Call(lambda h: torch.maximum(h, torch.zeros_like(h))))
of_activation("absolute value", lambda: Call(torch.abs))
of_activation("sine", lambda: Call(torch.sin), refused=NO_LRP, hidden=False)
of_activation("square", lambda: Call(torch.square), refused=NO_LRP, hidden=False)
of_activation(
    "gated linear units",
    lambda: Call(lambda h: torch.cat([functional.glu(h, 1)] * 2, 1)),
    refused=NO_LRP,
    hidden=False,
    step=None,
)
of_activation(
    "maximum of pairs of channels",
    lambda: Call(lambda h: h.unflatten(1, (2, 2)).amax(2).repeat(1, 2, 1, 1, 1)),
    step=None,
)
