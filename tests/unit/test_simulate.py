from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from voxplain.cohort.heads import Head
from voxplain.cohort.simulate import (
    CSF_LEVEL,
    ScannerSettings,
    area_loss,
    atrophy_field,
    individual_anatomy,
    lose_tissue,
    shrinkage,
    simulate_scan,
    tissue,
)
from voxplain.volumes import axis_aligned_grid, centres_mm

DISEASE = ("Hippocampus", "ParaHippocampal", "Amygdala", "Temporal_Mid", "Temporal_Inf")
SCANNER = ScannerSettings(
    deformation_mm=3.0,
    rotation_deg=8,
    translation_mm=6,
    bias=0.15,
    noise=0.03,
    gain=0.2,
    voxel_size_mm=(3.0, 3.4),
)


def labels_of(aal, *areas):
    return [value for values in aal.values_of(areas).values() for value in values]


def sampled(array, grid, places):
    """Values at places in mm, linear."""
    origin, sizes = grid.matrix[:3, 3], np.array(grid.voxel_size)
    indices = (places - origin.reshape(3, 1, 1, 1)) / sizes.reshape(3, 1, 1, 1)
    return ndimage.map_coordinates(np.asarray(array, np.float32), indices, order=1, mode="nearest")


def jacobian(field, grid):
    """Determinant of the Jacobian of a pull-back displacement."""
    gradients = [np.gradient(component, *grid.voxel_size, axis=(0, 1, 2)) for component in field]
    matrices = np.eye(3) + np.moveaxis(np.array(gradients), (0, 1), (-2, -1))
    return np.linalg.det(matrices)


class Atrophy:
    """A head whose areas lost a fraction of their tissue, moved as the simulator moves it."""

    def __init__(self, head, labels, fraction):
        self.head = head
        self.loss = area_loss(head, dict.fromkeys(labels, fraction))
        self.field, self.grid = atrophy_field(head, self.loss)
        places = centres_mm(head.grid)
        self.displacement = np.stack([sampled(c, self.grid, places) for c in self.field])
        self.sources = places + self.displacement
        self.thinned = 1 - shrinkage(sampled(self.loss, head.grid, self.sources))

    def lost(self, labels):
        """The fraction of tissue that areas have lost, counted before and after."""
        before = np.where(np.isin(self.head.areas, labels), tissue(self.head), 0)
        after = sampled(before, self.head.grid, self.sources) * self.thinned
        return 1 - after.sum(dtype=float) / before.sum(dtype=float)


@pytest.fixture(scope="module")
def atrophy(head, aal):
    """The default disease at its full strength."""
    return Atrophy(head, labels_of(aal, *DISEASE), 0.3)


# --- atrophy --------------------------------------------------------------------------------------


def test_the_diseased_areas_lose_about_the_tissue_asked_for_and_never_more(atrophy, aal):
    assert 0.25 < atrophy.lost(labels_of(aal, *DISEASE)) <= 0.3
    for area in DISEASE:
        assert 0.2 < atrophy.lost(labels_of(aal, area)) <= 0.3, area


@pytest.mark.parametrize("asked", [0.1, 0.6])
def test_the_tissue_lost_follows_the_fraction_asked_for(head, aal, asked):
    labels = labels_of(aal, "Temporal_Mid")
    assert 0.8 * asked < Atrophy(head, labels, asked).lost(labels) <= asked


def test_an_area_on_one_side_shrinks_alone(head, aal):
    left = Atrophy(head, labels_of(aal, "Hippocampus_L"), 0.3)
    assert 0.2 < left.lost(labels_of(aal, "Hippocampus_L")) <= 0.3
    assert abs(left.lost(labels_of(aal, "Hippocampus_R"))) < 0.002


def test_areas_elsewhere_stay_as_they_were(atrophy, aal):
    far = ("Precentral", "Frontal_Sup", "Postcentral", "Cuneus", "Parietal_Sup", "Cerebelum_8")
    for area in far:
        assert abs(atrophy.lost(labels_of(aal, area))) < 0.01, area
    for area in ("Thalamus", "Temporal_Sup", "Fusiform", "Occipital_Mid", "Caudate"):
        assert abs(atrophy.lost(labels_of(aal, area))) < 0.04, area


