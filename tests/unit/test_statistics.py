import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from voxplain.faults import DataFault, SetupFault
from voxplain.training.statistics import (
    VoxelStatistics,
    fit_statistics,
    read_scan,
    read_statistics,
)
from voxplain.volumes import axis_aligned_grid, write_array

GRID = axis_aligned_grid((4, 5, 3), (2, 2, 2), (-4, -6, -2))
MASK = np.zeros(GRID.shape, bool)
MASK[1:, 1:4, :2] = True


def written(folder, volumes, grid=GRID):
    paths = [folder / f"scan{number}.nii.gz" for number in range(len(volumes))]
    for path, volume in zip(paths, volumes, strict=True):
        write_array(path, volume, grid)
    return paths


def drawn(count, seed=0, level=100, spread=10):
    return np.random.default_rng(seed).normal(level, spread, (count, *GRID.shape)).astype("f4")


# --- reading --------------------------------------------------------------------------------------


def test_a_scan_is_read_as_it_was_written(tmp_path):
    (volume,) = drawn(1)
    (path,) = written(tmp_path, [volume])
    read = read_scan(path, GRID)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, volume)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (axis_aligned_grid((4, 5, 4), (2, 2, 2), (-4, -6, -2)), "4x5x4 voxels of 2x2x2 mm"),
        (axis_aligned_grid((4, 5, 3), (2, 3, 2), (-4, -6, -2)), "4x5x3 voxels of 2x3x2 mm"),
        (axis_aligned_grid((4, 5, 3), (2, 2, 2), (-4, -5, -2)), "from (-4, -5, -2)"),
    ],
)
def test_a_scan_on_another_grid_is_refused_with_both_grids(tmp_path, other, told):
    path = tmp_path / "scan.nii.gz"
    write_array(path, np.ones(other.shape), other)
    with pytest.raises(DataFault) as fault:
        read_scan(path, GRID)
    assert str(path) in fault.value.reason
    assert told in fault.value.reason
    assert "expected 4x5x3 voxels of 2x2x2 mm from (-4, -6, -2)" in fault.value.reason


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_scan_with_a_voxel_that_is_no_number_is_refused_by_name(tmp_path, value):
    (volume,) = drawn(1)
    volume[0, 0, 0] = value
    (path,) = written(tmp_path, [volume])
    with pytest.raises(DataFault, match="no finite number") as fault:
        read_scan(path, GRID)
    assert str(path) in fault.value.reason


# --- fitting --------------------------------------------------------------------------------------


@given(
    volumes=hnp.arrays(
        np.float32,
        st.tuples(st.integers(2, 6), *map(st.just, GRID.shape)),
        elements=st.floats(-1000, 1000, width=32),
    ),
    floor=st.floats(0.01, 1),
)
def test_mean_and_sd_are_numpys_with_the_floor(tmp_path_factory, volumes, floor):
    exact = volumes.astype(np.float64)
    least = floor * np.median(exact.std(axis=0)[MASK])
    paths = written(tmp_path_factory.mktemp("scans"), volumes)
    if least == 0:
        with pytest.raises(SetupFault, match="do not differ"):
            fit_statistics(paths, MASK, GRID, floor)
        return
    fitted = fit_statistics(paths, MASK, GRID, floor)
    np.testing.assert_allclose(fitted.mean, exact.mean(axis=0), rtol=1e-6, atol=1e-4)
    expected = np.maximum(exact.std(axis=0), least)
    np.testing.assert_allclose(fitted.sd, expected, rtol=1e-6, atol=1e-4)
    assert fitted.mean.dtype == fitted.sd.dtype == np.float32
    assert (fitted.sd > 0).all()


def test_nothing_cancels_where_the_level_is_far_above_the_spread(tmp_path):
    volumes = drawn(8, level=1e6, spread=1)
    fitted = fit_statistics(written(tmp_path, volumes), MASK, GRID, 0.1)
    exact = volumes.astype(np.float64)
    np.testing.assert_allclose(fitted.sd, exact.std(axis=0), rtol=1e-6)
    naive = (volumes**2).mean(axis=0) - volumes.mean(axis=0) ** 2
    assert np.abs(naive - exact.var(axis=0)).max() > 1  # a sum of squares in float32 fails here


def test_the_floor_is_a_share_of_the_median_sd_in_the_mask_alone(tmp_path):
    pattern = np.zeros(GRID.shape)
    inside = np.flatnonzero(MASK)
    pattern.flat[inside] = np.arange(1, len(inside) + 1)
    pattern[~MASK] = 1000
    pattern.flat[inside[0]] = 0
    fitted = fit_statistics(written(tmp_path, [pattern, -pattern]), MASK, GRID, 0.5)
    values = np.array([0, *range(2, len(inside) + 1)])
    expected = np.maximum(values, 0.5 * np.median(values))
    np.testing.assert_allclose(fitted.sd.flat[inside], expected, rtol=1e-6)
    assert (fitted.sd[~MASK] == 1000).all()


