import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from voxplain.faults import SetupFault
from voxplain.models import build_model
from voxplain.relevance import lrp_layers
from voxplain.relevance.lrp import COMPOSITES, _signed, lrp, lrp_grad_cam_pp
from voxplain.relevance.lrp_network import merge_batch_norms

SHAPE = (8, 9, 7)

# torch says that an even kernel with such padding costs it a copy.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")


def randomised(model, seed=0):
    """Batch norms as after training, some with a factor below 0; in float64."""
    generator = torch.Generator().manual_seed(seed)
    for part in model.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm3d)):
            part.running_mean.normal_(0, 0.3, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.normal_(part.weight, generator=generator)
            nn.init.normal_(part.bias, std=0.3, generator=generator)
    return model.double().eval()


def plain():
    """As Rieke's and VoxCNN: batch norms behind convolutions and behind a dense layer's ReLU."""
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1),
        nn.BatchNorm3d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool3d(2),
        nn.Conv3d(4, 5, 2),
        nn.BatchNorm3d(5),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.8),
        nn.Linear(5 * 3 * 3 * 2, 16),
        nn.ReLU(),
        nn.BatchNorm1d(16),
        nn.Dropout(0.5),
        nn.Linear(16, 8),
        nn.ReLU(),
        nn.Linear(8, 3),
    )


class Sum(nn.Module):
    def forward(self, left, right):
        return left + right


class Block(nn.Module):
    """A pre-activation residual block."""

    def __init__(self, channels):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm3d(channels), nn.BatchNorm3d(channels)
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding="same")
        self.relu1, self.relu2, self.sum = nn.ReLU(), nn.ReLU(), Sum()

    def forward(self, maps):
        found = self.conv1(self.relu1(self.norm1(maps)))
        return self.sum(self.conv2(self.relu2(self.norm2(found))), maps)


class Residual(nn.Module):
    """As VoxResNet, with its max pool and dense layers or, as `mean`, without them."""

    def __init__(self, mean):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(1, 3, 3, padding=1),
            nn.BatchNorm3d(3),
            nn.ReLU(),
            nn.Conv3d(3, 4, 3, padding=1, stride=2),
        )
        self.blocks = nn.Sequential(Block(4), Block(4))
        self.bn4, self.relu = nn.BatchNorm3d(4), nn.ReLU()
        self.narrow = nn.Conv3d(4, 6, 3, padding=1, stride=2)
        self.last = Block(6)
        self.pool = nn.AdaptiveAvgPool3d(1) if mean else nn.MaxPool3d(2)
        dense = [nn.Linear(6, 2)] if mean else [nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)]
        self.end = nn.Sequential(nn.Flatten(), *dense)

    def forward(self, scans):
        found = self.relu(self.bn4(self.blocks(self.stem(scans))))
        return self.end(self.pool(self.last(self.narrow(found))))


class Pooled(nn.Module):
    """What else has a rule, as calls: an average pool, a stride, dilation, groups, a mean."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv3d(1, 4, (2, 3, 2), padding="same", dilation=(1, 2, 1))
        self.second = nn.Conv3d(4, 6, 3, stride=(2, 1, 2), padding=(1, 0, 2), groups=2)
        self.end = nn.Linear(6, 2)

    def forward(self, scans):
        found = functional.avg_pool3d(torch.relu(self.first(scans)), 2, stride=1)
        found = functional.relu(self.second(functional.max_pool3d(found, 2, 1)))
        found = found.mean(dim=(2, 3, 4))
        return self.end(functional.dropout(found.view(found.size(0), -1), training=False))


NETWORKS = {
    "plain": plain,
    "residual": lambda: Residual(mean=False),
    "residual with mean": lambda: Residual(mean=True),
    "pooled": Pooled,
}
# Batch norms that no layer beside them can take: at the head of each block, and bn4.
LEFT = {"plain": 0, "residual": 4, "residual with mean": 4, "pooled": 0}


def made(name, seed=1, biases=True):
    torch.manual_seed(seed)
    model = randomised(NETWORKS[name](), seed)
    if not biases:
        for part in model.modules():
            if getattr(part, "bias", None) is not None:
                nn.init.zeros_(part.bias)
            if hasattr(part, "running_mean"):
                part.running_mean.zero_()
    return model


@pytest.fixture(autouse=True)
def one_thread():
    """Threads wait for each other longer than maps this small take."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def batch():
    found = torch.from_numpy(np.random.default_rng(4).normal(size=SHAPE))
    found[:, :2] = 0  # as outside the brain
    return found[None, None]


