"""The networks are those of the papers, and their plans have the right shapes."""

import io
import itertools
import math
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from voxplain.faults import SetupFault
from voxplain.models import (
    MODELS,
    Model,
    Recipe,
    build_model,
    describe_model,
    find_model,
    plan_model,
)
from voxplain.models.shapes import RIEKE_POOLS, VOXCNN_POOLS
from voxplain.relevance.occlusion import occlude
from voxplain.relevance.regions import Regions

MM_1, MM_2, MM_3, MM_4 = (193, 229, 193), (97, 115, 97), (65, 77, 65), (49, 58, 49)
YANG = (110, 110, 110)
GAP = ["voxresnet_gap", "voxresnet_shallow_gap"]
ALL = ["rieke", "voxcnn", "voxresnet", *GAP]
# Grids small enough to compute on.
SMALL = {
    "rieke": (38, 40, 39),
    "voxcnn": (40, 41, 42),
    "voxresnet": (9, 12, 10),
    "voxresnet_gap": (9, 12, 10),
    "voxresnet_shallow_gap": (7, 9, 8),
}
RELUS = {
    "rieke": 4 + 2,
    "voxcnn": 10 + 2,
    "voxresnet": 2 + 2 + 6 * 2 + 1,
    "voxresnet_gap": 2 + 2 + 6 * 2,
    "voxresnet_shallow_gap": 2 + 2 * 2,
}
# The fewest voxels along the smallest axis.
LEAST = {"rieke": 38, "voxcnn": 40, "voxresnet": 9, "voxresnet_gap": 9, "voxresnet_shallow_gap": 3}
PLANS = [
    # model, grid, default layer of Grad-CAM, its map, inputs of the first dense layer, label
    ("rieke", MM_1, "features.14", (12, 15, 12), 5120, "rieke"),
    ("rieke", MM_2, "features.14", (4, 6, 4), 64 * 1 * 2 * 1, "rieke"),
    ("rieke", MM_3, "features.14", (4, 5, 4), 64 * 2 * 2 * 2, "rieke (pools 2,2,2,2)"),
    ("rieke", MM_4, "features.14", (2, 3, 2), 64 * 2 * 3 * 2, "rieke (pools 2,2,2,1)"),
    ("voxcnn", MM_1, "relu4c", (13, 18, 13), 64 * 6 * 9 * 6, "voxcnn"),
    ("voxcnn", YANG, "relu4c", (3, 3, 3), 64, "voxcnn"),
    ("voxcnn", MM_2, "relu4c", (9, 13, 9), 64 * 4 * 6 * 4, "voxcnn (pools 2,2,1,2)"),
    ("voxcnn", MM_3, "relu4c", (4, 7, 4), 64 * 2 * 3 * 2, "voxcnn (pools 2,1,2,2)"),
    ("voxcnn", MM_4, "relu4c", (6, 11, 6), 64 * 3 * 5 * 3, "voxcnn (pools 2,1,1,2)"),
    ("voxresnet", MM_1, "voxres9_out", (25, 29, 25), 128 * 3 * 4 * 3, "voxresnet"),
    ("voxresnet", YANG, "voxres9_out", (14, 14, 14), 1024, "voxresnet"),
    ("voxresnet", MM_2, "voxres9_out", (13, 15, 13), 128 * 1 * 2 * 1, "voxresnet"),
    ("voxresnet", MM_3, "voxres9_out", (9, 10, 9), 128, "voxresnet"),
    ("voxresnet", MM_4, "voxres9_out", (7, 8, 7), 128, "voxresnet"),
    ("voxresnet", (48, 58, 48), "voxres9_out", (6, 8, 6), 128, "voxresnet (pool 6)"),
    ("voxresnet_gap", YANG, "voxres9_out", (14, 14, 14), 128, "voxresnet_gap"),
    ("voxresnet_gap", MM_4, "voxres9_out", (7, 8, 7), 128, "voxresnet_gap"),
    ("voxresnet_shallow_gap", YANG, "voxres3_out", (55, 55, 55), 64, "voxresnet_shallow_gap"),
    ("voxresnet_shallow_gap", MM_4, "voxres3_out", (25, 29, 25), 64, "voxresnet_shallow_gap"),
]
TABLES = {"rieke": RIEKE_POOLS, "voxcnn": VOXCNN_POOLS}
ROWS = [(name, *row) for name, table in TABLES.items() for row in table]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def with_x(shape):
    return "x".join(map(str, shape))


