import doctest
import importlib
import inspect
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from voxplain import relevance
from voxplain.faults import SetupFault
from voxplain.relevance import METHODS, choose_target, explain, find_method

CLASSES = ("AD", "MCI", "CN")
SHAPE = (6, 5, 7)
LABELS = np.arange(6 * 5 * 7).reshape(SHAPE) // 30
OPTIONS = {
    "occlusion": {"size": 3, "stride": 2},
    "voxel_occlusion": {"size": 2},
    "area_occlusion": {"labels": LABELS},
    "smoothgrad": {"samples": 3},
    "integrated_gradients": {"steps": 4},
    "sa_ucm": {"levels": 2, "most_segments": 4},
    "summary": {"methods": {"sensitivity": {}, "lrp": {}}},
}
OF_THE_LOGIT = {
    *("cam", "grad_cam", "grad_cam_pp", "guided_grad_cam", "guided_grad_cam_pp"),
    *("lrp", "lrp_grad_cam_pp"),
}


def network(method=None, seed=0):
    """Convolution, batch norm, ReLU and a dense layer; for CAM with an average before it."""
    torch.manual_seed(seed)
    average = method == "cam"
    return nn.Sequential(
        nn.Conv3d(1, 3, 2),
        nn.BatchNorm3d(3),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1) if average else nn.Identity(),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(3 if average else 3 * 5 * 4 * 6, len(CLASSES)),
    ).eval()


@pytest.fixture
def scan():
    return np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)


def of(method, model, scan, target=0):
    return explain(method, model, scan, target, **OPTIONS.get(method, {}))


# --- the registry ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_a_function_of_its_name_in_the_module_it_gives(name):
    function = getattr(importlib.import_module(METHODS[name].module), name)
    assert inspect.isfunction(function)
    assert function.__module__ == METHODS[name].module


@pytest.mark.parametrize("name", METHODS)
def test_a_method_documents_exactly_the_options_it_takes(name):
    function = getattr(importlib.import_module(METHODS[name].module), name)
    taken = list(inspect.signature(function).parameters)
    assert taken[:3] == ["model", "scan", "target"]
    assert taken[3:] == list(METHODS[name].options)
    assert METHODS[name].description
    assert all(METHODS[name].options.values())


def test_gradients_and_occlusions_explain_the_probability_and_class_activation_maps_the_logit():
    of_the_paper = {"sensitivity", "guided_backprop", "occlusion", "area_occlusion"}
    others = {"voxel_occlusion", "sa_ucm", "smoothgrad", "integrated_gradients"}
    assert {METHODS[name].explains for name in of_the_paper | others} == {"probability"}
    assert {METHODS[name].explains for name in OF_THE_LOGIT} == {"logit"}


def test_cam_is_for_the_networks_of_ours_that_average_and_the_others_are_for_all():
    assert METHODS["cam"].models == ("voxresnet_gap", "voxresnet_shallow_gap")
    for name in (OF_THE_LOGIT - {"cam"}) | {"sensitivity", "smoothgrad", "occlusion"}:
        assert METHODS[name].models == ()


def test_a_method_is_found_by_its_name_and_an_unknown_one_is_refused_with_those_there_are():
    assert find_method("occlusion") is METHODS["occlusion"]
    with pytest.raises(SetupFault, match=r"no method 'cams'; allowed: sensitivity, .*occlusion"):
        find_method("cams")


