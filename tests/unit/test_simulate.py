from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from voxplain.anatomy.skull import find_brain, find_tool
from voxplain.cohort.atrophy import (
    CSF_LEVEL,
    LARGEST_LOSS,
    area_loss,
    atrophy_field,
    draw_losses,
    individual_anatomy,
    jacobian,
    lose_tissue,
    shrinkage,
    tissue,
)
from voxplain.cohort.effects import TOLERANCE
from voxplain.cohort.heads import Head
from voxplain.cohort.scanner import ScannerSettings, compose_kspace
from voxplain.cohort.shortcuts import Shortcut, add_shortcut
from voxplain.cohort.simulate import simulate_scan
from voxplain.volumes import axis_aligned_grid, centres_mm, read_image, write_array

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


def determinant(field, grid):
    """Determinant of the Jacobian of a pull-back displacement, by linear algebra."""
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


@pytest.mark.slow
def test_the_diseased_areas_lose_about_the_tissue_asked_for_and_never_more(atrophy, aal):
    assert 0.25 < atrophy.lost(labels_of(aal, *DISEASE)) <= 0.3
    for area in DISEASE:
        assert 0.2 < atrophy.lost(labels_of(aal, area)) <= 0.3, area


@pytest.mark.slow
@pytest.mark.parametrize("asked", [0.1, 0.6])
def test_the_tissue_lost_follows_the_fraction_asked_for(head, aal, asked):
    labels = labels_of(aal, "Temporal_Mid")
    assert 0.8 * asked < Atrophy(head, labels, asked).lost(labels) <= asked


@pytest.mark.slow
def test_an_area_on_one_side_shrinks_alone(head, aal):
    left = Atrophy(head, labels_of(aal, "Hippocampus_L"), 0.3)
    assert 0.2 < left.lost(labels_of(aal, "Hippocampus_L")) <= 0.3
    assert abs(left.lost(labels_of(aal, "Hippocampus_R"))) < 0.002


@pytest.mark.slow
def test_areas_elsewhere_stay_as_they_were(atrophy, aal):
    far = ("Precentral", "Frontal_Sup", "Postcentral", "Cuneus", "Parietal_Sup", "Cerebelum_8")
    for area in far:
        assert abs(atrophy.lost(labels_of(aal, area))) < 0.01, area
    for area in ("Thalamus", "Temporal_Sup", "Fusiform", "Occipital_Mid", "Caudate"):
        assert abs(atrophy.lost(labels_of(aal, area))) < 0.04, area


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_skull_stays_where_only_the_hippocampus_shrinks(head, aal):
    atrophy = Atrophy(head, labels_of(aal, "Hippocampus"), 0.3)
    beyond_mm = ndimage.distance_transform_edt(~head.brain) * head.grid.voxel_size[0]
    moved = np.sqrt((atrophy.displacement**2).sum(axis=0))
    assert moved[(beyond_mm > 6) & (beyond_mm < 12)].max() < 0.2


@pytest.mark.slow
def test_the_map_of_atrophy_folds_nowhere(atrophy):
    found = jacobian(atrophy.field, atrophy.grid.voxel_size)
    assert found.min() > 0.2
    assert found.mean() == pytest.approx(1, abs=0.01)
    np.testing.assert_allclose(found, determinant(atrophy.field, atrophy.grid), atol=1e-4)


@pytest.mark.slow
def test_tissue_contracts_by_half_of_the_loss_and_fluid_takes_the_room(atrophy, head, aal):
    found = jacobian(atrophy.field, atrophy.grid.voxel_size)
    there = sampled(found, atrophy.grid, centres_mm(head.grid))
    inside = ndimage.binary_erosion(
        np.isin(head.areas, labels_of(aal, "Temporal_Mid")) & (tissue(head) > 0.99)
    )
    # The pull-back stretches by 1 / (1 - c), (1 - c)**2 being what is left of the tissue.
    assert np.median(there[inside]) == pytest.approx(1 / np.sqrt(0.7), abs=0.04)
    fluid = np.where(head.brain, 1 - tissue(head), 0) > 0.9
    near = ndimage.binary_dilation(inside, iterations=4) & fluid
    assert there[near].mean() < 0.9


@pytest.mark.slow
def test_without_disease_nothing_moves(head):
    loss = area_loss(head, {})
    assert not loss.any()
    field, _ = atrophy_field(head, loss)
    assert not field.any()


@pytest.mark.slow
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