def test_the_skull_stays(atrophy, head):
    size = head.grid.voxel_size[0]
    beyond_mm = ndimage.distance_transform_edt(~head.brain) * size
    moved = np.sqrt((atrophy.displacement**2).sum(axis=0))
    bone = (beyond_mm > 6) & (beyond_mm < 12)
    assert np.percentile(moved[bone], 95) < 0.5
    assert moved[bone].mean() < 0.2
    assert moved[bone].max() < 1
    assert moved[beyond_mm > 40].max() < 0.2
    assert moved[head.brain].max() > 1  # while the brain does move


def test_the_skull_stays_where_only_the_hippocampus_shrinks(head, aal):
    atrophy = Atrophy(head, labels_of(aal, "Hippocampus"), 0.3)
    beyond_mm = ndimage.distance_transform_edt(~head.brain) * head.grid.voxel_size[0]
    moved = np.sqrt((atrophy.displacement**2).sum(axis=0))
    assert moved[(beyond_mm > 6) & (beyond_mm < 12)].max() < 0.2


def test_the_map_of_atrophy_folds_nowhere(atrophy):
    determinant = jacobian(atrophy.field, atrophy.grid)
    assert determinant.min() > 0.2
    assert determinant.mean() == pytest.approx(1, abs=0.01)


def test_tissue_contracts_by_half_of_the_loss_and_fluid_takes_the_room(atrophy, head, aal):
    determinant = jacobian(atrophy.field, atrophy.grid)
    there = sampled(determinant, atrophy.grid, centres_mm(head.grid))
    inside = ndimage.binary_erosion(
        np.isin(head.areas, labels_of(aal, "Temporal_Mid")) & (tissue(head) > 0.99)
    )
    # The pull-back stretches by 1 / (1 - c), (1 - c)**2 being what is left of the tissue.
    assert np.median(there[inside]) == pytest.approx(1 / np.sqrt(0.7), abs=0.04)
    fluid = np.where(head.brain, 1 - tissue(head), 0) > 0.9
    near = ndimage.binary_dilation(inside, iterations=4) & fluid
    assert there[near].mean() < 0.9


def test_without_disease_nothing_moves(head):
    loss = area_loss(head, {})
    assert not loss.any()
    field, _ = atrophy_field(head, loss)
    assert not field.any()


def test_the_loss_lies_in_the_tissue_of_the_areas_and_is_at_most_what_was_asked(head, aal):
    labels = labels_of(aal, "Hippocampus")
    loss = area_loss(head, dict.fromkeys(labels, 0.4))
    assert loss.max() <= 0.4 + 1e-6
    assert loss.max() == pytest.approx(0.4, abs=0.02)
    assert loss.min() >= 0
    around = np.ones((3, 3, 3), bool)
    near = ndimage.binary_dilation(np.isin(head.areas, labels), around, iterations=2)
    assert not loss[~near].any()
    assert not loss[tissue(head) == 0].any()
    assert loss[np.isin(head.areas, labels)].sum() / loss.sum() > 0.7


@given(loss=st.floats(0, 0.95))
def test_contraction_and_thinning_together_make_the_loss(loss):
    contraction = shrinkage(np.array(loss))
    left_by_thinning = lose_tissue(np.array(1.0), np.array(loss)) - CSF_LEVEL
    thinned = left_by_thinning / (1 - CSF_LEVEL)
    assert (1 - contraction) * thinned == pytest.approx(1 - loss)


@given(brightness=st.floats(0, 2), loss=st.floats(0, 0.95))
def test_losing_tissue_darkens_tissue_towards_fluid_and_leaves_the_dark_alone(brightness, loss):
    result = float(lose_tissue(np.array(brightness), np.array(loss)))
    if brightness > CSF_LEVEL:
        assert CSF_LEVEL - 1e-9 <= result <= brightness + 1e-9
    else:
        assert result == brightness