def leaves(model):
    return {name: part for name, part in model.named_modules() if not list(part.children())}


def outputs(model, scans):
    """The output of every layer of a network, by name, in the order of the calls."""
    tensors, names = {}, []

    def keep(name):
        def hook(part, given, out):
            names.append(name)
            tensors[name] = out

        return hook

    handles = [part.register_forward_hook(keep(name)) for name, part in leaves(model).items()]
    model(scans)
    for handle in handles:
        handle.remove()
    assert len(names) == len(set(names))  # each layer once
    return tensors


def on_meta(name, grid_shape, classes=2, **options):
    """A network, and the outputs of its layers on torch's meta device, without computing values."""
    with torch.device("meta"):
        model = build_model(name, grid_shape, classes, **options)
        return model, outputs(model, torch.empty(2, 1, *grid_shape))


def maps_of(model, tensors):
    """Shapes of the maps that a plan names: all but those of poolings."""
    layers = leaves(model)
    return {
        name: tuple(out.shape[2:])
        for name, out in tensors.items()
        if out.ndim == 5 and not isinstance(layers[name], nn.MaxPool3d | nn.AdaptiveAvgPool3d)
    }


def first_dense(model):
    return next(part for part in model.modules() if isinstance(part, nn.Linear))


# --- shapes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "grid", "last", "shape", "features", "label"), PLANS)
def test_the_plan_of_a_grid_is_known(name, grid, last, shape, features, label):
    plan = plan_model(name, grid)
    assert plan.last_layer == last == list(plan.layers)[-1]
    assert plan.layers[last] == shape
    assert plan.features == features
    assert plan.label == label == describe_model(name, grid)


@pytest.mark.parametrize(("name", "grid"), [row[:2] for row in PLANS])
def test_the_plan_agrees_with_torch(name, grid):
    model, tensors = on_meta(name, grid, 3)
    plan = plan_model(name, grid)
    assert maps_of(model, tensors) == plan.layers
    assert list(maps_of(model, tensors)) == list(plan.layers)  # in this order
    assert first_dense(model).in_features == plan.features
    assert model.cam_layer == plan.last_layer
    assert list(tensors.values())[-1].shape == (2, 3)


def test_riekes_grid_gives_the_papers_feature_maps():
    model, tensors = on_meta("rieke", MM_1)
    assert [tuple(tensors[f"features.{n}"].shape[1:]) for n in (3, 7, 11, 15)] == [
        (8, 95, 113, 95),
        (16, 31, 37, 31),
        (32, 14, 17, 14),
        (64, 4, 5, 4),
    ]
    assert first_dense(model).in_features == 5120


def test_yangs_grid_gives_the_papers_feature_maps():
    """Before its last pooling VoxCNN has 3^3 voxels, after it one."""
    _, tensors = on_meta("voxcnn", YANG)
    assert [tuple(tensors[f"pool{n}"].shape[1:]) for n in (1, 2, 3, 4)] == [
        (8, 53, 53, 53),
        (16, 24, 24, 24),
        (32, 9, 9, 9),
        (64, 1, 1, 1),
    ]
    assert tensors["conv4c"].shape[1:] == (64, 3, 3, 3)
    assert tensors["conv2b"].shape[1:] == (16, 49, 49, 49)
    _, tensors = on_meta("voxresnet", YANG)
    assert tensors["relu1b"].shape[1:] == (32, 110, 110, 110)
    assert tensors["conv1c"].shape[1:] == tensors["bn4"].shape[1:] == (64, 55, 55, 55)
    assert tensors["conv4"].shape[1:] == tensors["voxres6_out"].shape[1:] == (64, 28, 28, 28)
    assert tensors["conv7"].shape[1:] == tensors["voxres9_out"].shape[1:] == (128, 14, 14, 14)
    assert tensors["flatten"].shape[1:] == (1024,)


def passes(name, grid, pools):
    """Whether torch's own layers take a grid."""
    volume = torch.empty(1, 1, *grid, device="meta")
    kernel = torch.empty(1, 1, 3, 3, 3, device="meta")
    try:
        if name == "voxresnet":
            for _ in range(3):
                volume = functional.conv3d(volume, kernel, stride=2, padding=1)
            functional.max_pool3d(volume, pools)
            return True
        counts = {"rieke": (1, 1, 1, 1), "voxcnn": (2, 2, 3, 3)}[name]
        for count, pool in zip(counts, pools, strict=True):
            for _ in range(count):
                volume = functional.conv3d(volume, kernel)
            volume = functional.max_pool3d(volume, pool)
    except RuntimeError:
        return False
    return True


