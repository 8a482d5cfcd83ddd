"""Whether slices are one volume, and whether the volume is all of its slices."""

from dataclasses import replace
from pathlib import Path

import dcm2niix
import numpy as np
import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian

import dirty
from unit.test_dicom_images import same
from unit.test_series import read_series, refused
from voxplain.cohort.dicom import write_series
from voxplain.cohort.dicom_images import read_images
from voxplain.cohort.dicom_slices import check_person, check_slices, check_volume, one_volume
from voxplain.cohort.series import convert_series
from voxplain.faults import DataFault
from voxplain.volumes import Grid

PLACE = "images/I1"


@pytest.fixture(scope="module")
def images(tmp_path_factory, phantom, series_header):
    """The images of the phantom's series, by place."""
    folder = tmp_path_factory.mktemp("images")
    return read_images(write_series(folder, *phantom, series_header), folder)


def changed(images, *numbers, shared=None, settings=None, **changes):
    """Images of which those of some numbers, or all, have other fields."""
    made = []
    for number, image in enumerate(images):
        if number in numbers or not numbers:
            image = replace(
                image,
                shared={**image.shared, **(shared or {})},
                settings={**image.settings, **(settings or {})},
                **changes,
            )
        made.append(image)
    return made


def darker(pixels):
    return pixels // 2


# --- whose slices ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("numbers", "count"), [(range(14), 10), ((23,), 1)])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("PatientID", "011_S_0004"),
        ("PatientName", "Deter^Auguste"),
        ("PatientBirthDate", "18500516"),
        ("PatientSex", "M"),
    ],
)
def test_slices_of_two_people_are_no_volume(images, key, value, numbers, count):
    born = changed(images, shared={"PatientBirthDate": "19340912"})
    mixed = changed(born, *numbers, shared={key: value})
    reason = refused(lambda: one_volume(mixed, PLACE), f"{count} of 24 DICOM images of {PLACE}")
    assert f"of another person than the others ({key} differs)" in reason
    for secret in ("Auguste", "1850", "1934", "011_S_0004"):
        assert secret not in reason


def test_people_are_compared_across_series_by_their_identifier(images):
    check_person(changed(images, 3, shared={"PatientName": "A"}), PLACE)
    check_person(changed(images, 3, modality="SR", shared={"PatientID": "A"}), PLACE)
    mixed = changed(images, 3, series="1.2.3", shared={"PatientID": "A"})
    refused(lambda: check_person(mixed, PLACE), "1 of 24")


def test_two_people_in_one_folder_are_no_volume(series):
    dirty.change_slices(series.folder, *range(14), PatientID="011_S_0004")
    refused(lambda: read_series(series.folder), series.folder, "PatientID differs")


@pytest.mark.parametrize(
    "changes",
    [
        {"PatientName": lambda n: "Deter^Auguste" + "^" * (n % 3)},
        {"PatientSex": lambda n: "F" if n % 2 else ""},
        {"PatientName": lambda n: "deter^auguste" if n % 2 else "DETER^AUGUSTE"},
    ],
)
def test_a_person_who_is_written_in_two_ways_is_one(series, changes):
    dirty.change_slices(series.folder, **changes)
    same(read_series(series.folder), series)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("StudyInstanceUID", "1.2.3.4"),
        ("FrameOfReferenceUID", "1.2.3.5"),
        ("SeriesNumber", "3"),
        ("Manufacturer", "GE MEDICAL SYSTEMS"),
        ("DeviceSerialNumber", "4712"),
    ],
)
def test_slices_of_two_scans_are_no_volume(images, key, value):
    serial = changed(images, shared={"DeviceSerialNumber": "4711"})
    mixed = changed(serial, *range(12, 24, 2), shared={key: value})
    reason = refused(lambda: one_volume(mixed, PLACE), "6 of 24 DICOM images")
    assert f"are of another scan than the others ({key} differs)" in reason


def test_slices_of_two_study_times_are_refused_with_the_reason_of_dcm2niix(series):
    dirty.change_slices(series.folder, *range(3), StudyTime="121112")
    reason = refused(lambda: read_series(series.folder), series.folder)
    assert "are not of one volume (dcm2niix: Slices not stacked: Study Date/Time" in reason