def test_tissue_is_the_brains_grey_and_white_matter(head):
    fraction = tissue(head)
    assert fraction.min() == 0 and fraction.max() == 1
    assert not fraction[~head.brain].any()
    assert (fraction[head.brain & (head.t1 > 0.6)] == 1).all()
    assert not fraction[head.t1 <= CSF_LEVEL].any()


# --- anatomy --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sd_mm", [3.0, 4.0])
def test_a_persons_anatomy_folds_nowhere(head, sd_mm):
    for seed in range(6):
        field, grid = individual_anatomy(head.grid, seed, sd_mm)
        assert jacobian(field, grid).min() > 0.05, seed


@settings(max_examples=5)
@given(seed=st.integers(0, 2**32 - 1), sd_mm=st.floats(0.5, 4))
def test_a_persons_anatomy_comes_from_its_seed_and_has_the_size_asked_for(seed, sd_mm):
    grid = axis_aligned_grid((50, 60, 55), (4.0, 4.0, 4.0), (-100, -120, -110))
    field, own = individual_anatomy(grid, seed, sd_mm)
    again, _ = individual_anatomy(grid, seed, sd_mm)
    other, _ = individual_anatomy(grid, seed + 1, sd_mm)
    np.testing.assert_array_equal(field, again)
    assert abs(field - other).max() > sd_mm
    assert field.shape == (3, *own.shape)
    np.testing.assert_allclose(field.std(axis=(1, 2, 3)), sd_mm, rtol=0.25)


# --- whole scans ----------------------------------------------------------------------------------


def scan_of(head, losses=None, ageing=0.0, anatomy_seed=5, scan_seed=6, scanner=SCANNER):
    return simulate_scan(head, losses or {}, ageing, anatomy_seed, scan_seed, scanner)


@pytest.fixture(scope="module")
def healthy(head, quiet):
    return scan_of(head, scanner=quiet)


@pytest.fixture(scope="module")
def diseased(head, quiet, aal):
    return scan_of(head, dict.fromkeys(labels_of(aal, *DISEASE), 0.3), scanner=quiet)


def test_the_same_seeds_give_the_same_scan_voxel_by_voxel(coarse_head, aal):
    losses = dict.fromkeys(labels_of(aal, "Hippocampus"), 0.3)
    first = scan_of(coarse_head, losses, 0.03)
    second = scan_of(coarse_head, losses, 0.03)
    np.testing.assert_array_equal(first.volume, second.volume)
    np.testing.assert_array_equal(first.truth, second.truth)
    assert first.grid == second.grid


def test_another_scan_of_a_person_differs_in_pose_and_noise(coarse_head):
    first, second = scan_of(coarse_head), scan_of(coarse_head, scan_seed=7)
    assert first.grid.shape != second.grid.shape or (first.volume != second.volume).mean() > 0.5


def test_another_person_differs_in_anatomy(coarse_head):
    first, second = scan_of(coarse_head), scan_of(coarse_head, anatomy_seed=7)
    assert first.grid == second.grid
    assert (abs(first.volume.astype(int) - second.volume) > 60).mean() > 0.05


def test_a_scan_is_stored_as_a_scanner_stores_it(coarse_head):
    scan = scan_of(coarse_head)
    assert scan.volume.dtype == np.uint16
    assert scan.volume.max() <= 4095
    assert scan.volume.shape == scan.truth.shape == scan.grid.shape
    slice_mm, *pixel_mm = scan.grid.voxel_size
    assert pixel_mm[0] == pixel_mm[1]
    assert 3.0 <= pixel_mm[0] <= 3.4
    assert slice_mm == pytest.approx(1.2 * pixel_mm[0], abs=1e-3)
    field_of_view = np.array(scan.grid.shape) * scan.grid.voxel_size
    np.testing.assert_allclose(field_of_view, (200, 240, 240), atol=slice_mm)
    middle = scan.grid.matrix[:3, 3] + (field_of_view - scan.grid.voxel_size) / 2
    np.testing.assert_allclose(middle, 0, atol=1e-6)