@pytest.mark.slow
def test_tissue_is_the_brains_grey_and_white_matter(head):
    fraction = tissue(head)
    assert fraction.min() == 0 and fraction.max() == 1
    assert not fraction[~head.brain].any()
    assert (fraction[head.brain & (head.t1 > 0.6)] == 1).all()
    assert not fraction[head.t1 <= CSF_LEVEL].any()


# --- the patients' own patterns -------------------------------------------------------------------

TEMPORAL = {
    81: "Hippocampus_L",
    82: "Hippocampus_R",
    1: "Amygdala_L",
    2: "Amygdala_R",
    9: "Vermis_3",
}


def test_without_options_all_areas_lose_alike():
    assert draw_losses(TEMPORAL, 0.25, 0, 0, 7) == dict.fromkeys(TEMPORAL, 0.25)


@given(seed=st.integers(0, 2**32 - 1), asymmetry=st.floats(0, 1), spread=st.floats(0, 1))
def test_an_area_draws_for_itself(seed, asymmetry, spread):
    all_of_them = draw_losses(TEMPORAL, 0.2, asymmetry, spread, seed)
    for label, name in TEMPORAL.items():
        assert draw_losses({label: name}, 0.2, asymmetry, spread, seed) == {
            label: all_of_them[label]
        }
    assert max(all_of_them.values()) <= LARGEST_LOSS


@given(seed=st.integers(0, 2**32 - 1), spread=st.floats(0, 0.5))
def test_sides_differ_by_the_asymmetry_at_most_and_the_same_way(seed, spread):
    even, uneven = (draw_losses(TEMPORAL, 0.1, a, spread, seed) for a in (0, 0.4))
    assert even[81] == even[82]
    differences = []
    for left, right in ((81, 82), (1, 2)):
        mean = (uneven[left] + uneven[right]) / 2
        assert mean == pytest.approx(even[left])
        differences.append((uneven[left] - uneven[right]) / mean)
    assert differences[0] == pytest.approx(differences[1])
    assert abs(differences[0]) <= 0.4
    assert uneven[9] == even[9], "it has no sides"


def test_asymmetry_is_uniform_to_either_side():
    drawn = [draw_losses(TEMPORAL, 0.1, 0.4, 0, seed) for seed in range(2000)]
    differences = np.array([(d[81] - d[82]) / 0.1 for d in drawn])
    assert differences.mean() == pytest.approx(0, abs=0.02)
    assert differences.std() == pytest.approx(0.8 / np.sqrt(12), rel=0.05)


def test_the_spread_is_the_sd_of_the_loss_and_keeps_its_mean():
    drawn = [draw_losses({81: "Hippocampus_L"}, 0.1, 0, 0.3, seed)[81] for seed in range(4000)]
    assert np.mean(drawn) == pytest.approx(0.1, rel=0.02)
    assert np.std(drawn) == pytest.approx(0.03, rel=0.06)
    assert min(drawn) > 0


@pytest.mark.slow
@pytest.mark.parametrize("extent", [0.2, 0.5, 0.8])
def test_a_patch_holds_the_extent_of_each_area_and_a_larger_one_holds_it(head, aal, extent):
    labels = labels_of(aal, "Temporal_Mid", "Hippocampus")
    losses = dict.fromkeys(labels, 0.3)
    patch = area_loss(head, losses, extent, seed=3)
    whole = area_loss(head, losses)
    for label in labels:
        area = (head.areas == label) & (tissue(head) > 0.99)
        # What lies inside its soft border is lost in full, what lies outside not at all.
        assert (patch[area] > 0.15).mean() == pytest.approx(extent, abs=0.12)
    assert (patch <= whole + 1e-6).all()
    larger = area_loss(head, losses, min(extent + 0.2, 1), seed=3)
    assert (patch <= larger + 1e-6).all()
    other = area_loss(head, losses, extent, seed=4)
    assert abs(other - patch).max() > 0.2
    # Another area leaves this one's patch where it is.
    alone = area_loss(head, {labels[0]: 0.3}, extent, seed=3)
    inner = ndimage.binary_erosion(head.areas == labels[0], iterations=2)
    np.testing.assert_allclose(alone[inner], patch[inner], atol=1e-3)


# --- anatomy --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("sd_mm", [3.0, 4.0])
def test_a_persons_anatomy_folds_nowhere(head, sd_mm):
    for seed in range(6):
        field, grid = individual_anatomy(head.grid, seed, sd_mm)
        assert jacobian(field, grid.voxel_size).min() > 0.05, seed


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


