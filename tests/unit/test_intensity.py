from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from voxplain.anatomy.intensity import correct_bias, intensity_scale, is_already_corrected
from voxplain.faults import DataFault
from voxplain.volumes import axis_aligned_grid, write_array

# --- N4 -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corrected(scan):
    return correct_bias(scan.head_path, scan.mask_path)


@pytest.fixture(scope="module")
def core(scan):
    """The brain's bright tissue, where noise is small compared with the signal."""
    return ndimage.binary_erosion(scan.mask) & (scan.clean > 300)


def spread(field):
    """SD of the logarithm of a multiplicative field."""
    return float(np.log(field).std())


@pytest.mark.slow
def test_n4_removes_most_of_a_known_field(scan, corrected, core):
    before = spread(scan.field[core])
    after = spread(corrected[core] / scan.clean[core])
    assert before > 0.1
    assert after < before / 2


@pytest.mark.slow
def test_n4_makes_white_matter_more_even(scan, corrected):
    white = ndimage.binary_erosion(scan.mask & (scan.clean > 540))
    assert white.sum() > 5_000

    def unevenness(volume):
        smooth = ndimage.gaussian_filter(np.where(white, volume, 0), 3)
        share = ndimage.gaussian_filter(white.astype(float), 3)
        level = smooth[white] / share[white]
        return level.std() / level.mean()

    assert unevenness(corrected) < 0.6 * unevenness(scan.volume)


@pytest.mark.slow
def test_n4_gives_positive_values_inside_the_mask_and_zero_outside(scan, corrected):
    assert corrected.dtype == np.float32
    assert corrected.shape == scan.grid.shape
    assert not corrected[~scan.mask].any()
    assert (corrected[scan.mask] >= 0).all()
    assert (corrected[scan.mask] > 0).mean() > 0.999
    assert np.isfinite(corrected).all()


@pytest.fixture(scope="module")
def block(tmp_path_factory):
    """A small brain of grey and white matter with an intensity field, and its mask."""
    grid = axis_aligned_grid((20, 24, 20), (6.0, 6.0, 6.0), (-60, -72, -60))
    mask = np.zeros(grid.shape, bool)
    mask[3:-3, 3:-3, 3:-3] = True
    texture = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=grid.shape), 1)
    tissue = np.where(texture > 0, 100, 65) + 100 * texture / 10
    volume = np.where(mask, tissue * np.linspace(0.8, 1.2, 20).reshape(-1, 1, 1), 5)
    path = tmp_path_factory.mktemp("block") / "mask.nii.gz"
    write_array(path, mask, grid, np.uint8)
    return SimpleNamespace(volume=volume, mask=mask, mask_path=path, grid=grid)


def corrected_block(block, volume, folder):
    write_array(folder / "head.nii.gz", volume, block.grid)
    return correct_bias(folder / "head.nii.gz", block.mask_path)


@pytest.mark.slow
def test_the_gain_of_a_scan_does_not_matter(block, tmp_path):
    once = corrected_block(block, block.volume, tmp_path)
    twice = corrected_block(block, block.volume * 2, tmp_path)
    assert np.median(twice[block.mask] / once[block.mask]) > 1.5  # the gain is left to the scale
    for method in ("percentile", "white_matter"):
        scaled, again = (result / intensity_scale(result, method) for result in (once, twice))
        np.testing.assert_allclose(again, scaled, atol=0.02)
        assert 0.8 < np.percentile(scaled[block.mask], 95) < 1.3


@pytest.mark.slow
def test_n4_accepts_a_scan_with_negative_intensities(block, tmp_path):
    result = corrected_block(block, block.volume - 200, tmp_path)  # the whole brain below 0
    above_air = np.median(block.volume[block.mask]) - 5
    assert np.isfinite(result).all()
    assert np.median(result[block.mask]) == pytest.approx(above_air, rel=0.2)
    assert (result[block.mask] > 0).mean() > 0.999
    assert not result[~block.mask].any()


# --- corrections done before ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "MPR; GradWarp; B1 Correction; N3; Scaled",
        "MPR-R; GradWarp; N3",
        "MPR; ; N3 <- MP-RAGE",
        "mprage n3 corrected",
        "T1 N4",
        "DIS2D_N3",
        "MT1; GradWarp; N3m; NUC",
    ],
)
def test_a_description_with_n3_or_similar_means_a_corrected_scan(text):
    assert is_already_corrected(["", text])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MP-RAGE",
        "MPR; GradWarp; B1 Correction",
        "SN30",
        "N30",
        "MPRAGE_GRAPPA2",
        "nuclear",
        "I3",
    ],
)
def test_other_descriptions_mean_an_uncorrected_scan(text):
    assert not is_already_corrected([text, "ORIGINAL", "PRIMARY"])


def test_no_description_means_an_uncorrected_scan():
    assert not is_already_corrected([])


# --- one scale per scan ---------------------------------------------------------------------------


def brain_of(values):
    """A volume with values inside, and air around."""
    brain = np.zeros((40, 40, 40), np.float32)
    brain.reshape(-1)[: len(values)] = values
    return brain


def test_the_percentile_is_computed_inside_the_brain():
    brain = brain_of(np.arange(1, 1001))
    assert intensity_scale(brain, "percentile") == pytest.approx(980, abs=0.5)


def test_the_white_matter_scale_is_the_mode_of_white_matter():
    draw = np.random.default_rng(0)
    values = np.concatenate([draw.normal(60, 6, 30_000), draw.normal(100, 5, 25_000)])
    assert intensity_scale(brain_of(values), "white_matter") == pytest.approx(100, rel=0.03)


def test_without_scaling_intensities_are_unchanged():
    assert intensity_scale(brain_of([5, 6, 7]), "none") == 1


@given(gain=st.floats(1e-3, 1e4), method=st.sampled_from(["percentile", "white_matter"]))
def test_a_scaled_brain_does_not_depend_on_the_gain(gain, method):
    draw = np.random.default_rng(0)
    brain = brain_of(np.concatenate([draw.normal(60, 6, 3_000), draw.normal(100, 5, 2_500)]))
    scale = intensity_scale(brain, method)
    assert intensity_scale(brain * gain, method) == pytest.approx(scale * gain, rel=1e-3)
    assert intensity_scale(brain / scale, method) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("method", ["percentile", "white_matter", "none"])
@pytest.mark.parametrize("value", [0.0, -3.0])
def test_a_brain_without_positive_intensity_is_a_fault_of_the_data(method, value):
    with pytest.raises(DataFault, match="no positive intensity"):
        intensity_scale(np.full((4, 4, 4), value), method)


@pytest.mark.parametrize("name", ["MPR__GradWarp__B1_Correction__N3__Scaled", "MPR____N3m_2"])
def test_the_archives_folder_names_mean_n3_too(name):
    assert is_already_corrected([name])


@pytest.mark.slow
def test_a_failed_n4_is_an_error(scan, monkeypatch):
    """antspyx returns a copy of the image if N4 ended with an error."""
    import ants

    monkeypatch.setattr(ants, "n4_bias_field_correction", lambda image, **_: image.clone())
    with pytest.raises(RuntimeError, match="N4 ended without a field"):
        correct_bias(scan.head_path, scan.mask_path)
