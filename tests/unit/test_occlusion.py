import numpy as np
import pytest
import torch
from torch import nn

from voxplain.faults import SetupFault
from voxplain.relevance.occlusion import area_occlusion, occlude, occlusion, voxel_occlusion
from voxplain.relevance.regions import Regions

SHAPE = (7, 6, 5)
CLASSES = 3
CUBES = [(1, 1), (2, 1), (3, 1), (3, 2), (4, 2), (4, 3), (5, 4), (2, 4), (1, 3), (9, 3), (30, 9)]


def network():
    torch.manual_seed(2)
    layers = [nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 3 * 3 * 2, CLASSES))
    nn.init.normal_(model[1].running_mean, std=0.3)
    return model.double().eval()


class Watched(nn.Module):
    """The same, but it remembers every scan it was given, and so cannot be traced."""

    def __init__(self):
        super().__init__()
        self.layers = network()
        self.batches = []

    def forward(self, scans):
        assert torch.isfinite(scans).all()  # what torch.fx stumbles over
        self.batches.append(scans.numpy().copy()[:, 0])
        return self.layers(scans)

    @property
    def given(self):
        """Every scan but the second, which was for the check of the engine."""
        return np.concatenate([*self.batches[:1], *self.batches[2:]])


@pytest.fixture(params=["by parts", "in full"])
def model(request):
    """A network that goes by parts, and one that is run in full for every region."""
    return network() if request.param == "by parts" else Watched().eval()


@pytest.fixture
def watched():
    return Watched().eval()


@pytest.fixture
def scan():
    return np.random.default_rng(3).normal(size=SHAPE)


pytestmark = pytest.mark.filterwarnings("ignore:every occlusion is a full forward:RuntimeWarning")


def probabilities(model, scan):
    with torch.no_grad():
        return torch.softmax(model(torch.tensor(scan)[None, None]), dim=1)[0].numpy()


def covered(point, size):
    """The voxels whose middle lies in the cube around a grid point.

    A cube of an even size cannot lie evenly around a voxel: it has one voxel more on the low side.
    """
    away = np.indices(SHAPE) - np.array(point).reshape(3, 1, 1, 1)
    return ((-size / 2 <= away) & (away < size / 2)).all(axis=0)


def grid_points(stride):
    return [p for p in np.ndindex(*SHAPE) if all(i % stride == 0 for i in p)]


def cubes(size, stride):
    return Regions.cubes(np.array(grid_points(stride)), size, SHAPE)


def drops_of_classes(model, scan, masks):
    """How each class's probability falls when the voxels of each mask are 0."""
    with torch.no_grad():
        logits = model(torch.tensor(np.where(masks, 0, scan))[:, None])
    return probabilities(model, scan) - torch.softmax(logits, dim=1).numpy()


def drops_without(model, scan, masks, target):
    """The same of the target, 0 where its probability rises."""
    return drops_of_classes(model, scan, masks)[:, target].clip(min=0)


def nearest_by_hand(model, scan, target, size, stride):
    # argmin takes the first of equals, so that among equally near points the higher ones win.
    points = np.array(grid_points(stride)[::-1])
    drops = drops_without(model, scan, [covered(point, size) for point in points], target)
    heatmap = np.zeros(SHAPE)
    for voxel in np.ndindex(*SHAPE):
        heatmap[voxel] = drops[np.argmin(((points - voxel) ** 2).sum(axis=1))]
    return heatmap


def average_by_hand(model, scan, target, size, stride):
    masks = np.array([covered(point, size) for point in grid_points(stride)])
    drops = drops_without(model, scan, masks, target)
    heatmap = np.zeros(SHAPE)
    for voxel in np.ndindex(*SHAPE):
        over = masks[(slice(None), *voxel)]
        heatmap[voxel] = drops[over].mean() if over.any() else 0
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
    points = grid_points(2)
    drops = drops_without(model, scan, [covered(point, 1) for point in points], 0)
    drops = dict(zip(points, drops, strict=True))
    assert found[1, 0, 0] == pytest.approx(drops[2, 0, 0])
    assert found[1, 1, 1] == pytest.approx(drops[2, 2, 2])
    assert found[6, 5, 0] == pytest.approx(drops[6, 4, 0])  # beyond the last there is none
    assert len({drops[0, 0, 0], drops[2, 0, 0], drops[2, 2, 2]}) > 1


