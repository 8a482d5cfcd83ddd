import random

import numpy as np
import pytest
import torch

from voxplain.faults import SetupFault
from voxplain.models import MODELS, build_model
from voxplain.training.networks import TO_APPLY, load_network, save_network
from voxplain.training.statistics import VoxelStatistics
from voxplain.volumes import Grid

SHAPE = (41, 43, 40)


@pytest.fixture
def statistics():
    rng = np.random.default_rng(2)
    mask = rng.random(SHAPE) < 0.4
    mean = np.where(mask, rng.normal(size=SHAPE), 0).astype(np.float32)
    sd = np.where(mask, rng.uniform(0.1, 1, SHAPE), 0.05).astype(np.float32)
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = -96, -132, -78
    return VoxelStatistics(mean, sd, mask, Grid(SHAPE, tuple(map(tuple, affine))))


@pytest.mark.parametrize("name", MODELS)
def test_a_network_comes_back_as_it_was(tmp_path, statistics, name):
    torch.manual_seed(1)
    model = build_model(name, SHAPE, 3).eval()
    classes = ["AD", "MCI", "NC"]
    path = tmp_path / "model.pt"
    metadata = {"seed": 5, "trained_on": ["I1", "I2"], "preprocessing": {"skull": {"tool": "bet"}}}
    save_network(path, model, name, {}, classes, statistics, **metadata)
    network = load_network(path)
    scans = torch.randn(1, 1, *SHAPE)
    with torch.no_grad():
        assert torch.equal(network.model(scans), model(scans))
    assert not network.model.training
    assert network.classes == classes
    assert network.name == name
    assert network.last_layer in dict(model.named_modules())
    assert {key: network.metadata[key] for key in metadata} == metadata
    mask = statistics.mask
    assert np.array_equal(network.statistics.mask, mask)
    assert np.array_equal(network.statistics.mean[mask], statistics.mean[mask])
    assert np.array_equal(network.statistics.sd[mask], statistics.sd[mask])
    assert network.statistics.grid.matches(statistics.grid)


def test_its_options_come_back_too(tmp_path, statistics):
    model = build_model("rieke", SHAPE, 2, pools=[2, 2, 1, 1], dropout=0.3)
    path = tmp_path / "model.pt"
    options = {"pools": [2, 2, 1, 1], "dropout": 0.3}
    save_network(path, model, "rieke", options, ["AD", "NC"], statistics)
    network = load_network(path)
    assert network.label == "rieke (pools 2,2,1,1)"
    assert network.model.classifier[1].p == 0.3


def test_a_file_that_is_no_network_is_named(tmp_path):
    with pytest.raises(SetupFault, match=r"model\.pt does not exist"):
        load_network(tmp_path / "model.pt")
    (tmp_path / "model.pt").write_bytes(b"no network")
    with pytest.raises(SetupFault, match=r"model\.pt cannot be used"):
        load_network(tmp_path / "model.pt")
    torch.save({"state_dict": {}}, tmp_path / "model.pt")
    with pytest.raises(SetupFault, match="give the file"):
        load_network(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "changed",
    [
        {"model": "voxcnn"},  # the weights are another network's
        {"model": "lenet"},
        {"options": {"pools": [2, 2, 2, 1]}},
        {"options": {"depth": 3}},
        {"classes": ["AD", "MCI", "NC"]},
        {"state_dict": {}},
        {"state_dict": None},
        {"mean": torch.zeros(3)},
        {"mask": torch.zeros(2, dtype=torch.uint8)},
    ],
    ids=lambda changed: "-".join(changed),
)
def test_a_file_whose_parts_do_not_fit_together_is_refused_in_one_line(
    tmp_path, statistics, changed
):
    path = tmp_path / "model.pt"
    options = {"pools": [2, 2, 1, 1]}
    model = build_model("rieke", SHAPE, 2, **options)
    save_network(path, model, "rieke", options, ["AD", "NC"], statistics)
    torch.save(torch.load(path, weights_only=True) | changed, path)
    with pytest.raises(SetupFault, match=r"model\.pt cannot be used") as fault:
        load_network(path)
    assert "\n" not in str(fault.value)
    assert len(str(fault.value)) < len(str(path)) + 300