def test_what_dcm2niix_takes_for_copies_is_a_fault(series):
    """It compares numbers and times alone, and takes of two people whom it reads first."""
    for path, slice_ in dirty.slices(series.folder)[:14]:
        slice_.PatientID, slice_.PixelData = "P2", darker(slice_.pixel_array).tobytes()
        slice_.save_as(path.with_name(f"{path.name}.other"))
    reason = refused(lambda: convert_series(series.folder), series.folder)
    assert "were taken for copies of others and left out (dcm2niix: 14 images" in reason
    refused(lambda: read_series(series.folder), "14 of 38", "PatientID differs")


# --- what an image is -----------------------------------------------------------------------------


def turned(degrees):
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (0, cosine, sine, 0, sine, -cosine)


@pytest.mark.parametrize("numbers", [(23,), range(8)])
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"orientation": turned(5)}, "orientation (turned by 5.0 degrees, elsewhere not turned)"),
        ({"orientation": turned(0.4)}, "orientation (turned by 0.4 degrees, elsewhere not"),
        ({"shape": (24, 30)}, "size (24x30 pixels, elsewhere 26x30 pixels)"),
        ({"spacing": (4, 2)}, "PixelSpacing (4 x 2 mm, elsewhere 4 x 4 mm)"),
        ({"kind": ("DERIVED", "SECONDARY")}, "ImageType (derived, elsewhere original)"),
        ({"photometric": "MONOCHROME1"}, "kind of pixels (MONOCHROME1, elsewhere MONOCHROME2)"),
        ({"settings": {"EchoTime": 4.2}}, "EchoTime (4.2, elsewhere 3.5)"),
        ({"settings": {"RepetitionTime": 2000.0}}, "RepetitionTime (2000.0, elsewhere 2400.0)"),
        ({"settings": {"InversionTime": 900.0}}, "InversionTime (900.0, elsewhere 1000.0)"),
        ({"settings": {"FlipAngle": 9.0}}, "FlipAngle (9.0, elsewhere 8.0)"),
    ],
    ids=lambda value: value.split("(")[0] if isinstance(value, str) else "",
)
def test_a_slice_that_is_not_like_the_others_is_named(images, changes, told, numbers):
    mixed = changed(images, *numbers, **changes)
    reason = refused(lambda: one_volume(mixed, PLACE), mixed[numbers[0]].path.name)
    counted = "1 slice" if len(numbers) == 1 else f"{len(numbers)} slices"
    assert f"{counted} among the 24 of {PLACE} differ in {told}" in reason


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"EchoTime": None}},
        {"settings": {"EchoTime": 3.50001}},
        {"spacing": (4.0004, 4)},
        {"orientation": turned(0.2)},
        {"component": "real"},
    ],
)
def test_rounding_is_no_difference(images, changes):
    numbers = () if "component" in changes else (3, 8)
    assert len(one_volume(changed(images, *numbers, **changes), PLACE)) == 24


@pytest.mark.parametrize("change", ["turned", "another size"])
def test_a_last_slice_of_another_kind_does_not_vanish(series, change):
    if change == "turned":
        dirty.change_slices(series.folder, 23, ImageOrientationPatient=list(turned(5)))
    else:
        dirty.change_pixels(series.folder, 23, change=lambda pixels: pixels[:-2])
    refused(lambda: read_series(series.folder), "1 slice among the 24")


def test_an_image_that_repeats_anothers_identifier_is_no_copy_of_it(series):
    uid = pydicom.dcmread(series.files[4]).SOPInstanceUID
    dirty.change_slices(series.folder, 23, SOPInstanceUID=uid)
    same(read_series(series.folder), series)


def test_two_images_under_one_identifier_at_one_place_are_refused(series):
    copy = series.folder / "copy.other"
    copy.write_bytes(series.files[7].read_bytes())
    slice_ = pydicom.dcmread(copy)
    slice_.PixelData = darker(slice_.pixel_array).tobytes()
    slice_.save_as(copy)
    reason = refused(lambda: read_series(series.folder), series.files[7].name, "copy.other")
    assert "several different images of one place" in reason


@pytest.mark.parametrize("numbers", [(7,), ()])
def test_a_slice_that_lies_there_twice_counts_once(series, numbers, capsys):
    dirty.add_slices(series.folder, *numbers)
    same(read_series(series.folder), series)
    assert f"left out {len(numbers) or 24} copies of slices" in capsys.readouterr().out