def test_looking_up_the_methods_loads_neither_torch_nor_numpy(repository):
    code = (
        "import sys; from voxplain.relevance import METHODS; "
        "print(sorted({'torch', 'numpy', 'captum'} & set(sys.modules)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository / "scripts",
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "[]"


# --- explain --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_heatmap_is_float32_on_the_scans_grid_and_nowhere_below_nought(name, scan):
    heatmap = of(name, network(name), scan)
    assert heatmap.shape == SHAPE
    assert heatmap.dtype == np.float32
    assert heatmap.min() >= 0
    assert heatmap.max() > 0


@pytest.mark.parametrize("name", METHODS)
def test_explain_is_the_methods_own_function(name, scan):
    function = getattr(importlib.import_module(METHODS[name].module), name)
    model = network(name)
    own = function(model, scan, 1, **OPTIONS.get(name, {}))
    np.testing.assert_array_equal(of(name, model, scan, 1), own)
    assert not np.array_equal(of(name, model, scan, 0), own)


@pytest.mark.parametrize("name", METHODS)
def test_the_scan_may_be_a_tensor_or_a_flipped_array_of_any_number_type(name, scan):
    model = network(name)
    expected = of(name, model, scan)
    flipped = np.ascontiguousarray(scan[::-1])[::-1]
    turned = torch.from_numpy(np.ascontiguousarray(scan.T)).permute(2, 1, 0)
    for same in (torch.from_numpy(scan), scan.astype(np.float64), flipped, turned):
        np.testing.assert_array_equal(of(name, model, same), expected)


@pytest.mark.parametrize("name", METHODS)
def test_explaining_changes_neither_the_scan_nor_the_network(name, scan):
    model, before = network(name), scan.copy()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    of(name, model, scan)
    of(name, model, torch.from_numpy(scan))
    np.testing.assert_array_equal(scan, before)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
    for module in model.modules():
        assert not module.training
        assert "forward" not in vars(module)
        assert not (module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("part", [None, 1, 4], ids=["whole", "batch norm", "dropout"])
def test_a_network_that_is_or_whose_part_is_in_training_mode_is_refused(name, part, scan):
    model = network(name)
    (model if part is None else model[part]).train()
    with pytest.raises(SetupFault, match=r"training mode; call model\.eval\(\)"):
        of(name, model, scan)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("shape", [(6, 5), (1, 6, 5, 7), (1, 1, 6, 5, 7)])
def test_a_scan_without_exactly_three_axes_is_refused(name, shape):
    with pytest.raises(ValueError, match="three axes"):
        of(name, network(name), np.zeros(shape, np.float32))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("target", [-1, len(CLASSES)])
def test_a_class_that_the_network_does_not_have_is_refused(name, target, scan):
    with pytest.raises(SetupFault, match=f"target is class {target}, .* has 3 classes, 0 to 2"):
        of(name, network(name), scan, target)


@pytest.mark.parametrize("name", ["occlusion", "voxel_occlusion", "area_occlusion", "sa_ucm"])
def test_an_occlusion_refuses_a_class_by_the_whole_scan_alone(name, scan):
    model, passes = network(), []
    model.register_forward_hook(lambda *told: passes.append(told))
    with pytest.raises(SetupFault, match="target"):
        of(name, model, scan, len(CLASSES))
    assert len(passes) == 1


def test_an_option_that_a_method_has_not_is_refused(scan):
    with pytest.raises(TypeError, match="stride"):
        explain("sensitivity", network(), scan, 0, stride=2)


def test_the_example_in_the_documentation_runs():
    told = doctest.testmod(relevance)
    assert told.attempted > 0
    assert told.failed == 0


# --- the class to explain -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "true", "probabilities", "expected"),
    [
        ("disease", "CN", (0.1, 0.2, 0.7), 0),
        ("predicted", "AD", (0.1, 0.2, 0.7), 2),
        ("predicted", "AD", (0.1, 0.6, 0.3), 1),
        ("predicted", "CN", (0.4, 0.2, 0.4), 0),  # of equals, the first
        ("true", "MCI", (0.9, 0.05, 0.05), 1),
        ("true", "CN", (0.9, 0.05, 0.05), 2),
        ("AD", "CN", (0.1, 0.2, 0.7), 0),
        ("CN", "AD", (0.9, 0.05, 0.05), 2),
    ],
)
def test_the_target_is_the_class_asked_for(wanted, true, probabilities, expected):
    assert choose_target(wanted, CLASSES, true, probabilities) == expected
    assert choose_target(wanted, list(CLASSES), true, np.array(probabilities)) == expected


@pytest.mark.parametrize("wanted", ["FTD", "ad", ""])
def test_an_unknown_target_is_refused_with_those_allowed(wanted):
    with pytest.raises(SetupFault) as fault:
        choose_target(wanted, CLASSES, "AD", (1, 0, 0))
    assert repr(wanted) in str(fault.value)
    assert "disease, predicted, true, AD, MCI, CN" in str(fault.value)


def test_a_true_class_that_the_network_does_not_know_is_refused():
    with pytest.raises(SetupFault, match="FTD"):
        choose_target("true", CLASSES, "FTD", (1, 0, 0))


@pytest.mark.parametrize("wanted", ["predicted", "disease", "true"])
def test_no_class_is_explained_where_the_network_predicts_none(wanted):
    with pytest.raises(SetupFault, match="probabilities of I5 are not finite numbers"):
        choose_target(wanted, CLASSES, "CN", (0.5, float("nan"), 0.2), "I5")