def test_every_cube_is_tried_once_and_holds_nought_while_the_rest_stays(watched, scan):
    occlusion(watched, scan, 0, 3, 2)
    whole, occluded = watched.given[0], watched.given[1:]
    np.testing.assert_array_equal(whole, scan)
    expected = [np.where(covered(point, 3), 0, scan) for point in grid_points(2)]
    np.testing.assert_array_equal(occluded, expected)


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


# --- memory, which changes only the speed ---------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("memory_mb", [0, 0.01, 1, 1000])
def test_the_heatmaps_do_not_depend_on_the_memory(scan, memory_mb):
    model, labels = network(), np.arange(np.prod(SHAPE)).reshape(SHAPE) % 6
    for function, options in (
        (occlusion, {"size": 3, "stride": 2}),
        (occlusion, {"size": 4, "stride": 3, "spread": "average"}),
        (area_occlusion, {"labels": labels}),
        (voxel_occlusion, {"size": 2}),
    ):
        expected = function(model, scan, 0, **options)
        found = function(model, scan, 0, **options, memory_mb=memory_mb)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("voxels", [1, 3 * 7 * 6 * 5, 10**9])
def test_in_full_the_drops_do_not_depend_on_the_scans_at_once(monkeypatch, watched, scan, voxels):
    expected = occlude(watched, scan, cubes(3, 2))
    watched.batches.clear()
    monkeypatch.setattr("voxplain.relevance.occlusion._VOXELS_A_BATCH", voxels)
    found = occlude(watched, scan, cubes(3, 2))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    sizes = [len(batch) for batch in watched.batches[2:]]
    assert max(sizes) == {1: 1, 630: 3}.get(voxels, 36)
    assert sum(sizes) == 36


# --- the mask, which only spares work -------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("spread", BY_HAND)
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 2), (2, 4), (4, 3)])
def test_a_mask_beside_which_the_scan_is_nought_changes_nothing(model, scan, size, stride, spread):
    mask = np.zeros(SHAPE, bool)
    mask[2:5, :3, 2:] = True
    scan = np.where(mask, scan, 0)
    highest = 0
    for target in range(CLASSES):
        expected = occlusion(model, scan, target, size, stride, spread=spread)
        found = occlusion(model, scan, target, size, stride, spread=spread, mask=mask)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)
        highest = max(highest, found.max())
    assert highest > 0


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 2), (2, 3), (4, 3)])
def test_cubes_beside_the_mask_or_where_the_scan_is_nought_are_not_tried(
    watched, scan, size, stride
):
    mask, filled = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    mask[2:5, :3, 2:] = True
    filled[3:, 2:, :3] = True
    occlusion(watched, np.where(filled, scan, 0), 0, size, stride, mask=mask)
    covers = [covered(point, size) for point in grid_points(stride)]
    tried = [cube for cube in covers if (cube & mask).any() and (cube & filled).any()]
    assert len(watched.given) == 1 + len(tried)
    assert len(tried) <= sum((cube & mask).any() for cube in covers) < len(covers)


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
    found = occlude(model, scan, cubes(3, 2))
    assert found.shape == (len(points), CLASSES)
    assert found.dtype == np.float64
    expected = drops_of_classes(model, scan, [covered(point, 3) for point in points])
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-12)
    assert (found > 1e-3).any() and (found < -1e-3).any()


def test_in_a_segment_only_its_own_voxels_become_nought(watched, scan):
    labels = np.random.default_rng(0).integers(0, 3, SHAPE)
    occlude(watched, scan, Regions.segments(labels, [2, 1]))
    expected = [scan, np.where(labels == 2, 0, scan), np.where(labels == 1, 0, scan)]
    np.testing.assert_array_equal(watched.given, expected)


def test_without_a_region_there_is_no_drop(model, scan):
    assert occlude(model, scan, cubes(3, 2)[:0]).shape == (0, CLASSES)


