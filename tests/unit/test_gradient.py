import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
from monai.visualize import GuidedBackpropGrad, VanillaGrad
from torch import nn

from voxplain.faults import SetupFault
from voxplain.models import build_model
from voxplain.relevance.gradient import guided_backprop, sensitivity

SHAPE = (6, 7, 5)


def network(inplace=False):
    """Convolutions with batch norm, ReLUs and a pool, for scans of SHAPE, in float64."""
    torch.manual_seed(3)
    # MONAI finds the ReLUs by their names.
    model = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv3d(1, 4, 3, padding=1),
            norm1=nn.BatchNorm3d(4),
            relu1=nn.ReLU(inplace),
            pool1=nn.MaxPool3d(2),
            conv2=nn.Conv3d(4, 5, 2),
            norm2=nn.BatchNorm3d(5),
            relu2=nn.ReLU(inplace),
            flat=nn.Flatten(),
            drop=nn.Dropout(0.8),
            line1=nn.Linear(5 * 2 * 2 * 1, 16),
            relu3=nn.ReLU(inplace),
            line2=nn.Linear(16, 3),
        )
    )
    for norm in (model.norm1, model.norm2):
        nn.init.normal_(norm.running_mean, std=0.3)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias, std=0.3)
    return model.double().eval()


class Shared(nn.Module):
    """One ReLU module that is called twice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.first, self.second = nn.Conv3d(1, 3, 2), nn.Conv3d(3, 4, 2)
        self.relu, self.last = nn.ReLU(), nn.Linear(4 * 4 * 5 * 3, 2)

    def forward(self, scans):
        found = self.relu(self.second(self.relu(self.first(scans))))
        return self.last(found.flatten(1))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv3d(1, 2, 2), nn.Linear(2 * 5 * 6 * 4, 2)

    def forward(self, scans):
        return self.last(torch.relu(self.conv(scans)).flatten(1))


@pytest.fixture
def scan():
    return np.random.default_rng(4).normal(size=SHAPE)


def close(found, expected):
    """As equal as float32 heatmaps can be."""
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * expected.max())


def by_monai(grad, model, scan, target):
    """MONAI explains an output: with the softmax as last layer, the probability."""
    both = nn.Sequential(OrderedDict(net=model, softmax=nn.Softmax(dim=1))).eval()
    batch = torch.from_numpy(scan)[None, None].clone()
    return grad(both)(batch, index=target).abs()[0, 0].numpy()


# --- sensitivity ----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [0, 1, 2])
def test_sensitivity_is_the_slope_of_the_probability_by_central_differences(scan, target):
    model, step = network(), 1e-6
    moved = step * np.eye(scan.size).reshape(-1, *SHAPE)

    def probability(scans):
        with torch.no_grad():
            return torch.softmax(model(torch.from_numpy(scans)[:, None]), 1)[:, target].numpy()

    slope = (probability(scan + moved) - probability(scan - moved)) / (2 * step)
    expected = abs(slope).reshape(SHAPE)
    found = sensitivity(model, scan, target)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * expected.max())
    assert (slope < 0).any() and (slope > 0).any()


@pytest.mark.parametrize("target", [0, 2])
def test_sensitivity_is_monais_gradient(scan, target):
    close(sensitivity(network(), scan, target), by_monai(VanillaGrad, network(), scan, target))


def test_sensitivity_of_a_linear_network_is_known_in_closed_form(scan):
    model = nn.Sequential(nn.Flatten(), nn.Linear(scan.size, 2)).double().eval()
    with torch.no_grad():
        p = float(torch.softmax(model(torch.from_numpy(scan)[None, None]), 1)[0, 0])
        weights = model[1].weight.numpy()
    # d softmax_0 = p (1 - p) d (logit_0 - logit_1)
    close(sensitivity(model, scan, 0), p * (1 - p) * abs(weights[0] - weights[1]).reshape(SHAPE))


def test_of_two_classes_both_have_the_same_sensitivity(scan):
    model = Shared().double().eval()
    close(sensitivity(model, scan, 0), sensitivity(model, scan, 1))


# --- guided backprop ------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [0, 1, 2])
def test_guided_backprop_is_that_of_monai(scan, target):
    expected = by_monai(GuidedBackpropGrad, network(), scan, target)
    close(guided_backprop(network(), scan, target), expected)


def correlate(volumes, kernels):
    """A valid 3D convolution as torch has it: ``[in, x, y, z]`` with ``[out, in, a, b, c]``."""
    edge = kernels.shape[2]
    sizes = [n - edge + 1 for n in volumes.shape[1:]]
    out = np.zeros((len(kernels), *sizes))
    for x, y, z in np.ndindex(*sizes):
        part = volumes[:, x : x + edge, y : y + edge, z : z + edge]
        out[:, x, y, z] = (kernels * part).sum(axis=(1, 2, 3, 4))
    return out


def spread_back(gradients, kernels, shape):
    """The gradient by the input of :func:`correlate`."""
    edge = kernels.shape[2]
    back = np.zeros(shape)
    for x, y, z in np.ndindex(*gradients.shape[1:]):
        part = np.tensordot(gradients[:, x, y, z], kernels, axes=1)
        back[:, x : x + edge, y : y + edge, z : z + edge] += part
    return back


def backward_by_hand(model, scan, target, guided):
    """|gradient| of conv, ReLU, conv, ReLU, linear and softmax, in numpy."""
    first, _, second, _, _, last = model
    (k1, b1), (k2, b2), (w, b3) = (
        (part.weight.detach().numpy(), part.bias.detach().numpy()) for part in (first, second, last)
    )
    before1 = correlate(scan[None], k1) + b1.reshape(-1, 1, 1, 1)
    after1 = np.maximum(before1, 0)
    before2 = correlate(after1, k2) + b2.reshape(-1, 1, 1, 1)
    logits = w @ np.maximum(before2, 0).ravel() + b3
    p = np.exp(logits - logits.max())
    p /= p.sum()
    gradient = w.T @ (p[target] * ((np.arange(len(p)) == target) - p))
    gradient = gradient.reshape(before2.shape)
    for before, kernels, shape in ((before2, k2, after1.shape), (before1, k1, (1, *scan.shape))):
        gradient = gradient * (before > 0)
        if guided:
            gradient = np.maximum(gradient, 0)
        gradient = spread_back(gradient, kernels, shape)
    return abs(gradient[0])


def plain_network(seed=7):
    torch.manual_seed(seed)
    return (
        nn.Sequential(
            nn.Conv3d(1, 2, 2),
            nn.ReLU(),
            nn.Conv3d(2, 3, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(3 * 4 * 5 * 3, 3),
        )
        .double()
        .eval()
    )


@pytest.mark.parametrize("target", [0, 1, 2])
@pytest.mark.parametrize("method", [sensitivity, guided_backprop])
def test_both_methods_are_the_backward_pass_by_hand(scan, target, method):
    model = plain_network()
    expected = backward_by_hand(model, scan, target, guided=method is guided_backprop)
    close(method(model, scan, target), expected)


def test_guided_backprop_differs_from_sensitivity_where_gradients_are_negative(scan):
    plain, guided = sensitivity(network(), scan, 0), guided_backprop(network(), scan, 0)
    assert abs(plain - guided).max() > 0.1 * plain.max()


def test_guided_backprop_is_sensitivity_where_no_gradient_is_negative(scan):
    model = plain_network()
    with torch.no_grad():
        for part in (model[0], model[2], model[5]):
            part.weight.abs_()
        model[5].weight[1:] = 0  # only the first class's logit moves, and upwards
        model[5].weight *= 0.1
    close(guided_backprop(model, scan, 0), sensitivity(model, scan, 0))
    assert guided_backprop(model, scan, 1).max() == 0  # whose probability only falls


def test_a_relu_that_works_in_place_or_twice_is_met_each_time(scan):
    close(guided_backprop(network(inplace=True), scan, 1), guided_backprop(network(), scan, 1))
    shared = Shared().double().eval()
    apart = nn.Sequential(
        shared.first, nn.ReLU(), shared.second, nn.ReLU(), nn.Flatten(), shared.last
    ).eval()
    found = guided_backprop(shared, scan, 0)
    close(found, guided_backprop(apart, scan, 0))
    close(found, backward_by_hand(apart, scan, 0, guided=True))


def test_after_guided_backprop_the_network_has_its_plain_gradient_again(scan):
    model = network()
    before = sensitivity(model, scan, 0)
    first = guided_backprop(model, scan, 0)
    np.testing.assert_array_equal(sensitivity(model, scan, 0), before)
    np.testing.assert_array_equal(guided_backprop(model, scan, 0), first)
    for module in model.modules():
        assert not (module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def test_the_hooks_are_gone_also_after_a_scan_that_the_network_cannot_take(scan):
    model = network()
    before = sensitivity(model, scan, 0)
    with pytest.raises(RuntimeError):
        guided_backprop(model, scan[:4], 0)
    np.testing.assert_array_equal(sensitivity(model, scan, 0), before)


def test_a_network_whose_relus_are_no_modules_is_refused(scan):
    model = Functional().double().eval()
    with pytest.raises(SetupFault, match=r"needs the network's ReLUs as nn\.ReLU modules"):
        guided_backprop(model, scan, 0)
    assert sensitivity(model, scan, 0).max() > 0


def test_neither_method_warns(scan):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sensitivity(network(), scan, 0)
        guided_backprop(network(), scan, 0)


def test_the_gradient_is_found_where_gradients_are_switched_off(scan):
    expected = sensitivity(network(), scan, 0)
    model = network().requires_grad_(False)
    np.testing.assert_array_equal(sensitivity(model, scan, 0), expected)


def test_guided_backprop_of_the_papers_network_is_that_of_monai():
    shape = (48, 56, 48)
    torch.manual_seed(0)
    model = build_model("rieke", shape, 2).eval()
    scan = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    # MONAI wants a name for its ReLUs: "relu" instead of a number.
    named = nn.Sequential(
        OrderedDict(
            (f"relu{place}" if isinstance(part, nn.ReLU) else f"part{place}", part)
            for place, part in enumerate([*model.features, *model.classifier])
        )
    ).eval()
    expected = by_monai(GuidedBackpropGrad, named, scan, 0)
    np.testing.assert_allclose(
        guided_backprop(model, scan, 0), expected, rtol=1e-3, atol=1e-4 * expected.max()
    )
