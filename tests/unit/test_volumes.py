import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nibabel import processing
from scipy import ndimage
from scipy.spatial.transform import Rotation

from voxplain import volumes
from voxplain.atlas import read_packaged_template
from voxplain.faults import DataFault
from voxplain.volumes import (
    Grid,
    axis_aligned_grid,
    centres_mm,
    read_array,
    read_image,
    resample,
    smooth_for,
    white_matter_level,
    write_array,
)

DTYPES = (np.uint8, np.int16, np.uint16, np.float32, np.float64)
shapes = st.tuples(*[st.integers(1, 7)] * 3)
sizes = st.tuples(*[st.floats(0.3, 5.0)] * 3)
origins = st.tuples(*[st.floats(-200, 200)] * 3)
small_turns = st.tuples(*[st.floats(-20, 20)] * 3)


def turned_grid(shape, voxel_size, origin, degrees):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() * voxel_size
    affine[:3, 3] = origin
    return Grid(tuple(shape), tuple(tuple(float(v) for v in row) for row in affine))


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# --- reading and writing --------------------------------------------------------------------------


@given(data=st.data(), shape=shapes, size=sizes, origin=origins, degrees=small_turns)
def test_written_volumes_are_read_back_without_loss(
    tmp_path_factory, data, shape, size, origin, degrees
):
    dtype = data.draw(st.sampled_from(DTYPES))
    array = data.draw(hnp.arrays(dtype, shape))
    grid = turned_grid(shape, size, origin, degrees)
    path = tmp_path_factory.getbasetemp() / "round_trip.nii.gz"
    write_array(path, array, grid, dtype)
    read, read_grid = read_array(path, dtype)
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, array)
    assert read_grid.shape == shape
    np.testing.assert_allclose(read_grid.matrix, grid.matrix, rtol=1e-6, atol=1e-4)


@given(shape=shapes, size=sizes, origin=origins, degrees=small_turns)
def test_the_two_affines_and_the_voxel_sizes_of_a_file_agree(
    tmp_path_factory, shape, size, origin, degrees
):
    grid = turned_grid(shape, size, origin, degrees)
    path = tmp_path_factory.getbasetemp() / "affines.nii"
    write_array(path, noise(shape), grid)
    header = nib.load(path).header
    np.testing.assert_allclose(header.get_sform(), grid.matrix, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(header.get_qform(), grid.matrix, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(header.get_zooms(), size, rtol=1e-5)
    assert header.get_xyzt_units()[0] == "mm"
    assert header["sform_code"] > 0 and header["qform_code"] > 0


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
def test_voxels_are_stored_unscaled_in_the_requested_type(tmp_path, dtype):
    array = np.arange(24).reshape(2, 3, 4)
    write_array(tmp_path / "a.nii", array, axis_aligned_grid((2, 3, 4), (1,) * 3, (0,) * 3), dtype)
    image = nib.load(tmp_path / "a.nii")
    assert image.get_data_dtype() == dtype
    assert (image.dataobj.slope, image.dataobj.inter) == (1.0, 0.0)


@given(
    codes=st.permutations(range(3)).flatmap(
        lambda axes: st.tuples(*(st.sampled_from(("LR", "PA", "IS")[axis]) for axis in axes))
    ),
    degrees=small_turns,
)
def test_an_image_in_any_orientation_is_read_as_ras_with_every_value_at_its_place(
    tmp_path_factory, codes, degrees
):
    ras = nib.Nifti1Image(
        noise((4, 5, 6)), turned_grid((4, 5, 6), (1, 2, 3), (-7, 11, 5), degrees).matrix
    )
    orientation = nib.orientations.axcodes2ornt(codes)
    stored = ras.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(ras.affine), orientation)
    )
    assert nib.aff2axcodes(stored.affine) == tuple(codes)
    path = tmp_path_factory.getbasetemp() / "orientation.nii"
    nib.save(stored, path)

    array, grid = read_array(path)
    assert nib.aff2axcodes(grid.matrix) == ("R", "A", "S")
    stored_values = np.asarray(stored.dataobj)
    for index in np.ndindex(stored_values.shape):
        place = nib.affines.apply_affine(stored.affine, index)
        voxel = nib.affines.apply_affine(np.linalg.inv(grid.matrix), place)
        assert array[tuple(np.rint(voxel).astype(int))] == stored_values[index]


def test_a_fourth_axis_of_length_one_is_dropped(tmp_path):
    array = noise((3, 4, 5, 1))
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii")
    np.testing.assert_array_equal(read_array(tmp_path / "a.nii")[0], array[..., 0])