def test_a_region_where_the_scan_is_nought_is_no_drop_and_is_not_tried(watched, scan):
    found = occlude(watched, 0 * scan, cubes(3, 2))
    np.testing.assert_array_equal(found, np.zeros((36, CLASSES)))
    assert {len(batch) for batch in watched.batches} == {1}
    assert (watched.given == 0).all()


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("watched", [False, True])
def test_of_large_regions_that_hold_the_same_of_the_scan_one_is_tried(segments, watched):
    """The scan is not 0 in a ball; cubes and segments reach far beyond it."""
    shape, seen = (30, 28, 29), []
    torch.manual_seed(0)
    layers = [nn.Conv3d(1, 3, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(3, CLASSES)).double().eval()
    if watched:
        model.register_forward_hook(lambda module, given, logits: seen.append(len(logits)))
    away = np.linalg.norm(np.indices(shape) - np.reshape([14, 13, 16], (3, 1, 1, 1)), axis=0)
    scan = np.where(away < 6, np.random.default_rng(1).normal(size=shape) + 1, 0)
    if segments:
        labels = np.ones(shape, int)
        labels[:, :, 18:], labels[0, 0, 0] = 2, 3
        regions = Regions.segments(labels)
        parts = [labels == value for value in (1, 2, 3)]
    else:
        points = np.stack(np.meshgrid(*[range(0, n, 5) for n in shape], indexing="ij"), -1)
        regions, parts = Regions.cubes(points, 14, shape), []
        for box in regions.boxes():
            parts.append(np.zeros(shape, bool))
            parts[-1][box] = True
    expected = drops_of_classes(model, scan, parts)
    seen.clear()
    np.testing.assert_allclose(occlude(model, scan, regions), expected, rtol=0, atol=1e-12)
    assert np.abs(expected).max() > 1e-3
    if watched:
        boxes = {
            tuple((axis.min(), axis.max()) for axis in np.nonzero(part & (scan != 0)))
            for part in parts
            if (part & (scan != 0)).any()
        }
        assert seen[0] == 1  # the whole scan
        assert sum(seen[1:]) == min(3, len(boxes)) + len(boxes)  # the check of a new network
        assert len(boxes) < len(parts) / 1.4


# --- voxels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", range(CLASSES))
@pytest.mark.parametrize("size", [1, 2, 3])
def test_voxel_occlusion_is_the_change_by_a_cube_around_each_voxel(model, scan, target, size):
    masks = np.array([covered(voxel, size) for voxel in np.ndindex(*SHAPE)])
    changes = drops_of_classes(model, scan, masks)[:, target]
    assert changes.min() < 0 < changes.max()
    expected = np.abs(changes).reshape(SHAPE)
    close(voxel_occlusion(model, scan, target, size), expected)


def test_voxel_occlusion_takes_cubes_of_seven_unless_told_otherwise(scan):
    found = voxel_occlusion(network(), scan, 0)
    np.testing.assert_array_equal(found, voxel_occlusion(network(), scan, 0, 7))
    assert not np.allclose(found, voxel_occlusion(network(), scan, 0, 5), rtol=1e-3)


@pytest.mark.parametrize("stride", [2, 3])
def test_with_a_stride_a_voxel_takes_the_change_of_the_nearest_cube(scan, stride):
    every = voxel_occlusion(network(), scan, 0, 3)
    found = voxel_occlusion(network(), scan, 0, 3, stride)
    for place in np.ndindex(scan.shape):
        axes = zip(place, scan.shape, strict=True)
        centre = tuple(min((i + stride // 2) // stride * stride, n - 1) for i, n in axes)
        assert all(abs(i - j) <= stride / 2 for i, j in zip(place, centre, strict=True))
        assert found[place] == pytest.approx(every[centre], abs=1e-7)
    assert len(np.unique(found)) < len(np.unique(every)) / 4


def test_with_a_mask_voxel_occlusion_is_done_for_its_voxels_only(watched, scan):
    mask = np.zeros(SHAPE, bool)
    mask[2:5, :3, 2:] = True
    whole = voxel_occlusion(watched, scan, 1, 3)
    watched.batches.clear()
    found = voxel_occlusion(watched, scan, 1, 3, mask=mask)
    np.testing.assert_allclose(found, np.where(mask, whole, 0), rtol=1e-6, atol=1e-12)
    assert found.max() > 0
    assert len(watched.given) == 1 + mask.sum()
    np.testing.assert_array_equal(
        voxel_occlusion(watched, scan, 1, 3, mask=np.zeros(SHAPE, bool)), np.zeros(SHAPE)
    )


# --- areas ----------------------------------------------------------------------------------------


def areas_by_hand(model, scan, target, labels):
    heatmap = np.zeros(SHAPE)
    for value in set(labels.ravel().tolist()) - {0}:
        (heatmap[labels == value],) = drops_without(model, scan, [labels == value], target)
    return heatmap


@pytest.mark.parametrize("target", range(CLASSES))
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64])
def test_area_occlusion_is_each_area_taken_out_by_hand(model, scan, target, kind):
    # Labels with gaps between their values, and areas in many pieces.
    labels = np.random.default_rng(5).choice(np.array([0, 1, 2, 7, 40, 90, 91], kind), SHAPE)
    found = area_occlusion(model, scan, target, labels)
    close(found, areas_by_hand(model, scan, target, labels))
    assert (found[labels == 0] == 0).all()


def test_an_area_in_two_far_pieces_is_taken_out_at_once_and_nothing_between(watched, scan):
    labels = np.zeros(SHAPE, np.uint8)
    labels[0, 0, 0] = labels[6, 5, 4] = 3
    labels[2:5, 2:4, 1:4] = 8
    area_occlusion(watched, scan, 0, labels)
    np.testing.assert_array_equal(watched.given[1], np.where(labels == 3, 0, scan))
    np.testing.assert_array_equal(watched.given[2], np.where(labels == 8, 0, scan))
    assert len(watched.given) == 3


def test_without_an_area_the_heatmap_is_nought(model, scan):
    found = area_occlusion(model, scan, 0, np.zeros(SHAPE, np.uint8))
    np.testing.assert_array_equal(found, np.zeros(SHAPE))


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7, 6, 4), (7, 6), (1, 6, 5), (8, 6, 5)])
def test_labels_or_a_mask_on_another_grid_are_refused(model, scan, shape):
    with pytest.raises(ValueError, match=r"labels .* on the scan's grid"):
        area_occlusion(model, scan, 0, np.ones(shape, np.uint8))
    for method, options in ((occlusion, {"size": 3, "stride": 2}), (voxel_occlusion, {})):
        with pytest.raises(ValueError, match=r"mask .* on the scan's grid"):
            method(model, scan, 0, **options, mask=np.ones(shape, bool))


