import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
from captum.attr import GuidedBackprop, IntegratedGradients, NoiseTunnel, Saliency
from monai.networks.nets import ResNet
from monai.visualize import GuidedBackpropGrad, VanillaGrad
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from voxplain.faults import SetupFault
from voxplain.models import build_model
from voxplain.relevance.gradient import (
    guided_backprop,
    integrated_gradients,
    sensitivity,
    signed_integrated_gradients,
    smoothgrad,
)
from voxplain.relevance.inputs import differentiating

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
    """A function between convolution and dense layer, maybe after a ReLU that is a module."""

    def __init__(self, function, module=False):
        super().__init__()
        torch.manual_seed(5)
        self.conv, self.last = nn.Conv3d(1, 2, 2), nn.Linear(2 * 5 * 6 * 4, 2)
        self.relu = nn.ReLU() if module else nn.Identity()
        self.function = function

    def forward(self, scans):
        return self.last(self.function(self.relu(self.conv(scans)) - 0.1).flatten(1))


class Residual(nn.Module):
    """Sums around ReLUs: what enters a ReLU, and what it gives, is read by others too."""

    def __init__(self, inplace=False):
        super().__init__()
        torch.manual_seed(8)
        self.first, self.second = nn.Conv3d(1, 3, 3, padding=1), nn.Conv3d(3, 3, 3, padding=1)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU(inplace)
        self.norm, self.last = nn.BatchNorm3d(3), nn.Linear(3, 2)

    def forward(self, scans):
        maps = self.first(scans)
        maps = maps + self.second(self.relu1(maps))
        maps = self.relu2(self.norm(maps)) - 0.3 * maps
        return self.last(maps.mean((2, 3, 4)))


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
    model = Functional(torch.relu).double().eval()
    with pytest.raises(SetupFault, match=r"needs the network's ReLUs as nn\.ReLU modules"):
        guided_backprop(model, scan, 0)
    assert sensitivity(model, scan, 0).max() > 0


@pytest.mark.parametrize(
    "function",
    [
        torch.relu,
        torch.relu_,
        functional.relu,
        lambda maps: functional.relu(maps, inplace=True),
        lambda maps: maps.relu(),
        lambda maps: maps.relu_(),
        lambda maps: maps.clamp(min=0),
        lambda maps: maps.clamp(0, 3),
        lambda maps: maps.clamp_(min=0),
        lambda maps: -(-maps).clamp(max=0),
        lambda maps: functional.threshold(maps, 0, 0),
    ],
)
def test_one_relu_that_is_no_module_among_others_is_refused_too(scan, function):
    model = Functional(function, module=True).double().eval()
    with pytest.raises(SetupFault, match=r"every ReLU as an nn\.ReLU module.* make it a module"):
        guided_backprop(model, scan, 0)
    assert sensitivity(model, scan, 0).max() > 0


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (functional.leaky_relu, "LeakyReLU"),
        (nn.PReLU(), "PReLU"),
        (functional.elu, "ELU or SELU"),
        (functional.selu, "ELU or SELU"),
        (functional.gelu, "GELU"),
        (nn.SiLU(), "SiLU"),
        (nn.ReLU6(), "ReLU6"),
        (lambda maps: torch.maximum(maps, torch.zeros(())), "maximum"),
        (lambda maps: torch.minimum(maps, torch.zeros(())), "minimum"),
        (lambda maps: torch.stack([maps, 0 * maps]).amax(0), "maximum over channels"),
        (nn.Softshrink(0.05), "Softshrink"),
        (nn.Hardshrink(0.05), "Hardshrink"),
        (nn.Hardsigmoid(), "Hardsigmoid"),
        (nn.Threshold(0.1, 0), "threshold or clamp"),
        (lambda maps: maps.clamp(min=-0.05), "threshold or clamp"),
        (lambda maps: maps * maps.abs(), "absolute value"),
    ],
)
def test_a_rectifier_that_the_rule_is_not_for_is_refused_by_name(scan, function, name):
    with pytest.raises(SetupFault, match=rf"rule for ReLU only, and this network has a {name}"):
        guided_backprop(Functional(function, module=True).double().eval(), scan, 0)


