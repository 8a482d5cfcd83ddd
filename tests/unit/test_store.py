import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from voxplain.faults import DataFault
from voxplain.store import Brain, open_scan, write_scan
from voxplain.volumes import read_array

SHAPE = (4, 5, 3)
MASK = np.random.default_rng(0).uniform(size=SHAPE) > 0.4
BRAIN = Brain(MASK)


def drawn(seed=1):
    return np.random.default_rng(seed).normal(1, 0.2, SHAPE).astype("f4")


@given(
    volume=hnp.arrays(np.float32, SHAPE, elements=st.floats(-1e4, 1e4, width=32)),
    mask=hnp.arrays(bool, SHAPE).filter(np.any),
)
def test_the_error_of_a_voxel_is_at_most_half_a_step_of_the_scans_range(
    tmp_path_factory, volume, mask
):
    path, brain = tmp_path_factory.mktemp("scan") / "scan.npy", Brain(mask)
    write_scan(path, volume, brain)
    values = open_scan(path, brain).values()
    inside = volume[mask].astype(np.float64)
    rounding = 4 * np.finfo(np.float32).eps * np.abs(inside).max() + np.finfo(np.float32).tiny
    assert np.abs(values - inside).max() <= np.ptp(inside) / (2 * 65534) + rounding
    assert values.dtype == np.float32


def test_a_constant_brain_is_stored_exactly(tmp_path):
    write_scan(tmp_path / "scan.npy", np.full(SHAPE, 0.7, "f4"), BRAIN)
    assert (open_scan(tmp_path / "scan.npy", BRAIN).values() == np.float32(0.7)).all()


def test_codes_use_all_sixteen_bits(tmp_path):
    volume = drawn()
    write_scan(tmp_path / "scan.npy", volume, BRAIN)
    codes = open_scan(tmp_path / "scan.npy", BRAIN).codes
    assert (codes.min(), codes.max()) == (-32767, 32767)
    assert codes.argmax() == volume[MASK].argmax()


def test_a_file_holds_the_brain_in_sixteen_bits_and_little_else(tmp_path):
    mask = np.zeros((40, 40, 40), bool)
    mask[5:30, 8:33, 2:37] = True
    write_scan(tmp_path / "scan.npy", np.ones(mask.shape), Brain(mask))
    assert 0 <= (tmp_path / "scan.npy").stat().st_size - 2 * mask.sum() < 500


def test_a_scan_is_memory_mapped(tmp_path):
    write_scan(tmp_path / "scan.npy", drawn(), BRAIN)
    scan = open_scan(tmp_path / "scan.npy", BRAIN)
    assert isinstance(scan.codes, np.memmap)
    assert not scan.codes.flags.writeable


def test_a_file_contains_all_that_is_needed_to_read_it(tmp_path):
    volume = drawn()
    write_scan(tmp_path / "scan.npy", volume, BRAIN)
    record = np.load(tmp_path / "scan.npy")[0]
    values = record["level"] + record["step"] * record["voxels"].astype("f4")
    np.testing.assert_allclose(values, volume[MASK], atol=1e-4)


def test_the_box_is_the_smallest_that_holds_the_brain():
    mask = np.zeros((9, 8, 7), bool)
    mask[2, 3, 5] = mask[6, 1, 4] = True
    assert Brain(mask).box == ((2, 7), (1, 4), (4, 6))
    with pytest.raises(ValueError, match="mask is empty"):
        _ = Brain(np.zeros(SHAPE, bool)).box


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_nan_voxel_is_refused_in_the_brain_only(tmp_path, value):
    volume = drawn()
    volume[~MASK] = value
    write_scan(tmp_path / "scan.npy", volume, BRAIN)
    volume.flat[BRAIN.places[3]] = value
    with pytest.raises(DataFault, match="no finite number") as fault:
        write_scan(tmp_path / "scan.npy", volume, BRAIN)
    assert str(tmp_path / "scan.npy") in fault.value.reason


def test_a_volume_of_another_shape_is_a_value_error(tmp_path):
    with pytest.raises(ValueError, match=r"\(5, 4, 3\)"):
        write_scan(tmp_path / "scan.npy", np.ones((5, 4, 3)), BRAIN)


def moved(mask):
    return np.roll(mask, 1, axis=0)


def one_more(mask):
    more = mask.copy()
    more.flat[np.flatnonzero(~mask)[0]] = True
    return more


@pytest.mark.parametrize(
    "other", [moved, one_more, lambda mask: mask.reshape(5, 4, 3), lambda mask: ~mask]
)
def test_a_scan_of_another_mask_is_refused_by_name(tmp_path, other):
    mask = other(MASK)
    write_scan(tmp_path / "scan.npy", np.ones(mask.shape), Brain(mask))
    with pytest.raises(DataFault, match="another brain mask") as fault:
        open_scan(tmp_path / "scan.npy", BRAIN)
    assert str(tmp_path / "scan.npy") in fault.value.reason
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "missing"),
        (lambda path: path.write_bytes(b""), "is empty: it failed in an earlier stage"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "not a readable"),
        (lambda path: path.write_bytes(path.read_bytes()[:50]), "not a readable"),
        (lambda path: path.write_bytes(b"no scan" * 99), "not a readable"),
        (lambda path: np.save(path, np.ones(3)), "no stored scan"),
        (lambda path: np.save(path, np.zeros(1, [("a", "f4")])), "no stored scan"),
    ],
)
def test_an_incomplete_scan_file_is_refused_by_name(tmp_path, spoil, message):
    path = tmp_path / "scan.npy"
    write_scan(path, drawn(), BRAIN)
    spoil(path)
    with pytest.raises(DataFault, match=message) as fault:
        open_scan(path, BRAIN)
    assert str(path) in fault.value.reason
    assert "\n" not in str(fault.value)


def test_the_templates_brain_is_stored_to_a_ten_thousandth(template, tmp_path):
    """On an intensity scale with the 98th percentile of a brain at 1."""
    volume, grid = read_array(template.path)
    assert volume.shape == grid.shape
    volume /= np.percentile(volume[template.mask], 98)
    write_scan(tmp_path / "scan.npy", volume, Brain(template.mask))
    values = open_scan(tmp_path / "scan.npy", Brain(template.mask)).values()
    assert 0 < np.abs(values - volume[template.mask]).max() < 1e-4