def test_a_spread_that_there_is_not_is_refused_with_those_there_are(model, scan):
    with pytest.raises(SetupFault, match=r"no spread 'mean'; allowed: nearest, average"):
        occlusion(model, scan, 0, 3, 2, spread="mean")


def test_a_cube_or_a_stride_of_nought_is_refused(model, scan):
    with pytest.raises(ValueError, match="stride is at least 1, not 0"):
        occlusion(model, scan, 0, 3, 0)
    for method, options in ((occlusion, {"stride": 2}), (voxel_occlusion, {})):
        with pytest.raises(ValueError, match="edge is at least one voxel, not 0"):
            method(model, scan, 0, size=0, **options)


def test_a_network_in_training_mode_is_refused(model, scan):
    with pytest.raises(SetupFault, match="training mode"):
        occlude(model.train(), scan, cubes(1, 3))


def test_a_batch_norm_that_knows_its_batch_only_is_refused(scan):
    model = nn.Sequential(nn.BatchNorm3d(1, track_running_stats=False), *network()).eval()
    with pytest.raises(SetupFault, match="batch norm without running statistics"):
        occlude(model, scan, cubes(1, 3))


@pytest.mark.parametrize("labels", [-np.ones(SHAPE, int), np.full(SHAPE, 1.5)])
def test_labels_that_are_none_are_refused(scan, labels):
    model = nn.Sequential(nn.Flatten(), nn.Linear(7 * 6 * 5, 2)).double().eval()
    with pytest.raises(ValueError, match="labels are whole numbers from 0 on"):
        area_occlusion(model, scan, 0, labels)
