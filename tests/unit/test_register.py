import os
from types import SimpleNamespace

import ants
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from voxplain.anatomy.itk import as_ants
from voxplain.anatomy.quality import correlation, dice
from voxplain.anatomy.register import TRANSFORMS, carry, register_to_template
from voxplain.faults import DataFault
from voxplain.volumes import Grid, axis_aligned_grid, write_array


def registered(brain_path, mask_path, template, transform_path, method="affine", seed=42):
    return register_to_template(
        brain_path=brain_path,
        mask_path=mask_path,
        template_path=template.path,
        transform_path=transform_path,
        method=method,
        seed=seed,
    )


def grid_of(affine, shape=(4, 5, 6)):
    return Grid(shape, tuple(tuple(float(v) for v in row) for row in affine))


# --- arrays as ANTs images ------------------------------------------------------------------------

turns = st.tuples(*[st.floats(-180, 180)] * 3)
flips = st.tuples(*[st.sampled_from([-1, 1])] * 3)


@given(
    degrees=turns,
    flip=flips,
    size=st.tuples(*[st.floats(0.5, 4)] * 3),
    origin=st.tuples(*[st.floats(-100, 100)] * 3),
)
def test_a_voxel_lies_at_the_same_place_for_ants_and_nibabel(degrees, flip, size, origin):
    affine = np.eye(4)
    rotation = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    affine[:3, :3] = rotation @ np.diag(flip) * size
    affine[:3, 3] = origin
    array = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    image = as_ants(array, grid_of(affine))
    np.testing.assert_array_equal(image.numpy(), array)
    for index in ((0, 0, 0), (3, 0, 0), (0, 4, 0), (0, 0, 5), (2, 3, 4)):
        left, back, top = ants.transform_index_to_physical_point(image, index)
        expected = nib.affines.apply_affine(affine, index)
        np.testing.assert_allclose((-left, -back, top), expected, atol=1e-3)


def test_ants_reads_a_file_to_the_place_that_it_gets_from_us(tmp_path):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", (10, -15, 20), degrees=True).as_matrix() * (
        1.0,
        1.5,
        2.0,
    )
    affine[:3, 3] = (-11, 7, 23)
    array = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    nib.save(nib.Nifti1Image(array, affine), tmp_path / "a.nii")
    ours, read = as_ants(array, grid_of(affine)), ants.image_read(str(tmp_path / "a.nii"))
    np.testing.assert_allclose(ours.origin, read.origin, atol=1e-4)
    np.testing.assert_allclose(ours.spacing, read.spacing, atol=1e-5)
    np.testing.assert_allclose(ours.direction, read.direction, atol=1e-5)
    np.testing.assert_array_equal(ours.numpy(), read.numpy())


# --- a known movement -----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["affine", pytest.param("syn_fast", marks=pytest.mark.slow)])
def moved(request, template, tmp_path_factory):
    """The template's brain, turned and shifted in space, and registered."""
    movement = np.eye(4)
    movement[:3, :3] = Rotation.from_euler("xyz", (35, -5, 12), degrees=True).as_matrix()
    movement[:3, 3] = (9, -14, 6)
    grid = grid_of(movement @ template.grid.matrix, template.grid.shape)
    folder = tmp_path_factory.mktemp("moved")
    write_array(folder / "brain.nii.gz", template.brain, grid)
    write_array(folder / "mask.nii.gz", template.mask, grid, np.uint8)
    found = registered(
        folder / "brain.nii.gz",
        folder / "mask.nii.gz",
        template,
        folder / "transform.h5",
        request.param,
    )
    return SimpleNamespace(
        found=found, movement=movement, transform=folder / "transform.h5", folder=folder
    )


def test_a_turned_and_shifted_brain_comes_back_to_the_template(moved, template):
    assert dice(moved.found.mask, template.mask) > 0.97
    inside = template.mask
    assert correlation(moved.found.brain[inside], template.brain[inside]) > 0.95