def test_statistics_do_not_need_all_scans_at_once(tmp_path):
    volumes = drawn(3)

    def one_at_a_time():
        for path in written(tmp_path, volumes):
            yield path
            path.unlink()  # whoever comes back to it, or reads ahead of it, fails

    fitted = fit_statistics(one_at_a_time(), MASK, GRID, 0.1)
    np.testing.assert_allclose(fitted.mean, volumes.mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_scans_are_refused_with_their_number(tmp_path, count):
    paths = written(tmp_path, drawn(count))
    with pytest.raises(SetupFault, match=f"at least two training scans, there are {count}"):
        fit_statistics(paths, MASK, GRID, 0.1)


def test_copies_of_one_scan_are_refused(tmp_path):
    (volume,) = drawn(1)
    with pytest.raises(SetupFault, match="copies of one scan"):
        fit_statistics(written(tmp_path, [volume, volume, volume]), MASK, GRID, 0.1)


def test_scans_that_differ_only_outside_the_brain_are_refused(tmp_path):
    first, second = drawn(2)
    second[MASK] = first[MASK]
    with pytest.raises(SetupFault, match="do not differ"):
        fit_statistics(written(tmp_path, [first, second]), MASK, GRID, 0.1)


def test_a_training_scan_on_another_grid_is_refused_by_name(tmp_path):
    paths = written(tmp_path, drawn(2))
    other = axis_aligned_grid((4, 5, 3), (2, 2, 2), (0, 0, 0))
    write_array(paths[1], np.ones(other.shape), other)
    with pytest.raises(DataFault) as fault:
        fit_statistics(paths, MASK, GRID, 0.1)
    assert str(paths[1]) in fault.value.reason


# --- normalising ----------------------------------------------------------------------------------


def test_training_scans_normalise_to_mean_nought_and_sd_one(tmp_path):
    volumes = drawn(6)
    fitted = fit_statistics(written(tmp_path, volumes), MASK, GRID, 1e-3)
    normalised = np.stack([fitted.normalise(volume) for volume in volumes])
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(normalised.std(axis=0)[MASK], 1, rtol=1e-4)
    assert (normalised[:, ~MASK] == 0).all()


def test_normalising_is_what_one_computes_by_hand():
    mean, sd = np.full(GRID.shape, 5, "f4"), np.full(GRID.shape, 4, "f4")
    fitted = VoxelStatistics(mean, sd, MASK, GRID)
    normalised = fitted.normalise(np.full(GRID.shape, 11, "f4"))
    np.testing.assert_array_equal(normalised, np.where(MASK, 1.5, 0))


def test_a_voxel_that_hardly_differs_does_not_explode_in_a_test_scan(tmp_path):
    volumes = drawn(4)
    volumes[:, 2, 2, 1] = 100
    fitted = fit_statistics(written(tmp_path, volumes), MASK, GRID, 0.1)
    test_scan = volumes[0].copy()
    test_scan[2, 2, 1] = 130
    median = np.median(volumes.astype(np.float64).std(axis=0)[MASK])
    assert fitted.normalise(test_scan)[2, 2, 1] == pytest.approx(30 / (0.1 * median), rel=1e-5)


# --- on disk --------------------------------------------------------------------------------------


def test_statistics_are_read_back_as_they_were_written(tmp_path):
    fitted = fit_statistics(written(tmp_path, drawn(3)), MASK, GRID, 0.1)
    mean, sd, mask = (tmp_path / f"{name}.nii.gz" for name in ("mean", "sd", "mask"))
    write_array(mean, fitted.mean, GRID)
    write_array(sd, fitted.sd, GRID)
    write_array(mask, MASK, GRID, np.uint8)
    read = read_statistics(mean, sd, mask)
    np.testing.assert_array_equal(read.mean, fitted.mean)
    np.testing.assert_array_equal(read.sd, fitted.sd)
    np.testing.assert_array_equal(read.mask, MASK)
    assert read.mask.dtype == bool
    assert read.grid.matches(GRID)


@pytest.mark.parametrize("at_fault", ["mean", "sd"])
def test_statistics_on_another_grid_than_the_mask_are_refused_by_name(tmp_path, at_fault):
    other = axis_aligned_grid((4, 5, 3), (2, 2, 2), (0, 0, 0))
    paths = {name: tmp_path / f"{name}.nii.gz" for name in ("mean", "sd", "mask")}
    for name, path in paths.items():
        write_array(path, np.ones(GRID.shape), other if name == at_fault else GRID)
    with pytest.raises(DataFault) as fault:
        read_statistics(**paths)
    assert str(paths[at_fault]) in fault.value.reason