def test_a_copy_in_another_compression_is_a_copy(series):
    path, slice_ = dirty.slices(series.folder)[5]
    slice_.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    slice_.save_as(path.with_name("implicit.other"), implicit_vr=True, little_endian=True)
    slice_ = pydicom.dcmread(path)
    slice_.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    slice_.save_as(path.with_name("rle.other"))
    same(read_series(series.folder), series)


@pytest.mark.parametrize(
    "changes",
    [
        {"EchoTime": lambda n: 3.5 + 1e-5 * (n % 2)},
        {"EchoTime": lambda n: 3.5 + 1e-5 * n},
        {"EchoNumbers": lambda n: 1 + n % 2},
        {"RepetitionTime": lambda n: 2400 + 0.01 * (n % 3)},
        {"FlipAngle": lambda n: 8 + 1e-4 * n},
        {"ProtocolName": lambda n: f"MP-RAGE {n % 2}"},
        {"AcquisitionNumber": lambda n: 1 + n // 12},
        {"ReceiveCoilName": lambda n: f"coil {n % 2}"},
        {"InstanceNumber": lambda n: 1},
        {"InstanceNumber": lambda n: 1 + n // 2},
        {"InstanceNumber": lambda n: 1 + 7 * n % 24},
        {"ImageOrientationPatient": lambda n: [0, 1, 1e-3 * (n % 2), 0, 1e-3 * (n % 2), -1]},
        {"PixelSpacing": lambda n: [4, 4 + 1e-5 * n]},
    ],
    ids=lambda changes: "".join(changes),
)
def test_slices_whose_headers_differ_by_rounding_or_counting_are_one_volume(series, changes):
    dirty.change_slices(series.folder, **changes)
    read = read_series(series.folder)
    np.testing.assert_array_equal(read.voxels, series.volume)
    assert read.grid.matches(series.grid, tolerance_mm=0.2)


def test_several_echoes_in_one_series_are_named(series):
    for number, echo_ms in enumerate((5.4, 7.3)):
        dirty.add_slices(series.folder, name=f"echo{number}", change=darker, EchoTime=echo_ms)
    reason = refused(lambda: read_series(series.folder), series.folder)
    assert "48 slices among the 72" in reason
    assert "differ in EchoTime (" in reason


PHASE = {
    "Siemens": {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]},
    "Philips": {"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"]},
    "Enhanced": {"ComplexImageComponent": "PHASE"},
}


@pytest.mark.parametrize("maker", PHASE)
def test_phase_images_in_place_of_magnitudes_are_named(series, maker):
    dirty.change_slices(series.folder, 5, 9, **PHASE[maker])
    reason = refused(lambda: read_series(series.folder), series.folder)
    assert f"2 of 24 slices of {series.folder} are phase images, the others magnitude" in reason


@pytest.mark.parametrize("maker", PHASE)
def test_phase_images_beside_magnitudes_are_left_out(series, maker, capsys):
    dirty.add_slices(series.folder, change=darker, **PHASE[maker])
    same(read_series(series.folder), series)
    assert "left out 24 phase images" in capsys.readouterr().out


def test_real_and_imaginary_images_beside_magnitudes_are_left_out(series):
    for word in "RI":
        kind = ["ORIGINAL", "PRIMARY", word, "FFE"]
        dirty.add_slices(series.folder, name=word, change=darker, ImageType=kind)
    same(read_series(series.folder), series)


def test_real_images_of_general_electric_are_known_by_their_private_field(series):
    dirty.change_slices(series.folder, Manufacturer="GE MEDICAL SYSTEMS")
    for path, slice_ in dirty.slices(series.folder)[3:6]:
        slice_.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", 2)
        slice_.save_as(path)
    assert "3 of 24 slices" in refused(lambda: read_series(series.folder), "are real images")


def test_a_series_of_phase_images_is_no_t1(series):
    dirty.add_series(series.folder, "phase", **PHASE["Siemens"])
    same(read_series(series.folder), series)


@pytest.mark.parametrize("uid", ["1.2.3.4", ""])
def test_a_slice_whose_series_has_another_identifier_does_not_vanish(series, uid):
    """At an end it leaves no gap, and alone it would be left out as a series of one slice."""
    dirty.change_slices(series.folder, 23, SeriesInstanceUID=uid)
    reason = refused(lambda: read_series(series.folder), series.files[23].name)
    assert "under another SeriesInstanceUID, series 2 'MP-RAGE' (1 slices" in reason