@pytest.mark.parametrize(
    "function",
    [
        torch.sigmoid,
        torch.tanh,
        lambda maps: maps * maps.square(),
        lambda maps: maps.clamp(min=-1e3),  # clips nothing
        lambda maps: functional.normalize(maps, dim=1),
        lambda maps: maps * (torch.arange(4) > 1),  # a mask that is no activation's
        lambda maps: maps * torch.isfinite(maps).all(),
    ],
)
def test_gates_and_what_does_not_bend_keep_their_plain_gradient(scan, function):
    model = Functional(function, module=True).double().eval()
    both = nn.Sequential(model, nn.Softmax(1)).eval()
    batch = torch.from_numpy(scan)[None, None].requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = GuidedBackprop(both).attribute(batch, target=1).abs()[0, 0].detach().numpy()
    close(guided_backprop(model, scan, 1), expected)


def set_to_nought(maps):
    maps = maps.clone()
    maps[maps < 0] = 0
    return maps


@pytest.mark.parametrize(
    "function",
    [
        lambda maps: maps * (maps > 0),
        lambda maps: maps * (maps.detach() > 0).to(maps.dtype),
        lambda maps: torch.where(maps > 0, maps, 0),
        lambda maps: maps.masked_fill(maps < 0, 0),
        lambda maps: maps * maps.sign(),
        lambda maps: maps * (1 + maps.sign()) / 2,
        set_to_nought,
    ],
)
def test_a_mask_of_activations_that_bends_them_is_refused(scan, function):
    with pytest.raises(SetupFault, match=r"bends its activations by a mask .* \(\w+; as in h"):
        guided_backprop(Functional(function, module=True).double().eval(), scan, 0)


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(context, maps):
        return 2 * maps

    @staticmethod
    def backward(context, gradient):
        return 2 * gradient


def half_in_place(maps):
    maps[:, :1].relu_()
    return maps


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (Twice.apply, "cannot see into TwiceBackward"),
        (half_in_place, "cannot see into .*CopySlices"),
        (lambda maps: checkpoint(torch.tanh, maps, use_reentrant=True), "cannot see into Checkpoi"),
        (lambda maps: checkpoint(nn.ReLU(), maps, use_reentrant=True), "cannot see into Checkpoi"),
    ],
)
def test_code_that_may_hide_a_relu_is_refused(scan, function, told):
    with pytest.raises(SetupFault, match=told):
        guided_backprop(Functional(function, module=True).double().eval(), scan, 0)


def test_a_relu_module_that_runs_without_gradients_is_refused_by_name(scan):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Tanh(), nn.ReLU())

        def forward(self, maps):
            return checkpoint(self.inner, maps, use_reentrant=True)

    model = Functional(Checkpointed(), module=True).double().eval()
    with pytest.raises(SetupFault, match=r"'function\.inner\.1': it runs without gradients"):
        guided_backprop(model, scan, 0)


def test_checkpointing_that_keeps_the_graph_is_met_by_the_rule(scan):
    relu = nn.Sequential(nn.ReLU())
    plain = Functional(relu, module=True).double().eval()
    model = Functional(lambda maps: checkpoint(relu, maps, use_reentrant=False), module=True)
    model.inner = relu
    close(guided_backprop(model.double().eval(), scan, 0), guided_backprop(plain, scan, 0))


def test_a_relu_in_place_on_a_view_is_refused_by_name(scan):
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU(inplace=True)

        def forward(self, maps):
            return self.relu(maps.flatten(1))

    model = Functional(Views(), module=True).double().eval()
    with pytest.raises(SetupFault, match=r"'function\.relu': it works in place on a view"):
        guided_backprop(model, scan, 0)