POOLS = st.just("auto") | st.tuples(*[st.integers(1, 4)] * 4)
CASES = st.one_of(
    st.fixed_dictionaries({"name": st.sampled_from(["rieke", "voxcnn"]), "pools": POOLS}),
    st.fixed_dictionaries(
        {"name": st.just("voxresnet"), "pool": st.just("auto") | st.integers(1, 9)}
    ),
    st.fixed_dictionaries({"name": st.sampled_from(GAP)}),
)
GRIDS = st.tuples(*[st.integers(30, 110)] * 3) | st.tuples(*[st.integers(2, 60)] * 3)


@pytest.mark.slow
@settings(max_examples=50)
@given(case=CASES, grid=GRIDS)
def test_the_plan_agrees_with_torch_on_any_grid(case, grid):
    name, options = case["name"], {key: value for key, value in case.items() if key != "name"}
    chosen = next(iter(options.values()), "auto")
    try:
        plan = plan_model(name, grid, **options)
    except SetupFault as fault:
        assert f"model {name}" in str(fault)
        assert with_x(grid) in str(fault)
        assert "\n" not in str(fault)
        # The residual networks would run on less than two voxels, but such a map shows nothing.
        too_small = min(grid) < LEAST[name] and (chosen == "auto" or name == "voxresnet")
        assert too_small or not passes(name, grid, chosen)
        return
    model, tensors = on_meta(name, grid, **options)
    assert maps_of(model, tensors) == plan.layers
    assert first_dense(model).in_features == plan.features
    assert min(plan.layers[plan.last_layer]) >= (2 if "res" in name else 1)


@pytest.mark.parametrize(("name", "least", "pools"), ROWS)
def test_one_voxel_less_than_the_smallest_grid_is_refused(name, least, pools):
    for grid in ((least,) * 3, (least, 200, 200)):
        assert plan_model(name, grid).pools == pools
        assert passes(name, grid, pools)
    less = (200, least - 1, 200)
    if least == LEAST[name]:
        with pytest.raises(SetupFault, match=rf"{with_x(less)} .*at least {least}; .*finer grid"):
            plan_model(name, less)
    else:
        assert plan_model(name, less).pools != pools
    # With one voxel less no map remains; except for Rieke's second row, with two voxels, not one.
    assert passes(name, less, pools) == (pools == (2, 2, 2, 2) and name == "rieke")


@pytest.mark.parametrize(
    ("name", "grid", "pools", "papers", "least"),
    [
        ("rieke", (97, 77, 97), "2,3,2,3", "2,3,2,3", 78),
        ("voxcnn", (99, 110, 110), "2,2,2,2", "2,2,2,2", 100),
        ("voxcnn", (60, 60, 60), "3,2,2,1", "2,2,2,2", 100),
    ],
)
def test_a_grid_too_small_for_given_pools_is_refused_with_both_named(
    name, grid, pools, papers, least
):
    with pytest.raises(SetupFault) as fault:
        plan_model(name, grid, pools=[int(pool) for pool in pools.split(",")])
    assert str(fault.value) == (
        f"pools is {pools}, with which model {name} does not fit a grid of {with_x(grid)} "
        f"voxels (the paper's {papers} needs at least {least} along each axis); choose smaller "
        "pools, or a finer grid"
    )


def test_a_pool_larger_than_the_last_map_is_refused_with_the_largest_that_fits():
    with pytest.raises(SetupFault) as fault:
        plan_model("voxresnet", (48, 58, 48), pool=7)
    message = str(fault.value)
    for part in (
        "pool is 7, with which model voxresnet does not fit",
        "48x58x48",
        "last map has 6x8x6",
        "a pool of at most 6",
    ):
        assert part in message
    assert plan_model("voxresnet", (48, 58, 48), pool=6).pool == 6


@pytest.mark.parametrize("name", ALL)
def test_a_grid_too_small_for_any_options_is_refused_before_anything_is_built(name):
    grid = (100, LEAST[name] - 1, 100)
    for call in (plan_model, describe_model, lambda *args: build_model(*args, 2)):
        with pytest.raises(
            SetupFault, match=rf"{with_x(grid)} .*{name}: .*at least {LEAST[name]}; .*finer grid"
        ):
            call(name, grid)
    plan_model(name, (LEAST[name],) * 3)


