import numpy as np
import pytest
from matplotlib.image import imread
from scipy import ndimage

from voxplain.plots.slices import picture_of_outline, picture_of_text
from voxplain.volumes import axis_aligned_grid

OUTLINE, INNER = (0xFF, 0x9D, 0x00), (0x4F, 0xC3, 0xF7)
GRID = axis_aligned_grid((40, 48, 44), (2.0, 2.0, 2.0), (-40, -48, -44))


def ball(radius, centre=(20, 24, 22)):
    places = np.indices(GRID.shape) - np.array(centre).reshape(3, 1, 1, 1)
    return (places**2).sum(0) < radius**2


@pytest.fixture(scope="module")
def brain():
    texture = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=GRID.shape), 1.5)
    return np.where(ball(16), 100 + 200 * texture, 0).astype(np.float32)


def pixels(path):
    """Red, green and blue, 0 to 255."""
    return np.rint(imread(path)[..., :3] * 255).astype(int)


def count(picture, colour):
    return int((abs(picture - np.array(colour)).max(axis=-1) < 40).sum())


@pytest.fixture(scope="module")
def plain(brain, tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "outline.png"
    picture_of_outline(path, brain, ball(16), GRID, "a brain")
    return pixels(path)


def test_a_picture_shows_the_volume_in_grey_with_the_outline_in_its_colour(plain):
    grey = (plain.max(axis=-1) - plain.min(axis=-1)) < 3
    assert np.unique(plain[grey][:, 0]).size > 50
    assert count(plain, OUTLINE) > 500
    assert count(plain, INNER) == 0


def test_a_second_mask_is_outlined_in_a_second_colour(tmp_path, brain):
    path = tmp_path / "outline.png"
    picture_of_outline(path, brain, ball(16), GRID, "a brain", inner=ball(8))
    picture = pixels(path)
    assert count(picture, OUTLINE) > 500
    assert count(picture, INNER) > 100


def test_the_outline_follows_the_mask(tmp_path, brain, plain):
    path = tmp_path / "narrow.png"
    picture_of_outline(path, brain, ball(5), GRID, "a brain")
    assert count(plain, OUTLINE) > 1.5 * count(pixels(path), OUTLINE) > 100


def test_the_subjects_left_is_on_the_left(tmp_path):
    left_light = np.where(ball(5, centre=(8, 24, 22)), 100.0, 0.0)
    path = tmp_path / "left.png"
    picture_of_outline(path, left_light, np.zeros(GRID.shape, bool), GRID, "")
    picture = pixels(path)
    height, width, _ = picture.shape
    # Coronal and axial rows; the middle column of five shows the middle slice.
    middle = picture[height // 3 :, 2 * width // 5 : 3 * width // 5]
    bright = np.argwhere(middle.min(axis=-1) > 180)
    panel = middle.shape[1]
    shares = (bright[:, 1] / panel)[bright[:, 1] / panel > 0.15]  # beyond the letter L
    assert shares.size > 100
    assert np.median(shares) < 0.45


def test_a_brighter_scan_of_the_same_head_gives_the_same_picture(tmp_path, brain, plain):
    path = tmp_path / "bright.png"
    picture_of_outline(path, brain * 37, ball(16), GRID, "a brain")
    assert abs(plain - pixels(path)).max() <= 2


def test_an_empty_volume_and_an_empty_mask_still_give_a_picture(tmp_path):
    path = tmp_path / "empty.png"
    nothing = np.zeros(GRID.shape)
    picture_of_outline(path, nothing, nothing > 0, GRID, "nothing was found")
    picture = pixels(path)
    assert count(picture, OUTLINE) == 0
    assert np.unique(picture[..., 0]).size > 10  # the title


def test_a_picture_of_text_says_what_it_is_told(tmp_path):
    texts = ("failed in convert", "file a.dcm is truncated", "download the image again " * 20)
    for number, lines in enumerate((texts, texts[:2], ("another",))):
        picture_of_text(tmp_path / f"{number}.png", *lines)
    whole, short, other = (pixels(tmp_path / f"{number}.png") for number in range(3))
    light = [int((picture.min(axis=-1) > 128).sum()) for picture in (whole, short, other)]
    assert light[0] > light[1] > light[2] > 50
    right_border = whole[:, -20:]
    assert right_border.max() == 0  # long lines are wrapped, not cut


def test_a_dollar_in_a_file_name_is_no_formula(tmp_path):
    for number, line in enumerate(("file $a_1$.dcm is truncated", "file a_1.dcm is truncated")):
        picture_of_text(tmp_path / f"{number}.png", line)
    with_dollars, without = (pixels(tmp_path / f"{number}.png") for number in range(2))
    assert (with_dollars > 128).sum() > (without > 128).sum()
