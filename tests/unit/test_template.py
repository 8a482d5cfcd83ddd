import numpy as np
import pytest
from scipy import ndimage

from voxplain.anatomy.quality import correlation
from voxplain.anatomy.template import SOURCES, make_template
from voxplain.atlas import read_packaged_template
from voxplain.volumes import axis_aligned_grid, resample


@pytest.fixture(scope="module")
def fine():
    brain, grid = read_packaged_template()
    return brain, ndimage.binary_fill_holes(brain > 0), grid


def test_a_coarse_template_is_the_same_brain_in_the_same_place(fine):
    brain, mask, grid = make_template("packaged", 3)
    whole_brain, whole_mask, fine_grid = fine
    assert brain.shape == mask.shape == grid.shape == (65, 77, 65)
    assert brain.dtype == np.float32 and mask.dtype == bool
    np.testing.assert_allclose(grid.matrix[:3, 3], (-96, -132, -78))
    volume = mask.sum() * grid.voxel_volume_ml
    assert volume == pytest.approx(whole_mask.sum() * fine_grid.voxel_volume_ml, rel=0.01)
    back = resample(brain, grid, fine_grid)
    assert correlation(back[whole_mask], whole_brain[whole_mask]) > 0.75
    centre = ndimage.center_of_mass(mask)
    expected = ndimage.center_of_mass(whole_mask)
    np.testing.assert_allclose(np.array(centre) * 3, expected, atol=0.3)


def test_at_one_mm_the_template_is_the_packaged_volume_itself(fine):
    brain, mask, grid = make_template("packaged", 1)
    whole_brain, whole_mask, fine_grid = fine
    assert brain.shape == (193, 229, 193)
    assert grid.matches(fine_grid)
    np.testing.assert_array_equal(mask, whole_mask)
    np.testing.assert_allclose(brain, whole_brain)


def test_at_four_mm_the_template_has_its_shape_and_volume(fine, template):
    _, whole_mask, fine_grid = fine
    assert template.brain.shape == template.mask.shape == template.grid.shape == (49, 58, 49)
    volume = template.mask.sum() * template.grid.voxel_volume_ml
    assert volume == pytest.approx(whole_mask.sum() * fine_grid.voxel_volume_ml, rel=0.01)


def test_a_hole_inside_a_template_brain_belongs_to_its_mask(monkeypatch):
    grid = axis_aligned_grid((30, 32, 28), (1.0, 1.0, 1.0), (-15, -16, -14))
    brain = np.zeros(grid.shape, np.float32)
    brain[5:25, 5:27, 5:23] = 100
    brain[12:18, 12:18, 12:18] = 0
    monkeypatch.setitem(SOURCES, "holed", lambda: (brain, grid))
    coarse, mask, coarse_grid = make_template("holed", 2)
    assert coarse_grid.voxel_size == pytest.approx((2, 2, 2))
    assert mask[7, 7, 7]
    assert coarse[7, 7, 7] < 20
    assert mask.sum() * 8 == pytest.approx(20 * 22 * 18, rel=0.1)


def test_the_template_is_nought_outside_its_mask_which_has_no_holes(template):
    assert not template.brain[~template.mask].any()
    np.testing.assert_array_equal(ndimage.binary_fill_holes(template.mask), template.mask)
    assert (template.brain[template.mask] > 0).mean() > 0.999
