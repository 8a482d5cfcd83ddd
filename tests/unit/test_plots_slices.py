import numpy as np
import pytest
from scipy import ndimage

from unit.conftest import pixels
from voxplain.plots.slices import plot_outline, plot_text
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


def count(picture, colour):
    return int((abs(picture - np.array(colour)).max(axis=-1) < 40).sum())


@pytest.fixture(scope="module")
def plain(brain):
    figure = plot_outline(brain, ball(16), GRID, "a brain")
    return pixels(figure)


def test_a_picture_shows_the_volume_in_grey_with_the_outline_in_its_colour(plain):
    grey = (plain.max(axis=-1) - plain.min(axis=-1)) < 3
    assert np.unique(plain[grey][:, 0]).size > 50
    assert count(plain, OUTLINE) > 500
    assert count(plain, INNER) == 0


def test_a_second_mask_is_outlined_in_a_second_colour(brain):
    figure = plot_outline(brain, ball(16), GRID, "a brain", inner=ball(8))
    picture = pixels(figure)
    assert count(picture, OUTLINE) > 500
    assert count(picture, INNER) > 100


def test_the_outline_follows_the_mask(brain, plain):
    figure = plot_outline(brain, ball(5), GRID, "a brain")
    assert count(plain, OUTLINE) > 1.5 * count(pixels(figure), OUTLINE) > 100


@pytest.mark.parametrize("radiological", [False, True])
def test_the_subjects_left_is_on_the_left_and_in_radiological_order_on_the_right(radiological):
    left_light = np.where(ball(5, centre=(8, 24, 22)), 100.0, 0.0)
    nothing = np.zeros(GRID.shape, bool)
    figure = plot_outline(left_light, nothing, GRID, "", radiological=radiological)
    letters = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert letters == [["P", "A"]] * 5 + [list("RL" if radiological else "LR")] * 10
    figure.set_dpi(160)
    picture = pixels(figure)
    height, width, _ = picture.shape
    # Coronal and axial rows; the middle column of five shows the middle slice.
    middle = picture[height // 3 :, 2 * width // 5 : 3 * width // 5]
    bright = np.argwhere(middle.min(axis=-1) > 180)
    panel = middle.shape[1]
    shares = bright[:, 1] / panel
    shares = shares[(shares > 0.15) & (shares < 0.85)]  # between the letters
    assert shares.size > 100
    assert (np.median(shares) > 0.55) if radiological else (np.median(shares) < 0.45)


def test_a_brighter_scan_of_the_same_head_gives_the_same_picture(brain, plain):
    figure = plot_outline(brain * 37, ball(16), GRID, "a brain")
    assert abs(plain - pixels(figure)).max() <= 2


def test_an_empty_volume_and_an_empty_mask_give_a_picture():
    nothing = np.zeros(GRID.shape)
    figure = plot_outline(nothing, nothing > 0, GRID, "nothing was found")
    picture = pixels(figure)
    assert count(picture, OUTLINE) == 0
    assert np.unique(picture[..., 0]).size > 10  # the title


def test_a_picture_of_text_shows_the_text():
    texts = ("failed in convert", "file a.dcm is truncated", "download the image again " * 20)
    figures = [plot_text(*lines) for lines in (texts, texts[:2], ("another",))]
    whole, short, other = map(pixels, figures)
    light = [int((picture.min(axis=-1) > 128).sum()) for picture in (whole, short, other)]
    assert light[0] > light[1] > light[2] > 50
    right_border = whole[:, -20:]
    assert right_border.max() == 0  # long lines are wrapped, not cut


def test_a_dollar_in_a_file_name_is_not_a_formula():
    figures = [
        plot_text(line) for line in ("file $a_1$.dcm is truncated", "file a_1.dcm is truncated")
    ]
    with_dollars, without = map(pixels, figures)
    assert (with_dollars > 128).sum() > (without > 128).sum()
