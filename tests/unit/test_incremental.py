"""The engine says of occluded scans what full forward passes say."""

import copy
import operator

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from voxplain.models import build_model
from voxplain.relevance.incremental import IncrementalNetwork, NotLocalError
from voxplain.relevance.layers import Block, Convolution
from voxplain.relevance.occlusion import occlude
from voxplain.relevance.regions import Regions

CLASSES = 3


def in_full(model, scan, regions):
    """Logits with each region at 0, by full forward passes."""
    occluded = scan.repeat(len(regions), 1, 1, 1, 1)
    for number, box in enumerate(regions.boxes()):
        occluded[(number, 0, *box)][torch.from_numpy(regions.inside(number))] = 0
    with torch.no_grad():
        return torch.cat([model(some) for some in occluded.split(64)])


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
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm3d)):
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


def of_axes(draw, values):
    """One number for all axes, or one for each."""
    number = st.sampled_from(values)
    return draw(st.one_of(number, st.tuples(number, number, number)))


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


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_network_of_known_layers_says_what_a_full_forward_pass_says(data):
    model, shape = data.draw(networks())
    regions = boxes(data.draw, shape, data.draw(st.integers(1, 6)))
    assert_exact(model, random_scan(shape), regions)


# --- every voxel, strides and borders -------------------------------------------------------------

