import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from voxplain.faults import DataFault, SetupFault
from voxplain.store import Brain, open_scan, write_scan
from voxplain.training.statistics import (
    RunningMoments,
    VoxelStatistics,
    fit_statistics,
    read_statistics,
)
from voxplain.volumes import axis_aligned_grid, write_array

GRID = axis_aligned_grid((4, 5, 3), (2, 2, 2), (-4, -6, -2))
MASK = np.zeros(GRID.shape, bool)
MASK[1:, 1:4, :2] = True


BRAIN = Brain(MASK)


def written(folder, volumes, brain=BRAIN):
    paths = [folder / f"scan{number}.npy" for number in range(len(volumes))]
    for path, volume in zip(paths, volumes, strict=True):
        write_scan(path, volume, brain)
    return paths


def drawn(count, seed=0, level=100, spread=10):
    return np.random.default_rng(seed).normal(level, spread, (count, *GRID.shape)).astype("f4")


def read(paths):
    """Stored scans, ``[scans, voxels]``."""
    return np.array([open_scan(path, BRAIN).values() for path in paths], np.float64)


# --- fitting --------------------------------------------------------------------------------------


@given(
    volumes=hnp.arrays(
        np.float32,
        st.tuples(st.integers(2, 6), *map(st.just, GRID.shape)),
        elements=st.floats(-1000, 1000, width=32),
    ),
    floor=st.floats(0.01, 1),
)
def test_mean_and_sd_agree_with_numpy_with_the_floor(tmp_path_factory, volumes, floor):
    paths = written(tmp_path_factory.mktemp("scans"), volumes)
    exact = read(paths)
    least = floor * np.median(exact.std(axis=0))
    if least == 0:
        with pytest.raises(SetupFault, match="do not differ"):
            fit_statistics(paths, MASK, GRID, floor)
        return
    fitted = fit_statistics(paths, MASK, GRID, floor)
    np.testing.assert_allclose(fitted.mean[MASK], exact.mean(axis=0), rtol=1e-6, atol=1e-4)
    expected = np.maximum(exact.std(axis=0), least)
    np.testing.assert_allclose(fitted.sd[MASK], expected, rtol=1e-6, atol=1e-4)
    assert fitted.mean.dtype == fitted.sd.dtype == np.float32
    assert (fitted.sd > 0).all()
    assert (fitted.mean[~MASK] == 0).all()
    np.testing.assert_allclose(fitted.sd[~MASK], least, rtol=1e-6)


def test_no_cancellation_if_the_mean_is_far_above_the_sd(tmp_path):
    paths = written(tmp_path, drawn(8, level=1e6, spread=1))
    fitted = fit_statistics(paths, MASK, GRID, 0.1)
    exact = read(paths)
    np.testing.assert_allclose(fitted.sd[MASK], exact.std(axis=0), rtol=1e-6)
    single = exact.astype("f4")
    naive = (single**2).mean(axis=0) - single.mean(axis=0) ** 2
    assert np.abs(naive - exact.var(axis=0)).max() > 1  # a sum of squares in float32 fails here


def test_the_floor_is_a_share_of_the_median_sd_in_the_mask(tmp_path):
    pattern = np.full(GRID.shape, 1000.0)
    inside = np.flatnonzero(MASK)
    pattern.flat[inside] = [0, *range(2, len(inside) + 1)]
    fitted = fit_statistics(written(tmp_path, [pattern, -pattern]), MASK, GRID, 0.5)
    values = np.array([0, *range(2, len(inside) + 1)])
    expected = np.maximum(values, 0.5 * np.median(values))
    np.testing.assert_allclose(fitted.sd.flat[inside], expected, rtol=1e-3)


def test_statistics_do_not_need_all_scans_at_once(tmp_path):
    volumes = drawn(3)

    def one_at_a_time():
        for path in written(tmp_path, volumes):
            yield path
            path.unlink()  # reading a scan again, or ahead, fails

    fitted = fit_statistics(one_at_a_time(), MASK, GRID, 0.1)
    np.testing.assert_allclose(fitted.mean[MASK], volumes.mean(axis=0)[MASK], rtol=1e-4)


