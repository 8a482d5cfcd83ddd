import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from voxplain.faults import SetupFault
from voxplain.models import MODELS, Model, build_model, describe_model, find_model
from voxplain.models.shapes import REDUCED_POOLS, plan_rieke

PAPER = (2, 3, 2, 3)
GRIDS = [
    # grid, pools, last feature map, label
    ((193, 229, 193), PAPER, (4, 5, 4), "rieke"),  # 1 mm
    ((97, 115, 97), PAPER, (1, 2, 1), "rieke"),  # 2 mm
    ((65, 77, 65), (2, 2, 2, 2), (2, 2, 2), "rieke (pools 2,2,2,2)"),  # 3 mm
    ((49, 58, 49), (2, 2, 2, 1), (2, 3, 2), "rieke (pools 2,2,2,1)"),  # 4 mm
]


def on_meta(grid_shape, **options):
    """A network and its last feature map by torch's own rules, without a number computed."""
    with torch.device("meta"):
        model = build_model("rieke", grid_shape, 2, **options)
        return model, model.features(torch.empty(1, 1, *grid_shape)).shape


# --- shapes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("grid", "pools", "last", "label"), GRIDS)
def test_the_plan_of_a_templates_grid_is_known(grid, pools, last, label):
    plan = plan_rieke(grid)
    assert plan.pools == pools
    assert plan.layers[-1] == last
    assert plan.label == label == describe_model("rieke", grid)
    assert plan.dropout == 0.8


def test_the_papers_grid_gives_the_papers_feature_maps():
    plan = plan_rieke((193, 229, 193))
    assert plan.layers == ((95, 113, 95), (31, 37, 31), (14, 17, 14), (4, 5, 4))
    assert plan.features == 5120


@pytest.mark.parametrize(("grid", "pools", "last", "label"), GRIDS)
def test_torch_gives_the_feature_map_of_the_plan(grid, pools, last, label):
    model, shape = on_meta(grid)
    assert tuple(shape) == (1, 64, *last)
    assert model.classifier[2].in_features == plan_rieke(grid).features == shape.numel()
    with torch.device("meta"):
        assert model(torch.empty(3, 1, *grid)).shape == (3, 2)


pools = st.tuples(*[st.integers(1, 4)] * 4)
edges = st.tuples(*[st.integers(20, 110)] * 3)


@settings(max_examples=60)
@given(grid=edges, pools=st.just("auto") | pools)
def test_the_plan_follows_torch_on_any_grid_or_refuses_what_torch_refuses(grid, pools):
    try:
        plan = plan_rieke(grid, pools=pools)
    except SetupFault as fault:
        assert "x".join(map(str, grid)) in str(fault)
        assert "\n" not in str(fault)
        assert min(grid) < 38 if pools == "auto" else not passes(grid, pools)
        return
    with torch.device("meta"):
        volume = torch.empty(1, 1, *grid)
        for pool, layer in zip(plan.pools, plan.layers, strict=True):
            volume = nn.functional.max_pool3d(nn.functional.conv3d(volume, KERNEL), pool)
            assert tuple(volume.shape[2:]) == layer
    assert min(plan.layers[-1]) >= 1


KERNEL = torch.empty(1, 1, 3, 3, 3, device="meta")


def passes(grid, pools):
    """Whether torch's own layers take a grid."""
    volume = torch.empty(1, 1, *grid, device="meta")
    try:
        for pool in pools:
            volume = nn.functional.max_pool3d(nn.functional.conv3d(volume, KERNEL), pool)
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize(("least", "pools"), REDUCED_POOLS)
def test_the_smallest_grids_of_each_row_are_tight(least, pools):
    assert plan_rieke((least,) * 3).pools == pools
    assert plan_rieke((least, 200, 200)).pools == pools
    if least == 38:
        with pytest.raises(SetupFault, match="at least 38"):
            plan_rieke((200, 37, 200))
    else:
        assert plan_rieke((200, least - 1, 200)).pools != pools
    assert passes((least,) * 3, pools)


@pytest.mark.parametrize(("least", "pools", "left"), [(78, PAPER, 1), (62, (2, 2, 2, 2), 2)])
def test_one_voxel_less_leaves_one_voxel_less(least, pools, left):
    assert plan_rieke((least,) * 3, pools=pools).layers[-1] == (left,) * 3
    if left == 1:
        assert not passes((least - 1,) * 3, pools)
    else:
        assert plan_rieke((least - 1,) * 3, pools=pools).layers[-1] == (left - 1,) * 3


def test_thirty_eight_voxels_are_the_fewest_that_the_last_row_takes():
    assert plan_rieke((38,) * 3).layers == ((18,) * 3, (8,) * 3, (3,) * 3, (1,) * 3)
    assert not passes((37,) * 3, (2, 2, 2, 1))


def test_a_grid_too_small_for_the_papers_pools_is_refused_with_both_named():
    with pytest.raises(SetupFault) as fault:
        plan_rieke((97, 77, 97), pools=PAPER)
    message = str(fault.value)
    assert "pools 2,3,2,3" in message
    assert "97x77x97" in message
    assert "at least 78" in message
    assert "\n" not in message


def test_a_grid_too_small_for_any_pools_is_refused_with_the_smallest_axis_that_would_do():
    with pytest.raises(SetupFault, match=r"rieke .*100x37x100 .*at least 38.*resolution_mm"):
        plan_rieke((100, 37, 100))


def test_pools_that_are_asked_for_show_in_the_label_unless_they_are_the_papers():
    assert describe_model("rieke", (193, 229, 193), pools=[2, 3, 2, 3]) == "rieke"
    assert describe_model("rieke", (97, 115, 97), pools=[2, 2, 2, 2]) == "rieke (pools 2,2,2,2)"
    assert describe_model("rieke", (49, 58, 49)) == "rieke (pools 2,2,2,1)"


