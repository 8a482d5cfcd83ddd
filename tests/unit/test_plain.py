"""Tensors of other kinds, half precision, and scans of odd numbers."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from small_networks import Net, close, of, random_scan
from voxplain.faults import SetupFault
from voxplain.relevance import METHODS


@pytest.fixture
def scan():
    return random_scan()


# --- tensor subclasses ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_scan_as_a_metatensor_is_that_of_a_plain_tensor(name, scan):
    np.testing.assert_array_equal(
        of(name, Net(), MetaTensor(torch.from_numpy(scan))), of(name, Net(), scan)
    )


@pytest.mark.parametrize("name", METHODS)
def test_weights_and_buffers_as_metatensors_are_read_as_plain_ones_and_put_back(name, scan):
    model = Net()
    for module in model.modules():
        for key, value in module._parameters.items():
            module._parameters[key] = nn.Parameter(MetaTensor(value.data))
        for key, value in module._buffers.items():
            module._buffers[key] = MetaTensor(value)
    before = {key: id(value) for key, value in model.named_parameters()}
    np.testing.assert_array_equal(of(name, model, scan), of(name, Net(), scan))
    assert {key: id(value) for key, value in model.named_parameters()} == before
    assert isinstance(model.norm.running_mean, MetaTensor)


def test_a_tensor_that_is_no_parameter_is_read_as_a_plain_one_too(scan):
    model, plain = (Net(at="maps") for _ in range(2))
    model.factor = MetaTensor(torch.full((1, 4, 1, 1, 1), 0.5))
    model.change = lambda maps: maps * model.factor
    plain.change = lambda maps: maps * 0.5
    np.testing.assert_array_equal(of("cam", model, scan), of("cam", plain, scan))


# --- the scan's numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_scan_that_is_not_finite_is_refused_in_one_sentence(name, value, scan):
    scan[4, 5, 6] = value
    with pytest.raises(SetupFault, match=r"^1 of the scan's 1716 voxels are NaN or infinite"):
        of(name, Net(), scan)


@pytest.mark.parametrize("name", METHODS)
def test_a_network_whose_outputs_are_not_finite_is_refused(name, scan):
    model = Net()
    with torch.no_grad():
        model.last.weight[0, 0] = torch.nan
    with pytest.raises(SetupFault, match="which are no finite numbers"):
        of(name, model, scan)


def test_a_scan_beyond_the_networks_type_is_refused(scan):
    with pytest.raises(SetupFault, match=r"values beyond torch\.float32"):
        of("sensitivity", Net(), scan.astype(np.float64) * 1e300)


@pytest.mark.parametrize("name", ["sensitivity", "cam", "occlusion", "lrp", "sa_ucm"])
@pytest.mark.parametrize("kind", [">f4", ">f8", np.longdouble])
def test_arrays_of_any_byte_order_and_length_are_read(name, kind, scan):
    np.testing.assert_array_equal(of(name, Net(), scan.astype(kind)), of(name, Net(), scan))


@pytest.mark.parametrize("kind", [">i2", np.uint16, np.uint32, np.int64, bool])
def test_whole_numbers_are_read(kind, scan):
    scan = (10 * abs(scan)).astype(kind)
    found = of("sensitivity", Net(), scan)
    np.testing.assert_array_equal(found, of("sensitivity", Net(), scan.astype(np.float32)))


def test_a_target_may_be_a_number_of_numpy_or_torch(scan):
    expected = of("sensitivity", Net(), scan, 1)
    for target in (np.int64(1), torch.tensor(1)):
        np.testing.assert_array_equal(of("sensitivity", Net(), scan, target), expected)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda scan: scan.tolist(), "not a list"),
        (lambda scan: scan.astype(complex), "complex numbers"),
        (lambda scan: scan.astype(object), "this array has object"),
        (lambda scan: np.ma.masked_greater(scan, 1), "masked voxels"),
        (lambda scan: torch.from_numpy(scan).to_sparse(), "sparse_coo"),
        (lambda scan: torch.from_numpy(scan).to("meta"), "meta"),
        (lambda scan: scan[:0], "has no voxel"),
    ],
)
def test_what_is_no_scan_is_refused(change, reason, scan):
    with pytest.raises(SetupFault, match=reason):
        of("occlusion", Net(), change(scan))


# --- half precision -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("dtype", "mixed"), [(torch.float16, False), (torch.bfloat16, True)])
def test_half_precision_is_computed_in_float32(name, dtype, mixed, scan):
    model = Net().to(dtype)
    if mixed:
        model.norm.float()
    rounded = Net()
    rounded.load_state_dict({key: value.float() for key, value in model.state_dict().items()})
    np.testing.assert_array_equal(of(name, model, scan), of(name, rounded, scan))
    assert model.first.weight.dtype == dtype


def test_a_parametrised_network_in_half_precision_is_computed_in_float32(scan):
    model = Net()
    nn.utils.parametrizations.weight_norm(model.first)
    close(of("occlusion", model.eval().half(), scan), of("occlusion", Net(), scan), rtol=0.01)


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_inside_is_refused(name, scan):
    def low(maps):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return (maps.flatten(2) @ torch.eye(maps[0, 0].numel())).view_as(maps).float()

    with pytest.raises(SetupFault, match="computes in bfloat16 inside"):
        of(name, Net(low, at="maps"), scan)
