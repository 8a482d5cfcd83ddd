"""The two affines of a volume, which of them is taken, and the checksum of its file."""

import contextlib
import gzip

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from unit.test_series import read_series, refused
from voxplain.cohort.orientation import check_gzip, check_oriented, contradiction, read_oriented
from voxplain.cohort.series import read_scan
from voxplain.faults import AvoidableFault, DataFault
from voxplain.volumes import write_array
from voxplain_workflow.naming import naming

MIRROR = np.diag([-1, 1, 1, 1])


def write(path, phantom, sform, qform, codes=(1, 1)):
    """The phantom's voxels with two affines and their codes."""
    image = nib.Nifti1Image(phantom[0].astype(np.int16), phantom[1].matrix)
    image.header["sform_code"], image.header["qform_code"] = codes
    if qform is not None:
        image.header.set_qform(qform, int(codes[1]))
    if sform is not None:
        for name, row in zip(("srow_x", "srow_y", "srow_z"), sform, strict=False):
            image.header[name] = row
    # Beside nibabel, which writes both affines alike.
    header, voxels = image.header.copy(), phantom[0].astype(np.int16)
    header["magic"], header["vox_offset"] = b"n+1", 352
    header.set_data_dtype(np.int16)
    header["scl_slope"], header["scl_inter"] = 1, 0
    path.write_bytes(header.binaryblock + b"\0" * 4 + voxels.tobytes(order="F"))


# --- which affine ---------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (4, 1)])
def test_affines_that_mirror_each_other_are_refused(tmp_path, phantom, codes):
    matrix = phantom[1].matrix
    write(tmp_path / "I1.nii", phantom, matrix, MIRROR @ matrix, codes)
    with pytest.raises(DataFault) as fault:
        read_series(tmp_path)
    assert "the sform and the qform of I1.nii" in fault.value.reason
    assert "contradict each other: they are mirrored" in fault.value.reason
    assert "(sform RAS, qform LAS)" in fault.value.reason
    assert "with trust: sform (or qform)" in fault.value.remedy


def test_the_remedy_names_the_key_where_the_workflow_reads_the_volume(tmp_path, phantom):
    matrix = phantom[1].matrix
    write(tmp_path / "I1.nii", phantom, matrix, MIRROR @ matrix)
    path = tmp_path / "I1.nii"
    with pytest.raises(AvoidableFault, match="with trust: sform"), naming({"other": "else"}):
        read_scan([path], tmp_path)
    with pytest.raises(DataFault) as fault, naming({"trust": "conversion.trust"}):
        read_scan([path], tmp_path)
    assert "with conversion.trust: sform (or qform)" in fault.value.remedy


@pytest.mark.parametrize("trust", ["sform", "qform"])
def test_of_two_affines_the_one_is_taken_that_is_trusted(tmp_path, phantom, trust):
    volume, grid = phantom
    write(tmp_path / "I1.nii", phantom, grid.matrix, MIRROR @ grid.matrix)
    read = read_series(tmp_path, trust=trust)
    assert read.voxels.dtype == np.int16
    right, front, top = read.grid.matrix[:3, 3]
    if trust == "sform":
        np.testing.assert_array_equal(read.voxels, volume)
        assert read.grid.matches(grid)
    else:
        np.testing.assert_array_equal(read.voxels, volume[::-1])
        far = -(grid.matrix[0, 3] + 4.8 * 23)
        np.testing.assert_allclose([right, front, top], [far, -61.5, -40.125], atol=1e-3)
    assert read.sidecar["ConversionNote"].startswith("sform and qform contradict each other (they")
    assert read.sidecar["ConversionNote"].endswith(f"the {trust} was trusted")


@pytest.mark.parametrize("trust", ["refuse", "sform", "qform"])
def test_affines_that_agree_are_no_choice(tmp_path, phantom, trust):
    write(tmp_path / "I1.nii", phantom, phantom[1].matrix, phantom[1].matrix)
    read = read_series(tmp_path, trust=trust)
    np.testing.assert_array_equal(read.voxels, phantom[0])
    assert read.sidecar == {"Modality": "MR"}


ZEROS, NAN = np.zeros((3, 4)), np.full((3, 4), np.nan)
FLAT = np.array([[4.8, 0, 0, 1], [0, 4, 0, 1], [4.8, 0, 0, 1.0]])


