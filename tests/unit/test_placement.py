import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional

from voxplain.faults import SetupFault
from voxplain.models import build_model
from voxplain.relevance.placement import Field, bring_onto_grid, follow

SHAPE = (13, 15, 17)


class Residual(nn.Module):
    """A pre-activation block, whose sum is the output of the block, not of a module inside."""

    def __init__(self, channels, pad=1):
        super().__init__()
        self.pad = pad
        self.norm, self.relu = nn.BatchNorm3d(channels), nn.ReLU()
        self.conv = nn.Conv3d(channels, channels, 3, padding=pad)

    def forward(self, maps):
        skip = maps if self.pad else maps[:, :, 1:-1, 1:-1, 1:-1]
        return skip + self.conv(self.relu(self.norm(maps)))


class Lopsided(nn.Module):
    """A sum of two paths, of which one has a larger receptive field."""

    def __init__(self):
        super().__init__()
        self.wide, self.narrow = nn.Conv3d(1, 2, 5, padding=2), nn.Conv3d(1, 2, 2)

    def forward(self, scans):
        return self.wide(scans) + functional.pad(self.narrow(scans), (0, 1, 0, 1, 0, 1))


class Gated(nn.Module):
    """Channels weighted by their means, as in squeeze and excitation."""

    def __init__(self):
        super().__init__()
        self.conv, self.gate, self.pool = (
            nn.Conv3d(1, 3, 3),
            nn.Linear(3, 3),
            nn.MaxPool3d(3, 2),
        )

    def forward(self, scans):
        maps = functional.elu(self.conv(scans))
        gates = torch.sigmoid(self.gate(maps.mean((2, 3, 4))))
        if float(scans.shape[2]) > 5:  # which torch.fx could not follow
            maps = maps * gates[:, :, None, None, None]
        return self.pool(torch.cat([maps, -maps], 1))


class Cut(nn.Module):
    def forward(self, maps):
        return maps[:, :, 2:, :-3, 1:14:3]


NETWORKS = {
    "valid": lambda: nn.Sequential(nn.Conv3d(1, 2, 3), nn.ReLU(), nn.Conv3d(2, 2, (1, 4, 3))),
    "same": lambda: nn.Sequential(nn.Conv3d(1, 2, 3, padding="same"), nn.Conv3d(2, 2, 5, 1, 2)),
    "same, even": lambda: nn.Conv3d(1, 1, (4, 2, 3), padding="same"),
    "strided": lambda: nn.Sequential(nn.Conv3d(1, 2, 3, 2), nn.Conv3d(2, 2, 3, (1, 2, 3), 1)),
    "dilated": lambda: nn.Sequential(nn.Conv3d(1, 2, 3, dilation=2), nn.Conv3d(2, 1, 2, 2)),
    "pooled": lambda: nn.Sequential(
        nn.Conv3d(1, 2, 3),
        nn.BatchNorm3d(2),
        nn.ReLU(inplace=True),
        nn.MaxPool3d((2, 3, 2)),
        nn.Conv3d(2, 2, 2),
        nn.PReLU(),
        nn.AvgPool3d(2, 1),
    ),
    "pool padded": lambda: nn.Sequential(
        nn.MaxPool3d(3, 2, 1, dilation=2), nn.AvgPool3d(3, 2, 1), nn.GroupNorm(1, 1), nn.GELU()
    ),
    "pool rounded up": lambda: nn.MaxPool3d(2, ceil_mode=True),
    "adaptive": lambda: nn.Sequential(nn.Conv3d(1, 1, 4), nn.AdaptiveAvgPool3d((5, 3, 7))),
    "residual": lambda: nn.Sequential(
        nn.Conv3d(1, 2, 3, 2, 1), Residual(2), nn.Dropout(), Residual(2), nn.MaxPool3d(2)
    ),
    "residual, cut": lambda: nn.Sequential(nn.Conv3d(1, 2, 2), Residual(2, pad=0)),
    "lopsided": lambda: nn.Sequential(Lopsided(), nn.Identity()),
    "gated": lambda: nn.Sequential(Gated(), nn.Identity()),
    "cut": lambda: nn.Sequential(Cut(), nn.Conv3d(1, 1, 2), nn.ReflectionPad3d(1)),
}


def model_named(name):
    torch.manual_seed(2)
    return nn.Sequential(NETWORKS[name](), nn.Identity()).eval()


def last_field(model, shape=SHAPE):
    return follow(model, torch.zeros(1, 1, *shape))[-1].field


def seen_by(model, axis, shape=SHAPE):
    """First and last plane of the scan that each plane of the output depends on, by experiment.

    NaN stays NaN through every layer, whatever its weights are.
    """
    reach = {}
    for plane in range(shape[axis]):
        scan = torch.zeros(1, 1, *shape)
        scan.select(2 + axis, plane).fill_(float("nan"))
        with torch.no_grad():
            touched = model(scan).isnan()[0]
        for cell in touched.movedim(1 + axis, 0).flatten(1).any(1).nonzero().ravel().tolist():
            reach.setdefault(cell, []).append(plane)
    return {cell: (min(planes), max(planes)) for cell, planes in reach.items()}


@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - {"gated", "pool padded", "cut"}))
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_receptive_field_holds_the_voxels_that_an_output_depends_on(name, axis):
    model = model_named(name)
    field = last_field(model)
    reach = seen_by(model, axis)
    assert len(reach) > 1
    for cell, (first, last) in reach.items():
        from_, to = (edge[axis] + cell * field.step[axis] for edge in (field.first, field.last))
        assert (first, last) == (max(from_, 0), min(to, SHAPE[axis] - 1)), cell