@pytest.mark.parametrize(
    ("name", "pools", "label"),
    [
        ("rieke", [2, 3, 2, 3], "rieke"),
        ("rieke", [2, 2, 2, 2], "rieke (pools 2,2,2,2)"),
        ("voxcnn", [2, 2, 2, 2], "voxcnn"),
        ("voxcnn", [2, 1, 1, 2], "voxcnn (pools 2,1,1,2)"),
    ],
)
def test_other_pools_than_the_papers_are_in_the_label(name, pools, label):
    assert describe_model(name, YANG, pools=pools) == label


def test_another_pool_than_the_papers_is_in_the_label():
    assert describe_model("voxresnet", YANG, pool=7) == "voxresnet"
    assert describe_model("voxresnet", YANG, pool=3) == "voxresnet (pool 3)"


@pytest.mark.parametrize(
    "pools", [[2, 2, 2], [2, 2, 2, 2, 2], [2, 2, 2, 0], [2, 2, 2, 1.5], "2222"]
)
@pytest.mark.parametrize("name", ["rieke", "voxcnn"])
def test_pools_that_are_not_four_numbers_are_refused(name, pools):
    with pytest.raises(SetupFault, match=rf"{name} takes four pools .*not .*2, ?2|2222"):
        plan_model(name, MM_1, pools=pools)


@pytest.mark.parametrize("pool", [0, -1, 2.5, "seven"])
def test_an_invalid_pool_is_refused(pool):
    with pytest.raises(SetupFault, match=f"takes a pool of 1 or more, or auto, not {pool!r}"):
        plan_model("voxresnet", MM_1, pool=pool)


# --- the layers -----------------------------------------------------------------------------------


def kinds(model):
    return [type(part).__name__ for part in leaves(model).values()]


def convolutions(model):
    return [
        (part.in_channels, part.out_channels, part.kernel_size[0], part.stride[0], part.padding[0])
        for part in model.modules()
        if isinstance(part, nn.Conv3d)
    ]


def dense(model):
    parts = [part for part in model.modules() if isinstance(part, nn.Linear)]
    return [(part.in_features, part.out_features) for part in parts]


BLOCK = ["Conv3d", "BatchNorm3d", "ReLU"]
DENSE = ["Flatten", "Dropout", "Linear", "ReLU", "Linear", "ReLU", "Linear"]


def test_the_network_of_rieke_has_the_papers_layers_in_their_order():
    model, _ = on_meta("rieke", MM_1)
    assert kinds(model) == [*BLOCK, "MaxPool3d"] * 4 + DENSE
    assert convolutions(model) == [
        (a, b, 3, 1, 0) for a, b in ((1, 8), (8, 16), (16, 32), (32, 64))
    ]
    pools = [part.kernel_size for part in model.modules() if isinstance(part, nn.MaxPool3d)]
    assert pools == [2, 3, 2, 3]
    assert dense(model) == [(5120, 128), (128, 64), (64, 2)]
    assert [part.p for part in model.modules() if isinstance(part, nn.Dropout)] == [0.8]


def test_voxcnn_has_the_papers_layers_in_their_order():
    model, _ = on_meta("voxcnn", YANG)
    names = "conv1a relu1a conv1b relu1b pool1 conv2a relu2a conv2b relu2b pool2 "
    names += "conv3a relu3a conv3b relu3b conv3c relu3c pool3 "
    names += "conv4a relu4a conv4b relu4b conv4c relu4c pool4 "
    names += "flatten fc5 relu5 bn5 dropout5 fc6 relu6 classifier"
    assert list(leaves(model)) == names.split()
    assert convolutions(model) == [
        (a, b, 3, 1, 0)
        for a, b in zip(
            (1, 8, 8, 16, 16, 32, 32, 32, 64, 64),
            (8, 8, 16, 16, 32, 32, 32, 64, 64, 64),
            strict=True,
        )
    ]
    pools = [part.kernel_size for part in model.modules() if isinstance(part, nn.MaxPool3d)]
    assert pools == [2, 2, 2, 2]
    assert kinds(model)[-8:] == [
        *("Flatten", "Linear", "ReLU", "BatchNorm1d", "Dropout", "Linear", "ReLU", "Linear")
    ]
    assert dense(model) == [(64, 128), (128, 64), (64, 2)]
    assert model.dropout5.p == 0.7


RESIDUAL = "bn1 relu1 conv1 bn2 relu2 conv2 out"
STEM = "conv1a bn1a relu1a conv1b bn1b relu1b conv1c"


def residual(*numbers):
    return [f"voxres{number}_{kind}" for number in numbers for kind in RESIDUAL.split()]