SHAPE = (8, 7, 9)
SMALL = {
    "a convolution at the borders": [nn.Conv3d(1, 3, 3, padding=1)],
    "two, strided": [nn.Conv3d(1, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Conv3d(3, 2, 2)],
    "a stride past the last voxel": [nn.Conv3d(1, 2, 2, stride=3), nn.ReLU()],
    "other along each axis": [
        nn.Conv3d(1, 2, (1, 2, 3), stride=(3, 1, 2), padding=(0, 1, 2), dilation=(1, 2, 1))
    ],
    "pools that overlap": [nn.Conv3d(1, 2, 2), nn.MaxPool3d(3, 2, 1), nn.AvgPool3d(2, 1, 1)],
    "pools that leave voxels out": [nn.MaxPool3d(3), nn.Conv3d(1, 2, 1)],
    "a pool beyond the border": [nn.Conv3d(1, 2, 1), nn.ReLU(), nn.MaxPool3d(2, ceil_mode=True)],
    "a pool of negative numbers": [
        nn.Conv3d(1, 2, 1),
        nn.Hardtanh(-3, -1),
        nn.MaxPool3d(2, padding=1),
    ],
}


def classifier(*made, shape=SHAPE, head=None):
    """The layers, and a dense one behind them."""
    with torch.no_grad():
        scan = torch.zeros(1, 1, *shape, dtype=torch.float64)
        after = nn.Sequential(*made).double().eval()(scan)
    if head is not None:
        return ready(nn.Sequential(*made, *head(after.shape[1])))
    return ready(nn.Sequential(*made, nn.Flatten(), nn.Linear(after.numel(), CLASSES)))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("name", SMALL)
def test_a_cube_around_every_voxel(name, size):
    assert_exact(classifier(*SMALL[name]), random_scan(SHAPE), cubes(SHAPE, size))


@pytest.mark.parametrize("name", SMALL)
def test_the_whole_scan_as_a_region_and_regions_of_all_sizes_at_once(name):
    sizes = [(1, 1, 1), (8, 7, 9), (8, 1, 2), (3, 7, 1), (2, 2, 2)]
    stop = np.array(sizes)
    assert_exact(classifier(*SMALL[name]), random_scan(SHAPE), Regions(stop * 0, stop))


@pytest.mark.parametrize("name", ["two, strided", "pools that overlap"])
def test_segments_of_any_shape(name):
    labels = np.random.default_rng(4).integers(0, 6, SHAPE)  # in many pieces each
    labels[labels == 3] = 0
    labels[2:5, 2:5, 2:5] = 90  # and one that is a box
    regions = Regions.segments(labels)
    assert regions.values.tolist() == [1, 2, 4, 5, 90]
    assert_exact(classifier(*SMALL[name]), random_scan(SHAPE), regions)
    assert_exact(classifier(*SMALL[name]), random_scan(SHAPE), regions[[3, 0, 3]])


def test_no_region_gives_no_logits():
    network = IncrementalNetwork(classifier(nn.Conv3d(1, 2, 3)), random_scan(SHAPE))
    for regions in (cubes(SHAPE, 3)[:0], Regions.segments(np.zeros(SHAPE, int))):
        assert network.logits_of(regions, 1).shape == (0, CLASSES)


# --- memory and threads, which change only the speed ----------------------------------------------


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("memory_mb", [0, 0.01, 0.1, 1, 1000])
def test_the_memory_allowed_changes_no_more_than_rounding(threads, memory_mb):
    """Of logits around 1; sums of other batches differ by 1e-15."""
    layers = [nn.Conv3d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(3, 4, 2)]
    network = IncrementalNetwork(classifier(*layers), random_scan(SHAPE))
    regions, done = cubes(SHAPE, 3), []
    with torch.no_grad():
        found = network.logits_of(regions, memory_mb, done.append)
        expected = network.logits_of(regions, 20)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert sum(done) == len(regions) == 504
    assert max(done) > 1 if memory_mb > 0.01 else max(done) == 1
    assert torch.get_num_threads() == threads


def test_other_neighbours_in_a_batch_change_no_more_than_rounding():
    network = IncrementalNetwork(classifier(*SMALL["two, strided"]), random_scan(SHAPE))
    regions = cubes(SHAPE, 3)
    order = np.random.default_rng(0).permutation(len(regions))[:100]
    with torch.no_grad():
        all_together, some = (network.logits_of(r, 1) for r in (regions, regions[order]))
    torch.testing.assert_close(some, all_together[order], rtol=0, atol=1e-12)


def test_regions_are_planned_a_part_at_a_time(monkeypatch):
    monkeypatch.setattr("voxplain.relevance.incremental._REGIONS_AT_ONCE", 7)
    regions = cubes(SHAPE, 3, stride=2)
    assert_exact(classifier(*SMALL["two, strided"]), random_scan(SHAPE), regions)


# --- functions and methods in a network's own code ------------------------------------------------


class Written(nn.Module):
    """A network whose forward is a function of it and of a scan; a dense layer follows."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.first = nn.Conv3d(1, 4, 3, padding=1)
        self.second = nn.Conv3d(4, 4, 3, padding=1)
        self.norm, self.relu, self.drop = nn.BatchNorm3d(4), nn.ReLU(inplace=True), nn.Dropout()
        self.factor = nn.Parameter(torch.ones(4, 1, 1, 1))
        self.head = nn.LazyLinear(CLASSES)
        with torch.no_grad():
            self.double().eval()(torch.zeros(1, 1, *SHAPE, dtype=torch.float64))

    def forward(self, scans):
        return self.head(torch.flatten(self.function(self, scans), 1))


def summed_in_place(net, scans):
    maps = net.first(scans)
    other = net.second(maps)
    other += maps
    return other


def read_after_in_place(net, scans):
    maps = net.first(scans)
    rectified = net.relu(maps)
    return net.second(rectified) + maps  # rectified as well


def read_after_in_place_function(net, scans):
    maps = net.first(scans)
    other = net.second(functional.relu(maps, inplace=True))
    maps.relu_()
    return torch.cat([other, maps], dim=1)


def handed_on_then_changed_in_place(net, scans):
    maps = net.first(scans)
    kept = net.drop(maps)  # the very same map
    return net.second(net.relu(maps)) + kept


def handed_on_twice(net, scans):
    kept = net.drop(net.first(scans))
    return net.norm(net.drop(kept)) - kept


def rectified_and_read(net, scans):
    maps = net.first(scans)
    rectified = functional.relu(maps)
    return functional.max_pool3d(rectified, 2) + functional.avg_pool3d(maps, 2)


def computed_for_nothing(net, scans):
    maps = net.first(scans)
    maps.mean(dim=(2, 3, 4))
    net.second(maps)
    return maps


FUNCTIONS = {
    "relu": lambda net, x: functional.relu(net.first(x)),
    "torch.relu": lambda net, x: torch.relu(net.first(x)),
    "elu and leaky_relu": lambda net, x: functional.leaky_relu(
        functional.elu(net.first(x), 0.5), 0.2
    ),
    "max_pool3d": lambda net, x: functional.max_pool3d(net.first(x), 3, stride=2, padding=1),
    "max_pool3d of relu": lambda net, x: functional.max_pool3d(net.first(x).relu(), 2),
    "avg_pool3d": lambda net, x: functional.avg_pool3d(net.first(x), 3, 2, 1),
    "dropout": lambda net, x: functional.dropout(net.first(x), 0.5, net.training),
    "cat": lambda net, x: net.second(torch.cat([net.first(x)[:, :2]] * 2, dim=1)),
    "cat of maps": lambda net, x: torch.cat([net.first(x), x, net.first(x).relu()], 1),
    "adaptive_avg_pool3d": lambda net, x: functional.adaptive_avg_pool3d(net.first(x), 1),
    "mean": lambda net, x: torch.mean(net.first(x), (-1, -2, -3), keepdim=True),
    "mean of two axes": lambda net, x: net.first(x).mean((2, 3)),
    "view": lambda net, x: net.first(x).view(x.size(0), -1),
    "reshape": lambda net, x: net.first(x).reshape(x.shape[0], -1),
    "a sum with itself": lambda net, x: (lambda maps: maps + maps)(net.first(x)),
    "a number added": lambda net, x: net.second(net.first(x) + 1),
    "a tensor of its own": lambda net, x: net.second(
        net.first(x) + torch.ones(1, dtype=torch.float64)
    ),
    "a parameter": lambda net, x: net.second(net.first(x) * net.factor),
    "keywords": lambda net, x: functional.avg_pool3d(
        input=torch.cat(tensors=[net.first(x), x], dim=1), kernel_size=2
    ),
    **{
        function.__name__: function
        for function in (
            summed_in_place,
            read_after_in_place,
            read_after_in_place_function,
            handed_on_then_changed_in_place,
            handed_on_twice,
            rectified_and_read,
            computed_for_nothing,
        )
    },
}
# What each cannot do by parts; the dense layer's "flatten" for the others.
IN_FULL = {
    "cat": "getitem",
    "adaptive_avg_pool3d": None,  # goes on from what a mean changes
    "mean": None,
    "mean of two axes": "mean",
    "view": "view",
    "reshape": "reshape",
    "a sum with itself": "add",
    "a number added": "add",
    "a tensor of its own": "add",
    "a parameter": "mul",
    "keywords": "cat",
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_and_methods(name):
    model = ready(Written(FUNCTIONS[name]))
    before = set(vars(model))
    network = assert_exact(model, random_scan(SHAPE), cubes(SHAPE, 3, stride=2))
    assert network.in_full == IN_FULL.get(name, "flatten")
    assert set(vars(model)) == before


def test_the_whole_maps_of_a_dense_layer_are_left_as_they_are():
    """What follows may write to what it is given."""
    model = ready(Written(lambda net, x: net.first(x).flatten(1).mul_(2)))
    network = assert_exact(model, random_scan(SHAPE), cubes(SHAPE, 3, stride=3))
    with torch.no_grad():
        once, twice = (network.logits_of(cubes(SHAPE, 3, stride=3), 1) for _ in range(2))
    assert torch.equal(once, twice)


# --- what is not known is computed in full, from there on -----------------------------------------


class Scaled(nn.Module):
    """Somebody's own module."""

    def __init__(self):
        super().__init__()
        self.inside = nn.Conv3d(4, 4, 3, padding=1)
        self.factor = nn.Parameter(torch.full((1,), 2.0))

    def forward(self, maps):
        return self.inside(maps) * self.factor


class OwnConvolution(nn.Conv3d):
    def forward(self, maps):
        return super().forward(maps) * 2


def hooked(module, pre=False):
    if pre:
        module.register_forward_pre_hook(lambda module, given: (given[0] * 2,))
    else:
        module.register_forward_hook(lambda module, given, found: found * 2)
    return module


UNKNOWN = {
    "group norm": (lambda: nn.GroupNorm(2, 4), "1 (GroupNorm)"),
    "instance norm": (lambda: nn.InstanceNorm3d(4), "1 (InstanceNorm3d)"),
    "a convolution that repeats the border": (
        lambda: nn.Conv3d(4, 4, 3, padding=1, padding_mode="replicate"),
        "1 (Conv3d)",
    ),
    "a convolution upwards": (lambda: nn.ConvTranspose3d(4, 4, 2), "1 (ConvTranspose3d)"),
    "a subclass": (lambda: OwnConvolution(4, 4, 3), "conv3d"),
    "a module of one's own": (Scaled, "mul"),
    "a hook": (lambda: hooked(nn.Conv3d(4, 4, 3)), "1 (Conv3d)"),
    "a hook before": (lambda: hooked(nn.ReLU(), pre=True), "1 (ReLU)"),
    "a hooked dropout": (lambda: hooked(nn.Dropout()), "1 (Dropout)"),
    "weight norm by hooks": (lambda: nn.utils.weight_norm(nn.Conv3d(4, 4, 3)), "1 (Conv3d)"),
    "weight norm": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Conv3d(4, 4, 3)),
        "1 (ParametrizedConv3d)",
    ),
    "an adaptive pool": (lambda: nn.AdaptiveAvgPool3d(2), "1 (AdaptiveAvgPool3d)"),
    "a mean without the padding": (
        lambda: nn.AvgPool3d(3, 2, 1, count_include_pad=False),
        "1 (AvgPool3d)",
    ),
}