def test_relus_that_no_class_depends_on_and_those_of_other_scans_do_not_matter(scan):
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.relu = network(), nn.ReLU()

        def forward(self, scans):
            torch.relu(self.relu(2 * scans)), self.relu(torch.ones(3))
            return self.main(scans)

    close(guided_backprop(Aside().double().eval(), scan, 0), guided_backprop(network(), scan, 0))


def test_relus_that_no_class_depends_on_are_not_enough(scan):
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu, self.last = nn.Conv3d(1, 2, 3), nn.ReLU(), nn.Linear(2, 2)

        def forward(self, scans):
            maps = self.conv(scans)
            self.relu(maps)
            return self.last(maps.mean((2, 3, 4)))

    with pytest.raises(SetupFault, match=r"found no nn\.ReLU between the scan and the class"):
        guided_backprop(Idle().double().eval(), scan, 0)


def residual_by_hand(model, scan, target, guided):
    """|gradient| of Residual, each ReLU's own backward step by itself."""

    def step(gradient, before):
        gradient = gradient * (before > 0)
        return gradient.clamp(min=0) if guided else gradient

    def back(gradient, convolution):
        return functional.conv_transpose3d(gradient, convolution.weight, padding=1)

    batch = torch.from_numpy(scan)[None, None]
    first = model.first(batch)
    maps = first + model.second(torch.relu(first))
    normed = model.norm(maps)
    means = (torch.relu(normed) - 0.3 * maps).mean((2, 3, 4))
    p = torch.softmax(model.last(means), 1)[0]
    by_logits = p[target] * ((torch.arange(2) == target).double() - p)
    by_means = by_logits @ model.last.weight / scan.size
    gradient = by_means.view(1, -1, 1, 1, 1).expand_as(maps)
    factor = model.norm.weight / (model.norm.running_var + model.norm.eps).sqrt()
    by_maps = step(gradient, normed) * factor.view(1, -1, 1, 1, 1) - 0.3 * gradient
    by_first = by_maps + step(back(by_maps, model.second), first)
    return back(by_first, model.first).abs()[0, 0].numpy()


def residual(inplace=False):
    model = Residual(inplace).double().eval()
    nn.init.normal_(model.norm.running_mean, std=0.3)
    nn.init.normal_(model.norm.weight)
    return model


@pytest.mark.parametrize("method", [sensitivity, guided_backprop])
@pytest.mark.parametrize("inplace", [False, True])
@torch.no_grad()
def test_of_sums_around_a_relu_only_its_own_part_is_clipped(scan, method, inplace):
    model = residual(inplace)
    expected = residual_by_hand(model, scan, 0, guided=method is guided_backprop)
    close(method(model, scan, 0), expected)


