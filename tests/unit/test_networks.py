import numpy as np
import pytest
import torch

from voxplain.faults import SetupFault
from voxplain.models import MODELS, build_model
from voxplain.training.networks import load_network, save_network
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
    with pytest.raises(SetupFault, match=r"model\.pt is no network that voxplain trained"):
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
    with pytest.raises(SetupFault, match=r"model\.pt is no network that voxplain trained") as fault:
        load_network(path)
    assert "\n" not in str(fault.value)
    assert len(str(fault.value)) < len(str(path)) + 300