@given(count=st.integers(2, 7), size=st.integers(2, 9), seed=st.integers(0, 2**31))
def test_statistics_of_a_subset_are_those_of_its_scans_alone(tmp_path_factory, count, size, seed):
    paths = written(tmp_path_factory.mktemp("scans"), drawn(count))
    fitted = fit_statistics(paths, MASK, GRID, 0.1, size, seed)
    assert len(set(fitted.fitted_on)) == min(size, count)
    assert list(fitted.fitted_on) == sorted(fitted.fitted_on)
    expected = fit_statistics([paths[place] for place in fitted.fitted_on], MASK, GRID, 0.1)
    np.testing.assert_array_equal(fitted.mean, expected.mean)
    np.testing.assert_array_equal(fitted.sd, expected.sd)
    assert fit_statistics(paths, MASK, GRID, 0.1, size, seed).fitted_on == fitted.fitted_on
    more = fit_statistics(paths, MASK, GRID, 0.1, size + 1, seed).fitted_on
    assert set(fitted.fitted_on) <= set(more)


def test_by_default_all_scans_are_fitted_on(tmp_path):
    paths = written(tmp_path, drawn(4))
    assert fit_statistics(iter(paths), MASK, GRID, 0.1).fitted_on == (0, 1, 2, 3)


def test_every_scan_is_drawn_equally_often(tmp_path):
    paths = written(tmp_path, drawn(6))
    counts = np.zeros(6)
    for seed in range(300):
        counts[list(fit_statistics(paths, MASK, GRID, 0.1, 2, seed).fitted_on)] += 1
    assert counts.sum() == 600
    assert (abs(counts - 100) < 33).all()  # four standard deviations


def test_a_draw_of_one_scan_is_refused(tmp_path):
    with pytest.raises(SetupFault, match="at least two training scans, there are 1"):
        fit_statistics(written(tmp_path, drawn(4)), MASK, GRID, 0.1, scans=1)


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


def test_a_training_scan_of_another_mask_is_refused_by_name(tmp_path):
    paths = written(tmp_path, drawn(2))
    write_scan(paths[1], np.ones(GRID.shape), Brain(~MASK))
    with pytest.raises(DataFault, match="another brain mask") as fault:
        fit_statistics(paths, MASK, GRID, 0.1)
    assert str(paths[1]) in fault.value.reason


# --- normalising ----------------------------------------------------------------------------------


def test_training_scans_normalise_to_mean_zero_and_sd_one(tmp_path):
    paths = written(tmp_path, drawn(6))
    fitted = fit_statistics(paths, MASK, GRID, 1e-3)
    normalised = np.stack([fitted.normalise(open_scan(path, BRAIN)) for path in paths])
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(normalised.std(axis=0)[MASK], 1, rtol=1e-4)
    assert (normalised[:, ~MASK] == 0).all()


def test_normalising_is_as_computed_by_hand(tmp_path):
    mean, sd = np.full(GRID.shape, 5, "f4"), np.full(GRID.shape, 4, "f4")
    fitted = VoxelStatistics(mean, sd, MASK, GRID)
    (path,) = written(tmp_path, [np.full(GRID.shape, 11, "f4")])
    normalised = fitted.normalise(open_scan(path, BRAIN))
    np.testing.assert_array_equal(normalised, np.where(MASK, 1.5, 0))


def test_sixteen_bits_cost_little_of_an_sd(tmp_path):
    """The error is at most half a step of a scan's range, divided by the voxel's SD."""
    volumes = drawn(6, level=1, spread=0.2)
    paths = written(tmp_path, volumes)
    fitted = fit_statistics(paths, MASK, GRID, 0.1)
    for path, volume in zip(paths, volumes, strict=True):
        stored = open_scan(path, BRAIN)
        exact = (volume.astype(float) - fitted.mean) / fitted.sd
        error = np.abs(fitted.normalise(stored) - exact)[MASK]
        assert (error <= 0.501 * stored.step / fitted.sd[MASK] + 1e-5).all()
        assert error.max() < 1e-3


