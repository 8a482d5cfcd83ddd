import subprocess

import dcm2niix
import numpy as np
import pydicom
import pytest

import dirty
from unit.test_series import read_series, refused


def same(read, series):
    np.testing.assert_array_equal(read.voxels, series.volume)
    assert read.grid.matches(series.grid, tolerance_mm=1e-3)


# --- how a series is stored -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        dirty.as_implicit,
        dirty.as_rle,
        dirty.as_jpeg2000,
        lambda folder: dirty.as_jpeg2000(folder, fragments=3),
        dirty.as_jpeg_lossless,
        lambda folder: dirty.as_jpeg_lossless(folder, fragments=4),
        dirty.as_enhanced,
        dirty.without_suffix,
        dirty.copy_files,
        dirty.add_junk,
        dirty.add_screenshot,
    ],
    ids=[
        *("implicit", "rle", "jpeg2000", "jpeg2000 in pieces", "jpeg lossless"),
        *("jpeg lossless in pieces", "enhanced", "no suffix", "copies", "junk", "screen shot"),
    ],
)
def test_a_series_comes_back_however_it_is_stored(series, change):
    change(series.folder)
    same(read_series(series.folder), series)


@pytest.mark.parametrize("change", [dirty.as_rle, dirty.as_jpeg2000, dirty.as_jpeg_lossless])
def test_compressed_pixels_that_break_off_are_refused_by_name(series, change):
    change(series.folder)
    path = series.files[7]
    path.write_bytes(path.read_bytes()[:-40])
    refused(lambda: read_series(series.folder), path)


def test_an_enhanced_object_that_breaks_off_is_refused_by_name(series):
    dirty.as_enhanced(series.folder)
    (path,) = series.folder.glob("*.dcm")
    path.write_bytes(path.read_bytes()[:-3000])
    assert "truncated" in refused(lambda: read_series(series.folder), path)


# --- which series is meant ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("Scout", {}),
        ("3-plane", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        ("resting", {"ImageType": ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]}),
        ("dwi", {"ScanningSequence": "EP"}),
        ("t2", {"ScanningSequence": "SE", "EchoTime": 98}),
        ("report", {"Modality": "SR"}),
        ("few", {"last": 7}),
        ("MPR cor", {"ImageType": ["DERIVED", "SECONDARY", "MPR"]}),
    ],
)
def test_what_is_no_t1_of_a_head_is_left_out(series, name, changes, capsys):
    dirty.add_series(series.folder, name, **changes)
    same(read_series(series.folder), series)
    assert f"left out series 9 {name!r}" in capsys.readouterr().out


@pytest.mark.parametrize("description", ["MP-RAGE REPEAT", "mp rage repeat"])
def test_of_two_series_the_one_that_the_table_describes_is_meant(series, description):
    dirty.add_series(series.folder, "MP-RAGE REPEAT", RepetitionTime=1900)
    read = read_series(series.folder, description=description)
    assert read.sidecar["SeriesDescription"] == "MP-RAGE REPEAT"
    assert read_series(series.folder, description="MP-RAGE").sidecar["RepetitionTime"] == 2.4


def test_two_series_that_could_both_be_meant_are_listed(series):
    dirty.add_series(series.folder, "ND", ImageType=["ORIGINAL", "PRIMARY", "M", "ND"])
    reason = refused(lambda: read_series(series.folder), series.folder)
    assert "holds 2 series that could be meant" in reason
    assert "series 2 'MP-RAGE' (24 slices, ORIGINAL/PRIMARY/OTHER)" in reason
    assert "series 9 'ND' (24 slices, ORIGINAL/PRIMARY/M/ND)" in reason


def test_of_a_reformatted_series_alone_there_is_nothing_to_choose(series):
    for path, slice_ in dirty.slices(series.folder):
        slice_.ImageType = ["DERIVED", "SECONDARY", "MPR", "N3"]
        slice_.save_as(path)
    same(read_series(series.folder), series)


def test_a_folder_without_a_t1_tells_what_each_series_is(series):
    for path, slice_ in dirty.slices(series.folder):
        slice_.ScanningSequence = "EP"
        slice_.save_as(path)
    dirty.add_series(series.folder, "scout", last=5, ScanningSequence="GR")
    reason = refused(lambda: read_series(series.folder), series.folder)
    assert "'MP-RAGE' (24 slices, ORIGINAL/PRIMARY/OTHER): echo-planar" in reason
    assert "'scout' (5 slices, ORIGINAL/PRIMARY/OTHER): a localizer" in reason


def test_slices_of_another_image_in_the_folder_are_left_alone(series):
    for path, slice_ in dirty.slices(series.folder):
        slice_.SeriesInstanceUID += ".1"
        slice_.SOPInstanceUID += ".1"
        slice_.save_as(path.with_name(path.name.replace("_I32237", "_I32240")))
    refused(lambda: read_series(series.folder), "could be meant")
    same(read_series(series.folder, image="I32237"), series)


def test_a_scan_of_another_subject_is_refused(series):
    reason = refused(lambda: read_series(series.folder, subject="011_S_9999"), series.folder)
    assert "is of subject 011_S_0003, its line in the table of 011_S_9999" in reason


@pytest.mark.parametrize("subject", ["011_S_0003", "P17", ""])
def test_a_subject_of_another_form_says_nothing(series, subject):
    same(read_series(series.folder, subject=subject), series)


