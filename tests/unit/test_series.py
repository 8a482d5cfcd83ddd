import hashlib
import json
import shutil
import struct
import subprocess
from dataclasses import replace

import dcm2niix
import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import dirty
from voxplain.cohort.acquisition import read_metadata
from voxplain.cohort.dicom import write_series
from voxplain.cohort.dicom_images import read_images
from voxplain.cohort.files import digest_files, open_source
from voxplain.cohort.series import (
    Conversion,
    convert_series,
    digest_voxels,
    read_scan,
)
from voxplain.faults import DataFault
from voxplain.volumes import axis_aligned_grid, read_array, write_array


def refused(call, *names):
    """The reason why a folder is refused, which names what is at fault."""
    with pytest.raises(DataFault) as fault:
        call()
    for name in names:
        assert str(name) in fault.value.reason
    assert fault.value.remedy
    assert "\n" not in str(fault.value)
    return fault.value.reason


def read_series(folder, image="", companions=(), subject="", description="", **conversion):
    """A scan read as the workflow reads it; the phantom's slices are thicker than a scan's."""
    with open_source(folder, image, companions) as files:
        conversion = Conversion(**{"max_slice_mm": 7, **conversion})
        return read_scan(files, folder, conversion, subject, description)


def check_series(folder):
    with open_source(folder) as files:
        return len(read_images(files, folder))


def digest_series(folder):
    with open_source(folder) as files:
        return digest_files(files)


# --- checking -------------------------------------------------------------------------------------


def test_a_whole_series_is_counted(series):
    assert check_series(series.folder) == 24


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.999])
def test_truncated_pixels_are_refused_naming_file_and_sizes(series, kept):
    path = series.files[5]
    content = path.read_bytes()
    pixels = 30 * 26 * 2
    header = len(content) - pixels
    path.write_bytes(content[: header + int(kept * pixels)])
    reason = refused(lambda: check_series(series.folder), path)
    assert "truncated" in reason
    assert f"{int(kept * pixels)} bytes of pixels, expected {pixels}" in reason


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_cut_off_in_its_header_is_refused_by_name(series, data):
    path = series.files[5]
    content = (series.folder / series.files[6].name).read_bytes()
    header = len(content) - 30 * 26 * 2
    # Up to the preamble a file is no DICOM file; from byte 200 on the class of its object is known.
    cut = data.draw(st.integers(1, 150) | st.integers(200, header))
    path.write_bytes(content[:cut])
    refused(lambda: check_series(series.folder), path)


def test_an_empty_file_is_refused_by_name(series):
    series.files[3].write_bytes(b"")
    refused(lambda: check_series(series.folder), series.files[3])


@pytest.mark.parametrize("ending", ["dcm", "DCM", "ima", "IMA"])
def test_a_file_that_is_only_named_like_dicom_is_refused_by_name(series, ending):
    path = series.folder / f"page.{ending}"
    path.write_text("<html>404 Not Found</html>" * 20)
    assert "is no DICOM file, though its name says so" in refused(
        lambda: check_series(series.folder), path
    )


def test_notes_and_lists_beside_the_images_are_passed_over(series):
    (series.folder / "notes.txt").write_text("the patient moved a little\n" * 20)
    (series.folder / "ADNI_011_S_0003_I32237.xml").write_text("<project/>")
    (series.folder / "subfolder").mkdir()
    assert check_series(series.folder) == 24
    np.testing.assert_array_equal(convert_series(series.folder).voxels, series.volume)


def test_a_dicom_object_that_is_no_image_is_passed_over(series):
    report = pydicom.dcmread(series.files[0])
    del report.PixelData
    report.SOPClassUID = pydicom.uid.ComprehensiveSRStorage
    report.file_meta.MediaStorageSOPClassUID = pydicom.uid.ComprehensiveSRStorage
    report.save_as(series.folder / "report.dcm")
    assert check_series(series.folder) == 24


