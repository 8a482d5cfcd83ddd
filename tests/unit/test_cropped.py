"""The network without the background is the network, to the rounding of float64."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from voxplain.models import build_model
from voxplain.store import Brain
from voxplain.training.cropped import CroppedNetwork, find_blocks


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def brain_in(shape, box):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*side) for side in box)] = True
    return Brain(mask)


def scans_of(brain, count=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn((count, 1, *brain.mask.shape), generator=draw, dtype=torch.float64)
    return values * torch.from_numpy(brain.mask)


def shown(scans, network):
    x, y, z = (slice(*side) for side in network.window)
    return scans[:, :, x, y, z]


def spread(model, seed=1):
    """Weights as after long training: batch norms with factors of both signs."""
    draw = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm3d):
            for values in (layer.weight, layer.bias, layer.running_mean):
                values.data = torch.randn(values.shape, generator=draw)
            layer.running_var.data = 0.5 + torch.rand(layer.running_var.shape, generator=draw)
    return model.double()


def blocks_of(pools, edges, *end):
    layers, before = [], 1
    for channels, (pool, edge) in enumerate(zip(pools, edges, strict=True), start=2):
        layers += [nn.Conv3d(before, channels, edge), nn.BatchNorm3d(channels), nn.ReLU()]
        layers += [nn.MaxPool3d(pool)] if pool > 1 else []
        before = channels
    return nn.Sequential(*layers, *end)


def losses_and_gradients(model, run, scans):
    model.zero_grad()
    torch.manual_seed(5)
    logits = run(scans)
    loss = (logits**2).mean() + logits[:, 0].sum()
    loss.backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters()}


def assert_the_same(model, brain, tolerance=1e-9):
    other = copy.deepcopy(model)
    network = CroppedNetwork(other, brain)
    scans = scans_of(brain)
    logits, gradients = losses_and_gradients(model, model, scans)
    cropped_logits, cropped = losses_and_gradients(other, network, shown(scans, network))
    torch.testing.assert_close(cropped_logits, logits, rtol=tolerance, atol=tolerance)
    for name, expected in gradients.items():
        actual = cropped[name] if cropped[name] is not None else torch.zeros_like(expected)
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, msg=name)
    for name, expected in model.state_dict().items():
        actual = other.state_dict()[name]
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, msg=name)
    model.eval()
    other.eval()
    with torch.no_grad():
        actual = network(shown(scans, network))
        torch.testing.assert_close(actual, model(scans), rtol=tolerance, atol=tolerance)
    return network


SIDE = st.tuples(st.integers(0, 9), st.integers(1, 10)).map(
    lambda side: (side[0], min(10, side[0] + side[1]))
)


@settings(max_examples=25)
@given(
    pools=st.lists(st.integers(1, 3), min_size=1, max_size=2),
    edges=st.lists(st.integers(1, 3), min_size=2, max_size=2),
    box=st.tuples(SIDE, SIDE, SIDE),
    seed=st.integers(0, 99),
)
def test_logits_gradients_and_running_statistics_are_the_whole_networks(pools, edges, box, seed):
    shape, left = (10, 11, 12), 10
    for pool, edge in zip(pools, edges, strict=False):
        left = (left - edge + 1) // pool
    assume(left > 0)
    model = blocks_of(pools, edges[: len(pools)], nn.Flatten())
    torch.manual_seed(seed)
    model.append(nn.Linear(model(torch.zeros(2, 1, *shape)).shape[1], 2))
    assert_the_same(spread(model, seed), brain_in(shape, box))


@pytest.mark.slow
@pytest.mark.parametrize("pools", ["auto", [2, 2, 2, 2]])
@pytest.mark.parametrize(
    "box", [((9, 37), (8, 50), (2, 40)), ((0, 48), (0, 50), (0, 46)), ((40, 48), (0, 3), (20, 21))]
)
def test_riekes_cropped_network_is_the_same_with_dropout(pools, box):
    torch.manual_seed(2)
    shape = (48, 50, 46)
    model = spread(build_model("rieke", shape, 2, pools=pools))
    network = assert_the_same(model, brain_in(shape, box))
    assert len(network._blocks) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("voxcnn", (40, 42, 41)),
        ("voxresnet", (9, 12, 10)),
        ("voxresnet_gap", (9, 12, 10)),
        ("voxresnet_shallow_gap", (7, 9, 8)),
    ],
)
def test_the_other_networks_get_whole_scans_dropout_included(name, shape):
    torch.manual_seed(2)
    model = spread(build_model(name, shape, 2))
    network = assert_the_same(model, brain_in(shape, ((2, 5), (1, 6), (3, 7))))
    assert network._blocks == []
    assert network.window == tuple((0, n) for n in shape)


def test_the_papers_network_gets_half_of_the_volume():
    box = ((24, 169), (24, 206), (6, 161))
    model = nn.Sequential(nn.Conv3d(1, 1, 3), nn.BatchNorm3d(1), nn.ReLU(), nn.MaxPool3d(2))
    network = CroppedNetwork(model, brain_in((193, 229, 193), box))
    assert network.window == ((22, 172), (22, 208), (4, 164))
    sides = [stop - start for start, stop in network.window]
    assert 0.5 < np.prod(sides) / (193 * 229 * 193) < 0.53


def test_a_network_of_other_layers_gets_whole_scans():
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv3d(1, 3, 3, padding=1), nn.BatchNorm3d(3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)
    )
    model(torch.zeros(2, 1, 7, 8, 6))
    network = assert_the_same(model.double(), brain_in((7, 8, 6), ((2, 5), (1, 4), (0, 6))))
    assert network._blocks == []


def test_a_network_that_lists_no_layers_runs_as_it_is():
    class Custom(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = blocks_of([2], [3], nn.Flatten(), nn.Linear(2 * 3 * 3 * 2, 2))

        def forward(self, scans):
            return 2 * self.inner(scans)

    torch.manual_seed(4)
    assert_the_same(Custom().double(), brain_in((8, 9, 7), ((3, 5), (1, 4), (0, 6))))


def odd(**changes):
    return [nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.ReLU(), nn.MaxPool3d(2, **changes)]


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv3d(1, 2, 3, padding=1),
        nn.Conv3d(1, 2, 3, stride=2),
        nn.Conv3d(1, 2, 3, dilation=2),
        nn.Conv3d(1, 2, (3, 3, 1)),
        nn.Conv3d(2, 2, 3, groups=2),
    ],
)
def test_other_convolutions_are_not_cropped(layer):
    blocks, rest = find_blocks([layer, *odd()[1:]])
    assert blocks == []
    assert len(rest) == 4


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm3d(2, affine=False),
        nn.BatchNorm3d(2, track_running_stats=False),
        nn.BatchNorm3d(2, momentum=None),
        nn.InstanceNorm3d(2),
    ],
)
def test_other_norms_are_not_cropped(norm):
    assert find_blocks([nn.Conv3d(1, 2, 3), norm, nn.ReLU()])[0] == []


@pytest.mark.parametrize(
    "changes", [{"stride": 1}, {"padding": 1}, {"ceil_mode": True}, {"dilation": 2}]
)
def test_other_poolings_come_after_the_block(changes):
    (block,), rest = find_blocks(odd(**changes))
    assert block.pool == 1
    assert len(rest) == 1


def test_bfloat16_is_as_near_to_float32_as_without_cropping():
    torch.manual_seed(6)
    shape, box = (48, 50, 46), ((9, 37), (8, 45), (2, 40))
    brain = brain_in(shape, box)
    model = build_model("rieke", shape, 2, dropout=0.0)
    network = CroppedNetwork(model, brain)
    scans = scans_of(brain).float()

    def halved(run):
        def logits(scans):
            with torch.autocast("cpu", torch.bfloat16):
                return run(scans).float()

        return logits

    exact, gradients = losses_and_gradients(model, model, scans)
    whole_logits, whole_gradients = losses_and_gradients(model, halved(model), scans)
    cropped_logits, cropped_gradients = losses_and_gradients(
        model, halved(network), shown(scans, network)
    )
    assert not torch.equal(cropped_logits, exact)
    assert (cropped_logits - exact).abs().max() < 2 * (whole_logits - exact).abs().max() + 1e-3
    for name, expected in gradients.items():
        if cropped_gradients[name] is not None:
            error = (cropped_gradients[name] - expected).norm()
            assert error < 2 * (whole_gradients[name] - expected).norm() + 1e-3, name


def test_tensors_kept_for_the_gradient_have_the_size_of_the_box():
    brain = brain_in((40, 40, 40), ((15, 20), (15, 20), (15, 20)))
    model = blocks_of([2], [3], nn.Flatten(), nn.Linear(2 * 19**3, 2))
    network, shapes = CroppedNetwork(model, brain), []
    scans = shown(scans_of(brain).float(), network)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: shapes.append(tensor.shape) or tensor, lambda tensor: tensor
    ):
        network(scans)
    volumes = [shape for shape in shapes if len(shape) == 5]
    assert volumes
    assert max(max(shape[2:]) for shape in volumes) == 10


class Backwards(nn.Sequential):
    def forward(self, scans):
        return super().forward(-scans)


class Listed(nn.Module):
    """A network with an attribute that happens to be called layers."""

    def __init__(self, blocks, head):
        super().__init__()
        self.layers, self.head = blocks, head

    def forward(self, scans):
        return self.head(self.layers(scans).relu())


def twice(module, given, output):
    return 2 * output


def hooked(model, *which):
    for place in which:
        model[place].register_forward_hook(twice)
    if not which:
        model.register_forward_hook(twice)
    return model


@pytest.mark.parametrize(
    "change",
    [
        lambda model: Backwards(*model),
        lambda model: Listed(model[:-1], model[-1]),
        lambda model: hooked(model),
        lambda model: hooked(model, 0),
        lambda model: hooked(model, 2),
        lambda model: hooked(model, 4),
    ],
)
def test_a_forward_that_does_more_than_its_layers_is_kept(change):
    shape = (12, 11, 13)
    brain = brain_in(shape, ((4, 8), (3, 7), (5, 9)))
    blocks = blocks_of((2, 1), (3, 2))
    with torch.no_grad():
        count = nn.Sequential(*blocks)(torch.zeros(2, 1, *shape)).flatten(1).shape[1]
    model = change(spread(nn.Sequential(*blocks, nn.Flatten(), nn.Linear(count, 2)))).eval()
    scans = scans_of(brain)
    network = CroppedNetwork(model, brain)
    expected = model(scans)
    torch.testing.assert_close(network(shown(scans, network)), expected, rtol=1e-9, atol=1e-9)
