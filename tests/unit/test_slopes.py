"""Gradients that are not the slopes of a network's outputs."""

import gc
import weakref

import numpy as np
import pytest
import torch

from small_networks import SHAPE, Net, of, random_scan
from voxplain.faults import SetupFault
from voxplain.relevance import behaviour, slopes

BY_THE_SCAN = ("sensitivity", "guided_backprop", "smoothgrad", "integrated_gradients")


@pytest.fixture
def scan():
    return random_scan()


# --- gradients that are not the network's ---------------------------------------------------------


def half_detached(maps):
    return torch.cat([maps[:, :2].detach(), maps[:, 2:]], 1)


def without_gradient(maps):
    with torch.no_grad():
        return maps + maps.tanh()


def one_more_without_gradient(maps):
    with torch.no_grad():
        added = maps.tanh()
    return maps + added


def in_inference_mode(maps):
    with torch.inference_mode():
        return maps.tanh()


def behind_autograd(maps):
    maps.data.mul_(2)
    return maps


def with_a_hook(maps):
    if maps.requires_grad:
        maps.register_hook(lambda gradient: 2 * gradient)
    return maps


class Straight(torch.autograd.Function):
    """Three times the maps, with the gradient of the identity."""

    @staticmethod
    def forward(context, maps):
        return 3 * maps

    @staticmethod
    def backward(context, gradient):
        return gradient


CUT = [
    half_detached,
    without_gradient,
    one_more_without_gradient,
    in_inference_mode,
    behind_autograd,
    with_a_hook,
    Straight.apply,
]


@pytest.mark.parametrize("change", CUT)
@pytest.mark.parametrize("name", BY_THE_SCAN)
def test_a_gradient_that_is_not_the_slope_is_refused(name, change, scan):
    model = Net(change, at="maps")
    for _ in range(2):  # a refusal is none of the things that are remembered
        with pytest.raises(
            SetupFault, match=r"gradient by the scan .* is not its slope|guided_b|through any gr"
        ):
            of(name, model, scan)


@pytest.mark.parametrize("change", CUT)
@pytest.mark.parametrize("name", ["grad_cam", "grad_cam_pp", "guided_grad_cam"])
def test_a_gradient_by_a_layer_that_is_not_the_slope_is_refused(name, change, scan):
    model = Net(change, at="late")
    with pytest.raises(
        SetupFault, match=r"gradient by .* is not its slope|guided_b|'relu2' through"
    ):
        of(name, model, scan)


def test_what_is_cut_before_the_layer_does_not_matter_to_grad_cam(scan):
    found = of("grad_cam_pp", Net(half_detached, at="maps"), scan)
    np.testing.assert_array_equal(found, of("grad_cam_pp", Net(), scan))


@pytest.mark.parametrize(
    "change",
    [
        torch.nn.functional.hardshrink,  # jumps
        lambda maps: 1e-6 * maps,
        lambda maps: 1e4 * maps,
        lambda maps: maps.relu() * (maps > 0.1),
        lambda maps: maps.abs().sqrt(),
    ],
)
def test_steep_flat_and_jumping_networks_have_the_gradient_that_they_have(change, scan):
    assert of("sensitivity", Net(change, at="maps"), scan).shape == SHAPE


@pytest.mark.parametrize("factor", [1, 1e3])
def test_saturated_networks_are_not_refused(factor, scan):
    for head in (lambda z: factor * z, lambda z: (factor * z).softmax(1)):
        assert np.isfinite(of("sensitivity", Net(head), scan)).all()


def test_a_network_is_compared_once_and_again_when_it_was_changed(scan):
    model, passes = Net(), []
    model.first.register_forward_hook(lambda *given: passes.append(1))
    of("sensitivity", model, scan)
    first = len(passes)
    with torch.no_grad():
        model.last.weight.mul_(2)  # as a randomisation does
    passes.clear()
    of("sensitivity", model, scan)
    assert len(passes) == 1 < first
    passes.clear()
    model.change = lambda outputs: outputs.softmax(1)
    of("sensitivity", model, scan)
    assert len(passes) > 1
    with pytest.raises(SetupFault, match="the network gives probabilities"):
        of("grad_cam", model, scan)


def test_what_is_known_of_a_network_does_not_keep_it(scan):
    model = Net()
    of("occlusion", model, scan)
    of("grad_cam", model, scan)
    assert model in behaviour._known
    there = weakref.ref(model)
    del model
    gc.collect()
    assert there() is None


def test_a_hook_that_changes_gradients_is_noticed_though_the_network_passed_before(scan):
    model = Net()
    of("sensitivity", model, scan)
    model.second.register_full_backward_hook(lambda module, to_input, to_output: (2 * to_input[0],))
    with pytest.raises(SetupFault, match="is not its slope"):
        of("sensitivity", model, scan)


@pytest.mark.parametrize("change", [half_detached, behind_autograd, torch.tanh])
def test_a_large_scan_is_compared_in_float32_alone(change, scan, monkeypatch):
    monkeypatch.setattr(slopes, "_SMALL", 10)
    monkeypatch.setattr(slopes, "_LARGEST_FLOAT64", 100)
    monkeypatch.setattr(slopes, "in_float64", None)
    model = Net(change, at="maps")
    if change is torch.tanh:
        assert of("sensitivity", model, scan).max() > 0
    else:
        with pytest.raises(SetupFault, match="is not its slope"):
            of("sensitivity", model, scan)