@pytest.mark.parametrize("sform", [ZEROS, NAN, FLAT], ids=["zeros", "nan", "flat"])
@pytest.mark.parametrize("trust", ["refuse", "sform"])
def test_a_qform_is_taken_where_the_sform_is_no_affine(tmp_path, phantom, sform, trust):
    write(tmp_path / "I1.nii", phantom, sform, phantom[1].matrix)
    read = read_series(tmp_path, trust=trust)
    np.testing.assert_array_equal(read.voxels, phantom[0])
    assert read.grid.matches(phantom[1])
    assert read.sidecar["ConversionNote"] == "its sform is no affine, the qform was taken"


@pytest.mark.parametrize("codes", [(1, 1), (1, 0)])
def test_a_header_of_absurd_size_is_refused_where_its_sform_is_no_affine(tmp_path, phantom, codes):
    write(tmp_path / "I1.nii", phantom, ZEROS, phantom[1].matrix, codes)
    content = bytearray((tmp_path / "I1.nii").read_bytes())
    content[40:48] = np.array([3, 32767, 32767, 32767], "<i2").tobytes()
    (tmp_path / "I1.nii").write_bytes(content)
    reason = refused(lambda: read_series(tmp_path, unoriented="RAS"), tmp_path / "I1.nii")
    assert "32767x32767x32767 voxels by its header" in reason


def test_an_sform_is_taken_where_the_qform_is_no_rotation(tmp_path, phantom):
    write(tmp_path / "I1.nii", phantom, phantom[1].matrix, None)
    path = tmp_path / "I1.nii"
    content = bytearray(path.read_bytes())
    content[256:268] = np.array([2, 2, 2], "<f4").tobytes()  # quatern_b, _c, _d
    path.write_bytes(content)
    read = read_series(tmp_path)
    assert read.grid.matches(phantom[1])
    assert read.sidecar["ConversionNote"] == "its qform is no affine, the sform was taken"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_volume_with_no_valid_affine_does_not_say_how_it_lies(tmp_path, phantom, suffix):
    path = tmp_path / "I1.nii"
    write(path, phantom, ZEROS, None, codes=(1, 0))
    if suffix == ".nii.gz":
        path.with_suffix(suffix).write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    reason = refused(lambda: read_series(tmp_path), path.stem)
    assert "does not say how it lies in space" in reason
    assert "affines of zeros" in reason
    read = read_series(tmp_path, unoriented="RAS")
    np.testing.assert_array_equal(read.voxels, phantom[0])
    assert "were taken to run to RAS" in read.sidecar["ConversionNote"]


def test_a_mask_whose_affines_contradict_each_other_is_read_as_its_volume(tmp_path, phantom):
    volume, grid = phantom
    mask = (volume > 700).astype(np.int16)
    write(tmp_path / "a_T1w.nii", phantom, grid.matrix, MIRROR @ grid.matrix)
    write(tmp_path / "a_mask.nii", (mask, grid), grid.matrix, MIRROR @ grid.matrix)
    read = read_series(tmp_path, trust="qform")
    np.testing.assert_array_equal(read.voxels, np.where(mask, volume, 0)[::-1])


def test_a_volume_whose_orientation_is_no_setting_is_refused(tmp_path, phantom):
    """As the head from which scans are simulated."""
    path, matrix = tmp_path / "head.nii", phantom[1].matrix
    write(path, phantom, matrix, matrix)
    check_oriented(path)
    write(path, phantom, matrix, MIRROR @ matrix)
    refused(lambda: check_oriented(path), "head.nii", "mirrored")
    write(path, phantom, ZEROS, matrix)
    refused(lambda: check_oriented(path), path, "is no affine")
    write(path, phantom, None, None, codes=(0, 0))
    refused(lambda: check_oriented(path), path, "does not say how it lies")
    path.write_text("a note")
    refused(lambda: check_oriented(path), path)
    packed = tmp_path / "head.nii.gz"
    packed.write_bytes(gzip.compress(b"0" * 1000)[:-4])
    refused(lambda: check_oriented(packed), packed, "is damaged")


# --- what contradicts -----------------------------------------------------------------------------


def turned(matrix, degrees, about=(0, 0, 1)):
    rotation = np.eye(4)
    rotation[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * np.array(about)).as_matrix()
    return rotation @ matrix


def shifted(matrix, mm):
    moved = matrix.copy()
    moved[1, 3] += mm
    return moved