@pytest.fixture
def stored(tmp_path, statistics):
    """The path of a small network's file, and a function that replaces some of its fields."""
    path = tmp_path / "model.pt"
    options = {"pools": [2, 2, 1, 1]}
    model = build_model("rieke", SHAPE, 2, **options)
    metadata = {
        "preprocessing": {"skull": {}},
        "skull_tool": "deepbet",
        "trained_on_patients": ["P1"],
    }
    save_network(path, model, "rieke", options, ["AD", "NC"], statistics, **metadata)

    def change(without=(), **fields):
        content = torch.load(path, weights_only=True) | fields
        torch.save({key: value for key, value in content.items() if key not in without}, path)

    return path, change


@pytest.mark.parametrize(
    "missing", ["sd", "classes", "state_dict", "preprocessing", "skull_tool", "trained_on_patients"]
)
def test_a_file_that_lacks_a_field_is_refused_by_its_name_in_one_line(stored, missing):
    path, change = stored
    load_network(path, needed=TO_APPLY)
    change(without=[missing])
    with pytest.raises(SetupFault, match=rf"model\.pt cannot be used: it has no field {missing};"):
        load_network(path, needed=TO_APPLY)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"preprocessing": ["deepbet"]}, "its field preprocessing is a list, expected a dict"),
        ({"classes": "AD"}, "its field classes is a str, expected a list"),
        ({"classes": ["AD", "AD"]}, "expected two or more different ones"),
    ],
    ids=lambda value: "",
)
def test_a_field_of_another_kind_is_refused_by_its_name(stored, fields, named):
    path, change = stored
    change(**fields)
    with pytest.raises(SetupFault, match=named):
        load_network(path, needed=TO_APPLY)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("sd", 0.0, "SD of its training scans has values that are 0"),
        ("sd", -1.0, "SD of its training scans"),
        ("sd", np.nan, "SD of its training scans"),
        ("mean", np.inf, "mean of its training scans"),
    ],
)
def test_statistics_that_make_no_finite_scan_are_refused_with_the_file(stored, field, value, named):
    path, change = stored
    values = torch.load(path, weights_only=True)[field]
    values[7] = value
    change(**{field: values})
    with pytest.raises(SetupFault, match=rf"model\.pt cannot be used: the {named}"):
        load_network(path)


@pytest.mark.parametrize(
    ("part", "value", "named"),
    [
        ("weight", np.nan, "not finite"),
        ("weight", np.inf, "not finite"),
        ("running_var", -1.0, "below 0"),
        ("running_mean", np.nan, "not finite"),
    ],
)
def test_weights_that_give_no_finite_prediction_are_refused_with_the_file(
    stored, part, value, named
):
    path, change = stored
    weights = torch.load(path, weights_only=True)["state_dict"]
    key = next(key for key in weights if key.endswith(part))
    weights[key].view(-1)[0] = value
    change(state_dict=weights)
    with pytest.raises(SetupFault, match=rf"model\.pt cannot be used: weights {key}.*{named}"):
        load_network(path)


def test_an_affine_of_numbers_that_are_none_is_refused(stored):
    path, change = stored
    change(affine=[[np.nan] * 4] * 4)
    with pytest.raises(SetupFault, match="affine"):
        load_network(path)


def test_a_file_with_a_flipped_bit_is_refused_or_read_as_it_was_written(stored):
    path, _ = stored
    whole = path.read_bytes()
    expected = load_network(path)
    draw, refused = random.Random(4), 0
    for _ in range(20):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            network = load_network(path)
        except SetupFault:
            refused += 1
            continue
        weights = network.model.state_dict()
        assert all(torch.equal(weights[k], v) for k, v in expected.model.state_dict().items())
        assert np.array_equal(network.statistics.mean, expected.statistics.mean)
        assert np.array_equal(network.statistics.sd, expected.statistics.sd)
    assert refused >= 15
    path.write_bytes(whole[:-100])
    with pytest.raises(SetupFault, match=r"model\.pt cannot be used: it is not a complete zip"):
        load_network(path)