def with_unknown(name):
    torch.manual_seed(0)
    made = [nn.Conv3d(1, 4, 3, padding=1), UNKNOWN[name][0](), nn.ReLU(), nn.Conv3d(4, 2, 2)]
    with torch.no_grad():
        size = nn.Sequential(*made).double().eval()(random_scan(SHAPE)).numel()
    return nn.Sequential(*made, nn.Flatten(), nn.Linear(size, CLASSES)).double().eval()


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_computed_in_full_from_there_on(name):
    network = assert_exact(with_unknown(name), random_scan(SHAPE), cubes(SHAPE, 3, stride=3))
    assert network.in_full == UNKNOWN[name][1]
    assert network.convolutions_in_full


def test_occluding_warns_where_convolutions_are_computed_in_full():
    scan = random_scan(SHAPE)[0, 0]
    with pytest.warns(RuntimeWarning, match=r"from layer 1 \(GroupNorm\) on.* in full: slow"):
        occlude(with_unknown("group norm"), scan, cubes(SHAPE, 3, stride=3))


@pytest.mark.filterwarnings("error")
def test_a_convolution_that_stands_in_no_layer_in_full_is_no_reason_to_warn():
    model = classifier(*SMALL["two, strided"])
    network = IncrementalNetwork(model, random_scan(SHAPE))
    assert (network.in_full, network.convolutions_in_full) == ("3 (Flatten)", False)
    occlude(model, random_scan(SHAPE)[0, 0], cubes(SHAPE, 3, stride=3))


