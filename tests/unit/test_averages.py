import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxplain.comparison.averages import average_maps, find_maps
from voxplain.faults import SetupFault
from voxplain.volumes import axis_aligned_grid, write_array

GRID = axis_aligned_grid((4, 5, 3), (4.0, 4.0, 4.0), (-96, -132, -78))


def heatmaps(count, seed=0):
    return np.random.default_rng(seed).exponential(size=(count, *GRID.shape)).astype(np.float32)


@pytest.fixture
def written(tmp_path):
    def write(maps, grid=GRID):
        paths = [tmp_path / f"{number}.nii.gz" for number in range(len(maps))]
        for path, heatmap in zip(paths, maps, strict=True):
            write_array(path, heatmap, grid)
        return paths

    return write


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_average_agrees_with_numpys_mean_in_float64(written, count):
    maps = heatmaps(count)
    mean, counted = average_maps(written(maps), GRID)
    assert counted == count
    assert mean.dtype == np.float64
    np.testing.assert_allclose(mean, maps.astype(np.float64).mean(axis=0), rtol=1e-12)


@settings(max_examples=15)
@given(count=st.integers(1, 4), seed=st.integers(0, 99))
def test_the_order_does_not_matter(tmp_path_factory, count, seed):
    folder = tmp_path_factory.mktemp("maps")
    paths = [str(folder / f"{number}.nii") for number in range(count)]
    for path, heatmap in zip(paths, heatmaps(count, seed), strict=True):
        write_array(path, heatmap, GRID)
    mean, _ = average_maps(iter(paths), GRID)
    np.testing.assert_allclose(average_maps(paths[::-1], GRID)[0], mean, rtol=1e-14)


def test_small_values_are_not_lost_beside_large_ones(written):
    maps = np.zeros((3, *GRID.shape), np.float32)
    maps[0], maps[1:] = 1e8, 1.0  # in float32, 1e8 + 1 is 1e8
    mean, _ = average_maps(written(maps), GRID)
    np.testing.assert_allclose(mean * 3 - 1e8, 2, atol=1e-6)


def test_heatmaps_are_found_by_their_sidecars(tmp_path):
    for number, folder in enumerate(("chunk-2", "chunk-1", "empty")):
        (tmp_path / folder).mkdir()
        if folder != "empty":
            path = tmp_path / folder / "sub-1_desc-cam_relevance.json"
            path.write_text(f'{{"Image": "I{number}", "Class": "AD"}}')
    maps = find_maps(tmp_path / folder for folder in ("chunk-2", "chunk-1", "empty"))
    assert [heatmap["Image"] for heatmap in maps] == ["I0", "I1"]
    assert maps[0]["path"] == tmp_path / "chunk-2/sub-1_desc-cam_relevance.nii.gz"


def test_the_average_of_no_heatmap_is_zero():
    mean, count = average_maps([], GRID)
    assert count == 0
    np.testing.assert_array_equal(mean, np.zeros(GRID.shape))


def test_a_heatmap_of_zeros_counts(written):
    maps = heatmaps(2)
    maps[1] = 0
    mean, count = average_maps(written(maps), GRID)
    assert count == 2
    np.testing.assert_allclose(mean, maps[0] / 2)


@pytest.mark.parametrize(
    "other",
    [
        axis_aligned_grid((4, 5, 3), (4.0, 4.0, 4.0), (-92, -132, -78)),
        axis_aligned_grid((4, 5, 3), (4.0, 4.0, 3.0), (-96, -132, -78)),
        axis_aligned_grid((4, 5, 4), (4.0, 4.0, 4.0), (-96, -132, -78)),
    ],
    ids=["moved", "finer", "longer"],
)
def test_a_heatmap_on_another_grid_is_refused_by_name(written, tmp_path, other):
    paths = written(heatmaps(2))
    write_array(tmp_path / "strange.nii.gz", np.ones(other.shape), other)
    with pytest.raises(SetupFault, match=r"strange\.nii\.gz does not lie on this run's grid"):
        average_maps([*paths, tmp_path / "strange.nii.gz"], GRID)


@pytest.mark.parametrize("value", [-1e-6, -3.0, np.nan, -np.inf])
def test_a_heatmap_with_negative_values_or_nan_is_refused_by_name(written, value):
    maps = heatmaps(3)
    maps[1, 2, 3, 1] = value
    with pytest.raises(SetupFault, match=r"1\.nii\.gz has negative, NaN or infinite"):
        average_maps(written(maps), GRID)
