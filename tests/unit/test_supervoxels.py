import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from voxplain.faults import SetupFault
from voxplain.relevance import supervoxels as module
from voxplain.relevance.supervoxels import sa_ucm, segment

SHAPE = (13, 15, 11)
CUBE = (slice(4, 9), slice(5, 10), slice(3, 8))


@pytest.fixture
def scan():
    """An ellipsoid with texture, 0 around it."""
    rng = np.random.default_rng(2)
    texture = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.5) * 5 + 0.1 * rng.normal(
        size=SHAPE
    )
    axes = np.meshgrid(*(np.linspace(-1.1, 1.1, n) for n in SHAPE), indexing="ij")
    inside = sum(axis**2 for axis in axes) < 1
    return np.where(inside, texture, 0).astype(np.float32)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(1, 3, 3),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Flatten(),
        nn.Linear(3 * 5 * 6 * 4, 3),
    ).eval()


# --- the hierarchy --------------------------------------------------------------------------------


@pytest.mark.parametrize(("levels", "most"), [(20, 40), (5, 12), (1, 7), (3, 2)])
def test_the_number_of_segments_falls_geometrically_to_two(scan, levels, most):
    hierarchy = segment(scan, levels, most)
    counts = [len(np.unique(level)) - 1 for level in hierarchy]
    expected = np.geomspace(most, 2, levels).round() if levels > 1 else [most]
    assert 1 <= len(hierarchy) <= levels
    assert hierarchy.dtype == np.int32
    assert counts == sorted(set(counts))
    assert counts[-1] == most
    assert counts[0] >= 2
    # Each level has the expected number of segments, or fewer if segments would be too small.
    for place, count in enumerate(reversed(counts)):
        assert count <= expected[place]
    if levels == 5:
        assert counts[0] <= 3


@pytest.mark.parametrize("with_mask", [False, True])
def test_each_level_divides_the_mask_into_connected_segments_of_a_minimum_size(scan, with_mask):
    mask = np.zeros(SHAPE, bool)
    mask[2:10, 3:12, 1:9] = True
    inside = mask if with_mask else scan != 0
    hierarchy = segment(scan, 6, 20, mask if with_mask else None)
    for level in hierarchy:
        np.testing.assert_array_equal(level > 0, inside)
        numbers = np.unique(level[inside])
        np.testing.assert_array_equal(numbers, np.arange(1, len(numbers) + 1))
        for number in numbers:
            assert ndimage.label(level == number)[1] == 1
        least = 0.1 * inside.sum() / len(numbers)
        # A level may have fewer segments than allowed: the minimum follows from the allowed number.
        assert np.bincount(level[inside])[1:].min() >= min(least, 0.1 * inside.sum() / 20)


def test_a_segment_is_a_union_of_segments_of_the_next_level(scan):
    hierarchy = segment(scan, 8, 30)
    assert len(hierarchy) > 3
    for coarse, fine in itertools.pairwise(hierarchy):
        for number in range(1, fine.max() + 1):
            assert len(np.unique(coarse[fine == number])) == 1
        assert coarse.max() < fine.max()


def test_a_bright_cube_is_a_segment():
    scan = np.random.default_rng(0).normal(0, 0.2, SHAPE).astype(np.float32)
    scan[CUBE] += 3
    cube = np.zeros(SHAPE, bool)
    cube[CUBE] = True
    overlaps = [
        ((level == number) & cube).sum() / ((level == number) | cube).sum()
        for level in segment(scan, 6, 20)
        for number in range(1, level.max() + 1)
    ]
    assert max(overlaps) > 0.95


def test_halves_of_different_brightness_are_the_two_segments():
    scan = np.random.default_rng(0).normal(0, 0.1, (12, 8, 8)).astype(np.float32)
    scan[:7] += 2
    (coarsest, *_) = segment(scan, 4, 10)
    np.testing.assert_array_equal(
        coarsest == coarsest[0, 0, 0], np.arange(12)[:, None, None] < 7 + 0 * coarsest
    )


