from types import SimpleNamespace

import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy import ndimage

from voxplain.atlas import read_packaged_template
from voxplain.cohort.heads import Head, read_head, write_head
from voxplain.volumes import axis_aligned_grid, resample, white_matter_level

# From the brain's middle (-1, -18, 8) outwards, away from face and neck.
DIRECTIONS = {
    "left": (-1, 0, 0),
    "right": (1, 0, 0),
    "up": (0, 0, 1),
    "back": (0, -1, 0),
    "up and left": (-1, 0, 1),
    "up and back": (0, -1, 1),
    "up and front": (0, 1, 1),
}


def ray(head, direction):
    """Brightness and brain mask along a ray from the middle of the brain, in steps of half a mm."""
    step = np.array(direction) / np.linalg.norm(direction)
    places = np.array([-1.0, -18.0, 8.0]) + np.arange(0, 140, 0.5)[:, None] * step
    voxels = apply_affine(np.linalg.inv(head.grid.matrix), places).T
    brightness = ndimage.map_coordinates(head.t1, voxels, order=1)
    inside = ndimage.map_coordinates(head.brain.astype(np.uint8), voxels, order=0) > 0
    return brightness, inside


@pytest.mark.slow
@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_around_the_brain_are_dark_bone_bright_scalp_and_air(packaged_head, direction):
    brightness, inside = ray(packaged_head, direction)
    end = np.flatnonzero(inside)[-1] + 1
    assert brightness[:end].mean() > 0.5
    beyond = brightness[end:]
    bright = np.flatnonzero(beyond > 0.6)
    assert bright.size >= 3  # the scalp, at least 1.5 mm of it
    scalp_mm = 0.5 * bright[-1]
    assert 7 < scalp_mm < 22
    assert beyond[: bright[-1]].min() < 0.12
    assert (beyond[bright[-1] + 10 :] < 0.05).all()  # from 5 mm further on


@pytest.mark.slow
def test_white_matter_is_at_one_and_air_at_zero(packaged_head):
    level = white_matter_level(packaged_head.t1[packaged_head.brain])
    assert level == pytest.approx(1.0, abs=0.03)
    corner = packaged_head.t1[:20, :20, -20:]
    assert abs(corner).max() < 1e-3
    assert packaged_head.t1.min() >= 0


@pytest.mark.slow
def test_the_brain_of_the_head_is_the_packaged_brain(packaged_head):
    brain, grid = read_packaged_template()
    resampled = resample(
        np.where(packaged_head.brain, packaged_head.t1, 0), packaged_head.grid, grid, 0
    )
    assert ((resampled > 0) == (brain > 0)).mean() > 0.9999
    np.testing.assert_allclose(
        resampled * white_matter_level(brain), brain, atol=0.01 * brain.max()
    )


@pytest.mark.slow
def test_the_brain_is_one_piece_that_touches_no_border(packaged_head):
    labels, _ = ndimage.label(packaged_head.brain)
    sizes = np.bincount(labels.ravel())[1:]
    assert sizes.max() / sizes.sum() > 0.999
    inner = packaged_head.brain[1:-1, 1:-1, 1:-1]
    assert inner.sum() == packaged_head.brain.sum()


@pytest.mark.slow
def test_the_head_is_closed_except_at_the_neck(packaged_head):
    solid = packaged_head.t1 > 0.02
    for border in (solid[0], solid[-1], solid[:, 0], solid[:, -1], solid[:, :, -1]):
        assert not border.any()
    assert solid[:, :, 0].any()


@pytest.mark.slow
def test_all_areas_lie_within_the_brain(packaged_head, aal):
    assert not packaged_head.areas[~packaged_head.brain].any()
    assert set(np.unique(packaged_head.areas)) == {0, *aal.names}


@pytest.mark.slow
def test_areas_have_the_positions_of_the_atlas(packaged_head, aal):
    (value,) = aal.values_of(["Hippocampus_L"])["Hippocampus_L"]
    places = apply_affine(packaged_head.grid.matrix, np.argwhere(packaged_head.areas == value))
    np.testing.assert_allclose(places.mean(axis=0), (-25, -21, -10), atol=3)


@pytest.fixture
def files(tmp_path):
    return SimpleNamespace(
        **{name: tmp_path / f"{name}.nii.gz" for name in ("t1", "brain", "areas")}
    )


@pytest.fixture
def small_head():
    draw = np.random.default_rng(0)
    grid = axis_aligned_grid((6, 7, 8), (1.0, 1.5, 2.0), (-3, -5, -8))
    t1 = draw.uniform(0, 1.2, grid.shape).astype(np.float32)
    areas = draw.integers(0, 117, grid.shape).astype(np.uint8)
    return Head(t1, t1 > 0.3, np.where(t1 > 0.3, areas, 0).astype(np.uint8), grid)


def test_a_head_is_read_back_as_it_was_written(small_head, files):
    write_head(small_head, files)
    read = read_head(files)
    np.testing.assert_array_equal(read.t1, small_head.t1)
    np.testing.assert_array_equal(read.brain, small_head.brain)
    np.testing.assert_array_equal(read.areas, small_head.areas)
    assert read.brain.dtype == bool
    assert read.grid.matches(small_head.grid)


@pytest.mark.parametrize("part", ["brain", "areas"])
def test_parts_of_a_head_on_different_grids_are_refused_by_name(small_head, files, tmp_path, part):
    write_head(small_head, files)
    moved = axis_aligned_grid((6, 7, 8), (1.0, 1.5, 2.0), (-3, -5, -7))
    other = SimpleNamespace(**{name: tmp_path / f"x_{name}.nii" for name in vars(files)})
    write_head(Head(small_head.t1, small_head.brain, small_head.areas, moved), other)
    mixed = SimpleNamespace(**{**vars(files), part: getattr(other, part)})
    with pytest.raises(ValueError, match="different grids") as fault:
        read_head(mixed)
    assert str(getattr(other, part)) in str(fault.value)
