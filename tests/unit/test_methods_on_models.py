"""Every method on every network of ours, and what must hold on each of them."""

import numpy as np
import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from voxplain.models import MODELS, build_model, plan_model
from voxplain.relevance import METHODS, explain
from voxplain.relevance.cam import activations_of_layer, raw_cam, raw_grad_cam
from voxplain.relevance.gradient import signed_integrated_gradients
from voxplain.relevance.lrp import _signed
from voxplain.relevance.lrp_network import merge_batch_norms

pytestmark = pytest.mark.slow

# The least that each takes, or little more.
SHAPES = {"rieke": (46, 47, 48), "voxcnn": (40, 42, 41)}
SMALL = (17, 20, 18)
PAIRS = [
    (name, method)
    for name in MODELS
    for method, told in METHODS.items()
    if not told.models or name in told.models
]


def network(name, dtype=torch.float32, seed=0):
    """One of ours with statistics and weights of batch norms that are not 0 and 1."""
    torch.manual_seed(seed)
    model = build_model(name, SHAPES.get(name, SMALL), 3)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.8, 1.5)
            torch.nn.init.uniform_(module.weight, 0.7, 1.3)
            torch.nn.init.normal_(module.bias, std=0.1)
    return model.to(dtype).eval()


def scan_for(name, seed=1):
    rng = np.random.default_rng(seed)
    scan = np.zeros(SHAPES.get(name, SMALL))
    scan[3:-3, 2:-4, 4:-2] = rng.normal(size=scan[3:-3, 2:-4, 4:-2].shape)
    return scan.astype(np.float32)


def options_for(method, scan):
    told = METHODS[method].options
    options = {"mask": scan != 0} if "mask" in told else {}
    if method == "area_occlusion":
        options["labels"] = np.where(
            scan != 0, 1 + (np.arange(scan.shape[0]) // 8)[:, None, None], 0
        )
    return options | {
        "occlusion": {"size": 8, "stride": 8},
        "voxel_occlusion": {"size": 5, "stride": 9},
        "sa_ucm": {"levels": 2, "most_segments": 3},
        "smoothgrad": {"samples": 2},
        "integrated_gradients": {"steps": 2},
        "summary": {"methods": {"sensitivity": {}, "grad_cam": {}}},
    }.get(method, {})


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_a_method_gives_the_same_map_twice_and_none_of_its_values_is_below_0(name, method):
    model, scan = network(name), scan_for(name)
    options = options_for(method, scan)
    largest = []
    for target in range(3):
        found = explain(method, model, scan, target, **options)
        assert found.shape == scan.shape
        assert found.dtype == np.float32
        assert np.isfinite(found).all() and found.min() >= 0
        largest.append(found.max())
        # What speaks for a class may be nowhere in this scan.
        if largest[-1] > 0:
            break
    np.testing.assert_array_equal(explain(method, model, scan, target, **options), found)
    assert largest[-1] > 0


@pytest.mark.parametrize("name", MODELS)
def test_a_plan_says_what_the_network_gives(name):
    """Its maps without those of poolings, in their order, and what the first dense layer reads."""
    grid = SHAPES.get(name, SMALL)
    plan, model = plan_model(name, grid), network(name)
    maps, read = {}, []

    def note(layer):
        def hook(module, given, out):
            maps[layer] = out.shape
            if isinstance(module, torch.nn.Linear):
                read.append(given[0].shape[1])

        return hook

    for layer, module in model.named_modules():
        if not any(module.children()):
            module.register_forward_hook(note(layer))
    with torch.no_grad():
        model(torch.zeros(1, 1, *grid))
    pools = (torch.nn.MaxPool3d, torch.nn.AdaptiveAvgPool3d)
    shapes = {
        layer: tuple(shape[2:])
        for layer, shape in maps.items()
        if len(shape) == 5 and not isinstance(model.get_submodule(layer), pools)
    }
    assert list(plan.layers.items()) == list(shapes.items())
    assert plan.last_layer == model.cam_layer == list(shapes)[-1]
    assert plan.features == read[0]


@pytest.mark.parametrize("name", MODELS)
def test_guided_backprop_is_not_the_gradient(name):
    model, scan = network(name), scan_for(name)
    plain, guided = (explain(m, model, scan, 0) for m in ("sensitivity", "guided_backprop"))
    both = np.corrcoef(plain.ravel(), guided.ravel())[0, 1]
    assert abs(plain - guided).sum() > 0.1 * plain.sum()
    assert both < 0.99


@pytest.mark.parametrize("name", MODELS)
def test_merging_batch_norms_leaves_the_logits_as_they_are(name):
    model = network(name, torch.float64)
    merged = merge_batch_norms(model)
    scan = torch.from_numpy(scan_for(name)).double()[None, None]
    before, after = (
        sum(isinstance(module, _BatchNorm) for module in each.modules()) for each in (model, merged)
    )
    assert after < before
    with torch.no_grad():
        torch.testing.assert_close(merged(scan), model(scan), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_lrp_hands_back_the_whole_logit(name):
    """What voxels are given and what biases take is the logit: to one part in a thousand."""
    model, scan = network(name, torch.float64), scan_for(name)
    with torch.no_grad():
        logit = float(model(torch.from_numpy(scan).double()[None, None])[0, 2])
    with torch.no_grad():
        found, taken = _signed(model, torch.from_numpy(scan).double()[None, None], 2)
    assert float(found.sum()) + taken == pytest.approx(logit, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_integrated_gradients_sum_to_what_the_scan_changes(name):
    model, scan = network(name, torch.float64), scan_for(name)
    with torch.no_grad():
        scans = torch.from_numpy(np.stack([scan, np.zeros_like(scan)])).double()[:, None]
        whole, nothing = torch.softmax(model(scans), 1)[:, 0].tolist()
    found = signed_integrated_gradients(model, scans[:1], 0, steps=12)
    assert float(found.sum()) == pytest.approx(whole - nothing, rel=0.15, abs=1e-4)


@pytest.mark.parametrize("name", ["voxresnet_gap", "voxresnet_shallow_gap"])
def test_grad_cam_is_cam_on_networks_that_average(name):
    """Before absolute value and ReLU, for the logit, up to the number of the map's voxels."""
    model, scan = network(name, torch.float64), scan_for(name)
    cam, _ = raw_cam(model, scan, 1)
    grad_cam = raw_grad_cam(activations_of_layer(model, scan, 1))
    assert (cam < 0).any() and (cam > 0).any()
    torch.testing.assert_close(grad_cam * cam.numel(), cam, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "layer"),
    [("voxcnn", "conv2b"), ("voxresnet", "bn4"), ("voxresnet", "voxres9_out")],
)
def test_the_layers_that_yang_et_al_read_can_be_read(name, layer):
    shapes = {"voxresnet": (33, 34, 35)}  # the last block needs more than one voxel
    torch.manual_seed(0)
    shape = shapes.get(name, SHAPES.get(name))
    model = build_model(name, shape, 2).eval()
    scan = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for method in ("grad_cam", "grad_cam_pp", "guided_grad_cam"):
        found = explain(method, model, scan, 0, layer=layer)
        assert found.shape == shape
        assert np.isfinite(found).all()