def test_a_voxel_of_small_sd_does_not_explode_in_a_test_scan(tmp_path):
    volumes = drawn(4)
    volumes[:, 2, 2, 1] = 100
    fitted = fit_statistics(written(tmp_path, volumes), MASK, GRID, 0.1)
    test_scan = volumes[0].copy()
    test_scan[2, 2, 1] = 130
    median = np.median(volumes.astype(np.float64).std(axis=0)[MASK])
    write_scan(tmp_path / "test.npy", test_scan, BRAIN)
    normalised = fitted.normalise(open_scan(tmp_path / "test.npy", BRAIN))
    assert normalised[2, 2, 1] == pytest.approx(30 / (0.1 * median), rel=1e-3)


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


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_statistics_that_are_nan_are_refused_by_name(tmp_path, value):
    paths = {name: tmp_path / f"{name}.nii.gz" for name in ("mean", "sd", "mask")}
    for name, path in paths.items():
        volume = np.ones(GRID.shape)
        volume[0, 0, 0] = value if name == "sd" else 1
        write_array(path, volume, GRID)
    with pytest.raises(DataFault, match="no finite number") as fault:
        read_statistics(**paths)
    assert str(paths["sd"]) in fault.value.reason


# --- moments of scans read one by one -------------------------------------------------------------


@given(scans=hnp.arrays(np.float64, (5, 2, 3), elements=st.integers(-1000, 1000)))
def test_running_moments_agree_with_all_scans_at_once(scans):
    moments = RunningMoments()
    for count, scan in enumerate(scans, start=1):
        moments.add(scan)
        assert moments.count == count
        np.testing.assert_allclose(moments.mean, scans[:count].mean(0), atol=1e-9)
        if count > 1:
            expected = scans[:count].var(0, ddof=1)
            np.testing.assert_allclose(moments.variance, expected, atol=1e-9)


def test_running_moments_do_not_cancel():
    scans = 1e8 + np.random.default_rng(1).normal(size=(50, 4))
    moments = RunningMoments()
    for scan in scans:
        moments.add(scan)
    np.testing.assert_allclose(moments.variance, scans.var(0, ddof=1), rtol=1e-6)
    naive = ((scans**2).mean(0) - scans.mean(0) ** 2) * 50 / 49
    assert np.abs(naive - moments.variance).max() > 0.5


def test_moments_read_earlier_do_not_change():
    moments = RunningMoments()
    moments.add(np.array([1.0, 2.0]))
    mean = moments.mean
    moments.add(np.array([3.0, 8.0]))
    assert mean.tolist() == [1, 2]
    assert moments.mean.tolist() == [2, 5] and moments.variance.tolist() == [2, 18]


def test_float32_and_integer_scans_are_added_in_float64():
    moments = RunningMoments()
    for scan in (np.array([2**24], np.float32), np.array([1], np.uint8)):
        moments.add(scan)
    assert moments.mean.dtype == np.float64
    assert moments.mean[0] == (2**24 + 1) / 2


def test_the_memory_of_moments_does_not_grow_with_the_scans():
    moments = RunningMoments()
    tracemalloc.start()
    for seed in range(40):
        moments.add(np.random.default_rng(seed).random(10_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 8 * 10_000


def test_moments_without_enough_scans_or_of_two_shapes_are_refused():
    moments = RunningMoments()
    for count in (0, 1):
        with pytest.raises(SetupFault, match=f"at least two arrays, there are {count}"):
            _ = moments.variance
        moments.add(np.ones((2, 3)))
    with pytest.raises(SetupFault, match=r"shape \(3,\) among others of \(2, 3\)"):
        moments.add(np.ones(3))
    assert moments.count == 2
