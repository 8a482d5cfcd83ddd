from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from voxplain.comparison.residual import residual
from voxplain.faults import SetupFault
from voxplain.volumes import axis_aligned_grid, write_array
from voxplain_workflow.jobs.localisation import RESIDUAL, TRUTH, TargetRegions

SHAPE = (4, 3, 2)
MASK = np.ones(SHAPE, bool)
MASK[0] = False


def test_the_residual_is_the_absolute_difference_inside_the_mask():
    scan, twin = np.full(SHAPE, 0.5, np.float32), np.full(SHAPE, 0.5, np.float32)
    scan[1, 0, 0], scan[2, 1, 1], scan[3, 2, 0] = 0.75, 0.25, 0
    scan[0] = 9  # outside the template's brain
    left = residual(scan, twin, MASK)
    expected = np.zeros(SHAPE, np.float32)
    expected[1, 0, 0] = expected[2, 1, 1] = 0.25
    expected[3, 2, 0] = 0.5  # the scan's brain ends there, the twin's does not
    np.testing.assert_array_equal(left, expected)
    assert left.dtype == np.float32
    np.testing.assert_array_equal(residual(twin, scan, MASK)[1:], expected[1:])


def test_the_residual_of_a_scan_and_itself_is_zero():
    scan = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    assert not residual(scan, scan.copy(), MASK).any()


def test_unsigned_integers_do_not_wrap_around():
    scan, twin = np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.uint8)
    assert (residual(scan, twin, MASK)[MASK] == 1).all()


@pytest.mark.parametrize(
    ("scan", "twin", "mask", "message"),
    [
        (np.zeros((4, 3, 3)), np.zeros(SHAPE), MASK, "shape"),
        (np.zeros(SHAPE), np.zeros((4, 3)), MASK, "its twin of"),
        (np.zeros(SHAPE), np.zeros(SHAPE), MASK.astype(np.uint8), "expected bool"),
        (np.full(SHAPE, np.nan), np.zeros(SHAPE), MASK, "NaN or infinite"),
        (np.zeros(SHAPE), np.full(SHAPE, np.inf), MASK, "NaN or infinite"),
    ],
)
def test_volumes_that_cannot_be_compared_are_refused(scan, twin, mask, message):
    with pytest.raises(SetupFault, match=message):
        residual(scan, twin, mask)


# --- records of the scripts -----------------------------------------------------------------------

GRID = axis_aligned_grid(SHAPE, (4, 4, 4), (0, 0, 0))


@pytest.fixture
def inputs(tmp_path):
    """Files of two diseased scans; the twin of the second failed."""

    inputs = SimpleNamespace(
        mask=str(tmp_path / "mask.nii.gz"),
        regions=str(tmp_path / "regions.nii.gz"),
        names=str(tmp_path / "regions.tsv"),
    )
    for path in (inputs.mask, inputs.regions):
        write_array(path, MASK, GRID, np.uint8)
    (tmp_path / "regions.tsv").write_text("index\tname\n1\tcortex\n")
    for name in ("I1_truth", "I2_truth", "I1_residual"):
        volume = np.zeros(SHAPE)
        volume[1, 0, 0], volume[2, 0, 0] = 0.08, 0.2
        write_array(tmp_path / f"{name}.nii.gz", volume, GRID)
    (tmp_path / "I2_residual.nii.gz").touch()
    return inputs


def scans(inputs, residual=True):
    """Records of the two scans, from the params of a rule."""
    folder = Path(inputs.mask).parent
    return [
        {
            "image": image,
            "truth": str(folder / f"{image}_truth.nii.gz"),
            "residual": str(folder / f"{image}_residual.nii.gz") if residual else None,
        }
        for image in ("I1", "I2")
    ]


def target_regions(inputs, residual=True):
    settings = {"regions": ["cortex"], "truth_threshold": 0.05, "residual_threshold": 0.1}
    return TargetRegions(inputs, scans(inputs, residual), settings)


def test_a_scans_own_regions_come_first_each_with_its_own_threshold(inputs):
    regions = target_regions(inputs).of_scan("I1")
    assert list(regions) == [TRUTH, RESIDUAL, "cortex"]
    assert np.argwhere(regions[TRUTH]).tolist() == [[1, 0, 0], [2, 0, 0]]
    assert np.argwhere(regions[RESIDUAL]).tolist() == [[2, 0, 0]]
    assert list(target_regions(inputs).of_scan("I3")) == ["cortex"], "a scan without a disease"


def test_a_scan_whose_twin_failed_keeps_its_truth_and_a_log_line(inputs, capsys):
    assert list(target_regions(inputs).scan_specific("I2")) == [TRUTH]
    log = capsys.readouterr().out
    assert "I2: no residual, see the fate in" in log and "I2_residual.json" in log
    assert "I1" not in log


def test_without_residuals_there_is_only_the_truth(inputs):
    assert list(target_regions(inputs, residual=False).scan_specific("I1")) == [TRUTH]