def test_voxresnet_has_the_papers_layers_in_their_order():
    model, _ = on_meta("voxresnet", YANG)
    body = [*STEM.split(), *residual(2, 3), "bn4", "relu4", "conv4", *residual(5, 6)]
    body += ["bn7", "relu7", "conv7", *residual(8, 9)]
    assert list(leaves(model)) == [*body, "pool10", "flatten", "fc11", "relu11", "classifier"]
    same = [(64, 64, 3, 1, 1)] * 4
    assert convolutions(model) == [
        *((1, 32, 3, 1, 1), (32, 32, 3, 1, 1), (32, 64, 3, 2, 1), *same),
        *((64, 64, 3, 2, 1), *same),
        *((64, 128, 3, 2, 1), *[(128, 128, 3, 1, 1)] * 4),
    ]
    assert model.pool10.kernel_size == 7
    assert dense(model) == [(1024, 128), (128, 2)]
    gap, _ = on_meta("voxresnet_gap", YANG)
    assert list(leaves(gap)) == [*body, "gap", "flatten", "classifier"]
    assert convolutions(gap) == convolutions(model)
    shallow, _ = on_meta("voxresnet_shallow_gap", YANG)
    assert list(leaves(shallow)) == [*STEM.split(), *residual(2, 3), "gap", "flatten", "classifier"]
    assert convolutions(shallow) == convolutions(model)[:7]
    assert (dense(gap), dense(shallow)) == ([(128, 2)], [(64, 2)])


@pytest.mark.parametrize(("name", "grid"), [("rieke", MM_4), ("voxcnn", MM_4)])
def test_a_pool_of_one_is_left_out(name, grid):
    model, _ = on_meta(name, grid)
    pools = [part.kernel_size for part in model.modules() if isinstance(part, nn.MaxPool3d)]
    assert pools == [pool for pool in plan_model(name, grid).pools if pool > 1]


def of_convolutions(*channels):
    return sum(after * (27 * before + 1) for before, after in itertools.pairwise(channels))


BODY_64 = of_convolutions(1, 32, 32, 64, 64, 64, 64, 64) + 2 * (2 * 32 + 4 * 64)
BODY = (
    BODY_64
    + of_convolutions(*[64] * 6)
    + 2 * 5 * 64
    + of_convolutions(64, *[128] * 5)
    + 2 * (64 + 4 * 128)
)
COUNTS = {
    # By hand: of convolutions and batch norms, of dense layers before the last, inputs of that.
    "rieke": (of_convolutions(1, 8, 16, 32, 64) + 2 * (8 + 16 + 32 + 64), (5120, 128, 64)),
    "voxcnn": (of_convolutions(1, 8, 8, 16, 16, 32, 32, 32, 64, 64, 64) + 2 * 128, (64, 128, 64)),
    "voxresnet": (BODY, (1024, 128)),
    "voxresnet_gap": (BODY, (128,)),
    "voxresnet_shallow_gap": (BODY_64, (64,)),
}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(("name", "total"), [("rieke", 737_026), ("voxresnet", 3_205_026)])
def test_the_parameter_counts_by_hand_are_known_numbers(name, total, classes):
    body, widths = COUNTS[name]
    hidden = sum(b * (a + 1) for a, b in itertools.pairwise(widths))
    assert body + hidden + 2 * (widths[-1] + 1) == total


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", ALL)
def test_the_number_of_parameters_is_as_counted_by_hand(name, classes):
    model, _ = on_meta(name, MM_1 if name == "rieke" else YANG, classes)
    body, widths = COUNTS[name]
    widths = (*widths, classes)
    by_hand = body + sum(b * (a + 1) for a, b in itertools.pairwise(widths))
    assert sum(p.numel() for p in model.parameters()) == by_hand


@pytest.mark.parametrize("name", ["rieke", "voxcnn"])
def test_the_dropout_rate_is_an_option(name):
    model, _ = on_meta(name, SMALL[name], dropout=0.25)
    assert [part.p for part in model.modules() if isinstance(part, nn.Dropout)] == [0.25]


# --- outputs --------------------------------------------------------------------------------------


def trained_looking(model, seed=0):
    """In eval mode and float64, with batch norms and biases like those of a trained network."""
    draw = torch.Generator().manual_seed(seed)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm3d):
            for values in (part.weight, part.bias, part.running_mean):
                values.data = torch.randn(values.shape, generator=draw)
            part.running_var.data = 0.5 + torch.rand(part.running_var.shape, generator=draw)
        elif isinstance(part, nn.Conv3d | nn.Linear):
            part.bias.data = 0.1 * torch.randn(part.bias.shape, generator=draw)
    return model.double().eval()