def test_the_result_lies_on_the_templates_grid_and_is_nought_outside_its_mask(moved, template):
    found = moved.found
    assert found.grid.matches(template.grid)
    assert found.brain.shape == found.mask.shape == template.grid.shape
    assert found.brain.dtype == np.float32
    assert found.mask.dtype == bool
    assert not found.brain[~found.mask].any()


def test_what_is_carried_later_lands_as_the_brain_did(moved, template):
    carried, grid = carry(moved.folder / "brain.nii.gz", template.path, moved.transform)
    assert grid.matches(template.grid)
    inside = moved.found.mask
    np.testing.assert_allclose(carried[inside], moved.found.brain[inside], atol=1e-6)


def test_a_ball_in_a_moved_head_is_carried_to_its_place(moved, template):
    """A sphere of lost tissue, painted into the head before it moved."""
    middle = np.array([-26.0, -20, -12])
    places = nib.affines.apply_affine(
        template.grid.matrix, np.moveaxis(np.indices(template.grid.shape), 0, -1)
    )
    ball = (np.linalg.norm(places - middle, axis=-1) < 14).astype(np.float32)
    own = grid_of(moved.movement @ template.grid.matrix, template.grid.shape)
    write_array(moved.folder / "ball.nii.gz", ball, own)
    carried, _ = carry(moved.folder / "ball.nii.gz", template.path, moved.transform)
    assert dice(carried > 0.5, ball > 0.5) > 0.9


def test_the_transform_that_is_kept_leads_from_the_template_to_the_scan(moved):
    landmarks = np.array([(0.0, -20, 10), (-40, -20, -10), (45, 10, 20), (5, -80, 5), (0, 40, 10)])
    lps = pd.DataFrame(landmarks * (-1, -1, 1), columns=["x", "y", "z"])
    lead = ants.apply_transforms_to_points(3, lps, [str(moved.transform)])
    expected = nib.affines.apply_affine(moved.movement, landmarks)
    off = lead[["x", "y", "z"]].to_numpy() * (-1, -1, 1) - expected
    assert np.linalg.norm(off, axis=1).max() < 2  # half a voxel


# --- a person's brain -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_method(scan, template, tmp_path_factory):
    folder = tmp_path_factory.mktemp("methods")
    return {
        method: registered(
            scan.brain_path, scan.mask_path, template, folder / f"{method}.h5", method
        )
        for method in ("affine", "syn_quick", "syn_fast")
    }


@pytest.mark.slow
def test_every_method_brings_a_persons_brain_onto_the_template(by_method, template):
    for method, found in by_method.items():
        assert dice(found.mask, template.mask) > 0.93, method
        inside = template.mask
        assert correlation(found.brain[inside], template.brain[inside]) > 0.5, method


@pytest.mark.slow
def test_a_nonlinear_registration_fits_better_than_an_affine_one(by_method, template):
    overlap = {name: dice(found.mask, template.mask) for name, found in by_method.items()}
    assert overlap["syn_quick"] > overlap["affine"] + 0.01
    similarity = {
        name: correlation(found.brain[template.mask], template.brain[template.mask])
        for name, found in by_method.items()
    }
    assert similarity["syn_quick"] > similarity["affine"] + 0.02


@pytest.mark.slow
def test_the_fast_registration_fits_about_as_well_as_the_papers(by_method, template):
    fast, quick = by_method["syn_fast"], by_method["syn_quick"]
    inside = template.mask
    assert dice(fast.mask, inside) > dice(quick.mask, inside) - 0.005
    similarity = [
        correlation(found.brain[inside], template.brain[inside]) for found in (fast, quick)
    ]
    assert similarity[0] > similarity[1] - 0.02