def test_the_field_of_normalised_gated_and_reflected_maps_is_known():
    # In these, each voxel also depends on the whole scan, so the fields are given by hand.
    assert last_field(model_named("gated")) == Field((0, 0, 0), (4, 4, 4), (2, 2, 2))
    assert last_field(model_named("pool padded")) == Field((-3, -3, -3), (5, 5, 5), (4, 4, 4))
    assert last_field(model_named("cut")) == Field((1, -1, -2), (2, 0, 1), (1, 1, 3))


def test_the_field_of_riekes_network_at_1_mm_is_centred_at_26_5():
    model = build_model("rieke", (193, 229, 193), 2).eval()
    layers = {layer.name: layer for layer in follow(model, torch.zeros(1, 1, 193, 229, 193))}
    relu = layers["features.14"]
    assert relu.shape == (12, 15, 12)
    assert relu.field == Field((0, 0, 0), (53, 53, 53), (12, 12, 12))
    assert relu.field.centre == (26.5, 26.5, 26.5)
    assert layers["features"].output is layers["features.15"].output
    assert [name for name, layer in layers.items() if layer.pooled] == [
        *(f"features.{place}" for place in (3, 7, 11, 15)),
        "features",
    ]


def test_finding_the_field_does_not_change_or_run_the_network():
    model = model_named("pooled")
    model.register_forward_hook(lambda module, inputs, output: devices.append(output.device.type))
    devices = []
    before = {name: value.clone() for name, value in model.state_dict().items()}
    follow(model, torch.zeros(1, 1, *SHAPE))
    assert devices == ["meta"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(not module._forward_hooks for module in model.modules() if module is not model)


class ByNumbers(nn.Module):
    """Reads a value of the scan, which exists only in a real pass."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 3, 2)

    def forward(self, scans):
        return self.conv(scans) if float(scans.sum()) < 1e9 else self.conv(-scans)


def test_a_network_that_reads_values_is_traced_in_a_real_pass():
    assert last_field(ByNumbers()) == Field((0, 0, 0), (2, 2, 2), (2, 2, 2))


class Turned(nn.Module):
    def __init__(self, turn):
        super().__init__()
        self.turn, self.conv = turn, nn.Conv3d(1, 1, 3)

    def forward(self, scans):
        return self.conv(self.turn(scans))


def write_into(scans):
    wider = torch.zeros(1, 1, *(edge + 1 for edge in scans.shape[2:]))
    wider[:, :, 1:, 1:, 1:] = scans
    return wider


@pytest.mark.parametrize(
    "turn",
    [
        lambda scans: scans.flip(2),
        lambda scans: scans + scans.flip(2),
        lambda scans: scans.roll(3, 4),
        lambda scans: scans.transpose(2, 3),
        lambda scans: scans.mean(4, keepdim=True) + scans.cumsum(3),
        lambda scans: functional.interpolate(scans, scale_factor=2),
        lambda scans: scans + scans[:, :, :1],
        write_into,
    ],
    ids=["flip", "sum", "roll", "transpose", "cumsum", "enlarge", "broadcast", "write"],
)
def test_layers_that_move_voxels_in_unknown_ways_have_no_field(turn):
    assert last_field(Turned(turn), (8, 8, 8)) is None


# --- resampling to the grid -----------------------------------------------------------------------


@pytest.fixture
def coarse():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(4, 3, 5)))


def test_a_map_is_interpolated_between_the_centres_and_constant_beyond_them(coarse):
    field = Field((0, -1, 2), (5, 1, 4), (3, 7, 2))
    result = bring_onto_grid(coarse, field, (16, 20, 15))
    assert result.dtype == np.float32
    where = np.meshgrid(*(np.arange(n) for n in (16, 20, 15)), indexing="ij")
    places = [(w - c) / s for w, c, s in zip(where, (2.5, 0, 3), (3, 7, 2), strict=True)]
    expected = ndimage.map_coordinates(coarse.numpy(), places, order=1, mode="nearest")
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result[:3, 0, 3], coarse[0, 0, 0])


@pytest.mark.parametrize("shape", [(12, 9, 15), (13, 8, 11)])
def test_a_stretched_map_is_torchs_trilinear_interpolation_without_aligned_corners(coarse, shape):
    field = Field((0, 0, 0), (5, 5, 5), (2, 2, 2))
    result = bring_onto_grid(coarse, field, shape, "stretch")
    places = np.meshgrid(
        *((np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(shape, coarse.shape, strict=True)),
        indexing="ij",
    )
    expected = ndimage.map_coordinates(coarse.numpy(), places, order=1, mode="nearest")
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_both_placements_agree_where_a_pooling_covers_the_scan_evenly(coarse):
    field = Field((0, 0, 0), (2, 2, 2), (3, 3, 3))
    both = [
        bring_onto_grid(coarse, field, (12, 9, 15), placement)
        for placement in ("receptive_field", "stretch")
    ]
    np.testing.assert_allclose(*both, rtol=1e-6, atol=1e-7)


def test_a_map_of_unknown_field_is_stretched_with_a_warning(coarse):
    with pytest.warns(RuntimeWarning, match="cannot be followed back to the scan"):
        result = bring_onto_grid(coarse, None, (12, 9, 15))
    np.testing.assert_array_equal(result, bring_onto_grid(coarse, None, (12, 9, 15), "stretch"))


def test_an_unknown_placement_is_refused(coarse):
    with pytest.raises(SetupFault, match=r"no placement 'nearest'; allowed: receptive_field, st"):
        bring_onto_grid(coarse, Field(), (8, 8, 8), "nearest")
