import re
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage
from pydicom.valuerep import validate_value

from voxplain.cohort.dicom import write_series
from voxplain.volumes import axis_aligned_grid


@pytest.fixture
def slices(series):
    return [pydicom.dcmread(path) for path in series.files]


def test_a_series_has_one_valid_mr_image_a_sagittal_slice(series, slices):
    assert len(slices) == series.grid.shape[0]
    for number, slice_ in enumerate(slices, start=1):
        meta = slice_.file_meta
        assert slice_.SOPClassUID == meta.MediaStorageSOPClassUID == MRImageStorage
        assert slice_.SOPInstanceUID == meta.MediaStorageSOPInstanceUID
        assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert slice_.Modality == "MR"
        assert slice_.MRAcquisitionType == "3D"
        assert slice_.InstanceNumber == number
        assert (slice_.Rows, slice_.Columns) == (series.grid.shape[2], series.grid.shape[1])
        assert len(slice_.PixelData) == slice_.Rows * slice_.Columns * 2


def test_every_value_of_the_header_is_valid_in_its_representation(slices):
    for slice_ in (slices[0], slices[-1]):
        for element in (*slice_.file_meta, *slice_):
            values = element.value if element.VM > 1 else [element.value]
            for value in values if element.VR not in ("OB", "OW") else ():
                told = value if element.VR in ("US", "UL") else str(value)
                validate_value(element.VR, told, pydicom.config.RAISE)


def test_identifiers_are_valid_unique_where_slices_differ_and_shared_where_not(slices):
    assert len({slice_.SOPInstanceUID for slice_ in slices}) == len(slices)
    for key in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        (value,) = {getattr(slice_, key) for slice_ in slices}
        assert UID(value).is_valid
    assert len({slices[0].StudyInstanceUID, slices[0].SeriesInstanceUID}) == 2
    assert all(slice_.SOPInstanceUID.is_valid for slice_ in slices)


def test_the_header_says_who_was_scanned_when_and_carries_no_name(slices, series_header):
    slice_ = slices[0]
    assert slice_.PatientID == "011_S_0003"
    assert (slice_.PatientSex, slice_.PatientAge) == ("F", "071Y")
    assert slice_.StudyDate == slice_.SeriesDate == slice_.AcquisitionDate == "20050912"
    assert slice_.StudyTime == slice_.AcquisitionTime == "101112"
    assert slice_.SeriesDescription == "MP-RAGE"
    assert slice_.PatientBirthDate == ""
    assert str(slice_.PatientName).strip("^") == series_header.subject


def test_the_files_are_named_as_the_archive_names_them(series):
    names = [path.name for path in series.files]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"ADNI_011_S_0003_MR_MP-RAGE__.*_\d+_S32238_I32237\.dcm", name)
    assert sorted(path.name for path in series.folder.iterdir()) == sorted(names)


def test_every_voxel_lies_where_the_geometry_of_its_slice_puts_it(series, slices):
    for index in ((0, 0, 0), (21, 26, 23), (5, 17, 3), (23, 29, 25)):
        x, y, z = series.grid.matrix[:3, :3] @ index + series.grid.matrix[:3, 3]
        place = np.array([-x, -y, z])  # DICOM's axes run to the left, the back and the top
        found = []
        for slice_ in slices:
            origin = np.array(slice_.ImagePositionPatient, float)
            along_row, down = np.array(slice_.ImageOrientationPatient, float).reshape(2, 3)
            row_mm, column_mm = map(float, slice_.PixelSpacing)
            column = (place - origin) @ along_row / column_mm
            row = (place - origin) @ down / row_mm
            off_plane = (place - origin) @ np.cross(along_row, down)
            if abs(off_plane) < 0.01:
                assert (row, column) == pytest.approx((round(row), round(column)), abs=1e-3)
                found.append(slice_.pixel_array[round(row), round(column)])
        assert found == [series.volume[index]]


def test_spacing_and_thickness_are_those_of_the_grid(slices):
    slice_ = slices[0]
    assert float(slice_.SliceThickness) == pytest.approx(4.8)
    assert float(slice_.SpacingBetweenSlices) == pytest.approx(4.8)
    assert list(map(float, slice_.PixelSpacing)) == pytest.approx([4.0, 4.0])
    gaps = np.diff([float(s.ImagePositionPatient[0]) for s in slices])
    np.testing.assert_allclose(gaps, -4.8, atol=1e-3)


def test_rows_and_columns_are_not_confused_where_pixels_are_not_square(tmp_path, series_header):
    grid = axis_aligned_grid((3, 4, 5), (1.5, 0.9, 1.1), (0, 0, 0))
    volume = np.arange(60, dtype=np.uint16).reshape(grid.shape)
    slice_ = pydicom.dcmread(write_series(tmp_path, volume, grid, series_header)[1])
    assert list(map(float, slice_.PixelSpacing)) == pytest.approx([1.1, 0.9])  # between rows first
    np.testing.assert_array_equal(slice_.pixel_array, volume[1, ::-1, ::-1].T)


def test_the_same_arguments_write_the_same_bytes(tmp_path, phantom, series_header):
    first = write_series(tmp_path / "a", *phantom, series_header)
    second = write_series(tmp_path / "b", *phantom, series_header)
    for one, other in zip(first, second, strict=True):
        assert one.name == other.name
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"image": "I32239"}, {"StudyInstanceUID", "FrameOfReferenceUID"}),
        ({"acquired": "2006-09-12T10:11:12"}, set()),
        ({"subject": "022_S_0007"}, set()),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_another_image_another_day_or_another_person_is_another_series(
    tmp_path, phantom, series_header, change, same
):
    volume, grid = phantom
    one, other = (
        pydicom.dcmread(write_series(tmp_path / name, volume, grid, header)[0])
        for name, header in (("a", series_header), ("b", replace(series_header, **change)))
    )
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert one.SeriesInstanceUID != other.SeriesInstanceUID
    for key in ("StudyInstanceUID", "FrameOfReferenceUID"):
        assert (getattr(one, key) == getattr(other, key)) == (key in same)