def norms_of(model):
    return sum(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm3d)) for m in model.modules())


# --- batch norms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_merging_batch_norms_leaves_the_logits_as_they_are(name, batch):
    model = made(name)
    before = model(batch)
    merged = merge_batch_norms(model)
    torch.testing.assert_close(merged(batch), before, rtol=1e-10, atol=1e-10)
    assert norms_of(merged) == LEFT[name]
    assert torch.equal(model(batch), before)
    assert norms_of(model) == norms_of(NETWORKS[name]())


def test_a_batch_norm_stays_where_another_layer_reads_what_it_would_be_merged_into(batch):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv3d(1, 2, 2), nn.BatchNorm3d(2)
            self.same, self.end = nn.Conv3d(2, 2, 1), nn.LazyLinear(2)

        def forward(self, scans):
            found = self.conv(scans)
            found = self.same(found + self.norm(found))  # read twice
            return self.end(self.norm(self.same(found)).flatten(1))  # used twice

    model = Twice()
    model.double()(batch)
    model = randomised(model)
    merged = merge_batch_norms(model)
    assert norms_of(merged) == 1
    torch.testing.assert_close(merged(batch), model(batch), rtol=1e-10, atol=1e-10)


def test_merging_in_training_mode_is_refused():
    with pytest.raises(SetupFault, match="training mode"):
        merge_batch_norms(plain())


# --- the rules, by matrices -----------------------------------------------------------------------


def shared(terms, bias, relevance, output, alpha, beta):
    """The alpha-beta rule from all contributions ``[outputs, inputs]``, one output at a time."""
    found = np.zeros(terms.shape[1])
    for row, b, r, y in zip(terms, bias, relevance, output, strict=True):
        own, other = (
            (row.clip(min=0), row.clip(max=0)) if y >= 0 else (row.clip(max=0), row.clip(0))
        )
        b_own, b_other = (max(b, 0), min(b, 0)) if y >= 0 else (min(b, 0), max(b, 0))
        total, against = own.sum() + b_own, other.sum() + b_other
        if total == 0:
            continue
        a, c = (alpha, beta) if against != 0 else (1, 0)
        found += r * a * own / total
        if c:
            found -= r * c * other / against
    return found


def matrix_of(function, inputs):
    """The matrix ``[outputs, inputs]`` and the bias of an affine function of a map."""
    ones = torch.eye(inputs.numel(), dtype=inputs.dtype).view(-1, *inputs.shape[1:])
    bias = function(torch.zeros_like(inputs)).numpy()
    each = function(ones).numpy() - bias
    return each.reshape(len(ones), -1).T, bias.ravel()


