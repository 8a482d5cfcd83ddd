import numpy as np
import pytest
import torch

from voxplain.faults import DataFault
from voxplain.store import Brain, open_scan, write_scan
from voxplain.training.data import Batches, Scans
from voxplain.training.statistics import VoxelStatistics
from voxplain.volumes import axis_aligned_grid

GRID = axis_aligned_grid((5, 6, 4), (2, 2, 2), (-4, -6, -2))
CPU = torch.device("cpu")
LABELS = [0, 1, 1, 0, 1, 0, 2]


@pytest.fixture(scope="module")
def statistics():
    draw = np.random.default_rng(0)
    mask = draw.uniform(size=GRID.shape) > 0.3
    mask[0] = mask[:, :2] = mask[:, :, 3] = False
    return VoxelStatistics(
        mean=draw.normal(100, 5, GRID.shape).astype("f4"),
        sd=draw.uniform(1, 3, GRID.shape).astype("f4"),
        mask=mask,
        grid=GRID,
    )


@pytest.fixture(scope="module")
def volumes():
    return np.random.default_rng(1).normal(100, 5, (7, *GRID.shape)).astype("f4")


@pytest.fixture(scope="module")
def paths(volumes, statistics, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    paths = [folder / f"scan{number}.npy" for number in range(len(volumes))]
    for path, volume in zip(paths, volumes, strict=True):
        write_scan(path, volume, statistics.brain)
    return paths


@pytest.fixture
def scans(paths, statistics):
    return Scans(paths, LABELS, statistics)


def collected(batches, order):
    return [(scans.clone(), labels.tolist()) for scans, labels in batches.in_order(order)]


def test_batches_are_the_normalised_scans_in_their_order_with_their_classes(
    scans, statistics, volumes, paths
):
    order = [4, 0, 6, 2, 5, 1, 3]
    found = collected(Batches(scans, CPU, 3), order)
    assert [len(batch) for batch, _ in found] == [3, 3, 1]
    assert [label for _, labels in found for label in labels] == [LABELS[n] for n in order]
    together = torch.cat([batch for batch, _ in found])
    assert together.shape == (7, 1, *GRID.shape)
    assert together.dtype == torch.float32
    for scan, number in zip(together.numpy(), order, strict=True):
        exact = (volumes[number].astype(float) - statistics.mean) / statistics.sd
        np.testing.assert_allclose(scan[0], np.where(statistics.mask, exact, 0), atol=1e-3)
        # The same numbers as heatmaps are made from.
        stored = open_scan(paths[number], statistics.brain)
        np.testing.assert_array_equal(scan[0], statistics.normalise(stored))


@pytest.mark.parametrize("size", [1, 2, 4, 7, 20])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 7])
def test_the_size_of_batches_changes_nothing_else(scans, size, count):
    found = collected(Batches(scans, CPU, size), range(count))
    assert [len(batch) for batch, _ in found] == [size] * (count // size) + [
        left for left in [count % size] if left
    ]
    together = torch.cat([batch for batch, _ in found]) if found else torch.zeros(0)
    single = [batch for batch, _ in collected(Batches(scans, CPU, 1), range(count))]
    assert torch.equal(together, torch.cat(single) if single else torch.zeros(0))


def test_a_window_shows_its_part_of_the_grid(scans, statistics):
    window = ((1, 5), (1, 6), (0, 3))
    (whole, _), (part, _) = (
        collected(Batches(scans, CPU, 7, shown), range(7))[0] for shown in (None, window)
    )
    assert torch.equal(part, whole[:, :, 1:5, 1:6, 0:3])
    (_, _, (first, last)) = statistics.brain.box
    with pytest.raises(ValueError, match="cuts the brain"):
        Batches(scans, CPU, 2, ((0, 5), (0, 6), (first, last - 1)))


def test_the_same_batches_can_be_asked_for_again(scans):
    batches = Batches(scans, CPU, 3)
    first, second = collected(batches, range(7)), collected(batches, range(7))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, second, strict=True))


def test_whoever_stops_early_leaves_the_batches_as_they_were(scans):
    batches = Batches(scans, CPU, 2)
    expected = collected(batches, [3, 1, 6, 2])
    for _ in batches.in_order([0, 4, 5, 6, 1]):
        break
    found = collected(batches, [3, 1, 6, 2])
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(found, expected, strict=True))


def test_codes_that_are_kept_on_the_device_give_the_same_batches(scans, monkeypatch):
    """What a GPU does with a cohort that fits, on the CPU."""
    streamed = Batches(scans, CPU, 3)
    kept = Batches(scans, CPU, 3)
    kept._resident = torch.stack([torch.from_numpy(np.array(s.codes)) for s in scans.stored])
    monkeypatch.setattr(kept, "_read", None)  # nothing is read from disk
    order = [5, 2, 2, 0, 6]
    for (a, mine), (b, theirs) in zip(
        collected(streamed, order), collected(kept, order), strict=True
    ):
        assert torch.equal(a, b)
        assert mine == theirs


def test_a_fault_of_the_disk_reaches_the_caller(scans, monkeypatch):
    batches = Batches(scans, CPU, 2)

    def fails(part, turn):
        raise OSError("the disk is gone")

    monkeypatch.setattr(batches, "_read", fails)
    with pytest.raises(OSError, match="the disk is gone"):
        list(batches.in_order(range(4)))


def test_a_scan_of_another_mask_is_refused_before_anything_is_computed(paths, statistics, tmp_path):
    other = tmp_path / "other.npy"
    write_scan(other, np.ones(GRID.shape), Brain(~statistics.mask))
    with pytest.raises(DataFault, match="another brain mask") as fault:
        Scans([*paths[:2], other], [0, 1, 0], statistics)
    assert str(other) in fault.value.reason


def test_a_missing_scan_is_refused_by_name(statistics, tmp_path):
    with pytest.raises(DataFault, match=r"gone\.npy is missing"):
        Scans([tmp_path / "gone.npy"], [0], statistics)