# --- the network ----------------------------------------------------------------------------------


def kinds(model):
    return [type(part).__name__ for part in model.modules() if not list(part.children())]


BLOCK = ["Conv3d", "BatchNorm3d", "ReLU"]
DENSE = ["Flatten", "Dropout", "Linear", "ReLU", "Linear", "ReLU", "Linear"]


def test_the_network_has_the_papers_layers_in_their_order():
    model, _ = on_meta((193, 229, 193))
    assert kinds(model) == [*BLOCK, "MaxPool3d"] * 4 + DENSE
    convolutions = [part for part in model.modules() if isinstance(part, nn.Conv3d)]
    assert [c.out_channels for c in convolutions] == [8, 16, 32, 64]
    assert {(c.kernel_size, c.stride, c.padding) for c in convolutions} == {
        ((3, 3, 3), (1, 1, 1), (0, 0, 0))
    }
    pools = [part.kernel_size for part in model.modules() if isinstance(part, nn.MaxPool3d)]
    assert pools == [2, 3, 2, 3]
    dense = [part for part in model.modules() if isinstance(part, nn.Linear)]
    assert [(d.in_features, d.out_features) for d in dense] == [(5120, 128), (128, 64), (64, 2)]
    assert [part.p for part in model.modules() if isinstance(part, nn.Dropout)] == [0.8]


def test_a_pool_of_one_is_left_out():
    model, _ = on_meta((49, 58, 49))
    assert kinds(model) == [*BLOCK, "MaxPool3d"] * 3 + BLOCK + DENSE


@pytest.mark.parametrize(("classes", "more"), [(2, 0), (3, 65)])
def test_the_parameters_are_as_many_as_one_counts_by_hand(classes, more):
    with torch.device("meta"):
        model = build_model("rieke", (193, 229, 193), classes)
    convolutions = 8 * (27 + 1) + 16 * (8 * 27 + 1) + 32 * (16 * 27 + 1) + 64 * (32 * 27 + 1)
    norms = 2 * (8 + 16 + 32 + 64)
    dense = 128 * (5120 + 1) + 64 * (128 + 1) + 2 * (64 + 1)
    assert convolutions + norms + dense == 737_026
    assert sum(p.numel() for p in model.parameters()) == 737_026 + more


@pytest.fixture(scope="module")
def small():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return build_model("rieke", (38, 38, 40), 3)


def test_a_scan_becomes_logits_of_every_class(small):
    scans = torch.randn(2, 1, 38, 38, 40)
    small.eval()
    with torch.no_grad():
        logits = small(scans)
        by_hand = small.classifier(small.features(scans).flatten(1))
    assert logits.shape == (2, 3)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, by_hand)
    # No softmax at the end: logits are no probabilities.
    assert not torch.allclose(logits.sum(1), torch.ones(2), atol=1e-3)


def test_every_relu_is_a_module_of_its_own_that_leaves_its_input_alone(small):
    scans = torch.randn(1, 1, 38, 38, 40)
    relus = [part for part in small.modules() if isinstance(part, nn.ReLU)]
    assert len(relus) == 6
    assert not any(relu.inplace for relu in relus)
    seen = []
    handles = [relu.register_forward_hook(lambda part, *_: seen.append(id(part))) for relu in relus]
    names = set()
    small.eval()
    logits = small(scans)
    for handle in handles:
        handle.remove()
    assert len(seen) == len(set(seen)) == 6  # each once
    queue = [logits.grad_fn]
    clamps = 0
    while queue:
        step = queue.pop()
        if step is not None and id(step) not in names:
            names.add(id(step))
            clamps += "Relu" in type(step).__name__
            queue += [before for before, _ in step.next_functions]
    assert clamps == 6  # no other ReLU in the graph


def test_dropout_is_the_options(small):
    model = build_model("rieke", (38, 38, 40), 2, dropout=0.25)
    assert model.classifier[1].p == 0.25
    assert small.classifier[1].p == 0.8


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    def weights(seed):
        torch.manual_seed(seed)
        return build_model("rieke", (38, 38, 38), 2).state_dict()

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["features.0.weight"], other["features.0.weight"])


# --- the registry ---------------------------------------------------------------------------------


def test_an_unknown_model_is_refused_with_those_that_there_are():
    for call in (
        lambda: find_model("alexnet"),
        lambda: describe_model("alexnet", (97, 115, 97)),
        lambda: build_model("alexnet", (97, 115, 97), 2),
    ):
        with pytest.raises(SetupFault, match=r"no model 'alexnet'; allowed: rieke"):
            call()


def test_a_grid_that_does_not_fit_is_refused_before_anything_is_built():
    for call in (
        lambda: describe_model("rieke", (30, 30, 30)),
        lambda: build_model("rieke", (30, 30, 30), 2),
    ):
        with pytest.raises(SetupFault, match="30x30x30"):
            call()


def test_a_model_that_is_registered_is_built_by_its_name(monkeypatch, tmp_path):
    (tmp_path / "mean_model.py").write_text(
        "from torch import nn\n"
        "def build(plan, n_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(plan['inputs'], n_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(
        MODELS,
        "mean",
        Model("mean_model", "for this test", lambda shape, scale=1: {"inputs": scale * shape[0]}),
    )
    try:
        model = build_model("mean", (5, 1, 1), 4, scale=2)
    finally:
        sys.modules.pop("mean_model", None)
    assert model(torch.zeros(3, 1, 10)).shape == (3, 4)
