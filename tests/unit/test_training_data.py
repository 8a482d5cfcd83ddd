from collections import Counter

import numpy as np
import pytest
import torch

import voxplain.training.data
from voxplain.faults import DataFault
from voxplain.training.data import ScanDataset, batches
from voxplain.training.statistics import VoxelStatistics, read_scan
from voxplain.volumes import axis_aligned_grid, write_array

GRID = axis_aligned_grid((5, 4, 3), (2, 2, 2), (-4, -6, -2))
SCAN_MB = 5 * 4 * 3 * 4 / 1e6


@pytest.fixture(scope="module")
def statistics():
    draw = np.random.default_rng(0)
    return VoxelStatistics(
        mean=draw.normal(100, 5, GRID.shape).astype("f4"),
        sd=draw.uniform(1, 3, GRID.shape).astype("f4"),
        mask=draw.uniform(size=GRID.shape) > 0.3,
        grid=GRID,
    )


@pytest.fixture(scope="module")
def volumes():
    return np.random.default_rng(1).normal(100, 5, (6, *GRID.shape)).astype("f4")


@pytest.fixture(scope="module")
def paths(volumes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    paths = [folder / f"scan{number}.nii.gz" for number in range(len(volumes))]
    for path, volume in zip(paths, volumes, strict=True):
        write_array(path, volume, GRID)
    return paths


@pytest.fixture
def reads(monkeypatch):
    """How often each file was read."""
    counts = Counter()

    def counted(path, grid):
        counts[path] += 1
        return read_scan(path, grid)

    monkeypatch.setattr(voxplain.training.data, "read_scan", counted)
    return counts


LABELS = [0, 1, 1, 0, 1, 0]


def test_an_item_is_a_normalised_scan_with_a_channel_and_its_class(paths, statistics, volumes):
    scans = ScanDataset(paths, LABELS, statistics)
    assert len(scans) == 6
    for number in range(6):
        tensor, label = scans[number]
        expected = (volumes[number].astype(float) - statistics.mean) / statistics.sd
        assert tensor.shape == (1, 5, 4, 3)
        assert tensor.dtype == torch.float32
        np.testing.assert_allclose(
            tensor[0].numpy(), np.where(statistics.mask, expected, 0), rtol=1e-4, atol=1e-5
        )
        assert label == LABELS[number]


def test_scans_that_fit_are_read_once(paths, statistics, reads):
    scans = ScanDataset(paths, LABELS, statistics, cache_mb=6.5 * SCAN_MB)
    assert scans.fits_in_cache
    first, second = ([scans[n][0].clone() for n in range(6)] for _ in range(2))
    assert reads == dict.fromkeys(paths, 1)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_cache_that_is_too_small_keeps_what_it_can_and_reads_the_rest_again(
    paths, statistics, reads
):
    scans = ScanDataset(paths, LABELS, statistics, cache_mb=2.5 * SCAN_MB)
    assert not scans.fits_in_cache
    passes = [[scans[n][0].clone() for n in (3, 0, 5, 1, 2, 4)] for _ in range(3)]
    assert reads == {path: 1 if n in (3, 0) else 3 for n, path in enumerate(paths)}
    for again in passes[1:]:
        assert all(torch.equal(a, b) for a, b in zip(passes[0], again, strict=True))


def test_without_a_cache_every_scan_is_read_every_time(paths, statistics, reads):
    scans = ScanDataset(paths, LABELS, statistics, cache_mb=0)
    for _ in range(2):
        for number in range(6):
            scans[number]
    assert reads == dict.fromkeys(paths, 2)


def test_a_volume_on_another_grid_is_refused_by_name_when_it_is_read(paths, statistics, tmp_path):
    other = tmp_path / "other.nii.gz"
    write_array(other, np.ones(GRID.shape), axis_aligned_grid(GRID.shape, (2, 2, 2), (0, 0, 0)))
    scans = ScanDataset([*paths[:2], other], [0, 1, 0], statistics)
    scans[1]
    with pytest.raises(DataFault) as fault:
        scans[2]
    assert str(other) in fault.value.reason
    assert "another grid" in fault.value.reason
    assert "\n" not in str(fault.value)


def test_a_missing_volume_is_refused_by_name(paths, statistics, tmp_path):
    scans = ScanDataset([tmp_path / "gone.nii.gz"], [0], statistics)
    with pytest.raises(DataFault, match=r"gone\.nii\.gz is missing"):
        scans[0]


def labelled(scans, *args, **options):
    """Batches, each as the places of its scans."""
    known = [scans[n][0] for n in range(len(scans))]
    return [
        [next(n for n, own in enumerate(known) if torch.equal(own, scan)) for scan in batch]
        for batch, _ in batches(scans, *args, **options)
    ]


def test_batches_without_a_generator_keep_the_order_and_the_remainder(paths, statistics):
    scans = ScanDataset(paths, LABELS, statistics)
    assert labelled(scans, 4) == [[0, 1, 2, 3], [4, 5]]
    (first, labels), _ = batches(scans, 4)
    assert first.shape == (4, 1, 5, 4, 3)
    assert labels.tolist() == LABELS[:4]


def test_a_generator_shuffles_all_scans_with_their_classes(paths, statistics):
    scans = ScanDataset(paths, list(range(6)), statistics)

    def order(seed):
        return labelled(scans, 4, generator=torch.Generator().manual_seed(seed))

    assert order(1) == order(1)
    assert len({str(order(seed)) for seed in range(8)}) > 4
    assert sorted(number for batch in order(1) for number in batch) == list(range(6))
    for batch, labels in batches(scans, 4, generator=torch.Generator().manual_seed(1)):
        for scan, label in zip(batch, labels, strict=True):
            assert torch.equal(scan, scans[int(label)][0])


@pytest.mark.parametrize(("cache_mb", "workers"), [(1000, 0), (2.5 * SCAN_MB, 2)])
def test_processes_read_ahead_only_where_not_all_scans_fit(paths, statistics, cache_mb, workers):
    scans = ScanDataset(paths, LABELS, statistics, cache_mb=cache_mb)
    assert batches(scans, 4, workers=2).num_workers == workers


def test_processes_give_the_same_batches(paths, statistics):
    whole = ScanDataset(paths, LABELS, statistics)
    parts = ScanDataset(paths, LABELS, statistics, cache_mb=0)
    one = list(batches(whole, 4, 0, torch.Generator().manual_seed(3)))
    two = list(batches(parts, 4, 1, torch.Generator().manual_seed(3)))
    for (scans, labels), (others, theirs) in zip(one, two, strict=True):
        assert torch.equal(scans, others)
        assert torch.equal(labels, theirs)