@pytest.mark.slow
def test_the_same_seeds_give_the_same_scan_voxel_by_voxel(coarse_head, aal):
    losses = dict.fromkeys(labels_of(aal, "Hippocampus"), 0.3)
    first = scan_of(coarse_head, losses, 0.03)
    second = scan_of(coarse_head, losses, 0.03)
    np.testing.assert_array_equal(first.volume, second.volume)
    np.testing.assert_array_equal(first.truth, second.truth)
    assert first.grid == second.grid


@pytest.mark.slow
def test_another_scan_of_a_person_differs_in_pose_and_noise(coarse_head):
    first, second = scan_of(coarse_head), scan_of(coarse_head, scan_seed=7)
    assert first.grid.shape != second.grid.shape or (first.volume != second.volume).mean() > 0.5


@pytest.mark.slow
def test_another_person_differs_in_anatomy(coarse_head):
    first, second = scan_of(coarse_head), scan_of(coarse_head, anatomy_seed=7)
    assert first.grid == second.grid
    assert (abs(first.volume.astype(int) - second.volume) > 60).mean() > 0.05


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_quiet_scanner_shows_the_head_as_it_is(head, healthy):
    # The scanner's middle is the middle of the brain's bounding box, a centimetre higher.
    corners = np.argwhere(head.brain)
    middle = head.grid.matrix[:3, 3] + 2.5 * (corners.min(axis=0) + corners.max(axis=0)) / 2
    places = centres_mm(healthy.grid) + (middle + np.array([0, 0, 10])).reshape(3, 1, 1, 1)
    expected = sampled(head.t1, head.grid, places)
    assert expected.max() > 1
    np.testing.assert_allclose(healthy.volume / 600, expected, atol=2e-3)


@pytest.mark.slow
def test_a_healthy_scan_has_no_true_atrophy(healthy):
    assert not healthy.truth.any()
    assert healthy.truth.dtype == np.float32


@pytest.mark.slow
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


@pytest.mark.slow
def test_atrophy_shows_in_the_scan_where_the_truth_says_and_hardly_elsewhere(healthy, diseased):
    change = diseased.volume.astype(float) - healthy.volume
    inside = diseased.truth > 0.15
    far = ndimage.distance_transform_edt(~inside) * 2.5 > 30
    assert change[inside].mean() < -40  # of 600, towards fluid
    assert abs(change[far]).mean() < 1
    # What the scan has lost of its brightness above fluid, against what the areas had.
    had = np.clip(healthy.volume[inside] / 600 - CSF_LEVEL, 0, None).sum()
    assert -change.sum() / 600 / had == pytest.approx(0.3, abs=0.1)


@pytest.mark.slow
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


@pytest.mark.slow
def test_noise_is_that_of_a_magnitude_image(coarse_head, quiet):
    noisy = scan_of(coarse_head, scanner=replace(quiet, noise=0.05))
    air = noisy.volume[:, :8, -8:].astype(float) / 600  # a corner behind and above the head
    # A Rayleigh distribution: the mean is sigma * sqrt(pi / 2).
    assert air.mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.03)
    assert air.std() == pytest.approx(0.05 * np.sqrt(2 - np.pi / 2), rel=0.05)


@pytest.mark.slow
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


# --- shortcuts ------------------------------------------------------------------------------------


def scanners(aal, **changes):
    told = {"strength": 0.3, "labels": labels_of(aal, "Frontal_Mid_L"), "sd_mm": 15.0, **changes}
    return Shortcut("scanner", **told)


@pytest.mark.slow
def test_a_scanners_bright_place_is_a_gaussian_around_the_middle_of_its_area(head, aal):
    places = centres_mm(head.grid)
    image, change = add_shortcut(head.t1, places, head, scanners(aal))
    solid = head.t1 > 0.02
    np.testing.assert_allclose(image[solid] / head.t1[solid], 1 + change[solid], rtol=1e-5)
    np.testing.assert_array_equal(image[~solid], head.t1[~solid])
    assert change.max() == pytest.approx(0.3, abs=0.01)
    centre = [places[axis][head.areas == scanners(aal).labels[0]].mean() for axis in range(3)]
    np.testing.assert_allclose(centre, (-35, 31, 34), atol=4)
    # Two standard deviations off it is exp(-2) of its height, wherever there is a head.
    distance = np.sqrt(sum((p - c) ** 2 for p, c in zip(places, centre, strict=True)))
    ring = solid & (abs(distance - 30) < 0.5)
    np.testing.assert_allclose(change[ring], 0.3 * np.exp(-2), rtol=0.08)


