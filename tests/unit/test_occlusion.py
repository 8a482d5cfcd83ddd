import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from voxplain.faults import SetupFault
from voxplain.relevance.occlusion import (
    Region,
    area_occlusion,
    area_regions,
    cube_at,
    occlude,
    occlusion,
)

SHAPE = (7, 6, 5)
CLASSES = 3
CUBES = [(1, 1), (2, 1), (3, 1), (3, 2), (4, 2), (4, 3), (5, 4), (2, 4), (1, 3), (9, 3), (30, 9)]


class Watched(nn.Module):
    """A network that remembers every scan it was given."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.layers = nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1),
            nn.BatchNorm3d(4),
            nn.ReLU(),
            nn.MaxPool3d(2),
            nn.Flatten(),
            nn.Linear(4 * 3 * 3 * 2, CLASSES),
        )
        nn.init.normal_(self.layers[1].running_mean, std=0.3)
        self.batches = []

    def forward(self, scans):
        self.batches.append(scans.detach().numpy().copy()[:, 0])
        return self.layers(scans)

    @property
    def given(self):
        return np.concatenate(self.batches)


@pytest.fixture
def model():
    return Watched().double().eval()


@pytest.fixture
def scan():
    return np.random.default_rng(3).normal(size=SHAPE)


def probabilities(model, scan):
    with torch.no_grad():
        return torch.softmax(model(torch.tensor(scan)[None, None]), dim=1)[0].numpy()


def drop_without(model, scan, where, target):
    """How the target's probability falls when the voxels of a mask are 0; 0 where it rises."""
    drop = probabilities(model, scan) - probabilities(model, np.where(where, 0, scan))
    return max(drop[target], 0.0)


def covered(point, size):
    """The voxels whose middle lies in the cube around a grid point.

    A cube of an even size cannot lie evenly around a voxel: it has one voxel more on the low side.
    """
    away = np.indices(SHAPE) - np.array(point).reshape(3, 1, 1, 1)
    return ((-size / 2 <= away) & (away < size / 2)).all(axis=0)


def grid_points(stride):
    return [p for p in np.ndindex(*SHAPE) if all(i % stride == 0 for i in p)]


def nearest_by_hand(model, scan, target, size, stride):
    # argmin takes the first of equals, so that among equally near points the higher ones win.
    points = grid_points(stride)[::-1]
    drops = [drop_without(model, scan, covered(point, size), target) for point in points]
    heatmap = np.zeros(SHAPE)
    for voxel in np.ndindex(*SHAPE):
        away = [sum((a - b) ** 2 for a, b in zip(voxel, p, strict=True)) for p in points]
        heatmap[voxel] = drops[int(np.argmin(away))]
    return heatmap


def average_by_hand(model, scan, target, size, stride):
    found = {voxel: [] for voxel in np.ndindex(*SHAPE)}
    for point in grid_points(stride):
        where = covered(point, size)
        drop = drop_without(model, scan, where, target)
        for voxel in zip(*np.nonzero(where), strict=True):
            found[tuple(int(i) for i in voxel)].append(drop)
    heatmap = np.zeros(SHAPE)
    for voxel, drops in found.items():
        heatmap[voxel] = np.mean(drops) if drops else 0
    return heatmap


BY_HAND = {"nearest": nearest_by_hand, "average": average_by_hand}


def close(found, expected):
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=2e-7, atol=1e-10)


# --- cubes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("spread", BY_HAND)
@pytest.mark.parametrize(("size", "stride"), CUBES)
def test_occlusion_is_a_cube_slid_by_hand(model, scan, size, stride, spread):
    # The class whose probability falls when all is taken out, so that there is something to see.
    target = int(np.argmax(probabilities(model, scan) - probabilities(model, 0 * scan)))
    found = occlusion(model, scan, target, size, stride, spread=spread)
    close(found, BY_HAND[spread](model, scan, target, size, stride))


@pytest.mark.parametrize("target", range(CLASSES))
@pytest.mark.parametrize("spread", BY_HAND)
def test_occlusion_explains_the_target(model, scan, target, spread):
    found = occlusion(model, scan, target, 3, 2, spread=spread)
    close(found, BY_HAND[spread](model, scan, target, 3, 2))


def test_the_drop_of_the_nearest_cube_is_the_default(model, scan):
    found = occlusion(model, scan, 0, 3, 2)
    np.testing.assert_array_equal(found, occlusion(model, scan, 0, 3, 2, spread="nearest"))
    assert not np.array_equal(found, occlusion(model, scan, 0, 3, 2, spread="average"))