def test_a_damaged_slice_without_a_suffix_does_not_vanish(series):
    dirty.without_suffix(series.folder)
    (series.folder / "README").write_text("no image")
    path = series.folder / "IM00023"
    path.write_bytes(b"\0" * 200 + path.read_bytes()[200:])
    refused(lambda: read_series(series.folder), path, "though it is named as the images beside it")


@pytest.mark.parametrize(
    "kind", ["1.2.84010008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4\0\2", "1.2.3\\OTHER"]
)
def test_a_slice_that_is_of_two_kinds_does_not_vanish(series, kind):
    path = series.files[23]
    slice_ = pydicom.dcmread(path)
    del slice_.PixelData
    with pydicom.config.disable_value_validation():
        slice_.file_meta.MediaStorageSOPClassUID = kind
        slice_.save_as(path)
    assert "truncated" in refused(lambda: read_series(series.folder), path)


OF_FRAMES = {
    "ImageOrientationPatient": ("PlaneOrientationSequence", list(turned(5))),
    "PixelSpacing": ("PixelMeasuresSequence", [4, 2]),
    "EffectiveEchoTime": ("MREchoSequence", 4.2),
    "ComplexImageComponent": ("MRImageFrameTypeSequence", "PHASE"),
}


@pytest.mark.parametrize("key", OF_FRAMES)
def test_frames_of_one_file_that_are_of_several_kinds_are_refused(series, key):
    sequence, value = OF_FRAMES[key]
    usual = {
        "ImageOrientationPatient": [0, 1, 0, 0, 0, -1],
        "PixelSpacing": [4, 4],
        "EffectiveEchoTime": 3.5,
        "ComplexImageComponent": "MAGNITUDE",
    }[key]
    dirty.as_enhanced(series.folder)
    (path,) = series.folder.glob("*.dcm")
    whole = pydicom.dcmread(path)
    for number, group in enumerate(whole.PerFrameFunctionalGroupsSequence):
        within = pydicom.Dataset()
        setattr(within, key, value if number == 23 else usual)
        setattr(group, sequence, [within])
    whole.save_as(path)
    refused(lambda: read_series(series.folder), path, f"differ in {key}")
    for group in whole.PerFrameFunctionalGroupsSequence:
        setattr(getattr(group, sequence)[0], key, usual)
    whole.save_as(path)
    same(read_series(series.folder), series)


# --- where an image lies --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cosines",
    [[0] * 6, [0, 1, 0, 0, 1, 0], [0, 1, 0, 0, 0.7, -0.7], [0, 2, 0, 0, 0, -1]],
    ids=["zeros", "parallel", "oblique", "long"],
)
@pytest.mark.parametrize("numbers", [(), (6,)])
def test_direction_cosines_that_are_no_directions_are_refused(images, cosines, numbers):
    mixed = changed(images, *numbers, orientation=tuple(cosines))
    reason = refused(lambda: one_volume(mixed, PLACE), mixed[6 if numbers else 0].path)
    assert f"its direction cosines ({', '.join(map(str, cosines))}) are not two" in reason


def test_six_zeros_give_no_turned_volume(series):
    dirty.change_slices(series.folder, ImageOrientationPatient=[0] * 6)
    refused(lambda: read_series(series.folder), "(0, 0, 0, 0, 0, 0)")


@pytest.mark.parametrize("spacing", [(), (0, 0), (4, -4)])
def test_pixels_of_unknown_size_are_refused(images, spacing):
    mixed = changed(images, spacing=spacing)
    refused(lambda: one_volume(mixed, PLACE), "how large its pixels are")


def test_pixels_without_a_spacing_have_not_1_mm(series):
    dirty.change_slices(series.folder, 4, PixelSpacing=None)
    refused(lambda: read_series(series.folder), "how large its pixels are")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, "26 rows, 30 columns, 8 bits"),
        ({"Rows": 13}, "13 rows"),
        ({"Rows": 25}, "25 rows"),
        ({"Columns": 15}, "15 columns"),
        ({"BitsAllocated": 8}, "stores 12 bits of each pixel in 8"),
        ({"BitsAllocated": 12}, "stores 12 bits of each pixel in 12"),
        ({"BitsAllocated": 32}, "truncated"),
    ],
    ids=lambda value: str(value),
)
def test_a_header_that_describes_other_pixels_is_refused(series, changes, told):
    dirty.change_slices(series.folder, 6, **changes)
    path = series.files[6]
    assert told in refused(lambda: read_images([path], series.folder), path)