def test_a_quiet_scanner_shows_the_head_as_it_is(head, healthy):
    # The scanner's middle is the middle of the brain's bounding box, a centimetre higher.
    corners = np.argwhere(head.brain)
    middle = head.grid.matrix[:3, 3] + 2.5 * (corners.min(axis=0) + corners.max(axis=0)) / 2
    places = centres_mm(healthy.grid) + (middle + np.array([0, 0, 10])).reshape(3, 1, 1, 1)
    expected = sampled(head.t1, head.grid, places)
    assert expected.max() > 1
    np.testing.assert_allclose(healthy.volume / 600, expected, atol=2e-3)


def test_a_healthy_scan_has_no_true_atrophy(healthy):
    assert not healthy.truth.any()
    assert healthy.truth.dtype == np.float32


def test_the_true_atrophy_lies_in_the_areas_and_is_at_most_the_loss(diseased, head, aal, quiet):
    assert diseased.truth.max() <= 0.3 + 1e-6
    assert diseased.truth.max() > 0.28
    assert diseased.truth.min() >= 0
    # Where the areas come to lie: a scan of a head that shines where they are, and near by.
    around = np.ones((3, 3, 3), bool)
    inside = np.isin(head.areas, labels_of(aal, *DISEASE))
    near = ndimage.binary_dilation(inside, around, iterations=2).astype(np.float32)
    shining = scan_of(replace(head, t1=near), scanner=quiet).volume > 0
    moved = ndimage.binary_dilation(shining, around)  # by less than 2.5 mm
    assert not diseased.truth[~moved].any()
    assert 0.005 < (diseased.truth > 0.15).mean() < 0.02


def test_atrophy_shows_in_the_scan_where_the_truth_says_and_hardly_elsewhere(healthy, diseased):
    change = diseased.volume.astype(float) - healthy.volume
    inside = diseased.truth > 0.15
    far = ndimage.distance_transform_edt(~inside) * 2.5 > 30
    assert change[inside].mean() < -40  # of 600, towards fluid
    assert abs(change[far]).mean() < 1
    # What the scan has lost of its brightness above fluid, against what the areas had.
    had = np.clip(healthy.volume[inside] / 600 - CSF_LEVEL, 0, None).sum()
    assert -change.sum() / 600 / had == pytest.approx(0.3, abs=0.1)


def test_ageing_takes_tissue_from_the_whole_brain(head, healthy, quiet):
    old = scan_of(head, ageing=0.05, scanner=quiet)
    assert not old.truth.any()
    brain = scan_of(
        Head(head.brain.astype(np.float32), head.brain, head.areas, head.grid), scanner=quiet
    )
    inside = brain.volume > 300
    above = [
        np.clip(scan.volume[inside] / 600 - CSF_LEVEL, 0, None).sum() for scan in (healthy, old)
    ]
    assert 1 - above[1] / above[0] == pytest.approx(0.05, abs=0.02)
    assert (old.volume[inside] < 300).sum() > 1.02 * (healthy.volume[inside] < 300).sum()


def test_noise_is_that_of_a_magnitude_image(coarse_head, quiet):
    noisy = scan_of(coarse_head, scanner=replace(quiet, noise=0.05))
    air = noisy.volume[:, :8, -8:].astype(float) / 600  # a corner behind and above the head
    # A Rayleigh distribution: the mean is sigma * sqrt(pi / 2).
    assert air.mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.03)
    assert air.std() == pytest.approx(0.05 * np.sqrt(2 - np.pi / 2), rel=0.05)


def test_gain_and_intensity_field_change_brightness_and_not_anatomy(head, healthy, quiet):
    field = scan_of(head, scanner=replace(quiet, bias=0.2, gain=0.3))
    bright = healthy.volume > 300
    change = np.log(field.volume[bright] / healthy.volume[bright])
    spread = change - change.mean()
    assert 0.05 < spread.std() < 0.3
    assert abs(change.mean()) < np.log(1.3) + 0.2
    # Smooth: neighbours change alike.
    whole = np.where(bright, field.volume / np.maximum(healthy.volume, 1), np.nan)
    assert np.nanmax(abs(np.diff(whole, axis=2))) < 0.1
