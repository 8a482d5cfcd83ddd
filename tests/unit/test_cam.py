import warnings

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from monai.visualize import CAM, GradCAM
from torch import nn
from torch.nn import functional

from voxplain.faults import SetupFault
from voxplain.models import build_model
from voxplain.relevance.cam import (
    activations_of_layer,
    cam,
    grad_cam,
    grad_cam_pp,
    guided_grad_cam,
    guided_grad_cam_pp,
    raw_cam,
    raw_grad_cam,
    raw_grad_cam_pp,
)
from voxplain.relevance.gradient import guided_backprop
from voxplain.relevance.placement import Field, bring_onto_grid

SHAPE = (9, 10, 8)
# MONAI's maps as they are: its normaliser turns them over.
RAW = {"upsampler": lambda size: lambda maps: maps, "postprocessing": lambda maps: maps}
BY_LAYER = [grad_cam, grad_cam_pp, guided_grad_cam, guided_grad_cam_pp]


class Block(nn.Module):
    """A pre-activation residual block; its sum is no module's output but its own."""

    def __init__(self, channels, inplace=False):
        super().__init__()
        self.norm, self.relu = nn.BatchNorm3d(channels), nn.ReLU(inplace)
        self.conv = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, maps):
        return maps + self.conv(self.relu(self.norm(maps)))


def settled(model):
    """In float64 and eval mode, its batch norms with numbers of their own."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias, std=0.3)
    return model.double().eval()


def gap_network(inplace=False):
    """As Yang's: convolutions and a residual block, global average, one dense layer."""
    torch.manual_seed(3)
    return settled(
        nn.Sequential(
            nn.Conv3d(1, 4, 3),
            nn.BatchNorm3d(4),
            nn.ReLU(inplace),
            nn.Conv3d(4, 5, 2, stride=2),
            Block(5, inplace),
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(5, 3),
        )
    )


def dense_network():
    """As Rieke's: convolution, batch norm, ReLU and pool, then dense layers."""
    torch.manual_seed(4)
    return settled(
        nn.Sequential(
            nn.Sequential(nn.Conv3d(1, 3, 2), nn.BatchNorm3d(3), nn.ReLU(), nn.MaxPool3d(2)),
            nn.Sequential(nn.Conv3d(3, 4, 2), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2)),
            nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)),
        )
    )


@pytest.fixture
def scan():
    return np.random.default_rng(4).normal(size=SHAPE)


def close(found, expected, rtol=1e-5):
    """As equal as float32 heatmaps can be."""
    assert abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * abs(expected).max())


def features_of(model, layer, scan):
    """Output ``[channel, x', y', z']`` of a module."""
    held = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: held.append(output.detach().clone())
    )
    with torch.no_grad():
        model(torch.from_numpy(scan)[None, None])
    handle.remove()
    return held[0][0]


def slopes_of(model, layer, scan, target, step=1e-6):
    """Output of a module, and a logit's gradient by it, by central differences."""
    features = features_of(model, layer, scan)
    moved = step * torch.eye(features.numel(), dtype=features.dtype).view(-1, *features.shape)
    replaced = features + torch.cat([moved, -moved])
    handle = model.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: replaced
    )
    with torch.no_grad():
        ahead, back = model(torch.from_numpy(scan)[None, None])[:, target].chunk(2)
    handle.remove()
    return features, ((ahead - back) / (2 * step)).view(features.shape)


# --- Grad-CAM -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "layer"),
    [(dense_network, "1.1"), (dense_network, "0.1"), (gap_network, "4"), (gap_network, "4.relu")],
)
def test_grad_cam_weights_maps_with_mean_slopes_by_central_differences(scan, made, layer):
    for target in (0, 2):
        features, slopes = slopes_of(made(), layer, scan, target)
        weights = slopes.mean((1, 2, 3)).numpy()
        seen = activations_of_layer(made(), scan, target, layer)
        close(seen.gradient.numpy(), slopes.numpy(), rtol=1e-6)
        close(raw_grad_cam(seen).numpy(), np.einsum("c,cxyz->xyz", weights, features), rtol=1e-6)