@torch.no_grad()
def back_by_matrices(layers, batch, target, alpha, beta):
    """Relevance of a sequence of layers and blocks, each as a matrix of its own."""

    def forward_all(layers, values):
        seen = [values]
        for layer in layers:
            values = layer(values)
            seen.append(values)
        return seen

    def back_all(layers, values, relevance):
        seen = forward_all(layers, values)
        for layer, read, given in zip(layers[::-1], seen[-2::-1], seen[:0:-1], strict=True):
            relevance = back(layer, read, given, relevance)
        return relevance

    def back(layer, read, given, relevance):
        if isinstance(layer, (nn.ReLU, nn.Flatten, nn.Dropout, nn.Identity)):
            return relevance
        if isinstance(layer, nn.Sequential):
            return back_all(list(layer), read, relevance)
        if isinstance(layer, Block):
            inner = [layer.norm1, layer.relu1, layer.conv1, layer.norm2, layer.relu2, layer.conv2]
            changed = forward_all(inner, read)[-1].numpy().ravel()
            two = np.concatenate([np.diag(changed), np.diag(read.numpy().ravel())], axis=1)
            output = given.numpy().ravel()
            of_two = shared(two, np.zeros(len(two)), relevance, output, alpha, beta)
            through, past = np.split(of_two, 2)
            return back_all(inner, read, through) + past
        if isinstance(layer, nn.MaxPool3d):
            _, places = functional.max_pool3d(read, layer.kernel_size, return_indices=True)
            found = np.zeros(read.shape[1:]).reshape(read.shape[1], -1)
            of_channels = relevance.reshape(read.shape[1], -1)
            for channel, winners in enumerate(places[0].reshape(read.shape[1], -1).numpy()):
                np.add.at(found[channel], winners, of_channels[channel])
            return found.ravel()
        weight, bias = matrix_of(layer, read)
        terms = weight * read.numpy().ravel()
        output = given.numpy().ravel()
        if isinstance(layer, nn.Linear):
            return (terms * (relevance / output)[:, None]).sum(0)
        return shared(terms, bias, relevance, output, alpha, beta)

    logits = forward_all(layers, batch)[-1][0].numpy()
    first = np.where(np.arange(len(logits)) == target, logits, 0)
    return back_all(layers, batch, first).reshape(batch.shape)


def layers_of(model):
    if isinstance(model, nn.Sequential):
        return list(model)
    parts = [model.stem, model.blocks, model.bn4, model.relu, model.narrow, model.last]
    return [*parts, model.pool, model.end]


@pytest.mark.parametrize("composite", ["epsilon_plus", "epsilon_alpha2_beta1"])
@pytest.mark.parametrize("name", ["plain", "residual", "residual with mean"])
def test_the_rules_are_those_of_all_contributions_summed_one_by_one(name, composite, batch):
    batch = batch[..., :6, :6, :5]
    torch.manual_seed(1)
    model = randomised(NETWORKS[name]() if name != "plain" else nn.Sequential(*plain()[:9]))
    if name == "plain":
        model.append(nn.Linear(5 * 2 * 2 * 1, 3).double()).eval()
    expected = back_by_matrices(
        layers_of(merge_batch_norms(model)), batch, 1, *COMPOSITES[composite]
    )
    found, _ = _signed(model, batch, 1, composite, epsilon=0)
    assert abs(expected).max() > 1e-6
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9 * abs(expected).max())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("target", [0, 1])
def test_epsilon_in_all_layers_is_gradient_times_input(name, target, batch):
    # Ancona et al. 2018, proposition 1.
    model, read = made(name), batch.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(read)[0, target], read)
    found, _ = _signed(model, batch, target, "epsilon", epsilon=1e-13)
    expected = (slope * batch).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8 * abs(expected).max())