def test_a_voxel_halfway_between_two_cubes_takes_the_higher_ones_drop(model, scan):
    found = occlusion(model, scan, 0, 1, 2)
    drops = {p: drop_without(model, scan, covered(p, 1), 0) for p in grid_points(2)}
    assert found[1, 0, 0] == pytest.approx(drops[2, 0, 0])
    assert found[1, 1, 1] == pytest.approx(drops[2, 2, 2])
    assert found[6, 5, 0] == pytest.approx(drops[6, 4, 0])  # beyond the last there is none
    assert len({drops[0, 0, 0], drops[2, 0, 0], drops[2, 2, 2]}) > 1


def test_every_cube_is_tried_once_and_holds_nought_while_the_rest_stays(model, scan):
    occlusion(model, scan, 0, 3, 2)
    whole, occluded = model.given[0], model.given[1:]
    np.testing.assert_array_equal(whole, scan)
    expected = [np.where(covered(point, 3), 0, scan) for point in grid_points(2)]
    np.testing.assert_array_equal(occluded, expected)


@pytest.mark.parametrize(
    ("centre", "size", "first", "last"),
    [(4, 3, 3, 5), (4, 4, 2, 5), (4, 1, 4, 4), (4, 2, 3, 4), (0, 3, 0, 1), (9, 4, 7, 9)],
)
def test_a_cube_lies_around_its_centre_and_is_cut_at_the_borders(centre, size, first, last):
    expected = slice(first, last + 1)
    assert cube_at((centre,) * 3, size, (10, 10, 10)) == (expected,) * 3


def test_relevance_lies_where_the_network_looks():
    model = nn.Sequential(nn.Flatten(), nn.Linear(7 * 6 * 5, 2)).double().eval()
    looked_at = np.ravel_multi_index((5, 2, 3), SHAPE)
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].weight[0, looked_at] = 1
        model[1].bias.zero_()
    scan = np.ones(SHAPE)
    heatmap = occlusion(model, scan, 0, 1, 1)
    assert np.argwhere(heatmap > 0).tolist() == [[5, 2, 3]]
    # The logit falls from 1 to 0, the probability from 1 / (1 + e^-1) to 1/2.
    assert heatmap[5, 2, 3] == pytest.approx(1 / (1 + np.exp(-1)) - 0.5, rel=1e-6)
    assert occlusion(model, scan, 1, 1, 1).max() == 0  # whose probability rises


# --- the batch size, which changes only the speed -------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 7, 1000])
def test_the_drops_do_not_depend_on_the_batch_size(model, scan, batch_size):
    regions = [Region(cube_at(point, 3, SHAPE)) for point in grid_points(2)]
    expected = occlude(model, scan, regions, batch_size=5)
    model.batches.clear()
    found = occlude(model, scan, regions, batch_size=batch_size)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    sizes = [len(batch) for batch in model.batches[1:]]
    assert max(sizes) == min(batch_size, len(regions))
    assert sum(sizes) == len(regions)


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_the_heatmaps_do_not_depend_on_the_batch_size(model, scan, batch_size):
    labels = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 6
    for options in ({"size": 3, "stride": 2}, {"size": 4, "stride": 3, "spread": "average"}):
        expected = occlusion(model, scan, 0, **options)
        found = occlusion(model, scan, 0, **options, batch_size=batch_size)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(
        area_occlusion(model, scan, 0, labels, batch_size=batch_size),
        area_occlusion(model, scan, 0, labels),
        rtol=1e-6,
        atol=1e-10,
    )


# --- the mask, which only spares work -------------------------------------------------------------


@pytest.mark.parametrize("spread", BY_HAND)
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 2), (2, 4), (4, 3)])
def test_a_mask_beside_which_the_scan_is_nought_changes_nothing(model, scan, size, stride, spread):
    mask = np.zeros(SHAPE, bool)
    mask[2:5, :3, 2:] = True
    scan = np.where(mask, scan, 0)
    highest = 0
    for target in range(CLASSES):
        model.batches.clear()
        expected = occlusion(model, scan, target, size, stride, spread=spread)
        tried = len(model.given)
        model.batches.clear()
        found = occlusion(model, scan, target, size, stride, spread=spread, mask=mask)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)
        highest = max(highest, found.max())
    assert highest > 0
    cubes = [covered(point, size) for point in grid_points(stride)]
    assert len(model.given) == 1 + sum((cube & mask).any() for cube in cubes) < tried


def test_a_mask_takes_away_the_cubes_beside_it_and_no_others(model, scan):
    mask = np.zeros(SHAPE, bool)
    mask[4:] = True
    whole = occlusion(model, scan, 0, 1, 1)
    masked = occlusion(model, scan, 0, 1, 1, mask=mask)
    np.testing.assert_allclose(masked, np.where(mask, whole, 0), rtol=1e-6, atol=1e-12)
    assert whole[:4].max() > 0


@pytest.mark.parametrize("spread", BY_HAND)
def test_with_an_empty_mask_the_heatmap_is_nought(model, scan, spread):
    found = occlusion(model, scan, 0, 3, 2, spread=spread, mask=np.zeros(SHAPE, bool))
    np.testing.assert_array_equal(found, np.zeros(SHAPE))