@pytest.mark.parametrize("layer", ["0.0", "0.2", "1.2"])
def test_grad_cam_is_that_of_captum_and_monai(scan, layer):
    model, batch = dense_network(), torch.from_numpy(scan)[None, None]
    raw = raw_grad_cam(activations_of_layer(model, scan, 1, layer)).numpy()
    theirs = LayerGradCam(model, model.get_submodule(layer)).attribute(batch.clone(), target=1)
    close(raw, theirs.detach()[0, 0].numpy(), rtol=1e-10)
    own = GradCAM(model, layer, **RAW)(batch.clone(), class_idx=1)
    close(raw.clip(min=0), own[0, 0].detach().numpy(), rtol=1e-10)


def test_grad_cam_is_the_positive_part_brought_to_where_the_layer_looks(scan):
    raw = raw_grad_cam(activations_of_layer(dense_network(), scan, 0, "0.2"))
    assert (raw > 0).any() and (raw < 0).any()
    expected = bring_onto_grid(raw.clamp(min=0), Field((0,) * 3, (1,) * 3, (1,) * 3), SHAPE)
    np.testing.assert_array_equal(grad_cam(dense_network(), scan, 0, "0.2"), expected)
    stretched = functional.interpolate(raw.clamp(min=0)[None, None], SHAPE, mode="trilinear")[0, 0]
    close(grad_cam(dense_network(), scan, 0, "0.2", placement="stretch"), stretched.numpy())


@pytest.mark.parametrize("target", [0, 1, 2])
def test_grad_cam_is_cam_of_a_network_that_averages_up_to_the_number_of_voxels(scan, target):
    raw, field = raw_cam(gap_network(), scan, target)
    seen = activations_of_layer(gap_network(), scan, target)
    close(raw_grad_cam(seen).numpy() * raw.numel(), raw.numpy(), rtol=1e-10)
    assert (raw > 0).any() and (raw < 0).any()
    assert field == seen.field == Field((-2,) * 3, (5,) * 3, (2,) * 3)


def test_the_part_before_the_layer_is_not_differentiated(scan):
    model = dense_network()
    seen = []
    model[0][0].register_forward_hook(lambda m, inputs, output: seen.append(output.requires_grad))
    model[2].register_forward_hook(lambda m, inputs, output: seen.append(output.requires_grad))
    grad_cam(model, scan, 0, "1.2")
    assert seen[-2:] == [False, True]