@pytest.mark.parametrize("compress", [dirty.as_rle, dirty.as_jpeg2000, dirty.as_jpeg_lossless])
def test_compressed_pixels_that_a_header_does_not_describe_are_refused(series, compress):
    """Without this, dcm2niix decodes them into a volume of another size, or of noise."""
    compress(series.folder)
    path = series.files[6]
    read_images([path], series.folder)
    for changes in (
        {"Rows": 25},
        {"Rows": 52},
        {"Columns": 60},
        {"BitsAllocated": 8, "BitsStored": 8},
        {"BitsAllocated": 32},
    ):
        slice_ = pydicom.dcmread(path)
        for key, value in changes.items():
            setattr(slice_, key, value)
        other = series.folder / "other"
        slice_.save_as(other)
        reason = refused(lambda other=other: read_images([other], series.folder), other)
        assert "of 16 bits, but its header describes" in reason


@pytest.mark.parametrize("filling", [b"\1" * 16, b"\0" * 2048])
def test_pixels_that_are_filled_up_are_read(series, filling):
    for path, slice_ in dirty.slices(series.folder):
        slice_.PixelData += filling
        slice_.save_as(path)
    same(read_series(series.folder), series)


@pytest.mark.parametrize("number", [0, 11, 23])
def test_a_slice_beside_the_line_of_the_others_is_named(images, number):
    x, y, z = images[number].positions[0]
    moved_one = changed(images, number, positions=((x, y, z + 6),))
    reason = refused(lambda: check_slices(one_volume(moved_one, PLACE), PLACE, 0, 7), PLACE)
    assert "shifted against each other by 6.0 mm within their plane" in reason


def test_a_missing_slice_among_many_can_be_filled_as_the_remedy_says(series):
    dirty.drop_slices(series.folder, 9)
    with pytest.raises(DataFault) as fault:
        read_series(series.folder)
    assert "1 slice of" in fault.value.reason
    assert fault.value.remedy == (
        "download the image again; if it cannot be had, missing_slices: 1 fills 1 slice of 24 from "
        "the neighbours"
    )
    assert read_series(series.folder, missing_slices=1).sidecar["ConversionNote"] == (
        "1 slice was missing and filled from the neighbours"
    )


def test_neighbours_of_another_scale_fill_no_gap(series):
    dirty.change_slices(series.folder, 10, RescaleSlope=2, RescaleIntercept=0)
    dirty.drop_slices(series.folder, 9)
    refused(lambda: read_series(series.folder, missing_slices=1), "differ in size or scale")


# --- what comes out -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda grid: grid, ""),
        (lambda grid: grid.part((1, 0, 0), grid.shape), "of 23x30x26 voxels"),
        (lambda grid: grid.part((0, 0, 0), (24, 30, 25)), "which holds 24 slices of 30x26"),
        (lambda grid: moved(grid, np.diag([1, 1, 1.2, 1])), "away from its slices"),
        (lambda grid: moved(grid, np.diag([-1, 1, 1, 1])), "away from its slices"),
        (lambda grid: moved(grid, shift=(0, 5, 0)), "lies 5.0 mm away from its slices"),
        (lambda grid: moved(grid, shift=(0, 1, 0)), ""),
    ],
    ids=["same", "a slice less", "a row less", "stretched", "mirrored", "moved", "moved a little"],
)
def test_a_volume_is_compared_with_its_slices(images, phantom, change, told):
    grid = change(phantom[1])
    if not told:
        check_volume(grid, images, [], PLACE)
        return
    refused(lambda: check_volume(grid, images, [], PLACE), told)


def moved(grid, factors=None, shift=(0, 0, 0)):
    matrix = grid.matrix if factors is None else factors @ grid.matrix
    matrix[:3, 3] += shift
    return Grid(grid.shape, tuple(map(tuple, matrix.tolist())))


def test_a_volume_with_fewer_slices_than_went_in_is_refused(series, monkeypatch):
    convert = dcm2niix.main

    def main(args, **kwargs):
        for link in Path(args[-1]).iterdir():
            if link.resolve() == series.files[0].resolve():
                link.unlink()  # at an end, so that no gap is left
        return convert(args, **kwargs)

    monkeypatch.setattr(dcm2niix, "main", main)
    reason = refused(lambda: read_series(series.folder), series.folder)
    assert "made a volume of 23x30x26 voxels" in reason
    assert "holds 24 slices of 30x26" in reason