def test_hidden_files_are_no_part_of_a_series(series):
    before = digest_series(series.folder)
    (series.folder / ".snakemake_timestamp").touch()
    (series.folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    with open_source(series.folder) as files:
        assert files == sorted(series.files)
    assert digest_series(series.folder) == before
    assert check_series(series.folder) == 24


@pytest.mark.parametrize("key", ["Rows", "Columns", "BitsAllocated"])
def test_a_file_that_lacks_what_its_pixels_need_is_refused_by_name(series, key):
    slice_ = pydicom.dcmread(series.files[4])
    delattr(slice_, key)
    slice_.save_as(series.files[4])
    assert key in refused(lambda: check_series(series.folder), series.files[4])


def test_an_empty_folder_is_refused_by_name(tmp_path):
    (tmp_path / ".snakemake_timestamp").touch()
    assert "is empty" in refused(lambda: check_series(tmp_path), tmp_path)


def test_a_folder_without_dicom_is_refused_by_name(tmp_path):
    (tmp_path / "I1.nii").write_bytes(b"\0" * 400)
    (tmp_path / "notes.txt").write_text("nothing here")
    reason = refused(lambda: check_series(tmp_path), tmp_path)
    assert "2 files and no DICOM image" in reason


# --- converting -----------------------------------------------------------------------------------


def test_a_written_series_comes_back_with_every_voxel_in_its_place(series):
    converted = convert_series(series.folder)
    np.testing.assert_array_equal(converted.voxels, series.volume)
    assert converted.grid.matches(series.grid, tolerance_mm=1e-3)
    # The bright block lies to the right, in front and at the top.
    bright = np.argwhere(converted.voxels == 4000).mean(axis=0)
    place = nib.affines.apply_affine(converted.grid.matrix, bright)
    np.testing.assert_allclose(place, (50.55, 40.5, 49.875), atol=1e-3)


@settings(max_examples=8)
@given(
    shape=st.tuples(*[st.integers(20, 30)] * 3),
    size=st.tuples(*[st.floats(4.1, 6.0)] * 3),
    origin=st.tuples(*[st.floats(-150, 150)] * 3),
)
def test_any_series_comes_back_as_it_was_written(
    tmp_path_factory, series_header, shape, size, origin
):
    grid = axis_aligned_grid(shape, size, origin)
    volume = np.random.default_rng(0).integers(0, 4096, shape).astype(np.uint16)
    folder = tmp_path_factory.mktemp("series")
    write_series(folder, volume, grid, series_header)
    converted = convert_series(folder)
    np.testing.assert_array_equal(converted.voxels, volume)
    np.testing.assert_allclose(converted.grid.matrix, grid.matrix, atol=5e-3)


def test_a_series_in_an_oblique_position_keeps_its_place_in_space(series):
    turn = Rotation.from_euler("xyz", (7, -5, 11), degrees=True).as_matrix()
    flip = np.diag([-1, -1, 1])
    for path in series.files:
        slice_ = pydicom.dcmread(path)
        in_lps = flip @ turn @ flip
        position = in_lps @ np.array(slice_.ImagePositionPatient, float)
        axes = np.array(slice_.ImageOrientationPatient, float).reshape(2, 3) @ in_lps.T
        slice_.ImagePositionPatient = [f"{v:.6f}" for v in position]
        slice_.ImageOrientationPatient = [f"{v:.8f}" for v in axes.ravel()]
        slice_.save_as(path)
    converted = convert_series(series.folder)
    expected = np.eye(4)
    expected[:3, :3] = turn @ series.grid.matrix[:3, :3]
    expected[:3, 3] = turn @ series.grid.matrix[:3, 3]
    np.testing.assert_allclose(converted.grid.matrix, expected, atol=2e-3)
    np.testing.assert_array_equal(converted.voxels, series.volume)


def test_slices_are_ordered_by_place_whatever_their_files_are_called(series, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    order = np.random.default_rng(0).permutation(len(series.files))
    for number, index in enumerate(order):
        shutil.copy(series.files[index], mixed / f"{number:03d}.dcm")
    np.testing.assert_array_equal(convert_series(mixed).voxels, series.volume)


def test_a_missing_slice_is_refused_by_folder(series):
    series.files[9].unlink()
    reason = refused(lambda: convert_series(series.folder), series.folder)
    assert "missing or uneven" in reason


def test_two_series_in_one_folder_are_refused_and_listed(series, series_header, phantom):
    other = replace(
        series_header, acquired="2005-09-12T10:31:12", image="I32240", description="MP-RAGE-REPEAT"
    )
    write_series(series.folder, *phantom, other)
    reason = refused(lambda: convert_series(series.folder), series.folder)
    assert "several volumes" in reason
    assert reason.count("24x30x26") == 2
    assert "MP-RAGE-REPEAT" in reason


def test_a_scout_of_few_slices_beside_the_series_is_not_taken_for_it(
    series, series_header, phantom
):
    volume, _ = phantom
    scout = axis_aligned_grid((5, 30, 26), (20.0, 4.0, 4.0), (-40, -60, -40))
    other = replace(
        series_header, acquired="2005-09-12T10:01:12", image="I32240", description="scout"
    )
    write_series(series.folder, volume[:5], scout, other)
    np.testing.assert_array_equal(convert_series(series.folder).voxels, series.volume)


def test_a_folder_with_a_scout_alone_is_refused(tmp_path, series_header, phantom):
    scout = axis_aligned_grid((5, 30, 26), (20.0, 4.0, 4.0), (-40, -60, -40))
    write_series(tmp_path, phantom[0][:5], scout, series_header)
    reason = refused(lambda: convert_series(tmp_path), tmp_path)
    assert "20 slices or more" in reason
    assert "5x30x26" in reason


def test_a_folder_without_images_is_refused_by_name(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    assert "made no volume" in refused(lambda: convert_series(tmp_path), tmp_path)


@pytest.mark.parametrize(("size_mm", "told"), [(1.0, "24x30x26 mm"), (16.0, "384x480x416 mm")])
def test_a_volume_of_no_heads_size_is_refused_with_its_size(
    tmp_path, phantom, series_header, size_mm, told
):
    grid = axis_aligned_grid((24, 30, 26), (size_mm,) * 3, (0, 0, 0))
    write_series(tmp_path, phantom[0], grid, series_header)
    reason = refused(lambda: convert_series(tmp_path), tmp_path)
    assert told in reason
    assert "80 to 400 mm" in reason


def test_a_volume_of_one_value_is_refused(tmp_path, phantom, series_header):
    volume, grid = phantom
    write_series(tmp_path, np.full_like(volume, 7), grid, series_header)
    assert "one value only" in refused(lambda: convert_series(tmp_path), tmp_path)


def test_the_sidecar_describes_the_acquisition_and_the_conversion(series):
    sidecar = convert_series(series.folder).sidecar
    assert sidecar["Modality"] == "MR"
    assert sidecar["MagneticFieldStrength"] == pytest.approx(1.5)
    assert sidecar["SeriesDescription"] == "MP-RAGE"
    assert sidecar["EchoTime"] == pytest.approx(0.0035)
    assert sidecar["RepetitionTime"] == pytest.approx(2.4)
    assert sidecar["InversionTime"] == pytest.approx(1.0)
    assert sidecar["FlipAngle"] == pytest.approx(8)
    assert "ORIGINAL" in sidecar["ImageType"]
    assert sidecar["ConversionSoftware"] == "dcm2niix"
    assert sidecar["ConversionSoftwareVersion"].startswith("v1.")


def test_the_sidecar_names_no_person_and_no_day(series):
    for path in series.files:
        slice_ = pydicom.dcmread(path)
        slice_.PatientName = "Alzheimer^Auguste"
        slice_.PatientBirthDate = "18500516"
        slice_.InstitutionName = "Anstalt Frankfurt"
        slice_.save_as(path)
    told = str(convert_series(series.folder).sidecar)
    for secret in (
        "Alzheimer",
        "Auguste",
        "1850",
        "2005",
        "0912",
        "10:11",
        "Anstalt",
        "011_S_0003",
    ):
        assert secret not in told
    assert not [key for key in told.split("'") if "Date" in key or "Patient" in key]


# --- what an archive's folder may hold ------------------------------------------------------------


def test_a_folder_of_dicom_is_checked_and_converted(series):
    np.testing.assert_array_equal(read_series(series.folder).voxels, series.volume)
    series.files[5].write_bytes(series.files[5].read_bytes()[:-100])
    assert "truncated" in refused(lambda: read_series(series.folder), series.files[5])


@pytest.mark.parametrize("name", ["ADNI_S13893_I14782.nii", "I14782.nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32])
def test_a_folder_with_one_nifti_file_is_read_in_its_own_type(tmp_path, phantom, name, dtype):
    volume, grid = phantom
    volume = (volume // 16).astype(dtype)
    write_array(tmp_path / name, volume, grid, dtype)
    (tmp_path / "notes.txt").write_text("converted by the archive")
    (tmp_path / ".DS_Store").touch()
    read = read_series(tmp_path)
    assert read.voxels.dtype == dtype
    np.testing.assert_array_equal(read.voxels, volume)
    assert read.grid.matches(grid)
    assert read.sidecar == {"Modality": "MR"}


def test_nifti_values_wider_than_32_bit_are_read_as_such(tmp_path, phantom):
    volume, grid = phantom
    write_array(tmp_path / "I1.nii", volume / 7, grid, np.float64)
    read = read_series(tmp_path)
    assert read.voxels.dtype == np.float32
    np.testing.assert_allclose(read.voxels, volume / 7, rtol=1e-6)


def test_scaled_nifti_values_are_read_as_what_they_mean(tmp_path, phantom):
    volume, grid = phantom
    image = nib.Nifti1Image(volume.astype(np.int16), grid.matrix)
    image.header.set_slope_inter(0.5, 10)
    nib.save(image, tmp_path / "I1.nii")
    stored = nib.load(tmp_path / "I1.nii").get_fdata()
    np.testing.assert_allclose(read_series(tmp_path).voxels, stored, rtol=1e-6)


@pytest.mark.parametrize("other", ["I2.nii", "I2.nii.gz", "I2.dcm"])
def test_several_images_in_one_folder_are_refused(tmp_path, phantom, other):
    volume, grid = phantom
    write_array(tmp_path / "I1.nii", volume, grid)
    (tmp_path / other).write_bytes((tmp_path / "I1.nii").read_bytes())
    assert "2 images" in refused(lambda: read_series(tmp_path), tmp_path, "I1.nii")


@pytest.mark.parametrize("dtype", [[("R", "u1"), ("G", "u1"), ("B", "u1")], np.complex64])
def test_a_nifti_file_of_colours_or_complex_numbers_is_refused(tmp_path, phantom, dtype):
    _, grid = phantom
    nib.save(nib.Nifti1Image(np.ones(grid.shape, dtype), grid.matrix), tmp_path / "I1.nii")
    assert "colours or complex numbers" in refused(lambda: read_series(tmp_path), tmp_path)


def test_a_nifti_file_with_values_that_are_no_numbers_is_refused(tmp_path, phantom):
    volume, grid = phantom
    broken = volume.astype(np.float32)
    broken[3, 4, 5] = np.nan
    write_array(tmp_path / "I1.nii", broken, grid)
    assert "no numbers" in refused(lambda: read_series(tmp_path), tmp_path)


def test_a_truncated_nifti_file_is_refused_by_name(tmp_path, phantom):
    path = tmp_path / "I1.nii"
    write_array(path, *phantom)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataFault) as fault:
        read_series(tmp_path)
    assert str(path) in fault.value.reason


def test_an_empty_folder_is_no_series(tmp_path):
    assert "is empty" in refused(lambda: read_series(tmp_path), tmp_path)


def test_a_series_in_a_subfolder_is_not_taken_for_the_scan(series, tmp_path):
    folder = tmp_path / "I1"
    shutil.copytree(series.folder, folder / "someone_else")
    (folder / "notes.txt").write_text("nothing here")
    with pytest.raises(DataFault, match="no DICOM image"):
        read_series(folder)


def test_a_full_disk_is_no_fault_of_the_scan(series, monkeypatch):
    said = b"Error: Unable to write 2_MP-RAGE.nii (disk full?)"
    done = subprocess.CompletedProcess([], 1, stdout=said)
    monkeypatch.setattr(dcm2niix, "main", lambda *_, **__: done)
    with pytest.raises(OSError, match="could not write"):
        convert_series(series.folder)


# --- digests of voxels ----------------------------------------------------------------------------


def test_a_volumes_digest_is_that_of_its_shape_and_its_voxels_as_floats():
    voxels = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    plain = b"".join(struct.pack("<f", number) for number in range(24))
    assert digest_voxels(voxels) == hashlib.sha256(b"(2, 3, 4) " + plain).hexdigest()


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4"])
def test_the_same_voxels_have_the_same_digest_however_they_lie_in_memory(dtype):
    voxels = np.random.default_rng(0).integers(0, 200, (4, 5, 6)).astype(dtype)
    spaced = np.zeros((8, 5, 6), dtype)
    spaced[::2] = voxels
    same = (
        np.asfortranarray(voxels),
        voxels.astype(voxels.dtype.newbyteorder(">")),
        spaced[::2],
        voxels[::-1][::-1],
        voxels.astype(np.float64),
    )
    assert {digest_voxels(other) for other in same} == {digest_voxels(voxels)}


def test_other_voxels_another_shape_and_a_flip_have_other_digests():
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    changed = voxels.copy()
    changed[1, 2, 3] += 1
    others = [
        voxels,
        changed,
        voxels.reshape(4, 3, 2),
        voxels.T,
        voxels[::-1],
        voxels[:, ::-1],
        voxels[..., ::-1],
    ]
    assert len({digest_voxels(other) for other in others}) == len(others)


def test_an_image_under_another_name_and_header_has_the_same_voxel_digest(
    series, tmp_path, phantom, series_header
):
    volume, grid = phantom
    other = replace(
        series_header, subject="099_S_0001", image="I99999", acquired="2011-01-02T03:04:05"
    )
    write_series(tmp_path / "other", volume, grid, other)
    ours, theirs = read_series(series.folder), read_series(tmp_path / "other")
    digests = digest_series(series.folder).values()
    assert not set(digests) & set(digest_series(tmp_path / "other").values())
    assert digest_voxels(ours.voxels) == digest_voxels(theirs.voxels)
    write_array(tmp_path / "copy.nii.gz", ours.voxels, ours.grid, ours.voxels.dtype)
    stored, _ = read_array(tmp_path / "copy.nii.gz", dtype=None)
    assert digest_voxels(stored) == digest_voxels(ours.voxels)


# --- what lies beside a volume --------------------------------------------------------------------

XML = """<?xml version="1.0"?><idaxs><project><subject><study><series><imagingProtocol>
<protocolTerm>
<protocol term="Field Strength">1.5</protocol><protocol term="TE">3.6</protocol>
<protocol term="TR">3000.0</protocol><protocol term="Manufacturer">SIEMENS</protocol>
<protocol term="Mfg Model">Sonata</protocol><protocol term="Weighting">T1</protocol>
<protocol term="TI"> </protocol>
</protocolTerm></imagingProtocol></series></study></subject></project></idaxs>"""


def test_the_archives_metadata_comes_into_the_sidecar_in_the_words_and_units_of_bids(
    tmp_path, phantom
):
    write_array(tmp_path / "a_I1.nii", *phantom, np.uint16)
    (tmp_path / "a_I1.xml").write_text(XML)
    assert read_series(tmp_path).sidecar == {
        "Modality": "MR",
        "Manufacturer": "SIEMENS",
        "ManufacturersModelName": "Sonata",
        "MagneticFieldStrength": 1.5,
        "EchoTime": pytest.approx(0.0036),
        "RepetitionTime": pytest.approx(3),
    }
    assert read_metadata(tmp_path / "a_I1.xml")["EchoTime"] == pytest.approx(0.0036)


def test_a_json_sidecar_is_read_and_names_no_person(tmp_path, phantom):
    write_array(tmp_path / "a.nii.gz", *phantom, np.uint16)
    told = {"EchoTime": 0.004, "PatientName": "Auguste", "AcquisitionTime": "10:11:12"}
    (tmp_path / "a.json").write_text(json.dumps(told))
    assert read_series(tmp_path).sidecar == {"Modality": "MR", "EchoTime": 0.004}


@pytest.mark.parametrize(("name", "text"), [("a.json", "{"), ("a.xml", "<a>"), ("a.json", "\xff")])
def test_a_broken_file_beside_a_volume_is_refused_by_name(tmp_path, phantom, name, text):
    write_array(tmp_path / "a.nii.gz", *phantom, np.uint16)
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    refused(lambda: read_series(tmp_path), name)


def test_a_mask_beside_a_volume_leaves_the_brain(tmp_path, phantom):
    volume, grid = phantom
    mask = volume > 700
    write_array(tmp_path / "sub-1_desc-preproc_T1w.nii.gz", volume, grid, np.uint16)
    write_array(tmp_path / "sub-1_desc-brain_mask.nii.gz", mask, grid, np.uint8)
    np.testing.assert_array_equal(read_series(tmp_path).voxels, np.where(mask, volume, 0))


def test_a_mask_on_another_grid_is_refused(tmp_path, phantom):
    volume, grid = phantom
    write_array(tmp_path / "sub-1_T1w.nii.gz", volume, grid, np.uint16)
    other = axis_aligned_grid(grid.shape, grid.voxel_size, (0, 0, 0))
    write_array(tmp_path / "sub-1_desc-brain_mask.nii.gz", volume > 700, other, np.uint8)
    refused(lambda: read_series(tmp_path), "desc-brain_mask.nii.gz", "another grid")


# --- volumes that do not say how they lie ---------------------------------------------------------


def write_analyze(folder, phantom, codes):
    """A plain Analyze pair whose axes run as some codes say."""
    volume, grid = phantom
    ornt = nib.orientations.axcodes2ornt(codes)
    back = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), ornt)
    stored = nib.orientations.apply_orientation(volume.astype(np.int16), back)
    sizes = np.array(grid.voxel_size)[ornt[:, 0].astype(int)]
    image = nib.AnalyzeImage(stored, np.diag([*sizes, 1]))
    nib.save(image, folder / "a_I1.img")


def test_a_plain_analyze_pair_is_refused_since_left_and_right_cannot_be_guessed(tmp_path, phantom):
    write_analyze(tmp_path, phantom, "LAS")
    reason = refused(lambda: read_series(tmp_path), tmp_path)
    assert "does not say how it lies in space (plain Analyze" in reason


@pytest.mark.parametrize("codes", ["LAS", "RAS", "PSR", "SAL", "IPL"])
def test_an_analyze_pair_is_read_as_the_user_says_it_lies(tmp_path, phantom, codes):
    write_analyze(tmp_path, phantom, codes)
    read = read_series(tmp_path, unoriented=codes)
    np.testing.assert_array_equal(read.voxels, phantom[0])
    np.testing.assert_allclose(read.grid.voxel_size, phantom[1].voxel_size, rtol=1e-5)
    assert read.sidecar["AssumedOrientation"] == codes


def test_a_nifti_pair_that_says_how_it_lies_is_read(tmp_path, phantom):
    volume, grid = phantom
    nib.save(nib.Nifti1Pair(volume, grid.matrix), tmp_path / "a_I1.img")
    read = read_series(tmp_path)
    np.testing.assert_array_equal(read.voxels, volume)
    assert read.grid.matches(grid)


def test_a_header_without_its_voxels_is_refused(tmp_path, phantom):
    write_analyze(tmp_path, phantom, "LAS")
    (tmp_path / "a_I1.img").unlink()
    assert "has no .img beside it" in refused(lambda: read_series(tmp_path), "a_I1.hdr")


def test_what_is_no_number_outside_a_brain_is_0(tmp_path, phantom):
    volume, grid = phantom
    brain = np.where(volume > 700, volume, np.nan).astype(np.float32)
    write_array(tmp_path / "I1.nii", brain, grid)
    read = read_series(tmp_path, nan_outside=True)
    np.testing.assert_array_equal(read.voxels, np.where(volume > 700, volume, 0))


def test_a_sidecar_that_says_null_says_nothing(tmp_path, phantom):
    write_array(tmp_path / "a.nii", *phantom, np.uint16)
    (tmp_path / "a.json").write_text('{"SeriesDescription": null, "ImageType": null}')
    assert read_series(tmp_path).sidecar == {"Modality": "MR"}


# --- whatever a scan's files hold is this scan's fault --------------------------------------------

ODD_SIDECARS = {
    "a number for a text": ('{"SeriesDescription": 7}', {"SeriesDescription": "7"}),
    "a text for a list": (
        '{"ImageType": "ORIGINAL\\\\PRIMARY"}',
        {"ImageType": ["ORIGINAL", "PRIMARY"]},
    ),
    "numbers in a list": ('{"ImageType": [1, "N3"]}', {"ImageType": ["1", "N3"]}),
    "a mapping for a list": ('{"ImageType": {"a": 1}, "EchoTime": 3}', {"EchoTime": 3}),
    "a mapping for a text": ('{"SeriesDescription": {"a": [1]}}', {}),
    "a list for a number": ('{"EchoTime": [1, 2]}', {}),
    "not a number": ('{"EchoTime": NaN, "FlipAngle": Infinity}', {}),
    "a number without end": (f'{{"EchoTime": 1{"0" * 400}}}', {}),
    "half a character": ('{"Manufacturer": "a\\ud800"}', {"Manufacturer": "a\\ud800"}),
    "a list": ("[1, 2]", {}),
}


@pytest.mark.parametrize("name", ODD_SIDECARS)
def test_a_sidecar_gives_fields_of_the_right_types_that_can_be_written(tmp_path, phantom, name):
    text, expected = ODD_SIDECARS[name]
    write_array(tmp_path / "a.nii", *phantom, np.uint16)
    (tmp_path / "a.json").write_text(text)
    sidecar = read_series(tmp_path).sidecar
    assert sidecar == {"Modality": "MR", **expected}
    assert json.loads(json.dumps(sidecar, ensure_ascii=False).encode()) == sidecar


@pytest.mark.parametrize(
    "text", ['{"a": ' * 100_000, "[" * 100_000, '{"a"', " " * (16 * 2**20 + 1)]
)
def test_a_sidecar_that_is_no_json_or_has_no_end_is_refused(tmp_path, phantom, text):
    write_array(tmp_path / "a.nii", *phantom, np.uint16)
    (tmp_path / "a.json").write_text(text)
    refused(lambda: read_series(tmp_path), "a.json")


@pytest.mark.parametrize(
    ("volume", "reason"),
    [
        (lambda volume: -1.0 - volume, "has no value above 0"),
        (lambda volume: volume[:, :, :1], "measures"),
        (lambda volume: volume[:1, :, :], "measures"),
    ],
    ids=["negative", "a last axis of 1", "a first axis of 1"],
)
def test_an_analyze_volume_that_is_no_head_is_refused(tmp_path, phantom, volume, reason):
    array = volume(phantom[0].astype(np.float32))
    write_analyze(tmp_path, (array, phantom[1]), "LAS")
    assert reason in refused(lambda: read_series(tmp_path, unoriented="LAS"), tmp_path)


def test_a_dicom_file_whose_name_is_not_utf_8_is_refused_with_escapes(series):
    path = series.files[0].with_name(b"M\xfcller.dcm".decode("utf-8", "surrogateescape"))
    series.files[0].rename(path)
    path.write_bytes(path.read_bytes()[:-1000])
    assert "M\\xfcller.dcm" in refused(lambda: read_series(series.folder))


def test_a_compressed_image_of_absurd_size_is_refused(series):
    dirty.as_rle(series.folder)
    path, slice_ = dirty.slices(series.folder)[3]
    slice_.Rows = slice_.Columns = 65535
    slice_.save_as(path)
    assert "65535" in refused(lambda: check_series(series.folder), path)


def test_a_series_on_which_dcm2niix_does_not_end_is_refused(series, monkeypatch):
    def hang(arguments, timeout, **_):
        raise subprocess.TimeoutExpired("dcm2niix", timeout)

    monkeypatch.setattr(dcm2niix, "main", hang)
    assert "did not end within" in refused(lambda: read_series(series.folder), series.folder)
