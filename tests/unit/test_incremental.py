import operator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import fx, nn
from torch.nn import functional

from voxplain.relevance.incremental import IncrementalNetwork, NotLocalError
from voxplain.relevance.regions import Regions

CLASSES = 3


def in_full(model, scan, regions):
    """Logits with each region at 0, by a forward pass for each."""
    found = []
    for number, box in enumerate(regions.boxes()):
        occluded = scan.clone()
        occluded[(0, 0, *box)][torch.from_numpy(regions.inside(number))] = 0
        with torch.no_grad():
            found.append(model(occluded))
    return torch.cat(found)


def random_scan(shape, seed=0):
    return torch.randn(
        1, 1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def ready(model, seed=0):
    """In eval mode, float64, with batch norms that do something."""
    torch.manual_seed(seed)
    model = model.double().eval()
    for module in model.modules():
        if isinstance(module, (nn.Conv3d, nn.Linear)):
            module.reset_parameters()
        if isinstance(module, nn.BatchNorm3d) and module.running_mean is not None:
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.3, 2)
            if module.weight is not None:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return model


def assert_exact(model, scan, regions, memory_mb=1.0):
    with torch.no_grad():
        network = IncrementalNetwork(model, scan)
        found = network.logits_of(regions, memory_mb)
        torch.testing.assert_close(network.logits, model(scan), rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(found, in_full(model, scan, regions), rtol=1e-10, atol=1e-11)
    return network


def cubes(shape, size, stride=1, first=0):
    axes = [np.arange(first, n, stride) for n in shape]
    return Regions.cubes(np.stack(np.meshgrid(*axes, indexing="ij"), -1), size, shape)


def boxes(draw, shape, count):
    start, stop = [], []
    for _ in range(count):
        edges = [sorted(draw(st.tuples(*[st.integers(0, n)] * 2))) for n in shape]
        assume(all(a < b for a, b in edges))
        start.append([a for a, _ in edges])
        stop.append([b for _, b in edges])
    return Regions(np.array(start), np.array(stop))


# --- random networks, shapes, strides and borders -------------------------------------------------


class Residual(nn.Module):
    """A sum or a concatenation of two branches on one grid."""

    def __init__(self, channels, join, left, right):
        super().__init__()
        self.left, self.right, self.join = left, right, join
        self.channels = channels

    def forward(self, maps):
        left, right = self.left(maps), self.right(maps)
        if self.join is torch.cat:
            return torch.cat([left, right], dim=1)
        return self.join(left, right)


AXES = ("one", "apart")


def of_axes(draw, values):
    """One number for all axes, or one for each."""
    number = st.sampled_from(values)
    return draw(st.one_of(number, st.tuples(number, number, number)))


def triple(value):
    return (value,) * 3 if isinstance(value, int) else tuple(value)


@st.composite
def layers(draw, channels, depth):
    """A few layers, and the channels they give."""
    made = []
    for _ in range(draw(st.integers(1, 5))):
        kinds = ["conv", "norm", "point", "max", "mean", "nothing"] + ["join"] * (depth > 0)
        kind = draw(st.sampled_from(kinds))
        if kind == "conv":
            out = draw(st.sampled_from([2, 4]))
            kernel, same = of_axes(draw, [1, 2, 3]), draw(st.booleans())
            if same:
                conv = nn.Conv3d(
                    channels, out, kernel, padding="same", dilation=of_axes(draw, [1, 2])
                )
            else:
                conv = nn.Conv3d(
                    channels,
                    out,
                    kernel,
                    stride=of_axes(draw, [1, 2, 3]),
                    padding=of_axes(draw, [0, 1, 2]),
                    dilation=of_axes(draw, [1, 2]),
                    groups=draw(st.sampled_from([1, 2])) if channels % 2 == 0 else 1,
                    bias=draw(st.booleans()),
                )
            made.append(conv)
            channels = out
        elif kind == "norm":
            made.append(nn.BatchNorm3d(channels, affine=draw(st.booleans())))
        elif kind == "point":
            choices = [nn.ReLU(), nn.ReLU(inplace=True), nn.ELU(), nn.LeakyReLU(0.1), nn.Sigmoid()]
            made.append(draw(st.sampled_from(choices)))
        elif kind == "max":
            kernel = of_axes(draw, [2, 3])
            padding = draw(st.sampled_from([0, 1]))
            stride, ceil = of_axes(draw, [1, 2, 3]), draw(st.booleans())
            dilation = of_axes(draw, [1, 2])
            made.append(nn.MaxPool3d(kernel, stride, padding, dilation, ceil_mode=ceil))
        elif kind == "mean":
            kernel = of_axes(draw, [2, 3])
            made.append(nn.AvgPool3d(kernel, of_axes(draw, [1, 2]), draw(st.sampled_from([0, 1]))))
        elif kind == "nothing":
            made.append(draw(st.sampled_from([nn.Identity(), nn.Dropout(0.5)])))
        else:
            join = draw(st.sampled_from([operator.add, torch.sub, operator.iadd, torch.cat]))
            kernel = draw(st.sampled_from([1, 3]))
            branch = [nn.BatchNorm3d(channels), nn.ReLU(inplace=draw(st.booleans()))]
            branch.append(nn.Conv3d(channels, channels, kernel, padding="same"))
            other = draw(st.sampled_from([nn.Identity(), nn.Conv3d(channels, channels, 1)]))
            made.append(Residual(channels, join, nn.Sequential(*branch), other))
            channels *= 2 if join is torch.cat else 1
    return made, channels


class Mean(nn.Module):
    def forward(self, maps):
        return maps.mean(dim=(2, 3, 4))


@st.composite
def networks(draw):
    """A network, and a scan that it takes."""
    shape = tuple(draw(st.integers(7, 14)) for _ in range(3))
    made, channels = draw(layers(1, depth=1))
    assume(not all(isinstance(layer, nn.Identity | nn.Dropout) for layer in made))
    body = nn.Sequential(*made)
    try:
        with torch.no_grad():
            after = body.double().eval()(torch.zeros(1, 1, *shape, dtype=torch.float64)).shape[2:]
    except RuntimeError:  # the map got too small for a layer
        assume(False)
    head = draw(st.sampled_from(["flatten", "mean", "pool"]))
    if head == "flatten":
        tail = [nn.Flatten(), nn.Linear(channels * int(np.prod(after)), CLASSES)]
    elif head == "mean":
        tail = [Mean(), nn.Linear(channels, CLASSES)]
    else:
        tail = [nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]
    model = ready(nn.Sequential(body, *tail), draw(st.integers(0, 3)))
    return model, shape


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_network_of_known_layers_says_what_a_full_forward_pass_says(data):
    model, shape = data.draw(networks())
    regions = boxes(data.draw, shape, data.draw(st.integers(1, 6)))
    assert_exact(model, random_scan(shape), regions)