@pytest.fixture(scope="module")
def networks():
    """One of each, for three classes on its small grid."""
    models = {}
    for name, grid in SMALL.items():
        torch.manual_seed(0)
        models[name] = trained_looking(build_model(name, grid, 3))
    return models


def scans_for(name, count=2, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, *SMALL[name], dtype=torch.float64, generator=draw)


class ByHand:
    """A plain implementation of the networks from the published code, with their weights."""

    def __init__(self, weights):
        self.weights = weights

    def conv(self, name, maps, stride=1, padding=0):
        of = self.weights
        return functional.conv3d(maps, of[f"{name}.weight"], of[f"{name}.bias"], stride, padding)

    def dense(self, name, values):
        return values @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name, maps):
        mean, variance, gamma, beta = (
            self.weights[f"{name}.{key}"].view(1, -1, *[1] * (maps.ndim - 2))
            for key in ("running_mean", "running_var", "weight", "bias")
        )
        return (maps - mean) / torch.sqrt(variance + 1e-5) * gamma + beta

    def rieke(self, maps):
        for place, pool in ((0, 2), (4, 2), (8, 2), (12, 1)):
            maps = self.norm(f"features.{place + 1}", self.conv(f"features.{place}", maps))
            maps = functional.max_pool3d(maps.relu(), pool)
        values = maps.flatten(1)
        for name in ("classifier.2", "classifier.4"):
            values = self.dense(name, values).relu()
        return self.dense("classifier.6", values)

    def voxcnn(self, maps):
        for block, pool in (("ab", 2), ("ab", 1), ("abc", 1), ("abc", 2)):
            number = {8: 2, 16: 3, 32: 4}.get(maps.shape[1], 1)
            for letter in block:
                maps = self.conv(f"conv{number}{letter}", maps).relu()
            maps = functional.max_pool3d(maps, pool)
        values = self.norm("bn5", self.dense("fc5", maps.flatten(1)).relu())
        return self.dense("classifier", self.dense("fc6", values).relu())

    def block(self, number, maps):
        change = maps
        for half in (1, 2):
            change = self.norm(f"voxres{number}_bn{half}", change).relu()
            change = self.conv(f"voxres{number}_conv{half}", change, padding=1)
        return maps + change

    def body(self, maps, halvings):
        for letter in "ab":
            maps = self.norm(f"bn1{letter}", self.conv(f"conv1{letter}", maps, padding=1)).relu()
        maps = self.conv("conv1c", maps, 2, 1)
        maps = self.block(3, self.block(2, maps))
        if halvings == 1:
            return maps
        maps = self.conv("conv4", self.norm("bn4", maps).relu(), 2, 1)
        maps = self.block(6, self.block(5, maps))
        maps = self.conv("conv7", self.norm("bn7", maps).relu(), 2, 1)
        return self.block(9, self.block(8, maps))

    def voxresnet(self, maps):
        maps = functional.max_pool3d(self.body(maps, 3), 2)
        return self.dense("classifier", self.dense("fc11", maps.flatten(1)).relu())

    def voxresnet_gap(self, maps):
        return self.dense("classifier", self.body(maps, 3).mean((2, 3, 4)))

    def voxresnet_shallow_gap(self, maps):
        return self.dense("classifier", self.body(maps, 1).mean((2, 3, 4)))


@pytest.mark.parametrize("name", ALL)
def test_logits_agree_with_a_plain_implementation(networks, name):
    model, scans = networks[name], scans_for(name)
    with torch.no_grad():
        logits = model(scans)
        expected = getattr(ByHand(model.state_dict()), name)(scans)
    assert logits.shape == (2, 3)
    assert logits.std(0).min() > 1e-5  # the outputs differ between scans
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)


def test_the_layers_that_yang_reads_have_the_expected_outputs(networks):
    by_hand = ByHand(networks["voxresnet"].state_dict())
    with torch.no_grad():
        scans = scans_for("voxresnet")
        tensors = outputs(networks["voxresnet"], scans)
        expected = by_hand.norm("bn4", by_hand.body(scans, 1))
        torch.testing.assert_close(tensors["bn4"], expected, rtol=1e-10, atol=1e-10)
        expected = by_hand.body(scans, 3)
        torch.testing.assert_close(tensors["voxres9_out"], expected, rtol=1e-10, atol=1e-10)
        tensors = outputs(networks["voxcnn"], scans_for("voxcnn"))
        weights = ByHand(networks["voxcnn"].state_dict())
        torch.testing.assert_close(tensors["conv2b"], weights.conv("conv2b", tensors["relu2a"]))
        torch.testing.assert_close(tensors["relu2b"], tensors["conv2b"].clamp(min=0))


