import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from voxplain.anatomy.pose import find_start
from voxplain.anatomy.quality import correlation, dice
from voxplain.anatomy.register import register_brain
from voxplain.volumes import Grid

FAR = (45, -35, 30)


def turned(template, degrees, shift_mm=(30, -40, 20)):
    """The template's grid as in a scan of a turned and shifted head, and its movement."""
    movement = np.eye(4)
    movement[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    movement[:3, 3] = shift_mm
    matrix = movement @ template.grid.matrix
    grid = Grid(template.grid.shape, tuple(tuple(float(v) for v in row) for row in matrix))
    return grid, movement


@pytest.fixture(scope="module")
def enhanced(template):
    """The template with bright meninges and vessels, as after a contrast agent."""
    rim = template.mask & ~ndimage.binary_erosion(template.mask)
    return np.where(rim, 1.6 * template.brain.max(), template.brain).astype(np.float32)


@pytest.mark.parametrize("degrees", [FAR, (-45, 10, -10), (0, 0, 50), (60, 0, 0)])
def test_a_head_that_is_turned_far_starts_near_its_pose(template, enhanced, degrees):
    grid, movement = turned(template, degrees)
    start = find_start(template.brain, template.grid, enhanced, grid)
    left = Rotation.from_matrix(start[:3, :3].T @ movement[:3, :3]).magnitude()
    assert np.degrees(left) < 26  # from such a start every method finds the pose
    middle = np.append(template.grid.matrix[:3, :3] @ ndimage.center_of_mass(template.brain), 1)
    middle[:3] += template.grid.matrix[:3, 3]
    assert np.linalg.norm((start @ middle - movement @ middle)[:3]) < 5


@pytest.mark.parametrize("degrees", [(0, 0, 0), (15, 0, 0), (-10, 10, 10)])
def test_a_head_that_is_hardly_turned_starts_from_the_centres_of_mass(template, enhanced, degrees):
    grid, _ = turned(template, degrees)
    assert find_start(template.brain, template.grid, enhanced, grid) is None


def test_no_start_is_so_far_that_a_mirrored_file_could_fit(template, enhanced):
    grid, _ = turned(template, (0, 0, 0))
    start = find_start(template.brain, template.grid, enhanced[:, ::-1], grid)
    assert start is None or Rotation.from_matrix(start[:3, :3]).magnitude() < np.pi / 2


def test_a_contrast_enhanced_head_turned_far_is_registered_at_4_mm(template, enhanced, tmp_path):
    grid, _ = turned(template, FAR)
    found, _ = register_brain(
        enhanced,
        template.mask.astype(np.float32),
        grid,
        template.brain,
        template.grid,
        "affine",
        42,
        str(tmp_path),
    )
    inside = template.mask
    assert dice(found.mask, inside) > 0.97
    # The enhanced voxels of the rim differ from the template's.
    core = ndimage.binary_erosion(inside, iterations=2)
    assert correlation(found.brain[core], template.brain[core]) > 0.95