@pytest.mark.parametrize("shape", [(3, 4, 5, 2), (3, 4), (3, 4, 5, 1, 2)])
def test_a_volume_that_is_not_three_dimensional_is_refused_with_its_shape(tmp_path, shape):
    path = tmp_path / "series.nii"
    nib.save(nib.Nifti1Image(noise(shape), np.eye(4)), path)
    with pytest.raises(DataFault) as fault:
        read_image(path)
    assert str(path) in fault.value.reason
    assert "x".join(map(str, shape)) in fault.value.reason
    assert fault.value.remedy


def refused(path, read=read_array):
    with pytest.raises(DataFault) as fault:
        read(path)
    assert str(path) in fault.value.reason
    assert fault.value.remedy
    assert "\n" not in fault.value.remedy
    return fault.value.reason


def test_a_missing_file_is_refused_by_name(tmp_path):
    assert "missing" in refused(tmp_path / "absent.nii.gz", read_image)


def test_an_empty_file_is_refused_as_a_failed_scan(tmp_path):
    path = tmp_path / "empty.nii.gz"
    path.touch()
    assert "failed in an earlier stage" in refused(path, read_image)


@pytest.mark.parametrize("name", ["text.nii", "text.nii.gz", "text.txt"])
def test_a_file_that_is_not_nifti_is_refused_by_name(tmp_path, name):
    path = tmp_path / name
    path.write_text("hello, this is a note and no image\n" * 40)
    assert "not a readable NIfTI" in refused(path, read_image)


def test_a_compressed_volume_with_a_flipped_bit_is_refused_or_read_as_it_was_written(tmp_path):
    path, array = tmp_path / "scan.nii.gz", noise((9, 10, 11))
    write_array(path, array, axis_aligned_grid(array.shape, (1,) * 3, (0,) * 3))
    whole = path.read_bytes()
    draw, refused = np.random.default_rng(3), 0
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[draw.integers(len(whole))] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        try:
            read, _ = read_array(path)
        except DataFault as fault:
            assert "scan.nii.gz" in str(fault)
            refused += 1
        else:
            np.testing.assert_array_equal(read, array)
    assert refused >= 55
    damaged = bytearray(whole)
    damaged[-6] ^= 1  # in the checksum itself
    path.write_bytes(damaged)
    with pytest.raises(DataFault, match="CRC"):
        read_image(path)


def test_a_compressed_volume_that_goes_on_and_on_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(volumes, "_CHUNK_BYTES", 1000)
    path, array = tmp_path / "scan.nii.gz", noise((3, 4, 5))
    write_array(path, array, axis_aligned_grid(array.shape, (1,) * 3, (0,) * 3))
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content + bytes(500)))  # some programs pad
    np.testing.assert_array_equal(read_array(path)[0], array)
    path.write_bytes(gzip.compress(content + bytes(5000)))
    with pytest.raises(DataFault, match="longer than its header says"):
        read_image(path)


def test_a_compressed_text_is_refused_by_name(tmp_path):
    path = tmp_path / "note.nii.gz"
    path.write_bytes(gzip.compress(b"hello " * 200))
    refused(path)


@pytest.mark.parametrize("name", ["cut.nii", "cut.nii.gz"])
@given(share=st.floats(0.0005, 0.98))
def test_a_truncated_file_is_refused_by_name(tmp_path_factory, name, share):
    whole = tmp_path_factory.getbasetemp() / f"whole_{name}"
    if not whole.exists():
        write_array(whole, noise((20, 20, 20)), axis_aligned_grid((20,) * 3, (1,) * 3, (0,) * 3))
    content = whole.read_bytes()
    path = whole.with_name(name)
    path.write_bytes(content[: max(int(share * len(content)), 1)])
    refused(path)


@settings(max_examples=60)
@given(
    changes=st.dictionaries(st.integers(0, 351), st.integers(0, 255), min_size=1, max_size=4),
    endianness=st.sampled_from(["<", ">"]),
)
def test_a_file_with_a_damaged_header_is_read_or_refused_by_name(
    tmp_path_factory, changes, endianness
):
    header = nib.Nifti1Header(endianness=endianness)
    array = np.arange(504, dtype=np.int16).reshape(7, 8, 9)
    path = tmp_path_factory.getbasetemp() / "damaged.nii"
    nib.save(nib.Nifti1Image(array, np.diag([2, 2, 2, 1.0]), header), path)
    content = bytearray(path.read_bytes())
    for place, value in changes.items():
        content[place] = value
    path.write_bytes(bytes(content))
    try:
        read, grid = read_array(path)
    except DataFault as fault:
        assert str(path) in fault.reason
    else:
        assert read.ndim == 3
        assert read.shape == grid.shape