@pytest.mark.parametrize("name", GAP)
def test_a_gap_networks_logits_are_weighted_means_of_its_last_layer(networks, name):
    """Class activation maps sum those maps with these weights, and are therefore exact."""
    model = networks[name]
    with torch.no_grad():
        tensors = outputs(model, scans_for(name))
    maps = tensors[model.cam_layer]
    camera = torch.einsum("bkxyz,ck->bcxyz", maps, model.classifier.weight)
    expected = camera.mean((2, 3, 4)) + model.classifier.bias
    torch.testing.assert_close(tensors["classifier"], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", GAP)
def test_global_average_pooling_is_not_rounded_to_bfloat16(name):
    torch.manual_seed(0)
    model, scans = build_model(name, SMALL[name], 3), scans_for(name).float()
    maps = []
    model.gap.register_forward_hook(lambda part, given, out: maps.append(given[0]))
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(scans)
    assert logits.dtype == maps[0].dtype == torch.float32
    values = maps[0].detach()
    assert torch.equal(values, values.bfloat16().float())  # before, it was bfloat16
    expected = values.mean((2, 3, 4)) @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("name", ALL)
def test_a_scans_logits_depend_on_its_batch_only_in_training_mode(networks, name):
    model, scans = networks[name], scans_for(name, count=3)
    with torch.no_grad():
        together = model(scans)
        one_by_one = torch.cat([model(scan[None]) for scan in scans])
        torch.testing.assert_close(together, one_by_one, rtol=1e-10, atol=1e-10)
        state = {key: value.clone() for key, value in model.state_dict().items()}
        torch.manual_seed(1)
        differing = model.train()(scans)
    model.eval().load_state_dict(state)
    assert (differing - together).abs().max() > 1e-3


@pytest.mark.parametrize("name", ALL)
def test_every_relu_is_a_module_and_does_not_change_its_input(networks, name):
    model, scans = networks[name], scans_for(name, count=1)
    relus = [key for key, part in leaves(model).items() if isinstance(part, nn.ReLU)]
    assert len(relus) == RELUS[name]
    assert not any(part.inplace for part in model.modules() if isinstance(part, nn.ReLU))
    assert set(relus) <= set(outputs(model, scans))  # each called, and once
    queue, seen, clamps = [model(scans).grad_fn], set(), 0
    while queue:
        step = queue.pop()
        if step is not None and step not in seen:
            seen.add(step)
            clamps += "Relu" in type(step).__name__
            queue += [before for before, _ in step.next_functions]
    assert clamps == RELUS[name]  # no other ReLU in the graph


@pytest.mark.parametrize("name", ALL)
def test_gradients_of_a_batch_of_two_reach_every_parameter(name):
    torch.manual_seed(1)
    model = build_model(name, SMALL[name], 3).double().train()
    functional.cross_entropy(model(scans_for(name)), torch.tensor([0, 2])).backward()
    # A batch norm removes the bias of the convolution before it.
    biases = {
        f"{key}.bias"
        for key, part in leaves(model).items()
        if isinstance(part, nn.Conv3d | nn.Linear)
    }
    for key, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), key
        assert key in biases or parameter.grad.abs().max() > 1e-12, key
    assert parameter.grad.abs().max() > 0.01  # the last bias


@pytest.mark.parametrize("name", ALL)
def test_a_state_that_is_saved_and_loaded_gives_the_same_logits(networks, name):
    file = io.BytesIO()
    torch.save(networks[name].state_dict(), file)
    file.seek(0)
    torch.manual_seed(9)
    other = build_model(name, SMALL[name], 3).double().eval()
    scans = scans_for(name)
    with torch.no_grad():
        assert not torch.allclose(other(scans), networks[name](scans))
        other.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(other(scans), networks[name](scans))


@pytest.mark.parametrize("name", ALL)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(name):
    def weights(seed):
        torch.manual_seed(seed)
        return build_model(name, SMALL[name], 2).state_dict()

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    kernel = next(key for key, value in first.items() if value.ndim == 5)
    assert not torch.equal(first[kernel], other[kernel])