def test_the_same_scan_gives_the_same_hierarchy(scan):
    expected = segment(scan, 6, 25)
    np.testing.assert_array_equal(segment(scan.copy(), 6, 25), expected)
    np.testing.assert_array_equal(segment(torch.from_numpy(scan), 6, 25), expected)
    np.testing.assert_array_equal(segment(3 * scan, 6, 25), expected)


def test_a_mask_in_parts_is_divided_as_a_whole(scan):
    mask = np.zeros(SHAPE, bool)
    mask[:4], mask[6:9, :3], mask[12, 14, 10] = True, True, True
    for level in segment(scan + 1, 5, 12, mask):
        np.testing.assert_array_equal(level > 0, mask)


def test_a_scan_without_differences_or_of_one_voxel_is_one_segment():
    for shape in ((4, 4, 4), (1, 1, 1)):
        hierarchy = segment(np.ones(shape, np.float32), 5, 10)
        assert hierarchy.max(axis=(1, 2, 3)).min() >= 1
        assert (hierarchy > 0).all()
        assert len(hierarchy) <= 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 0}, r"at least 1 level .* levels 0"),
        ({"most_segments": 1}, r"2 segments.*most_segments 1"),
        ({"mask": np.ones((3, 3, 3), bool)}, r"\(3, 3, 3\).*mask on the scan's grid"),
        ({"mask": np.zeros(SHAPE, bool)}, r"the mask is empty"),
    ],
)
def test_arguments_that_allow_no_segments_are_refused(scan, options, message):
    with pytest.raises(SetupFault, match=message):
        segment(scan, **options)
    with pytest.raises(SetupFault, match=message):
        sa_ucm(network(), scan, 0, **options)


def test_a_scan_that_is_not_finite_in_the_mask_is_refused(scan):
    scan[6, 7, 5] = np.nan
    with pytest.raises(SetupFault, match="not finite"):
        segment(scan)


# --- the heatmap ----------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [0, 2])
def test_the_map_agrees_with_a_loop_of_full_forward_passes(scan, target):
    model, expected = network(), np.zeros(SHAPE)
    hierarchy = segment(scan, 6, 15)

    def probability(values):
        with torch.no_grad():
            return float(torch.softmax(model(torch.from_numpy(values)[None, None]), 1)[0, target])

    whole = probability(scan)
    for level in hierarchy:
        for number in range(1, level.max() + 1):
            occluded = np.where(level == number, 0, scan)
            expected[level == number] += abs(whole - probability(occluded)) / len(hierarchy)
    heatmap = sa_ucm(model, scan, target, levels=6, most_segments=15)
    assert heatmap.dtype == np.float32
    assert expected.max() > 0.01
    np.testing.assert_allclose(heatmap, expected, rtol=1e-3, atol=1e-6)
    assert not heatmap[scan == 0].any()


def test_each_segment_is_occluded_once(scan, monkeypatch):
    tried = []

    def occlude(model, scan, segments, memory_mb, label, target):
        for number, box in enumerate(segments.boxes()):
            inside = np.zeros(SHAPE, bool)
            inside[box] = segments.inside(number)
            tried.append(inside.tobytes())
        return np.zeros((len(segments), 3))

    monkeypatch.setattr(module, "occlude", occlude)
    sa_ucm(network(), scan, 0, levels=8, most_segments=30)
    levels = segment(scan, 8, 30)
    expected = {(e == n).tobytes() for e in levels for n in range(1, e.max() + 1)}
    assert len(tried) == len(set(tried))
    assert set(tried) == expected
    assert len(tried) < sum(level.max() for level in levels)


def test_the_mask_and_the_memory_limit_are_passed_on(scan):
    mask = np.zeros(SHAPE, bool)
    mask[4:9, 4:11, 3:8] = True
    heatmap = sa_ucm(network(), scan, 0, levels=3, most_segments=6, mask=mask, memory_mb=1)
    assert not heatmap[~mask].any()
    assert heatmap[mask].max() > 0