def test_an_array_that_does_not_fit_its_grid_is_not_written(tmp_path):
    grid = axis_aligned_grid((3, 4, 5), (1,) * 3, (0,) * 3)
    with pytest.raises(ValueError, match=r"\(3, 4, 6\).*\(3, 4, 5\)"):
        write_array(tmp_path / "a.nii", np.zeros((3, 4, 6)), grid)
    assert not (tmp_path / "a.nii").exists()


# --- grids ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size_mm", "shape"),
    [(1, (193, 229, 193)), (2, (97, 115, 97)), (3, (65, 77, 65)), (4, (49, 58, 49))],
)
def test_the_coarsened_template_grid_is_templateflows(size_mm, shape):
    _, template_grid = read_packaged_template()
    grid = template_grid.coarsened(size_mm)
    assert grid.shape == shape
    np.testing.assert_allclose(grid.matrix[:3, 3], (-96, -132, -78), atol=1e-6)
    np.testing.assert_allclose(grid.matrix[:3, :3], np.eye(3) * size_mm, atol=1e-6)


@given(shape=shapes, size=sizes, degrees=small_turns, coarser=st.floats(1.0, 4.0))
def test_a_coarsened_grid_has_the_same_origin_and_spans_the_voxels_of_its_fine_one(
    shape, size, degrees, coarser
):
    grid = turned_grid(shape, size, (1, 2, 3), degrees)
    size_mm = max(size) * coarser
    coarse = grid.coarsened(size_mm)
    np.testing.assert_allclose(coarse.matrix[:3, 3], (1, 2, 3))
    np.testing.assert_allclose(coarse.voxel_size, (size_mm,) * 3)
    spanned = np.array(coarse.shape) * size_mm - np.array(shape) * size
    assert (spanned > -1e-3).all()
    assert (spanned < size_mm + 1e-3).all()


def test_grids_know_their_voxels_and_compare_within_a_tolerance():
    grid = turned_grid((4, 5, 6), (1.0, 2.0, 2.5), (10, 20, 30), (5, 10, 15))
    assert grid.voxel_size == pytest.approx((1.0, 2.0, 2.5))
    assert grid.voxel_volume_ml == pytest.approx(0.005)
    assert grid == Grid(grid.shape, grid.affine)
    assert hash(grid) == hash(Grid(grid.shape, grid.affine))
    near = turned_grid((4, 5, 6), (1.0, 2.0, 2.5), (10.0005, 20, 30), (5, 10, 15))
    far = turned_grid((4, 5, 6), (1.0, 2.0, 2.5), (10.1, 20, 30), (5, 10, 15))
    assert grid.matches(near)
    assert not grid.matches(far)
    assert grid.matches(far, tolerance_mm=0.2)
    assert not grid.matches(turned_grid((4, 5, 7), (1.0, 2.0, 2.5), (10, 20, 30), (5, 10, 15)))


@given(shape=shapes, size=sizes, origin=origins, degrees=small_turns)
def test_voxel_centres_lie_where_the_affine_puts_them(shape, size, origin, degrees):
    grid = turned_grid(shape, size, origin, degrees)
    indices = np.moveaxis(np.indices(shape), 0, -1)
    expected = nib.affines.apply_affine(grid.matrix, indices)
    np.testing.assert_allclose(np.moveaxis(centres_mm(grid), 0, -1), expected, atol=1e-3)


# --- sampling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [0, 1])
def test_resampling_agrees_with_nibabel(order):
    grid = turned_grid((20, 22, 18), (1.0, 1.2, 1.5), (-10, -12, -11), (4, -7, 10))
    target = turned_grid((11, 16, 12), (2.0, 1.7, 2.2), (-8, -11, -9), (-3, 2, 5))
    array = noise(grid.shape) + 5
    expected = processing.resample_from_to(
        nib.Nifti1Image(array, grid.matrix), (target.shape, target.matrix), order=order
    )
    result = resample(array, grid, target, order)
    assert (result == 0).any() and (result != 0).mean() > 0.5
    np.testing.assert_allclose(result, expected.get_fdata(), atol=1e-4)