@pytest.mark.parametrize("name", ALL[1:])
def test_initial_weights_are_glorots(name):
    torch.manual_seed(3)
    model = build_model(name, SMALL[name], 2)
    for part in model.modules():
        if isinstance(part, nn.Conv3d | nn.Linear):
            space = math.prod(part.weight.shape[2:])
            bound = math.sqrt(6 / (space * sum(part.weight.shape[:2])))
            assert part.weight.abs().max() <= bound
            assert part.weight.abs().max() > 0.8 * bound
            assert not part.bias.any()
            if part.weight.numel() > 10_000:
                assert part.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)


def test_an_untrained_voxcnn_keeps_the_differences_between_scans():
    torch.manual_seed(0)
    model = build_model("voxcnn", SMALL["voxcnn"], 2)
    scans = scans_for("voxcnn", count=4).float()

    def share():
        with torch.no_grad():
            maps = outputs(model.eval(), scans)["relu4c"].flatten(1)
        return (maps.std(0).mean() / maps.pow(2).mean().sqrt()).item()

    assert share() > 0.1
    for part in model.modules():
        if isinstance(part, nn.Conv3d):
            part.reset_parameters()  # PyTorch's own
    assert share() < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_occlusion_computes_every_network_by_parts(networks, name):
    """Nothing falls back to full forward passes, and the drops agree with theirs."""
    model, grid = networks[name], SMALL[name]
    scan = scans_for(name, count=1)
    start = np.array([(0, 0, 0), (2, 3, 1), (5, 4, 6)])
    sizes = np.array([(3, 4, 2), (4, 4, 4), (9, 9, 9)])
    regions = Regions(start, np.minimum(start + sizes, grid))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drops = occlude(model, scan[0, 0], regions)
    occluded = scan.repeat(len(regions), 1, 1, 1, 1)
    for number, box in enumerate(regions.boxes()):
        occluded[(number, 0, *box)] = 0
    with torch.no_grad():
        expected = torch.softmax(model(scan), 1) - torch.softmax(model(occluded), 1)
    assert expected.abs().max() > 1e-9
    np.testing.assert_allclose(drops, expected.numpy(), rtol=1e-7, atol=1e-13)


# --- the registry ---------------------------------------------------------------------------------


def test_each_model_has_the_papers_recipe():
    assert MODELS["rieke"].recipe == Recipe("adam", 1e-4, 5, 20, False)
    assert MODELS["voxcnn"].recipe == Recipe("adam", 2.7e-5, 5, 150, True)
    for name in ALL[2:]:
        assert MODELS[name].recipe == Recipe("sgd", 1e-3, 3, 150, True)


def test_an_unknown_model_is_refused_with_the_known_ones():
    for call in (
        lambda: find_model("alexnet"),
        lambda: plan_model("alexnet", MM_2),
        lambda: describe_model("alexnet", MM_2),
        lambda: build_model("alexnet", MM_2, 2),
    ):
        with pytest.raises(SetupFault, match=rf"no model 'alexnet'; allowed: {', '.join(MODELS)}"):
            call()


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("rieke", "pools, dropout"),
        ("voxcnn", "pools, dropout"),
        ("voxresnet", "pool"),
        ("voxresnet_gap", "none"),
        ("voxresnet_shallow_gap", "none"),
    ],
)
def test_an_unknown_option_is_refused_with_the_known_ones(name, allowed):
    assert ", ".join(MODELS[name].options) == allowed.replace("none", "")
    with pytest.raises(SetupFault, match=f"{name} has no option 'depth'; allowed: {allowed}"):
        build_model(name, YANG, 2, depth=3)


def test_a_model_that_is_registered_is_built_by_its_name(monkeypatch, tmp_path):
    (tmp_path / "mean_model.py").write_text(
        "from torch import nn\n"
        "def plan(shape, scale=1):\n"
        "    return {'inputs': scale * shape[0]}\n"
        "def build(plan, n_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(plan['inputs'], n_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(
        MODELS,
        "mean",
        Model(
            "mean_model",
            "for this test",
            "mean_model.plan",
            Recipe("adam", 0.1, 2, 1, False),
            passes=1,
            layers=1,
        ),
    )
    try:
        assert MODELS["mean"].options == ("scale",)
        model = build_model("mean", (5, 1, 1), 4, scale=2)
    finally:
        sys.modules.pop("mean_model", None)
    assert model(torch.zeros(3, 1, 10)).shape == (3, 4)