def test_a_hospitals_number_says_nothing_and_is_not_told(series):
    for path, slice_ in dirty.slices(series.folder):
        slice_.PatientID = "4711-Alzheimer"
        slice_.save_as(path)
    same(read_series(series.folder, subject="011_S_0003"), series)


# --- how slices lie -------------------------------------------------------------------------------


def test_slices_that_lie_too_far_apart_are_refused(series):
    reason = refused(lambda: read_series(series.folder, max_slice_mm=4), series.folder)
    assert "4.8 mm apart, expected at most 4 mm" in reason


def test_a_tilted_gantry_is_refused_with_its_angle(series):
    dirty.move_slices(series.folder, lambda n: np.array([0, 0, 0.8 * n]))
    reason = refused(lambda: read_series(series.folder), series.folder)
    assert "9.5 degrees" in reason  # atan(0.8 / 4.8)


def test_uneven_slices_are_refused_with_their_place(series):
    dirty.move_slices(series.folder, lambda n: np.array([-1.2 if n >= 9 else 0, 0, 0]))
    reason = refused(lambda: read_series(series.folder), series.folder)
    assert "6.00 mm between slices" in reason
    assert "elsewhere 4.80 mm" in reason


def test_missing_slices_are_refused_with_their_number_and_place(series):
    dirty.drop_slices(series.folder, 5, 11, 12)
    reason = refused(lambda: read_series(series.folder, missing_slices=2), series.folder)
    assert "3 slices of" in reason
    assert "at most 2 may be" in reason


@pytest.mark.parametrize("change", [lambda folder: None, dirty.as_implicit, dirty.as_rle])
def test_few_missing_slices_are_filled_from_their_neighbours(series, change):
    change(series.folder)
    dirty.drop_slices(series.folder, 5, 11, 12)
    read = read_series(series.folder, missing_slices=3)
    assert read.grid.matches(series.grid, tolerance_mm=1e-3)
    there = [n for n in range(24) if n not in (5, 11, 12)]
    np.testing.assert_array_equal(read.voxels[there], series.volume[there])
    volume = series.volume.astype(float)
    np.testing.assert_allclose(read.voxels[5], (volume[4] + volume[6]) / 2, atol=0.51)
    np.testing.assert_allclose(read.voxels[11], (2 * volume[10] + volume[13]) / 3, atol=0.51)
    np.testing.assert_allclose(read.voxels[12], (volume[10] + 2 * volume[13]) / 3, atol=0.51)
    assert read.sidecar["FilledSlices"] == 3


def test_slices_missing_at_an_end_are_noticed_where_the_header_counts_them(series):
    for path, slice_ in dirty.slices(series.folder):
        slice_.ImagesInAcquisition = 24
        slice_.save_as(path)
    same(read_series(series.folder), series)
    dirty.drop_slices(series.folder, 0, 23)
    reason = refused(lambda: read_series(series.folder), series.folder)
    assert "has 22 slices, its header says 24" in reason


def test_a_missing_frame_of_an_enhanced_object_is_refused(series):
    dirty.drop_slices(series.folder, 9)
    dirty.as_enhanced(series.folder)
    assert "1 slice of" in refused(lambda: read_series(series.folder), series.folder)


@pytest.mark.parametrize("key", ["ImagePositionPatient", "ImageOrientationPatient"])
@pytest.mark.parametrize("which", [slice(None), slice(7, 8)])
def test_slices_that_do_not_say_where_they_lie_are_refused(series, key, which):
    for path, slice_ in dirty.slices(series.folder)[which]:
        delattr(slice_, key)
        slice_.save_as(path)
    reason = refused(lambda: read_series(series.folder), series.folder)
    assert "does not say where its slices lie" in reason


@pytest.mark.parametrize(("number", "fault"), [(11, True), (7, True), (9, False), (15, False)])
def test_a_crash_of_dcm2niix_is_a_fault_of_the_scan_and_a_kill_is_none(
    series, monkeypatch, number, fault
):
    done = subprocess.CompletedProcess([], -number, stdout=b"")
    monkeypatch.setattr(dcm2niix, "main", lambda *_, **__: done)
    if fault:
        assert "dcm2niix crashed" in refused(lambda: read_series(series.folder), series.folder)
    else:
        with pytest.raises(ChildProcessError, match=f"signal {number}"):
            read_series(series.folder)


@pytest.mark.parametrize("kind", ["1.3.46.670589.11.0.0.12.2", "1.3.12.2.1107.5.9.1"])
def test_a_makers_own_object_without_pixels_is_passed_over(series, kind):
    own = pydicom.dcmread(series.files[0])
    del own.PixelData
    own.SOPClassUID = own.file_meta.MediaStorageSOPClassUID = kind
    own.SOPInstanceUID = own.file_meta.MediaStorageSOPInstanceUID = f"{kind}.77"
    own.save_as(series.folder / "XX_0001")
    same(read_series(series.folder), series)


def test_words_in_another_alphabet_are_no_crash(series):
    for path, slice_ in dirty.slices(series.folder):
        slice_.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
        slice_.StudyDescription = slice_.InstitutionName = "脳の検査"
        slice_.save_as(path)
    same(read_series(series.folder), series)


def test_gaps_are_filled_where_no_slice_location_is_told(series):
    for path, slice_ in dirty.slices(series.folder):
        slice_.SliceLocation = None
        slice_.save_as(path)
    dirty.drop_slices(series.folder, 9)
    assert read_series(series.folder, missing_slices=1).voxels.shape == series.volume.shape