@pytest.mark.slow
def test_the_fast_registration_takes_no_notice_of_air(scan, template, by_method, tmp_path):
    before, after = (25, 18, 30), (20, 0, 0)
    affine = scan.grid.matrix
    affine[:3, 3] -= affine[:3, :3] @ before
    shape = tuple(np.array(scan.grid.shape) + before + after)
    files = tmp_path / "brain.nii.gz", tmp_path / "mask.nii.gz"
    around = list(zip(before, after, strict=True))
    brain = np.where(scan.mask, scan.clean, 0)
    write_array(files[0], np.pad(brain, around), grid_of(affine, shape))
    write_array(files[1], np.pad(scan.mask, around), grid_of(affine, shape), np.uint8)
    wide = registered(*files, template, tmp_path / "wide.h5", "syn_fast")
    near = by_method["syn_fast"]
    # The corner of the box is rounded otherwise, and single iterations follow.
    assert dice(wide.mask, near.mask) > 0.99
    assert correlation(wide.brain[near.mask], near.brain[near.mask]) > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("method", ["syn_quick", "syn_fast"])
def test_the_same_brain_registers_to_the_same_voxels(scan, template, by_method, tmp_path, method):
    assert os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] == "1"
    again = registered(scan.brain_path, scan.mask_path, template, tmp_path / "again.h5", method)
    np.testing.assert_array_equal(again.brain, by_method[method].brain)
    np.testing.assert_array_equal(again.mask, by_method[method].mask)


@pytest.mark.slow
def test_another_seed_gives_nearly_the_same(scan, template, by_method, tmp_path):
    other = registered(scan.brain_path, scan.mask_path, template, tmp_path / "other.h5", seed=7)
    assert dice(other.mask, by_method["affine"].mask) > 0.98
    assert abs(other.brain - by_method["affine"].brain).max() > 0


@pytest.mark.slow
def test_intensities_are_carried_and_not_changed(scan, by_method):
    carried = by_method["affine"].brain[by_method["affine"].mask]
    own = scan.clean[scan.mask]
    assert np.median(carried) == pytest.approx(np.median(own), rel=0.05)
    assert carried.max() <= own.max()


# --- what cannot be registered --------------------------------------------------------------------


def test_a_brain_without_any_signal_is_a_fault_of_the_data_naming_it(template, tmp_path):
    grid = axis_aligned_grid((30, 36, 30), (6.0, 6.0, 6.0), (-90, -108, -90))
    brain, mask = tmp_path / "brain.nii.gz", tmp_path / "mask.nii.gz"
    write_array(brain, np.zeros(grid.shape), grid)
    write_array(mask, np.ones(grid.shape), grid, np.uint8)
    with pytest.raises(DataFault) as fault:
        registered(brain, mask, template, tmp_path / "transform.h5")
    assert str(brain) in fault.value.reason
    assert "\n" not in str(fault.value)
    assert not (tmp_path / "transform.h5").exists()


def test_a_mask_that_is_carried_nowhere_is_a_fault_of_the_data_naming_the_brain(template, tmp_path):
    mask = tmp_path / "mask.nii.gz"
    write_array(mask, np.zeros(template.grid.shape), template.grid, np.uint8)
    with pytest.raises(DataFault) as fault:
        registered(template.path, mask, template, tmp_path / "transform.h5")
    assert f"{template.path} is empty or constant inside its mask" in fault.value.reason


@pytest.mark.slow
def test_a_mask_of_a_few_lone_voxels_is_lost_on_the_way_and_refused(scan, template, tmp_path):
    lone = np.zeros(scan.grid.shape, np.uint8)
    lone[tuple(np.argwhere(scan.mask)[::30_000].T)] = 1
    assert 3 < lone.sum() < 40
    mask = tmp_path / "mask.nii.gz"
    write_array(mask, lone, scan.grid, np.uint8)
    with pytest.raises(DataFault) as fault:
        registered(scan.brain_path, mask, template, tmp_path / "transform.h5")
    assert f"{scan.brain_path} lies outside the template" in fault.value.reason


def test_the_methods_are_those_of_the_schema(repository):
    schema = yaml.safe_load((repository / "schemas/config.schema.yaml").read_text())
    registration = schema["properties"]["registration"]["properties"]
    assert set(registration["transform"]["enum"]) == set(TRANSFORMS)
