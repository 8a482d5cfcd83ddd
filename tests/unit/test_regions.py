"""Occluded regions: cubes, segments, and both without the voxels where the scan is 0."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from voxplain.relevance.regions import Regions

SHAPE = (7, 6, 5)


def as_masks(regions, shape=SHAPE):
    """Each region as a bool volume, ``[regions, x, y, z]``."""
    masks = np.zeros((len(regions), *shape), bool)
    for number, box in enumerate(regions.boxes()):
        masks[(number, *box)] = regions.inside(number)
    return masks


def smallest_box(mask):
    """First voxel and the voxel after the last, along each axis."""
    places = np.nonzero(mask)
    return [int(p.min()) for p in places], [int(p.max()) + 1 for p in places]


# --- cubes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("centre", "size", "first", "last"),
    [
        (4, 1, 4, 4),
        (4, 2, 3, 4),  # an even cube has one more voxel before its centre
        (4, 3, 3, 5),
        (4, 4, 2, 5),
        (0, 3, 0, 1),
        (0, 2, 0, 0),
        (9, 4, 7, 9),
        (9, 30, 0, 9),
    ],
)
def test_a_cube_lies_around_its_centre_and_is_cut_at_the_borders(centre, size, first, last):
    regions = Regions.cubes(np.array([[centre] * 3]), size, (10, 10, 10))
    assert regions.boxes() == [(slice(first, last + 1),) * 3]
    assert regions.inside(0).all()


@given(size=st.integers(1, 9), numbers=st.lists(st.integers(0, 209), min_size=1, max_size=6))
def test_a_cube_holds_the_voxels_nearest_to_its_centre(size, numbers):
    centres = np.stack(np.unravel_index(numbers, SHAPE), axis=-1)
    away = np.indices(SHAPE) - centres.reshape(-1, 3, 1, 1, 1)
    expected = ((-size / 2 <= away) & (away < size / 2)).all(axis=1)
    np.testing.assert_array_equal(as_masks(Regions.cubes(centres, size, SHAPE)), expected)


def test_centres_may_be_given_on_a_grid_or_be_empty():
    centres = np.stack(np.meshgrid([0, 3], [1], [2, 4], indexing="ij"), axis=-1)
    regions = Regions.cubes(centres, 1, SHAPE)
    assert regions.start.tolist() == [[0, 1, 2], [0, 1, 4], [3, 1, 2], [3, 1, 4]]
    assert (regions.stop - regions.start == 1).all()
    assert len(Regions.cubes(np.zeros((0, 3), int), 3, SHAPE)) == 0


# --- segments -------------------------------------------------------------------------------------

LABELS = np.random.default_rng(5).choice(np.array([0, 1, 2, 7, 40, 90], np.int16), SHAPE)
LABELS[:, :, 0] = 0


def test_segments_are_the_occurring_labels_in_their_smallest_boxes():
    regions = Regions.segments(LABELS)
    assert regions.values.tolist() == [1, 2, 7, 40, 90]
    for number, value in enumerate(regions.values):
        of_value = np.equal(LABELS, value)
        np.testing.assert_array_equal(as_masks(regions)[number], of_value)
        start, stop = smallest_box(of_value)
        assert regions.start[number].tolist() == start
        assert regions.stop[number].tolist() == stop


def test_segments_may_be_chosen_in_any_order():
    regions = Regions.segments(LABELS, [40, 2])
    assert regions.values.tolist() == [40, 2]
    np.testing.assert_array_equal(as_masks(regions), [LABELS == 40, LABELS == 2])


@pytest.mark.parametrize("absent", [0, 3, 91, -1])
def test_a_label_that_does_not_occur_is_refused_by_its_name(absent):
    with pytest.raises(ValueError, match=f"no voxel has the label {absent}$"):
        Regions.segments(LABELS, [2, absent, 7])


def test_without_a_label_there_is_no_segment():
    regions = Regions.segments(np.zeros(SHAPE, np.uint8))
    assert len(regions) == 0
    assert regions.boxes() == []


@pytest.mark.parametrize("chosen", [slice(1, 3), [4, 0], [False, True, False, True, True]])
def test_some_regions_are_chosen_by_numbers_a_slice_or_a_bool_each(chosen):
    chosen = chosen if isinstance(chosen, slice) else np.array(chosen)
    every = as_masks(Regions.segments(LABELS))
    np.testing.assert_array_equal(as_masks(Regions.segments(LABELS)[chosen]), every[chosen])


# --- regions without voxels that are 0 ------------------------------------------------------------

some = arrays.arrays(bool, SHAPE, elements=st.booleans(), fill=st.just(False))


@st.composite
def boxes(draw):
    edges = [st.tuples(st.integers(0, n - 1), st.integers(1, n)) for n in SHAPE]
    rows = draw(st.lists(st.tuples(*edges), min_size=1, max_size=5))
    start, length = np.array(rows).transpose(2, 0, 1)
    return Regions(start, np.minimum(start + length, SHAPE))


@given(regions=boxes(), filled=some)
def test_trimmed_boxes_are_the_smallest_that_hold_all_nonzero_voxels(regions, filled):
    trimmed = regions.trimmed(filled)
    touching = regions.touching(filled)
    for number, mask in enumerate(as_masks(regions)):
        left = mask & filled
        assert touching[number] == left.any()
        if left.any():
            start, stop = smallest_box(left)
            assert trimmed.start[number].tolist() == start
            assert trimmed.stop[number].tolist() == stop
        else:
            assert not (trimmed.stop[number] - trimmed.start[number]).any()
    assert not np.shares_memory(trimmed.start, regions.start)


def test_trimmed_segments_are_the_same_segments_in_smaller_boxes():
    filled = np.zeros(SHAPE, bool)
    filled[2:5, 1:4, 1:3] = True
    regions = Regions.segments(LABELS)
    trimmed = regions.trimmed(filled)
    inside = as_masks(trimmed)
    np.testing.assert_array_equal(inside & filled, as_masks(regions) & filled)
    assert inside.sum() < as_masks(regions).sum()
    assert trimmed.values is regions.values


@given(data=st.data(), regions=boxes())
def test_unique_regions_occur_once_and_index_back_to_all(data, regions):
    numbers = data.draw(st.lists(st.integers(0, len(regions) - 1), min_size=1, max_size=12))
    repeated = regions[np.array(numbers)]
    unique, number = repeated.unique()
    rows = {(*start, *stop) for start, stop in zip(repeated.start, repeated.stop, strict=True)}
    assert len(unique) == len(rows)
    np.testing.assert_array_equal(unique.start[number], repeated.start)
    np.testing.assert_array_equal(unique.stop[number], repeated.stop)


def test_segments_of_one_box_stay_apart():
    labels = np.indices((2, 2, 2)).sum(0) % 2 + 1  # a chessboard
    regions = Regions.segments(labels)[np.array([0, 1, 0])]
    unique, number = regions.unique()
    assert unique.values.tolist() == [1, 2]
    assert number.tolist() == [0, 1, 0]