@pytest.mark.parametrize(
    ("composite", "expected"),
    [
        ("epsilon_plus", [5, 0]),
        ("epsilon_alpha2_beta1", [10, -5]),
        ("epsilon", [6, -1]),
    ],
)
def test_two_voxels_by_hand(composite, expected):
    # 2 * 3 - 1 * 1 = 5, which one dense weight of 1 hands on.
    model = nn.Sequential(
        nn.Conv3d(1, 1, (2, 1, 1), bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(1, 1, bias=False)
    )
    with torch.no_grad():
        model[0].weight[0, 0, :, 0, 0] = torch.tensor([2.0, -1.0])
        model[3].weight.fill_(1)
    scan = np.array([3.0, 1.0]).reshape(2, 1, 1)
    signed, taken = _signed(model.double().eval(), torch.from_numpy(scan)[None, None], 1, composite)
    np.testing.assert_allclose(signed.ravel(), expected, rtol=1e-5)
    assert taken == 0
    found = lrp(model, scan, 1, composite)
    np.testing.assert_allclose(found.ravel(), np.clip(expected, 0, None), rtol=1e-5)


def test_a_voxel_below_the_mean_carries_relevance_as_one_above_it():
    model = nn.Sequential(nn.Conv3d(1, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(-2)
        model[0].bias.fill_(0)
        model[3].weight.fill_(1)
    found = lrp(model.double().eval(), np.array([-3.0, 3.0]).reshape(2, 1, 1), 1)
    np.testing.assert_allclose(found.ravel(), [6, 0], rtol=1e-5)


# --- conservation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("name", NETWORKS)
def test_relevance_sums_to_the_logit_without_biases_and_but_for_them_with(name, composite, batch):
    for target in (0, 1):
        model = made(name, biases=False)
        found, taken = _signed(model, batch, target, composite, epsilon=1e-13)
        assert float(found.sum()) == pytest.approx(float(model(batch)[0, target].detach()), 1e-6)
        assert taken == 0
        model = made(name)
        found, taken = _signed(model, batch, target, composite, epsilon=1e-13)
        logit = float(model(batch)[0, target].detach())
        assert float(found.sum()) + taken == pytest.approx(logit, 1e-6)
        assert abs(taken) > 1e-3


def test_relevance_of_the_papers_network_is_conserved_in_float32():
    torch.manual_seed(0)
    shape = (48, 56, 48)
    model = build_model("rieke", shape, 2).eval()
    scan = torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    with torch.no_grad():
        logit = float(model(scan[None, None])[0, 1])
    found, taken = _signed(model, scan[None, None], 1)
    assert float(found.sum()) + taken == pytest.approx(logit, rel=1e-3)
    np.testing.assert_allclose(lrp(model, scan, 1), found[0, 0].clamp(min=0), rtol=1e-6)


# --- how it is computed ---------------------------------------------------------------------------


@pytest.mark.parametrize("composite", ["epsilon_plus", "epsilon_alpha2_beta1"])
@pytest.mark.parametrize("name", NETWORKS)
def test_slabs_and_maps_that_are_computed_once_more_change_nothing(
    name, composite, batch, monkeypatch
):
    model = made(name)
    expected, taken = _signed(model, batch, 0, composite)
    monkeypatch.setattr(lrp_layers, "_SLAB_BYTES", 1)
    for kept_bytes in (0, 2e4, 1e9):
        found, also = _signed(model, batch, 0, composite, kept_bytes=kept_bytes)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-15)
        assert also == pytest.approx(taken, rel=1e-9)


def test_modules_and_calls_of_the_same_layers_have_the_same_map(batch):
    class Calls(Residual):
        def forward(self, scans):
            found = torch.relu(self.bn4(self.blocks(self.stem(scans))))
            found = functional.adaptive_avg_pool3d(self.last(self.narrow(found)), 1)
            shape = found.shape
            return self.end[1](found.reshape(shape[0], shape[1]))

    torch.manual_seed(1)
    calls = randomised(Calls(mean=True), 1)
    expected = lrp(made("residual with mean"), batch[0, 0], 1)
    np.testing.assert_allclose(lrp(calls, batch[0, 0], 1), expected, rtol=1e-6)


def test_the_map_is_the_positive_part_and_nought_where_the_scan_is(batch):
    model = made("plain")
    state = {key: value.clone() for key, value in model.state_dict().items()}
    found, (signed, _) = lrp(model, batch[0, 0], 0), _signed(model, batch, 0)
    assert signed.min() < 0 < signed.max()
    np.testing.assert_allclose(found, signed[0, 0].clamp(min=0), rtol=1e-6)
    assert found.dtype == np.float32
    assert not found[:, :2].any()
    assert not lrp(model, np.zeros(SHAPE), 0).any()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


# --- what is refused ------------------------------------------------------------------------------


class Odd(nn.Module):
    """A network with one thing that has no rule."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.function, self.end = nn.Conv3d(1, 2, (8, 8, 7)), function, nn.Linear(4, 2)
        self.shift = nn.Parameter(torch.ones(1))

    def forward(self, scans):
        return self.end(self.function(self, self.conv(scans)).flatten(1))


ODD = {
    "mul": lambda net, maps: maps * maps,
    "add": lambda net, maps: maps + 1,
    "sub": lambda net, maps: maps - maps.relu(),
    "sigmoid": lambda net, maps: maps.sigmoid(),
    "shift": lambda net, maps: maps + net.shift,
    "softmax": lambda net, maps: functional.softmax(maps, dim=1),
    "cat": lambda net, maps: torch.cat([maps, maps], dim=1)[:, :2],
}


@pytest.mark.parametrize("name", ODD)
def test_a_call_without_a_rule_is_refused_by_its_name(name, batch):
    with pytest.raises(SetupFault, match=rf"lrp has no rule for layer '{name}.*Write the network"):
        lrp(Odd(ODD[name]).double().eval(), batch[0, 0], 0)


@pytest.mark.parametrize(
    ("place", "odd"),
    [
        (2, nn.LeakyReLU()),
        (15, nn.Sequential(nn.Linear(8, 3), nn.Softmax(dim=1))),
        (0, nn.Conv3d(1, 4, 3, padding=1, padding_mode="circular")),
    ],
)
def test_a_module_without_a_rule_is_refused_by_its_name(place, odd, batch):
    model = plain()
    model[place] = odd
    with pytest.raises(
        SetupFault, match=rf"no rule for layer '{place}.*(LeakyReLU|Softmax|Conv3d)"
    ):
        lrp(model.double().eval(), batch[0, 0], 0)


def test_a_network_that_does_more_than_its_graph_shows_is_refused(batch):
    model = made("plain")
    model[6].register_forward_hook(lambda layer, inputs, output: output * 2)
    with pytest.raises(SetupFault, match="no rule for layer '6'"):
        lrp(model, batch[0, 0], 0)
    model = made("plain")
    model.register_forward_hook(lambda layer, inputs, output: output * 2)
    with pytest.raises(SetupFault, match=r"does something that torch\.fx does not see"):
        lrp(model, batch[0, 0], 0)


def test_a_network_with_a_condition_is_refused(batch):
    odd = Odd(lambda net, maps: maps if maps.sum() > 0 else -maps)
    with pytest.raises(SetupFault, match=r"torch\.fx cannot trace the network"):
        lrp(odd.double().eval(), batch[0, 0], 0)


def test_an_unknown_composite_is_refused_with_those_there_are(batch):
    with pytest.raises(SetupFault, match="no composite 'gamma'; allowed: epsilon_plus"):
        lrp(made("plain"), batch[0, 0], 0, composite="gamma")


# --- the product with Grad-CAM++ ------------------------------------------------------------------


@pytest.mark.parametrize("composite", COMPOSITES)
def test_the_product_is_that_of_both_maps(batch, monkeypatch, composite):
    asked = []

    def grad_cam_pp(model, scan, target, layer=None, placement="receptive_field"):
        asked.append((target, layer, placement))
        return np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)

    monkeypatch.setitem(
        sys.modules, "voxplain.relevance.cam", SimpleNamespace(grad_cam_pp=grad_cam_pp)
    )
    model, scan = made("plain"), batch[0, 0]
    found = lrp_grad_cam_pp(model, scan, 2, layer="4", placement="corners", composite=composite)
    assert asked == [(2, "4", "corners")]
    expected = lrp(model, scan, 2, composite) * np.arange(found.size).reshape(SHAPE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
