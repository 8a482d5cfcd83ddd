from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from voxplain.faults import DataFault, SetupFault
from voxplain.store import Brain, open_scan, write_scan
from voxplain.training.data import Batches, Scans, plan_batches
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
    batches = collected(Batches(scans, CPU, 3), order)
    assert [len(batch) for batch, _ in batches] == [3, 3, 1]
    assert [label for _, labels in batches for label in labels] == [LABELS[n] for n in order]
    together = torch.cat([batch for batch, _ in batches])
    assert together.shape == (7, 1, *GRID.shape)
    assert together.dtype == torch.float32
    for scan, number in zip(together.numpy(), order, strict=True):
        exact = (volumes[number].astype(float) - statistics.mean) / statistics.sd
        np.testing.assert_allclose(scan[0], np.where(statistics.mask, exact, 0), atol=1e-3)
        # The same values as heatmaps are made from.
        stored = open_scan(paths[number], statistics.brain)
        np.testing.assert_array_equal(scan[0], statistics.normalise(stored))


@pytest.mark.parametrize("size", [1, 2, 4, 7, 20])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 7])
def test_the_batch_size_does_not_change_the_scans(scans, size, count):
    batches = collected(Batches(scans, CPU, size), range(count))
    assert [len(batch) for batch, _ in batches] == [size] * (count // size) + [
        left for left in [count % size] if left
    ]
    together = torch.cat([batch for batch, _ in batches]) if batches else torch.zeros(0)
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


def test_the_same_batches_can_be_read_again(scans):
    batches = Batches(scans, CPU, 3)
    first, second = collected(batches, range(7)), collected(batches, range(7))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, second, strict=True))


def test_stopping_early_does_not_change_later_batches(scans):
    batches = Batches(scans, CPU, 2)
    expected = collected(batches, [3, 1, 6, 2])
    for _ in batches.in_order([0, 4, 5, 6, 1]):
        break
    result = collected(batches, [3, 1, 6, 2])
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(result, expected, strict=True))


def test_scans_kept_on_the_device_give_the_same_batches(scans, monkeypatch):
    """As on a GPU with a cohort that fits into its memory, but on the CPU."""
    streamed = Batches(scans, CPU, 3)
    resident = Batches(scans, CPU, 3)
    resident._resident = torch.stack([torch.from_numpy(np.array(s.codes)) for s in scans.stored])
    monkeypatch.setattr(resident, "_read", None)  # nothing is read from disk
    order = [5, 2, 2, 0, 6]
    for (a, streamed_labels), (b, resident_labels) in zip(
        collected(streamed, order), collected(resident, order), strict=True
    ):
        assert torch.equal(a, b)
        assert streamed_labels == resident_labels


def test_a_read_error_is_raised_to_the_caller(scans, monkeypatch):
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


# --- the batches of an epoch ----------------------------------------------------------------------