# --- regions --------------------------------------------------------------------------------------


def test_the_drops_are_those_of_every_class_signed_and_add_up_to_nought(model, scan):
    points = grid_points(2)
    found = occlude(model, scan, [Region(cube_at(point, 3, SHAPE)) for point in points])
    assert found.shape == (len(points), CLASSES)
    assert found.dtype == np.float64
    expected = [
        probabilities(model, scan) - probabilities(model, np.where(covered(point, 3), 0, scan))
        for point in points
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-12)
    assert (found > 1e-3).any() and (found < -1e-3).any()


def test_in_a_region_only_the_voxels_inside_become_nought(model, scan):
    inside = np.random.default_rng(0).random((3, 2, 4)) > 0.5
    box = (slice(1, 4), slice(2, 4), slice(0, 4))
    occlude(model, scan, [Region(box, inside), Region(box)])
    where = np.zeros(SHAPE, bool)
    where[box] = inside
    np.testing.assert_array_equal(model.given[1], np.where(where, 0, scan))
    where[box] = True
    np.testing.assert_array_equal(model.given[2], np.where(where, 0, scan))


def test_without_a_region_there_is_no_drop(model, scan):
    assert occlude(model, scan, []).shape == (0, CLASSES)


# --- areas ----------------------------------------------------------------------------------------


def areas_by_hand(model, scan, target, labels):
    heatmap = np.zeros(SHAPE)
    for value in set(labels.ravel().tolist()) - {0}:
        heatmap[labels == value] = drop_without(model, scan, labels == value, target)
    return heatmap


@pytest.mark.parametrize("target", range(CLASSES))
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64])
def test_area_occlusion_is_each_area_taken_out_by_hand(model, scan, target, kind):
    # Labels with gaps between their values, and areas in many pieces.
    labels = np.random.default_rng(5).choice(np.array([0, 1, 2, 7, 40, 90, 91], kind), SHAPE)
    found = area_occlusion(model, scan, target, labels)
    close(found, areas_by_hand(model, scan, target, labels))
    assert (found[labels == 0] == 0).all()


def test_an_area_in_two_far_pieces_is_taken_out_at_once_and_nothing_between(model, scan):
    labels = np.zeros(SHAPE, np.uint8)
    labels[0, 0, 0] = labels[6, 5, 4] = 3
    labels[2:5, 2:4, 1:4] = 8
    area_occlusion(model, scan, 0, labels)
    np.testing.assert_array_equal(model.given[1], np.where(labels == 3, 0, scan))
    np.testing.assert_array_equal(model.given[2], np.where(labels == 8, 0, scan))
    assert len(model.given) == 3


def test_without_an_area_the_heatmap_is_nought(model, scan):
    found = area_occlusion(model, scan, 0, np.zeros(SHAPE, np.uint8))
    np.testing.assert_array_equal(found, np.zeros(SHAPE))


@given(voxels=st.lists(st.tuples(*(st.integers(0, n - 1) for n in SHAPE)), min_size=1, max_size=6))
def test_an_areas_box_holds_its_voxels_and_is_no_larger_than_it_must_be(voxels):
    labels = np.zeros(SHAPE, np.uint8)
    labels[tuple(np.transpose(voxels))] = 9
    (region,) = area_regions(labels, [9])
    for axis, side in enumerate(region.box):
        places = [voxel[axis] for voxel in voxels]
        assert (side.start, side.stop) == (min(places), max(places) + 1)
    where = np.zeros(SHAPE, bool)
    where[region.box] = region.inside
    np.testing.assert_array_equal(where, labels == 9)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7, 6, 4), (7, 6), (1, 6, 5), (8, 6, 5)])
def test_labels_or_a_mask_on_another_grid_are_refused(model, scan, shape):
    with pytest.raises(ValueError, match="do not lie on the scan's grid"):
        area_occlusion(model, scan, 0, np.ones(shape, np.uint8))
    with pytest.raises(ValueError, match="does not lie on the scan's grid"):
        occlusion(model, scan, 0, 3, 2, mask=np.ones(shape, bool))


def test_a_spread_that_there_is_not_is_refused_with_those_there_are(model, scan):
    with pytest.raises(SetupFault, match=r"no spread 'mean'; allowed: nearest, average"):
        occlusion(model, scan, 0, 3, 2, spread="mean")


def test_a_stride_of_nought_is_refused(model, scan):
    with pytest.raises(ValueError, match="must not be zero"):
        occlusion(model, scan, 0, 3, 0)


def test_a_network_in_training_mode_is_refused(model, scan):
    regions = [Region(cube_at(p, 1, SHAPE)) for p in itertools.islice(np.ndindex(*SHAPE), 2)]
    with pytest.raises(SetupFault, match="training mode"):
        occlude(model.train(), scan, regions)