@pytest.mark.parametrize(
    ("change", "one_space", "two_spaces"),
    [
        (lambda matrix: matrix, "", ""),
        (lambda matrix: shifted(matrix, 1), "", ""),
        (lambda matrix: shifted(matrix, 5), "corners lie up to 5.0 mm apart", ""),
        (lambda matrix: turned(matrix, 0.5), "", ""),
        (lambda matrix: turned(matrix, 10), "corners lie up to", ""),
        (lambda matrix: turned(matrix, 44, (1, 0, 0)), "corners lie up to", ""),
        (lambda matrix: turned(matrix, 90), "corners lie up to", "turned by 90 degrees"),
        (lambda matrix: turned(matrix, 180), "corners lie up to", "turned by 180 degrees"),
        (lambda matrix: np.diag([1.1, 1.1, 1.1, 1]) @ matrix, "voxels of 4.8 x", ""),
        (lambda matrix: np.diag([2, 2, 2, 1]) @ matrix, "voxels of", "voxels of 4.8 x 4 x 4 mm by"),
        (lambda matrix: MIRROR @ matrix, "mirrored", "mirrored"),
        (lambda matrix: matrix @ np.diag([1, 1, -1, 1]), "mirrored", "mirrored"),
    ],
)
def test_affines_contradict_each_other_by_more_than_rounding(
    phantom, change, one_space, two_spaces
):
    matrix = phantom[1].matrix
    other = change(matrix)
    for same_space, told in ((True, one_space), (False, two_spaces)):
        how = contradiction(matrix, other, phantom[0].shape, same_space)
        assert told in how
        assert bool(told) == bool(how)


@pytest.mark.parametrize("codes", [(4, 1), (2, 1), (2, 2)])
def test_the_sform_is_taken_where_it_was_aligned_to_something_else(tmp_path, phantom, codes):
    matrix = turned(phantom[1].matrix, 20)
    write(tmp_path / "I1.nii", phantom, phantom[1].matrix, matrix, codes)
    assert read_series(tmp_path).grid.matches(phantom[1])


@pytest.mark.parametrize("codes", [(1, 1), (4, 4)])
def test_two_places_in_one_space_are_refused(tmp_path, phantom, codes):
    write(tmp_path / "I1.nii", phantom, phantom[1].matrix, turned(phantom[1].matrix, 20), codes)
    refused(lambda: read_series(tmp_path), "the volume's corners lie up to")


# --- checksums ------------------------------------------------------------------------------------


def test_a_flipped_bit_in_a_compressed_volume_never_changes_its_voxels(tmp_path, phantom):
    """Nibabel alone reads most of these, with other voxels."""
    small = phantom[0][:, ::2, ::2].astype(np.int16)
    grid = phantom[1]
    path = tmp_path / "I1.nii.gz"
    image = nib.Nifti1Image(small, grid.matrix @ np.diag([1, 2, 2, 1]))
    nib.save(image, path)
    content = path.read_bytes()
    draw = np.random.default_rng(0)
    changed = 0
    for place in draw.integers(10, len(content), 60):  # the first bytes name no content
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        with contextlib.suppress(Exception):
            changed += not np.array_equal(np.asarray(nib.load(path).dataobj), small)
        try:
            voxels, _, _ = read_oriented(path, "I1")
        except DataFault as fault:
            assert str(path) in fault.reason
        else:
            np.testing.assert_array_equal(voxels, small)
    assert changed > 20


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:-8],
        lambda content: content[: len(content) // 2],
        lambda content: content[:-8] + b"\0" * 8,
        lambda content: content + b"something",
        lambda content: gzip.decompress(content),
    ],
    ids=["a byte", "no checksum", "half", "another checksum", "more", "not compressed"],
)
@pytest.mark.parametrize("name", ["a_T1w.nii.gz", "a_mask.nii.gz"])
def test_a_damaged_file_is_refused_by_name(tmp_path, phantom, damage, name):
    volume, grid = phantom
    write_array(tmp_path / "a_T1w.nii.gz", volume, grid, np.uint16)
    write_array(tmp_path / "a_mask.nii.gz", volume > 700, grid, np.uint8)
    path = tmp_path / name
    path.write_bytes(damage(path.read_bytes()))
    refused(lambda: read_series(tmp_path), path, "is damaged")


def test_files_of_several_compressed_parts_are_whole(tmp_path, phantom):
    path = tmp_path / "I1.nii.gz"
    write_array(tmp_path / "I1.nii", *phantom, np.uint16)
    content = (tmp_path / "I1.nii").read_bytes()
    (tmp_path / "I1.nii").unlink()
    path.write_bytes(gzip.compress(content[:20_000]) + gzip.compress(content[20_000:]) + b"\0" * 64)
    check_gzip(path)
    np.testing.assert_array_equal(read_series(tmp_path).voxels, phantom[0])