@pytest.mark.slow
def test_the_truth_of_a_shortcut_is_where_the_image_changed_and_by_what_fraction(
    head, aal, quiet, healthy
):
    scan = scan_of(head, scanner=quiet)
    bright = simulate_scan(head, {}, 0, 5, 6, quiet, shortcut=scanners(aal))
    seen = healthy.volume > 120
    ratio = bright.volume[seen] / healthy.volume[seen] - 1
    np.testing.assert_allclose(ratio, bright.truth[seen], atol=0.01)
    assert not scan.truth.any()
    ill = simulate_scan(
        head, dict.fromkeys(labels_of(aal, "Frontal_Mid"), 0.2), 0, 5, 6, quiet,
        shortcut=scanners(aal),
    )  # fmt: skip
    assert (ill.truth < bright.truth - 0.02).mean() < 1e-4, "the larger of both"
    assert (ill.truth > bright.truth + 0.1).mean() > 1e-3
    assert ill.truth.max() == pytest.approx(0.3, abs=0.02)


@pytest.mark.slow
def test_a_mark_lies_beside_the_head_and_goes_with_the_skull(head, quiet, tmp_path):
    scanner = replace(quiet, noise=0.03, voxel_size_mm=(2.5, 2.5))
    plain = scan_of(head, scanner=scanner)
    marked = simulate_scan(head, {}, 0, 5, 6, scanner, shortcut=Shortcut("mark", 0.3))
    capsule = marked.truth > 0.5
    volume_ml = capsule.sum() * marked.grid.voxel_volume_ml
    # A cylinder of 10 mm between two halves of a ball, 785 and 524 mm3, 1.3 times as bright as
    # white matter; its soft border is half a millimetre wider.
    added = (marked.volume.astype(float) - plain.volume).sum() / 600 / 1.3
    assert added * marked.grid.voxel_volume_ml == pytest.approx(1.31, rel=0.1)
    assert volume_ml == pytest.approx(1.65, rel=0.1)
    np.testing.assert_array_equal(marked.volume[marked.truth == 0], plain.volume[marked.truth == 0])
    brain = scan_of(
        Head(head.brain.astype(np.float32), head.brain, head.areas, head.grid), scanner=quiet
    )
    off_mm = ndimage.distance_transform_edt(brain.volume < 300, brain.grid.voxel_size)
    assert off_mm[capsule].min() > 10
    path = tmp_path / "marked.nii.gz"
    write_array(path, marked.volume, marked.grid, np.uint16)
    found = find_brain(read_image(path), find_tool("deepbet"), {"threshold": 0.5, "dilate": 0})
    assert 1.2e6 < found.sum() * 1000 * marked.grid.voxel_volume_ml < 2.2e6
    assert not (found & (marked.truth > 0)).any()


# --- motion ---------------------------------------------------------------------------------------


def naive_composition(images, pose_of_line):
    """Every line of the middle-first three-dimensional k-space, one after another."""
    spectra = [np.fft.fftshift(np.fft.fftn(image)) for image in images]
    composed = np.zeros_like(spectra[0])
    for line, pose in enumerate(pose_of_line):
        for x in range(composed.shape[0]):
            composed[x, line, :] = spectra[pose][x, line, :]
    return abs(np.fft.ifftn(np.fft.ifftshift(composed)))


@pytest.mark.parametrize("lines", [12, 13])
def test_k_space_is_composed_as_line_by_line(lines):
    draw = np.random.default_rng(0)
    images = [draw.uniform(0, 1, (6, lines, 8)).astype(np.float32) for _ in range(3)]
    poses = [0, 0, 0, 2, *[1] * (lines - 6), 2, 0]
    np.testing.assert_allclose(
        compose_kspace(images, poses), naive_composition(images, poses), atol=1e-5
    )
    np.testing.assert_allclose(compose_kspace(images[:1], [0] * lines), images[0], atol=1e-6)


def moving(quiet, **motion):
    return replace(quiet, motion={"share": 1.0, "translation_mm": 4, "rotation_deg": 4, **motion})


@pytest.mark.slow
def test_a_head_that_moves_is_blurred_but_stays_in_its_place(head, aal, quiet, healthy):
    for seed in range(6, 10):
        still = scan_of(head, scanner=quiet, scan_seed=seed)
        moved = scan_of(head, scanner=moving(quiet), scan_seed=seed)
        change = moved.volume.astype(float) - still.volume
        assert abs(change).mean() > 3
        # The middle of k-space is the pose that is known: shifted by a voxel it fits worse.
        error = (change**2).mean()
        for axis in range(3):
            for step in (-1, 1):
                shifted = np.roll(still.volume.astype(float), step, axis)
                assert ((moved.volume - shifted) ** 2).mean() > error
        np.testing.assert_array_equal(moved.truth, still.truth)