@given(size=sizes, degrees=small_turns, slope=st.tuples(*[st.floats(-3, 3)] * 3))
def test_a_ramp_keeps_its_values_at_each_position_when_resampled(size, degrees, slope):
    grid = turned_grid((15, 14, 13), (3.0, 3.0, 3.0), (-21, -20, -18), (0, 0, 0))
    target = turned_grid((3, 3, 3), size, (-1, -2, -1), degrees)
    slopes = np.array(slope).reshape(3, 1, 1, 1)
    ramp = (centres_mm(grid) * slopes).sum(0)
    inside = (centres_mm(target) * slopes).sum(0)
    np.testing.assert_allclose(resample(ramp, grid, target), inside, atol=1e-2)


def test_beyond_the_volume_values_are_zero_or_those_of_the_border():
    grid = axis_aligned_grid((4, 4, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    target = axis_aligned_grid((10, 4, 4), (1.0, 1.0, 1.0), (-3.0, 0.0, 0.0))
    ramp = np.broadcast_to(np.arange(1.0, 5.0).reshape(-1, 1, 1), grid.shape)
    assert resample(ramp, grid, target)[:, 1, 1].tolist() == [0, 0, 0, 1, 2, 3, 4, 0, 0, 0]
    nearest = resample(ramp, grid, target, beyond="nearest")[:, 1, 1]
    assert nearest.tolist() == [1, 1, 1, 1, 2, 3, 4, 4, 4, 4]


def test_labels_are_resampled_without_mixing():
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[:6], labels[6:] = 10, 90
    grid = axis_aligned_grid((12,) * 3, (1,) * 3, (0,) * 3)
    result = resample(labels, grid, axis_aligned_grid((5,) * 3, (2.3,) * 3, (0.4,) * 3), order=0)
    assert result.dtype == np.uint8
    assert set(np.unique(result)) == {10, 90}


def test_smoothing_for_a_coarser_grid_agrees_with_nibabel():
    grid = axis_aligned_grid((40, 44, 30), (1.0, 0.8, 1.5), (0, 0, 0))
    target = axis_aligned_grid((10, 10, 10), (3.0, 3.0, 3.0), (0, 0, 0))
    array = noise(grid.shape)
    fwhm = [np.sqrt(9 - size**2) for size in (1.0, 0.8, 1.5)]
    expected = processing.smooth_image(nib.Nifti1Image(array, grid.matrix), fwhm).get_fdata()
    interior = (slice(8, -8),) * 3  # the two treat the border differently
    result = smooth_for(array, grid, target)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result[interior], expected[interior], atol=2e-3)


def test_the_width_of_smoothing_follows_from_the_two_voxel_sizes():
    grid = axis_aligned_grid((41, 41, 41), (1.0, 1.0, 1.0), (0, 0, 0))
    point = np.zeros(grid.shape, np.float32)
    point[20, 20, 20] = 1
    spread = smooth_for(point, grid, grid.coarsened(4.0))
    place = np.arange(41) - 20.0
    for axis in range(3):
        profile = spread.sum(axis=tuple(a for a in range(3) if a != axis))
        sigma = np.sqrt((profile * place**2).sum() / profile.sum())
        assert sigma * np.sqrt(8 * np.log(2)) == pytest.approx(np.sqrt(15), rel=0.01)


@given(value=st.floats(-1000, 1000, width=32), size=sizes, coarser=st.floats(0.5, 4))
def test_smoothing_keeps_a_constant(value, size, coarser):
    grid = axis_aligned_grid((9, 8, 7), size, (0, 0, 0))
    result = smooth_for(np.full(grid.shape, value), grid, grid.coarsened(max(size) * coarser))
    np.testing.assert_allclose(result, value, rtol=1e-5, atol=1e-4)


def test_smoothing_for_a_finer_grid_changes_nothing():
    grid = axis_aligned_grid((9, 8, 7), (2.0, 2.0, 2.0), (0, 0, 0))
    array = noise(grid.shape)
    np.testing.assert_array_equal(smooth_for(array, grid, grid), array)
    np.testing.assert_array_equal(smooth_for(array, grid, grid.coarsened(1.0)), array)


def test_smoothing_for_a_coarser_grid_removes_aliasing():
    grid = axis_aligned_grid((48, 48, 48), (1.0, 1.0, 1.0), (0, 0, 0))
    stripes = np.where(np.indices(grid.shape)[0] % 4 < 2, 1.0, -1.0)  # 4 mm a period
    coarse = grid.coarsened(4.0)
    aliased = resample(stripes, grid, coarse)[1:-1]
    assert abs(aliased.mean()) == pytest.approx(1.0)  # one phase of the stripes, a false constant
    smoothed = resample(smooth_for(stripes, grid, coarse), grid, coarse)[1:-1]
    assert abs(smoothed).max() < 0.05


# --- white matter ---------------------------------------------------------------------------------


def brain_values(grey, white, seed=0):
    draw = np.random.default_rng(seed)
    return np.concatenate(
        [
            draw.normal(0.3 * white, 0.05 * white, 4_000),
            draw.normal(grey, 0.07 * white, 50_000),
            draw.normal(white, 0.05 * white, 40_000),
        ]
    )


@pytest.mark.parametrize("white", [1.0, 110.0, 2500.0])
def test_the_white_matter_level_is_the_brighter_of_the_two_large_peaks(white):
    values = brain_values(0.65 * white, white)
    assert white_matter_level(values) == pytest.approx(white, rel=0.03)


@given(gain=st.floats(0.01, 1000))
def test_the_white_matter_level_follows_the_gain(gain):
    values = brain_values(65, 100)
    assert white_matter_level(values * gain) == pytest.approx(
        white_matter_level(values) * gain, rel=1e-6
    )


def test_the_white_matter_level_ignores_air():
    values = brain_values(65, 100)
    with_air = np.concatenate([values, np.zeros(500_000)])
    assert white_matter_level(with_air) == pytest.approx(white_matter_level(values))


def test_the_white_matter_level_of_a_single_hump_lies_in_its_upper_part():
    values = np.random.default_rng(0).triangular(50, 70, 120, 100_000)
    level = white_matter_level(values)
    assert np.percentile(values, 50) < level < np.percentile(values, 90)


def test_the_white_matter_of_the_template_is_brighter_than_its_grey_matter():
    brain, _ = read_packaged_template()
    level = white_matter_level(brain)
    core = ndimage.binary_erosion(brain > 0.93 * level, iterations=3)  # deep white matter
    assert core.sum() > 5_000
    assert level == pytest.approx(np.median(brain[core]), rel=0.06)


def test_an_oblique_grid_is_straightened_into_one_that_holds_it():
    turn = np.deg2rad(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    oblique = Grid((20, 30, 10), tuple(map(tuple, affine)))
    straight = oblique.straightened()
    assert not oblique.is_axis_aligned
    assert straight.is_axis_aligned
    volume = np.zeros(oblique.shape, np.float32)
    volume[5:15, 8:20, 2:8] = 1
    moved = resample(volume, oblique, straight)
    assert moved.sum() == pytest.approx(volume.sum(), rel=0.02)
    centre = np.argwhere(volume).mean(axis=0) @ affine[:3, :3].T
    moved_centre = np.argwhere(moved > 0.5).mean(axis=0) + straight.matrix[:3, 3]
    assert moved_centre == pytest.approx(centre, abs=0.2)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("shape", [(32767, 32767, 32767), (800, 800, 700)])
def test_a_header_that_claims_more_voxels_than_the_file_holds_is_refused(tmp_path, name, shape):
    # As a signed number of 16 bit each, in the header's bytes 42 to 48.
    path = tmp_path / name
    write_array(path, np.ones((4, 4, 4)), axis_aligned_grid((4, 4, 4), (2, 2, 2), (0, 0, 0)))
    opened = gzip.open if name.endswith(".gz") else open
    with opened(path, "rb") as stream:
        content = bytearray(stream.read())
    content[42:48] = struct.pack("<3h", *shape)
    with opened(path, "wb") as stream:
        stream.write(content)
    reason = refused(path, read_image)
    assert "x".join(map(str, shape)) in reason


@pytest.mark.parametrize(
    ("place", "form", "values"),
    [(40, "<8h", (4, 4, 4, 4, 0, 1, 1, 1)), (42, "<3h", (4, 0, 4)), (108, "<f", (-1e30,))],
    ids=["no volume", "no row", "a place before the file"],
)
def test_a_header_of_nonsense_is_refused(tmp_path, place, form, values):
    path = tmp_path / "a.nii"
    write_array(path, np.ones((4, 4, 4)), axis_aligned_grid((4, 4, 4), (2, 2, 2), (0, 0, 0)))
    content = bytearray(path.read_bytes())
    content[place : place + struct.calcsize(form)] = struct.pack(form, *values)
    path.write_bytes(content)
    refused(path)