def planned(labels, batch_size, every_class=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return plan_batches(labels, batch_size, generator, every_class)


def flat(batches):
    return [number for batch in batches for number in batch]


SOME_LABELS = st.lists(st.integers(0, 3), min_size=1, max_size=40)


@given(count=st.integers(0, 40), size=st.integers(2, 12), seed=st.integers(0, 3))
def test_an_epoch_has_every_scan_once_and_no_batch_of_one_scan(count, size, seed):
    batches = planned([0] * count, size, seed=seed)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    assert all(len(batch) <= size for batch in batches)
    if size == 2 and count % 2 and count > 1:
        assert flat(batches) == [*order, order[0]]  # so that the last is not alone
    else:
        assert sorted(flat(batches)) == list(range(count))
        # If one scan would be left over, it gets the last one of the batch before.
        single_left = size > 2 and count % size == 1 and count > 1
        sizes = [size] * (count // size) + [left for left in [count % size] if left]
        assert [len(batch) for batch in batches] == (
            [*sizes[:-2], size - 1, 2] if single_left else sizes
        )
        assert single_left or flat(batches) == order
    assert count == 1 or all(len(batch) > 1 for batch in batches)
    assert all(len(set(batch)) == len(batch) for batch in batches)


@given(labels=SOME_LABELS, size=st.integers(2, 9), seed=st.integers(0, 3))
def test_every_batch_holds_every_class_if_requested(labels, size, seed):
    counts = Counter(labels)
    assume(1 < len(counts) <= size)
    batches = planned(labels, size, True, seed)
    number = len(batches)
    for batch in batches:
        assert {labels[scan] for scan in batch} == set(counts)
        assert len(set(batch)) == len(batch) <= size
    sizes = [len(batch) for batch in batches]
    assert max(sizes) - min(sizes) <= 1
    drawn = Counter(flat(batches))
    assert drawn.keys() == set(range(len(labels)))  # no scan is left out
    for each, count in counts.items():
        of_class = [drawn[scan] for scan, label in enumerate(labels) if label == each]
        assert sum(of_class) == max(count, number)
        assert max(of_class) - min(of_class) <= 1
    # One batch less could not hold all scans.
    assert number == 1 or (
        -(-len(labels) // size) > number - 1
        or sum(max(count, number - 1) for count in counts.values()) > (number - 1) * size
    )


def test_classes_of_the_papers_sizes_are_drawn_once_each():
    # Yang et al. 2018: 47 and 56 subjects, batches of five; Rieke et al. 2018: 399 and 395 scans.
    for counts, size, expected in (((47, 56), 5, 21), ((47, 56), 3, 35), ((399, 395), 5, 159)):
        labels = [label for label, count in enumerate(counts) for _ in range(count)]
        batches = planned(labels, size, every_class=True)
        assert len(batches) == expected
        assert sorted(flat(batches)) == list(range(len(labels)))


def test_scans_of_a_rare_class_are_repeated():
    labels = [0] * 20 + [1] * 3
    batches = planned(labels, 4, every_class=True)
    # Five batches, with one scan of the rare class each, hold only 5 * 3 others; seven hold 21.
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4, 4, 3]
    rare = [scan for batch in batches for scan in batch if scan >= 20]
    assert len(rare) == 7
    assert sorted(rare[:3]) == sorted(rare[3:6]) == [20, 21, 22]


def test_batches_depend_on_the_generator_only():
    labels = [0, 1] * 10
    first, again, other = (planned(labels, 5, True, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    # Over many epochs, any two scans of two classes are in one batch equally often.
    meetings = np.zeros((20, 20))
    for seed in range(600):
        for batch in planned(labels, 5, True, seed):
            meetings[np.ix_(batch, batch)] += 1
    across = meetings[::2, 1::2] / 600
    # Beside one of each class a batch has three of the twelve others, h of them of one class:
    # E[(1 + h) (4 - h)] = 5.636 pairs in each of four batches, of 100 pairs in all.
    assert across.mean() == pytest.approx(0.2255, abs=0.002)
    assert np.ptp(across) < 0.12  # seven standard deviations


@pytest.mark.parametrize("every_class", [False, True])
def test_scans_of_one_class_are_batched_the_same_in_both_ways(every_class):
    assert planned([1] * 11, 5, every_class) == planned([0] * 11, 5)


def test_batches_too_small_for_all_classes_are_refused_with_both_numbers():
    with pytest.raises(SetupFault, match=r"batch_size is 2, .* 3 classes; choose 3") as e:
        planned([0, 1, 2, 0, 1, 2], 2, every_class=True)
    assert "\n" not in str(e.value)
    with pytest.raises(SetupFault, match=r"batch_size is 1, expected 2 or more"):
        planned([0, 1], 1)


def test_given_lists_of_scans_are_the_batches(scans):
    parts = [[4, 0, 6], [2, 2], [5, 1, 3]]
    batches = [
        (batch.clone(), labels.tolist()) for batch, labels in Batches(scans, CPU, 3).in_parts(parts)
    ]
    assert [labels for _, labels in batches] == [[LABELS[n] for n in part] for part in parts]
    single = [batch for batch, _ in collected(Batches(scans, CPU, 1), range(7))]
    for (batch, _), part in zip(batches, parts, strict=True):
        assert torch.equal(batch, torch.cat([single[number] for number in part]))