# --- networks that do not go by parts at all ------------------------------------------------------


class Brightened(nn.Module):
    """Its layers depend on what is in the scan, which cannot be traced."""

    def __init__(self):
        super().__init__()
        self.layers = classifier(nn.Conv3d(1, 2, 3), nn.ReLU())

    def forward(self, scans):
        return self.layers(scans * 2 if scans.mean() > 0 else scans)


class Misread(nn.Module):
    """A sum in place of a map that has a second name: torch.fx reads it as two maps."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv3d(1, 2, 3, padding=1), nn.Conv3d(2, 2, 3, padding=1)
        self.head = nn.Linear(2 * 8 * 7 * 9, CLASSES)

    def forward(self, scans):
        maps = self.first(scans)
        also = maps
        maps += self.second(maps)
        return self.head((maps - 2 * also).flatten(1))


NOT_LOCAL = {
    "control flow": (lambda: ready(Brightened()), "torch.fx cannot trace it"),
    "misread by torch.fx": (lambda: ready(Misread()), "a check failed"),
    "first layer": (
        lambda: classifier(nn.InstanceNorm3d(1), nn.Conv3d(1, 2, 3)),
        r"its first layer, 0 \(InstanceNorm3d\), is not known",
    ),
    "dense from the first": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(8 * 7 * 9, 3)).double().eval(),
        r"its first layer, 0 \(Flatten\), is not known",
    ),
    "a function of parameters first": (
        lambda: ready(Written(lambda net, x: functional.conv3d(x, net.first.weight))),
        "its first layer, conv3d, is not known",
    ),
    "a hook on the whole": (
        lambda: hooked(classifier(nn.Conv3d(1, 2, 3))),
        "hooks, which torch.fx does not see",
    ),
}


@pytest.mark.parametrize("name", NOT_LOCAL)
def test_a_network_that_does_not_go_by_parts_is_run_in_full_with_a_warning(name):
    make, reason = NOT_LOCAL[name]
    model, scan, regions = make(), random_scan(SHAPE), cubes(SHAPE, 3, stride=2)
    with pytest.warns(RuntimeWarning, match=f"full forward pass, which is slow, since .*{reason}"):
        found = occlude(model, scan[0, 0], regions)
    np.testing.assert_allclose(found, drops_in_full(model, scan, regions), rtol=0, atol=1e-12)


def drops_in_full(model, scan, regions):
    with torch.no_grad():
        whole = torch.softmax(model(scan).double(), dim=1)
    return (whole - torch.softmax(in_full(model, scan, regions).double(), dim=1)).numpy()


def test_an_engine_that_is_wrong_is_not_trusted(monkeypatch):
    right = Convolution.carry

    def wrong(*given):
        block = right(*given)
        return Block(block.change * 1.01, block.start)

    monkeypatch.setattr(Convolution, "carry", wrong)
    model, scan = classifier(*SMALL["two, strided"]), random_scan(SHAPE)
    regions = cubes(SHAPE, 3, stride=2)
    with pytest.warns(RuntimeWarning, match=r"a check failed: .* by parts, .* in full"):
        found = occlude(model, scan[0, 0], regions)
    np.testing.assert_allclose(found, drops_in_full(model, scan, regions), rtol=0, atol=1e-12)


def test_an_engine_that_is_wrong_is_not_trusted_where_the_probability_is_saturated(monkeypatch):
    right = Convolution.carry

    def wrong(*given):
        block = right(*given)
        return Block(block.change * 1.1, block.start)

    monkeypatch.setattr(Convolution, "carry", wrong)
    model, scan = classifier(*SMALL["two, strided"]), random_scan(SHAPE)
    with torch.no_grad():
        model[-1].bias[0] += 25
    with pytest.warns(RuntimeWarning, match="a check failed"):
        found = occlude(model, scan[0, 0], cubes(SHAPE, 3, stride=2))
    assert np.abs(found).max() < 1e-6


class Headed(nn.Module):
    """A convolution, and what a test makes of its maps."""

    def __init__(self, head):
        super().__init__()
        self.conv = nn.Conv3d(1, 4, 3, padding=1)
        self.head, self.dense = head, nn.LazyLinear(CLASSES)

    def forward(self, scans, mask=None):
        return self.dense(self.head(self, scans, mask).flatten(1))


def masked(net, scans, mask):
    return net.conv(scans) * mask if mask is not None else net.conv(scans)


ODD = {
    "a sum of one channel and four": (
        lambda net, scans, mask: scans + net.conv(scans),
        "sums maps of different shapes, 1x6x7x5 and 4x6x7x5",
    ),
    "a sum of a mean and its map": (
        lambda net, scans, mask: (lambda maps: maps - functional.avg_pool3d(maps, (6, 7, 5)))(
            net.conv(scans)
        ),
        "sums maps of different shapes",
    ),
    "a question for tensors, which torch.fx has not": (
        lambda net, scans, mask: net.conv(scans) * (2 if isinstance(scans, torch.Tensor) else None),
        r"it fails by parts \(TypeError",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_what_only_fails_by_parts_is_run_in_full(name):
    head, reason = ODD[name]
    shape = (6, 7, 5)
    model, scan = Headed(head).double().eval(), random_scan(shape)
    with torch.no_grad():
        model(scan)
    regions = cubes(shape, 3, stride=2)
    with pytest.warns(RuntimeWarning, match=reason):
        found = occlude(ready(model), scan[0, 0], regions)
    np.testing.assert_allclose(found, drops_in_full(model, scan, regions), rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("error")
def test_a_network_with_an_argument_left_out_is_computed_by_parts():
    model, scan = Headed(masked).double().eval(), random_scan((6, 7, 5))
    with torch.no_grad():
        model(scan)
    regions = cubes((6, 7, 5), 3, stride=2)
    found = occlude(ready(model), scan[0, 0], regions)
    np.testing.assert_allclose(found, drops_in_full(model, scan, regions), rtol=0, atol=1e-12)


def test_a_network_that_writes_to_its_input_leaves_the_scan_alone():
    shape = (6, 7, 5)
    model = Headed(lambda net, scans, mask: net.conv(scans.sub_(0.5).mul_(2)))
    scan = random_scan(shape)
    model = model.double().eval()
    with torch.no_grad():
        model(scan.clone())
    ready(model)
    given, regions = scan[0, 0].clone(), cubes(shape, 3, stride=2)
    with pytest.warns(RuntimeWarning, match="full forward pass"):
        found = occlude(model, given, regions)
    torch.testing.assert_close(given, scan[0, 0], rtol=0, atol=0)
    whole = torch.softmax(model(scan.clone()), 1)
    occluded = [
        torch.softmax(model(torch.where(inside, 0, scan)), 1) for inside in insides(regions, shape)
    ]
    expected = (whole - torch.cat(occluded)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def insides(regions, shape):
    for box in regions.boxes():
        inside = torch.zeros(1, 1, *shape, dtype=torch.bool)
        inside[(0, 0, *box)] = True
        yield inside


def test_autocast_around_it_changes_nothing():
    model, scan = classifier(*SMALL["two, strided"]), random_scan(SHAPE)
    regions = cubes(SHAPE, 3, stride=2)
    expected = occlude(model, scan[0, 0], regions)
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(occlude(model, scan[0, 0], regions), expected)


def test_a_network_that_cannot_be_traced_is_refused_by_the_engine():
    with pytest.raises(NotLocalError, match=r"torch\.fx cannot trace it"):
        IncrementalNetwork(ready(Brightened()), random_scan(SHAPE))


# --- networks of the literature, small ------------------------------------------------------------


def convolutions(before, channels, count=2):
    """Valid convolutions with ReLU and a pool of 2 behind them, as in VGG and VoxCNN."""
    made = []
    for _ in range(count):
        made += [nn.Conv3d(before, channels, 3), nn.ReLU(inplace=True)]
        before = channels
    return [*made, nn.MaxPool3d(2)]


def dense(features):
    return [nn.Linear(features, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.7)]


class PreActivation(nn.Module):
    """Norm, ReLU and convolution twice, added to what went in (He et al. 2016)."""

    def __init__(self, channels):
        super().__init__()
        self.branch = nn.Sequential(
            *[
                layer
                for _ in range(2)
                for layer in (
                    nn.BatchNorm3d(channels),
                    nn.ReLU(inplace=True),
                    nn.Conv3d(channels, channels, 3, padding=1),
                )
            ]
        )

    def forward(self, maps):
        return maps + self.branch(maps)


def rieke():
    return (41, 39, 40), build_model("rieke", (41, 39, 40), 2)


def voxcnn():
    layers = [*convolutions(1, 4), *convolutions(4, 8)]
    return (26, 28, 25), nn.Sequential(
        *layers, nn.Flatten(), *dense(8 * 3 * 4 * 3), nn.Linear(16, 2)
    )


def voxresnet():
    layers = [nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(inplace=True)]
    for _ in range(2):
        layers += [nn.Conv3d(4, 4, 3, stride=2, padding=1), PreActivation(4), PreActivation(4)]
    head = [nn.AdaptiveAvgPool3d(1), nn.Flatten(), *dense(4), nn.Linear(16, 2)]
    return (24, 27, 23), nn.Sequential(*layers, nn.MaxPool3d(2, ceil_mode=True), *head)


@pytest.fixture(params=[rieke, voxcnn, voxresnet], scope="module")
def known(request):
    """A network whose weights float32 holds exactly, and a scan of that kind.

    A probability of 0.5 that 40 cubes change by a few hundredths.
    """
    torch.manual_seed(1)
    shape, model = request.param()
    model, scan = ready(model), random_scan(shape).float().double()
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    logits = in_full(model, scan, cubes(shape, 13, stride=9))
    with torch.no_grad():
        last.bias -= logits.mean(0)
        for parameter in (last.weight, last.bias):
            parameter *= 0.2 / (logits - logits.mean(0)).abs().max()
    return model.float().double(), scan


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("cut", ["cubes", "small cubes", "areas"])
def test_networks_of_the_literature_in_both_precisions(known, cut):
    model, scan = known
    shape = scan.shape[2:]
    if cut == "areas":
        labels = np.zeros(shape, int)
        x, y, z = np.indices(shape)[:, 4:-4, 4:-4, 4:-4]
        labels[4:-4, 4:-4, 4:-4] = 1 + x // 12 + 4 * ((y + x // 3) // 14) + 16 * (z // 16)
        regions = Regions.segments(labels)
    else:
        size, stride = (13, 12) if cut == "cubes" else (3, 10)
        regions = cubes(shape, size, stride, first=2)
    expected = drops_in_full(model, scan, regions)
    assert np.abs(expected).max() > (1e-4 if cut == "small cubes" else 1e-2)
    found = occlude(model, scan[0, 0], regions)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    # As it is used: weights, scan and sums in float32.
    found = occlude(copy.deepcopy(model).float(), scan[0, 0], regions)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