@pytest.mark.slow
def test_motion_of_nothing_and_of_nobody_leaves_a_scan_as_it_is(head, quiet, healthy):
    still = moving(quiet, translation_mm=0, rotation_deg=0)
    difference = scan_of(head, scanner=still).volume.astype(int) - healthy.volume
    assert abs(difference).max() <= 2
    nobody = scan_of(head, scanner=moving(quiet, share=0.0))
    np.testing.assert_array_equal(nobody.volume, healthy.volume)


@pytest.mark.slow
def test_about_the_share_of_scans_moves(coarse_head, quiet):
    grid = replace(quiet, voxel_size_mm=(4, 4))
    plain = scan_of(coarse_head, scanner=grid)
    blurred = sum(
        (
            scan_of(coarse_head, scanner=moving(grid, share=0.5), scan_seed=seed).volume
            != plain.volume
        ).any()
        for seed in range(12)
    )
    assert 2 <= blurred <= 10


# --- what was done --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0.15, 0.45])
def test_the_achieved_loss_is_the_intended_one_within_the_tolerance(head, aal, fraction):
    labels = labels_of(aal, *DISEASE)
    losses = dict.fromkeys(labels, fraction)
    fine = replace(SCANNER, voxel_size_mm=(2.0, 2.0))
    scan = simulate_scan(head, losses, 0.04, 5, 6, fine, measured=labels)
    assert scan.measures.keys() == set(labels)
    for label, told in scan.measures.items():
        ratio = (1 - told.volume_ml / told.volume_without_ml) / told.intended_loss
        assert TOLERANCE[0] < ratio < TOLERANCE[1], aal.names[label]
        assert told.intended_loss == fraction
        assert -0.4 < told.intensity / told.intensity_without - 1 < -0.25 * fraction
    plain = simulate_scan(head, losses, 0.04, 5, 6, fine)
    np.testing.assert_array_equal(plain.volume, scan.volume)


@pytest.mark.slow
def test_measured_volumes_are_those_of_scans_with_and_without_the_disease(head, aal, quiet):
    """Counted apart: tissue of a healthy scan and of a diseased one of the same person."""
    labels = labels_of(aal, "Temporal_Mid", "Temporal_Inf")
    losses = dict.fromkeys(labels, 0.4)
    scanner = replace(quiet, deformation_mm=2.0)
    told = simulate_scan(head, losses, 0, 5, 6, scanner, measured=labels).measures
    own = np.where(np.isin(head.areas, labels), tissue(head), 0).astype(np.float32)
    # A head as bright as the areas' tissue, so that a scan is a map of it.
    marker = replace(head, t1=0.24 * own)
    counted = []
    for ill in ({}, losses):
        shown = simulate_scan(marker, ill, 0, 5, 6, scanner)
        counted.append(shown.volume.sum() / 600 / 0.24 * shown.grid.voxel_volume_ml)
    assert sum(m.volume_without_ml for m in told.values()) == pytest.approx(counted[0], rel=0.1)


@pytest.mark.slow
def test_a_healthy_persons_measures_are_the_same_with_and_without(head, aal):
    labels = labels_of(aal, "Hippocampus")
    told = simulate_scan(head, {}, 0.05, 5, 6, SCANNER, measured=labels).measures
    for own in told.values():
        assert own.volume_ml == pytest.approx(own.volume_without_ml, rel=0.02)
        assert own.intensity == pytest.approx(own.intensity_without, rel=1e-4)


@pytest.mark.slow
def test_a_shortcut_brightens_its_area_and_takes_no_tissue(head, aal):
    shortcut = scanners(aal)
    measured = [*shortcut.labels, *labels_of(aal, "Cuneus_R")]
    scan = simulate_scan(head, {}, 0.0, 5, 6, SCANNER, shortcut=shortcut, measured=measured)
    near, far = (scan.measures[label] for label in measured)
    assert 0.08 < near.intensity / near.intensity_without - 1 < 0.3
    assert far.intensity == pytest.approx(far.intensity_without, rel=1e-3)
    assert near.volume_ml == pytest.approx(near.volume_without_ml, rel=0.02)