def test_guided_backprop_of_a_residual_network_of_monai_is_that_of_captum():
    # Its sums are read by ReLUs only, and these work in place and more than once.
    torch.manual_seed(2)
    model = ResNet(
        "basic", [1, 1, 1, 1], [4, 6, 8, 10], 3, 1, conv1_t_size=3, conv1_t_stride=2, num_classes=2
    )
    model = model.double().eval()
    scan = np.random.default_rng(3).normal(size=(20, 22, 24))
    batch = torch.from_numpy(scan)[None, None].requires_grad_()
    both = nn.Sequential(model, nn.Softmax(1)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = GuidedBackprop(both).attribute(batch, target=1).abs()[0, 0].detach().numpy()
    found = guided_backprop(model, scan, 1)
    close(found, expected)
    assert abs(found - sensitivity(model, scan, 1)).max() > 0.1 * found.max()


def test_captum_clips_also_what_reaches_a_relus_input_on_another_way(scan):
    model = residual()
    both = nn.Sequential(model, nn.Softmax(1)).eval()
    batch = torch.from_numpy(scan)[None, None].requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = GuidedBackprop(both).attribute(batch, target=0).abs()[0, 0].detach().numpy()
    ours = guided_backprop(model, scan, 0)
    assert abs(theirs - ours).max() > 0.1 * ours.max()


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


# --- what gradients keep --------------------------------------------------------------------------


def test_while_differentiating_the_output_and_the_gradient_are_those_of_before(scan):
    model = network()
    batch = torch.from_numpy(scan)[None, None].requires_grad_()
    logits = model(batch)
    (gradient,) = torch.autograd.grad(logits[0, 1], batch)
    with differentiating(model):
        again = model(batch)
        (same,) = torch.autograd.grad(again[0, 1], batch)
        assert not any(parameter.requires_grad for parameter in model.parameters())
    torch.testing.assert_close(again, logits, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(same, gradient, rtol=1e-10, atol=1e-12)
    assert all("forward" not in vars(module) for module in model.modules())


CONVOLUTIONS = {
    "valid": {"kernel_size": 3},
    "without bias": {"kernel_size": 2, "bias": False},
    "strided": {"kernel_size": 3, "stride": 2, "padding": 1},
    "grouped": {"kernel_size": 3, "groups": 2},
    "dilated": {"kernel_size": 2, "dilation": (1, 2, 1)},
    "same, even": {"kernel_size": (2, 3, 4), "padding": "same"},
    "circular": {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
}


@pytest.fixture
def poisoned():
    """Memory that is not written to holds no numbers."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_does_not_take_the_input_that_a_convolution_does_not_keep(
    name, dtype, poisoned
):
    assert torch.empty(3).isnan().all()
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv3d(4, 6, **CONVOLUTIONS[name]), nn.ReLU()).eval().to(dtype)
    batch = torch.randn(1, 4, 8, 7, 9, dtype=dtype, requires_grad=True)
    outputs = model(batch)
    weights = torch.randn(outputs.shape, dtype=dtype)
    (expected,) = torch.autograd.grad((weights * outputs).sum(), batch)
    with differentiating(model):
        (found,) = torch.autograd.grad((weights * model(batch)).sum(), batch)
    torch.testing.assert_close(found, expected)


def kept_by(step, seen=None):
    """Bytes of each tensor that the backward steps of a graph keep."""
    sizes, seen = [], set() if seen is None else seen
    for name in (name for name in dir(step) if name.startswith("_raw_saved_")):
        kept = getattr(step, name).data
        kept = getattr(step, name.removeprefix("_raw")) if kept is None else kept
        sizes += [kept.numel() * kept.element_size()] if isinstance(kept, torch.Tensor) else []
    for before, _ in step.next_functions:
        if before is not None and before not in seen:
            seen.add(before)
            sizes += kept_by(before, seen)
    return sizes


@pytest.mark.parametrize("inplace", [False, True])
def test_of_a_convolution_a_norm_and_a_relu_a_quarter_of_a_map_is_kept(inplace):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv3d(8, 8, 3, padding=1),
        nn.BatchNorm3d(8),
        nn.ReLU(inplace),
        nn.Conv3d(8, 8, 3, padding=1),
    ).eval()
    batch = torch.randn(1, 8, 12, 12, 12, requires_grad=True)
    whole = 8 * 12**3 * 4  # in float32
    assert kept_by(model(batch).grad_fn).count(whole) == 4
    with differentiating(model):
        sizes = kept_by(model(batch).grad_fn)
    assert sizes.count(whole // 4) == 1
    assert max(sizes) == whole // 4


def test_a_network_on_which_gradients_are_switched_off_stays_so(scan):
    model = network().requires_grad_(False)
    model.line2.weight.requires_grad_()
    for method in (sensitivity, guided_backprop):
        method(model, scan, 0)
        asking = [name for name, p in model.named_parameters() if p.requires_grad]
        assert asking == ["line2.weight"]


def test_the_network_is_as_it_was_also_after_a_fault(scan):
    model = network()
    with pytest.raises(SetupFault, match="target is class 3, and the network has 3 classes, 0 to"):
        sensitivity(model, scan, 3)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all("forward" not in vars(module) for module in model.modules())


@pytest.mark.parametrize("target", [-1, 3])
@pytest.mark.parametrize("method", [sensitivity, guided_backprop, smoothgrad, integrated_gradients])
def test_a_class_that_the_network_does_not_have_is_refused(scan, method, target):
    with pytest.raises(SetupFault, match=rf"target is class {target}, and .* 3 classes, 0 to 2"):
        method(network(), scan, target)


def test_logits_of_another_shape_are_refused(scan):
    model = nn.Sequential(nn.Conv3d(1, 2, 3), nn.ReLU()).double().eval()
    with pytest.raises(SetupFault, match=r"gives \[1, 2, 4, 5, 3\] for one scan; expected logits"):
        sensitivity(model, scan, 0)


@torch.no_grad()
def test_a_network_that_writes_to_its_input_is_explained_and_the_scan_stays(scan):
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.main = network()

        def forward(self, scans):
            return self.main(scans.sub_(0.5))

    given = torch.from_numpy(scan.copy()).requires_grad_()
    found = sensitivity(Shifted().eval(), given, 0)
    close(found, sensitivity(network(), scan - 0.5, 0))
    np.testing.assert_array_equal(given.numpy(), scan)


# --- smoothgrad -----------------------------------------------------------------------------------


def inputs_of(model, run):
    """What a network is given while something runs."""
    given = []
    handle = model.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0].clone()))
    run()  # with the checks of a new network
    given.clear()
    run()
    handle.remove()
    return torch.cat(given).detach()


@pytest.mark.parametrize("mask", [None, np.arange(210).reshape(SHAPE) > 90])
def test_smoothgrad_is_the_mean_gradient_over_copies_with_noise_in_the_mask(scan, mask):
    model = network()
    options = {"samples": 30, "noise": 0.3, "seed": 6, "mask": mask}
    given = inputs_of(model, lambda: smoothgrad(model, scan, 1, **options))
    noise = (given[:, 0] - torch.from_numpy(scan)).numpy()
    inside = np.ones(SHAPE, bool) if mask is None else mask
    assert len(given) == 30
    assert (noise[:, ~inside] == 0).all()
    assert noise[:, inside].std() == pytest.approx(0.3 * np.ptp(scan[inside]), rel=0.03)
    assert abs(noise[:, inside].mean()) < 0.05 * np.ptp(scan[inside])
    batch = given.requires_grad_()
    torch.softmax(model(batch), 1)[:, 1].sum().backward()
    close(smoothgrad(model, scan, 1, **options), batch.grad.mean(0).abs()[0].numpy())


def test_smoothgrad_of_many_copies_is_that_of_captum(scan):
    model, spread = plain_network(), 0.2
    both = nn.Sequential(model, nn.Softmax(1)).eval()
    torch.manual_seed(1)
    expected = NoiseTunnel(Saliency(both)).attribute(
        torch.from_numpy(scan)[None, None].requires_grad_(),
        nt_type="smoothgrad",
        nt_samples=200,
        nt_samples_batch_size=100,
        stdevs=float(spread * np.ptp(scan)),
        target=0,
        abs=False,
    )
    found = smoothgrad(model, scan, 0, samples=200, noise=spread)
    expected = expected.abs()[0, 0].detach().numpy()
    assert abs(found - expected).max() < 0.2 * expected.max()
    assert abs(sensitivity(model, scan, 0) - expected).max() > 0.5 * expected.max()


def test_smoothgrad_without_noise_is_sensitivity(scan):
    found = smoothgrad(network(), scan, 0, samples=3, noise=0)
    close(found, sensitivity(network(), scan, 0))


def test_smoothgrad_depends_on_its_seed_alone_and_leaves_the_global_one_as_it_was(scan):
    model = network()
    first = smoothgrad(model, scan, 0, samples=4)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    np.testing.assert_array_equal(smoothgrad(model, scan, 0, samples=4), first)
    assert torch.equal(torch.get_rng_state(), before)
    other = smoothgrad(model, scan, 0, samples=4, seed=1)
    assert abs(first - other).max() > 1e-2 * first.max()


@pytest.mark.parametrize("options", [{"samples": 0}, {"noise": -0.1}])
def test_smoothgrad_refuses_no_samples_and_less_than_no_noise(scan, options):
    with pytest.raises(SetupFault, match="at least 1 sample and noise from 0 on, not"):
        smoothgrad(network(), scan, 0, **options)


def test_smoothgrad_refuses_a_mask_that_is_empty_or_on_another_grid(scan):
    with pytest.raises(SetupFault, match="mask has no voxel"):
        smoothgrad(network(), scan, 0, mask=np.zeros(SHAPE, bool))
    with pytest.raises(ValueError, match="lies not on the scan's grid"):
        smoothgrad(network(), scan, 0, mask=np.ones((2, 3, 4), bool))


# --- integrated gradients -------------------------------------------------------------------------


def smooth_network():
    torch.manual_seed(4)
    return (
        nn.Sequential(
            nn.Conv3d(1, 3, 3), nn.Tanh(), nn.AvgPool3d(2), nn.Flatten(), nn.Linear(3 * 2 * 2, 3)
        )
        .double()
        .eval()
    )


def completeness(model, scan, target, steps):
    """Sum of the integrated gradients, and p(scan) - p(0)."""
    batch = torch.from_numpy(scan)[None, None]
    found = signed_integrated_gradients(model, batch, target, steps)
    with torch.no_grad():
        p = torch.softmax(model(torch.cat([batch, 0 * batch])), 1)[:, target]
    return float(found.sum()), float(p[0] - p[1])


@pytest.mark.parametrize("target", [0, 1, 2])
def test_integrated_gradients_of_a_smooth_network_add_up_to_the_change_from_nought(scan, target):
    found, expected = completeness(smooth_network(), 3 * scan, target, 50)
    assert abs(expected) > 1e-3
    assert found == pytest.approx(expected, rel=1e-8)


def test_integrated_gradients_of_a_network_with_relus_add_up_to_three_percent(scan):
    for model in (network(), residual()):
        found, expected = completeness(model, 2 * scan, 0, 50)
        assert abs(expected) > 1e-2
        assert found == pytest.approx(expected, rel=3e-2)


@pytest.mark.parametrize("steps", [8, 50])
def test_integrated_gradients_are_those_of_captum(scan, steps):
    both = nn.Sequential(network(), nn.Softmax(1)).eval()
    expected = IntegratedGradients(both).attribute(
        torch.from_numpy(scan)[None, None], target=2, n_steps=steps, method="gausslegendre"
    )
    found = integrated_gradients(network(), scan, 2, steps=steps)
    close(found, expected.abs()[0, 0].detach().numpy())


def test_integrated_gradients_of_a_logistic_regression_are_known_in_closed_form(scan):
    model = nn.Sequential(nn.Flatten(), nn.Linear(scan.size, 2)).double().eval()
    with torch.no_grad():
        model[1].weight *= 3
        weights = (model[1].weight[0] - model[1].weight[1]).numpy().reshape(SHAPE)
        shift = float(model[1].bias[0] - model[1].bias[1])
    # Along the way only the sum grows: each voxel has the part of the change that it has of it.
    logistic = 1 / (1 + np.exp(-np.array([shift, shift + (weights * scan).sum()])))
    expected = weights * scan / (weights * scan).sum() * np.diff(logistic)
    close(integrated_gradients(model, scan, 0), abs(expected))


def test_integrated_gradients_run_one_scan_at_a_time(scan):
    model = network()
    shapes = []
    handle = model.register_forward_pre_hook(lambda module, inputs: shapes.append(len(inputs[0])))
    integrated_gradients(model, scan, 0, steps=1)  # with the checks of a new network
    shapes.clear()
    integrated_gradients(model, scan, 0, steps=7)
    handle.remove()
    assert shapes == [1] * 7


def test_integrated_gradients_refuse_no_steps(scan):
    with pytest.raises(SetupFault, match="at least 1 step, not 0"):
        integrated_gradients(network(), scan, 0, steps=0)