def test_the_output_counts_as_it_is_when_the_next_layer_changes_it_in_place(scan):
    model = nn.Sequential(
        nn.Conv3d(1, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(3 * 7 * 8 * 6, 2)
    )
    model = model.double().eval()
    features = features_of(model, "0", scan)
    assert features.min() < 0
    for guided in (False, True):
        torch.testing.assert_close(
            activations_of_layer(model, scan, 0, "0", guided).features, features
        )
    apart = nn.Sequential(model[0], nn.ReLU(), *model[2:]).eval()
    for method in (grad_cam, guided_grad_cam_pp):
        np.testing.assert_array_equal(method(model, scan, 0, "0"), method(apart, scan, 0, "0"))


# --- Grad-CAM++ -----------------------------------------------------------------------------------


def alphas_by_derivatives(head, features, target):
    """Alphas and first derivatives, from those of exp(logit) by automatic differentiation."""
    point = features.clone().requires_grad_()
    first = torch.autograd.grad(torch.exp(head(point)[target]), point, create_graph=True)[0]
    alphas = torch.zeros_like(features)
    sums = features.sum((1, 2, 3))
    for place in np.ndindex(*features.shape):
        second = torch.autograd.grad(first[place], point, create_graph=True)[0][place]
        third = torch.autograd.grad(second, point, retain_graph=True)[0][place]
        below = 2 * second + sums[place[0]] * third
        alphas[place] = second / below if below != 0 else 0
    return alphas.detach(), first.detach()


def test_grad_cam_pp_has_the_alphas_of_the_papers_derivatives_of_the_exponential(scan):
    model, layer = dense_network(), "1.2"
    features = features_of(model, layer, scan)
    for target in (0, 1):
        with torch.enable_grad():
            alphas, first = alphas_by_derivatives(
                lambda maps: model[2](model[1][3](maps[None]))[0], features, target
            )
        weights = (alphas * first.clamp(min=0)).sum((1, 2, 3))
        expected = torch.einsum("c,cxyz->xyz", weights, features)
        found = raw_grad_cam_pp(activations_of_layer(model, scan, target, layer))
        close(found.numpy(), expected.numpy(), rtol=1e-9)


def test_grad_cam_pp_of_one_map_is_known_in_closed_form(scan):
    # f = ReLU(scan), logit = sum f / n: g = 1 / n, alpha = g^2 / (2 g^2 + sum f g^3).
    class Averaged(nn.Module):
        def __init__(self):
            super().__init__()
            self.relu, self.last = nn.ReLU(), nn.Linear(1, 2, bias=False)
            nn.init.constant_(self.last.weight, 1)

        def forward(self, scans):
            return self.last(self.relu(scans).mean((2, 3, 4)))

    f, g = scan.clip(min=0), 1 / scan.size
    weight = scan.size * g / (2 + f.sum() * g) * np.exp(f.mean())
    close(grad_cam_pp(Averaged().double().eval(), scan, 0), weight * f)


@pytest.mark.parametrize("shift", [-500, 500])
def test_the_exponential_of_a_far_logit_stays_a_number(scan, shift):
    model = dense_network().float()
    with torch.no_grad():
        model[2][4].bias += shift
    found = grad_cam_pp(model, scan, 0, "0.2")
    assert np.isfinite(found).all() and found.max() > 0
    with torch.no_grad():
        model[2][4].bias -= shift
    near = grad_cam_pp(model, scan, 0, "0.2")
    close(found / found.max(), near / near.max(), rtol=1e-4)


def test_grad_cam_pp_differs_from_grad_cam(scan):
    both = [method(dense_network(), scan, 0, "0.2") for method in (grad_cam, grad_cam_pp)]
    one, other = (found / found.max() for found in both)
    assert abs(one - other).max() > 0.1


# --- guided ---------------------------------------------------------------------------------------


def guided_of_logit(model, scan, target):
    """Guided backpropagation of a logit, as that of a probability whose slope is known.

    Of two outputs (logit, 0) the first's probability has the slope p (1 - p) of the logit.
    """

    class Against(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, scans):
            logit = self.model(scans)[:, target]
            return torch.stack([logit, torch.zeros_like(logit)], 1)

    both = Against().eval()
    with torch.no_grad():
        p = torch.softmax(both(torch.from_numpy(scan)[None, None]), 1)[0, 0]
    return guided_backprop(both, scan, 0) / float(p * (1 - p))


@pytest.mark.parametrize("made", [dense_network, gap_network])
@pytest.mark.parametrize(
    ("guided", "plain"), [(guided_grad_cam, grad_cam), (guided_grad_cam_pp, grad_cam_pp)]
)
def test_a_guided_map_is_the_product_of_both(scan, made, guided, plain):
    layer = {dense_network: "0.2", gap_network: "4"}[made]
    for placement in ("receptive_field", "stretch"):
        product = plain(made(), scan, 1, layer, placement) * guided_of_logit(made(), scan, 1)
        close(guided(made(), scan, 1, layer, placement), product, rtol=1e-4)


@pytest.mark.parametrize("layer", ["0.0", "0.1", "0.2", "1.1"])
def test_the_layers_gradient_is_the_plain_one_in_guided_maps_too(scan, layer):
    plain, guided = (
        activations_of_layer(dense_network(), scan, 0, layer, each) for each in (False, True)
    )
    close(guided.gradient.numpy(), plain.gradient.numpy(), rtol=1e-10)
    assert plain.guided is None and guided.guided.shape == (1, 1, *SHAPE)


@pytest.mark.parametrize("guided", [guided_grad_cam, guided_grad_cam_pp])
def test_a_guided_map_of_a_network_with_a_functional_relu_is_refused(scan, guided):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.relu = nn.Conv3d(1, 2, 2), nn.Conv3d(2, 2, 2), nn.ReLU()
            self.last = nn.Linear(2, 2)

        def forward(self, scans):
            maps = self.second(torch.relu(self.first(scans)))
            return self.last(self.relu(maps).mean((2, 3, 4)))

    model = Mixed().double().eval()
    with pytest.raises(SetupFault, match=r"every ReLU as an nn\.ReLU module"):
        guided(model, scan, 0)
    assert grad_cam(model, scan, 0).shape == SHAPE
    no_relus = nn.Sequential(nn.Conv3d(1, 2, 2), nn.Flatten(), nn.Linear(2 * 8 * 9 * 7, 2)).eval()
    with pytest.raises(SetupFault, match="this one has none"):
        guided(no_relus, scan, 0)


# --- CAM ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [0, 2])
@pytest.mark.parametrize("inplace", [False, True])
def test_cam_is_the_weighted_sum_of_the_averaged_maps(scan, target, inplace):
    model = gap_network(inplace)
    features = features_of(model, "4", scan)
    weights = model[8].weight.detach()[target]
    raw, field = raw_cam(model, scan, target)
    close(raw.numpy(), torch.einsum("c,cxyz->xyz", weights, features).numpy(), rtol=1e-10)
    np.testing.assert_array_equal(
        cam(model, scan, target), bring_onto_grid(raw.abs(), field, SHAPE)
    )
    batch = torch.from_numpy(scan)[None, None]
    with torch.no_grad():
        whole = model(batch)[0, target] - model[8].bias[target]
    assert float(raw.mean()) == pytest.approx(float(whole))  # what Zhou's equation 1 says


def test_cam_is_that_of_monai(scan):
    model = gap_network()
    own = CAM(model, "4", "8", **RAW)
    theirs = own(torch.from_numpy(scan)[None, None], class_idx=torch.tensor([1]))
    # It asks the dense layer at each voxel, whose bias is then in the map.
    expected = theirs[0, 0].detach() - model[8].bias[1].detach()
    close(raw_cam(model, scan, 1)[0].numpy(), expected.numpy(), rtol=1e-10)


class Ending(nn.Module):
    """Feature maps of a ReLU, and any end."""

    def __init__(self, end, channels=4):
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.relu, self.end = nn.Conv3d(1, 4, 3), nn.ReLU(), end
        self.last = nn.Linear(channels, 2)

    def forward(self, scans):
        return self.end(self, self.relu(self.conv(scans)))


GOOD_ENDS = {
    "mean": lambda net, maps: net.last(maps.mean((2, 3, 4))),
    "pool": lambda net, maps: net.last(functional.adaptive_avg_pool3d(maps, 1).flatten(1)),
    "whole": lambda net, maps: net.last(functional.avg_pool3d(maps, maps.shape[2:])[..., 0, 0, 0]),
    "sum": lambda net, maps: net.last(maps.flatten(2).sum(2) / maps[0, 0].numel()),
}
BAD_ENDS = {
    "max": (lambda net, maps: net.last(maps.amax((2, 3, 4))), r"reads \[1, 4\] that are not"),
    "relu": (lambda net, maps: net.last(torch.relu(maps.mean((2, 3, 4)) - 0.2)), "are not the mea"),
    "two": (lambda net, maps: net.last(net.last(maps.mean((2, 3, 4)))[:, [0, 1, 0, 1]]), "not the"),
    "scaled": (lambda net, maps: 2 * net.last(maps.mean((2, 3, 4))), "no nn.Linear's output"),
    "none": (lambda net, maps: maps.mean((2, 3, 4))[:, :2], "no nn.Linear's output"),
    "turned": (lambda net, maps: net.last(maps.mean((2, 3, 4)).flip(1)), "are not the means"),
}


@pytest.mark.parametrize("name", GOOD_ENDS)
def test_cam_finds_the_average_however_it_is_written(scan, name):
    expected = cam(Ending(GOOD_ENDS["mean"]).double().eval(), scan, 1)
    close(cam(Ending(GOOD_ENDS[name]).double().eval(), scan, 1), expected)


@pytest.mark.parametrize("name", BAD_ENDS)
def test_cam_refuses_a_network_that_ends_in_another_way(scan, name):
    end, told = BAD_ENDS[name]
    with pytest.raises(SetupFault, match=rf"cam needs .* global average and one nn.Linear.*{told}"):
        cam(Ending(end).double().eval(), scan, 1)


def test_cam_refuses_riekes_network():
    model = build_model("rieke", (38, 38, 38), 2).eval()
    with pytest.raises(SetupFault, match=r"cam needs a network that ends.*Choose grad_cam"):
        cam(model, np.zeros((38, 38, 38), np.float32), 0)


# --- the layer ------------------------------------------------------------------------------------


def test_without_a_name_the_last_map_before_a_pooling_is_read(scan):
    model = dense_network()
    model[2][2] = nn.Linear(4 * 1 * 2 * 1, 6)  # two voxels are left
    model[1][3] = nn.MaxPool3d((2, 1, 1))
    model[1][0] = nn.Conv3d(3, 4, 3)
    model.double().eval()
    np.testing.assert_array_equal(grad_cam(model, scan, 0), grad_cam(model, scan, 0, "1.2"))
    averaging = gap_network()
    np.testing.assert_array_equal(grad_cam(averaging, scan, 0), grad_cam(averaging, scan, 0, "4"))
    ending = Ending(GOOD_ENDS["mean"]).double().eval()
    np.testing.assert_array_equal(grad_cam(ending, scan, 0), grad_cam(ending, scan, 0, "relu"))


@pytest.mark.parametrize("method", BY_LAYER)
def test_the_networks_own_word_comes_before_the_last_map_and_the_option_before_both(scan, method):
    model = dense_network()
    model.cam_layer = "0.2"
    named = method(dense_network(), scan, 0, "0.2")
    np.testing.assert_array_equal(method(model, scan, 0), named)
    other = method(model, scan, 0, "0.0")
    np.testing.assert_array_equal(other, method(dense_network(), scan, 0, "0.0"))
    assert not np.array_equal(other, named)


@pytest.mark.parametrize("method", BY_LAYER)
def test_an_unknown_layer_is_refused_with_those_there_are(scan, method):
    for layer in ("features", "2.0", ""):
        with pytest.raises(
            SetupFault, match=rf"no layer {layer!r} that gives .*: 0\.0, 0\.1, 0\.2"
        ):
            method(dense_network(), scan, 0, layer)


@pytest.mark.parametrize("method", BY_LAYER)
def test_a_layer_of_one_voxel_is_refused(scan, method):
    with pytest.raises(SetupFault, match=r"layer '5' has one voxel: .* the same everywhere"):
        method(gap_network(), scan, 0, "5")


class Shared(nn.Module):
    """One ReLU module that is called twice, at last in or behind a block."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv3d(1, 3, 2), nn.Conv3d(3, 3, 2)
        self.relu, self.last = nn.ReLU(), nn.Linear(3, 2)

    def forward(self, scans):
        return self.last(self.relu(self.second(self.relu(self.first(scans)))).mean((2, 3, 4)))


def test_a_layer_that_is_called_twice_is_refused(scan):
    model = Shared().double().eval()
    with pytest.raises(SetupFault, match="layer 'relu' is called 2 times"):
        grad_cam(model, scan, 0, "relu")
    with pytest.raises(SetupFault, match="'relu', a module that is called twice; name another"):
        grad_cam(model, scan, 0)
    assert grad_cam(model, scan, 0, "second").shape == SHAPE


def test_a_block_stands_for_a_shared_relu_in_it(scan):
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu = nn.Conv3d(1, 3, 2), nn.ReLU()

        def forward(self, scans):
            return self.relu(self.relu(self.conv(scans)) - 0.1)

    model = nn.Sequential(Inner(), nn.Flatten(), nn.Linear(3 * 8 * 9 * 7, 2)).double().eval()
    np.testing.assert_array_equal(grad_cam(model, scan, 0), grad_cam(model, scan, 0, "0"))


@pytest.mark.parametrize("method", [grad_cam, guided_grad_cam])
def test_a_layer_that_the_logit_does_not_depend_on_is_refused(scan, method):
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.aside = dense_network(), nn.Conv3d(1, 2, 3)

        def forward(self, scans):
            self.aside(scans)
            return self.main(scans)

    with pytest.raises(SetupFault, match="the logit does not depend on layer 'aside'"):
        method(Aside().double().eval(), scan, 0, "aside")


def test_a_network_without_maps_is_refused(scan):
    model = nn.Sequential(nn.Flatten(), nn.Linear(scan.size, 4), nn.ReLU(), nn.Linear(4, 2))
    for method in (cam, grad_cam):
        with pytest.raises(SetupFault, match="no module of the network gives a feature map"):
            method(model.double().eval(), scan, 0)


@pytest.mark.parametrize("method", [cam, *BY_LAYER])
def test_every_method_refuses_a_placement_or_a_class_that_there_is_not(scan, method):
    with pytest.raises(SetupFault, match="no placement 'nearest'"):
        method(gap_network(), scan, 0, placement="nearest")
    for target in (-1, 3):
        with pytest.raises(SetupFault, match=rf"target is class {target}, and the network has 3"):
            method(gap_network(), scan, target)


@pytest.mark.parametrize("method", [cam, *BY_LAYER])
def test_a_network_that_moves_voxels_is_stretched_with_a_warning(scan, method):
    class Mirrored(nn.Module):
        def __init__(self):
            super().__init__()
            self.main = gap_network()

        def forward(self, scans):
            return self.main(scans.flip(2))

    model = Mirrored().eval()
    with pytest.warns(RuntimeWarning, match="cannot be followed back to the scan"):
        found = method(model, scan, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(found, method(model, scan, 0, placement="stretch"))


@pytest.mark.parametrize("method", [cam, *BY_LAYER])
def test_no_method_warns_or_leaves_anything_in_the_network(scan, method):
    model = gap_network(inplace=True).requires_grad_(False)
    model[8].bias.requires_grad_()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        first = method(model, scan, 0)
    np.testing.assert_array_equal(method(model, scan, 0), first)
    assert [name for name, each in model.named_parameters() if each.requires_grad] == ["8.bias"]
    for module in model.modules():
        assert "forward" not in vars(module)
        assert not (module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


@pytest.mark.parametrize("method", [cam, *BY_LAYER])
def test_in_float32_a_map_is_that_of_float64(scan, method):
    close(method(gap_network().float(), scan, 0), method(gap_network(), scan, 0), rtol=1e-3)


def test_of_riekes_network_each_voxel_is_put_where_it_looks():
    # 62 voxels leave 4 behind the last convolution, which look at 18.5, 26.5, 34.5 and 42.5.
    shape = (62, 70, 62)
    torch.manual_seed(0)
    model = build_model("rieke", shape, 2).eval()
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.abs_()  # so that the map is positive
    scan = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    coarse = raw_grad_cam(activations_of_layer(model, scan, 0)).clamp(min=0).numpy()
    found = grad_cam(model, scan, 0)
    assert coarse.shape == (4, 5, 4)
    close(found[:19, :19, :19], np.full((19, 19, 19), coarse[0, 0, 0]))
    close(found[43:, 51:, 43:], np.full((19, 19, 19), coarse[-1, -1, -1]))
    # Half a voxel before and behind the centres of voxel (1, 2, 0).
    around = found[26:28, 34:36, 18:20]
    x = np.array([[1 / 16, 15 / 16, 0, 0], [0, 15 / 16, 1 / 16, 0]])
    y = np.array([[0, 1 / 16, 15 / 16, 0, 0], [0, 0, 15 / 16, 1 / 16, 0]])
    z = np.array([[1, 0, 0, 0], [15 / 16, 1 / 16, 0, 0]])
    close(around, np.einsum("ai,bj,ck,ijk->abc", x, y, z, coarse))
