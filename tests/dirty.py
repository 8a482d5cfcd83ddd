"""Ways in which real archives' DICOM folders differ from a clean series of slices.

Each function changes a folder of classic slices in place (as :func:`write_series` leaves it).
"""

import copy
import io
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)


def slices(folder):
    """The folder's slices, in their order."""
    paths = sorted(
        path for path in Path(folder).iterdir() if path.suffix == ".dcm" and path.name[0] != "."
    )
    return sorted(
        ((path, pydicom.dcmread(path)) for path in paths), key=lambda s: int(s[1].InstanceNumber)
    )


# --- how pixels are stored ------------------------------------------------------------------------


def as_implicit(folder):
    for path, slice_ in slices(folder):
        slice_.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        slice_.save_as(path, implicit_vr=True, little_endian=True)


def as_rle(folder):
    for path, slice_ in slices(folder):
        slice_.compress(RLELossless, generate_instance_uid=False)
        slice_.save_as(path)


def as_jpeg2000(folder, fragments=1):
    def encode(pixels):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG2000", irreversible=False, no_jp2=True)
        return stream.getvalue()

    _compress(folder, JPEG2000Lossless, encode, fragments)


def as_jpeg_lossless(folder, fragments=1):
    _compress(folder, JPEGLosslessSV1, jpeg_lossless, fragments)


def _compress(folder, syntax, encode, fragments):
    for path, slice_ in slices(folder):
        coded = encode(slice_.pixel_array)
        slice_.PixelData = encapsulate([coded], fragments_per_frame=fragments)
        slice_["PixelData"].VR = "OB"
        slice_["PixelData"].is_undefined_length = True
        slice_.file_meta.TransferSyntaxUID = syntax
        slice_.save_as(path)


def jpeg_lossless(pixels):
    """JPEG process 14, selection value 1 (ITU-T T.81, annex H), of 16-bit pixels ``[row, column]``.

    Each pixel is told by how it differs from its left neighbour (the first of a row from the one
    above); 17 categories of differences have codes of five bits, all of one length.
    """
    rows, columns = pixels.shape
    values = pixels.astype(np.int64)
    predicted = np.zeros_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 1 << 15
    difference = (values - predicted + (1 << 15)) % (1 << 16) - (1 << 15)
    bits = []
    for number in difference.ravel().tolist():
        category = abs(number).bit_length()
        bits.append(f"{category:05b}")
        if category and category < 16:
            told = number if number > 0 else number + (1 << category) - 1
            bits.append(f"{told:0{category}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    packed = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
    frame = bytes([16]) + rows.to_bytes(2, "big") + columns.to_bytes(2, "big") + b"\x01\x01\x11\0"
    table = b"\0" + bytes([0, 0, 0, 0, 17] + [0] * 11) + bytes(range(17))
    return b"".join(
        [
            b"\xff\xd8",
            b"\xff\xc3" + (2 + len(frame)).to_bytes(2, "big") + frame,
            b"\xff\xc4" + (2 + len(table)).to_bytes(2, "big") + table,
            b"\xff\xda\0\x08\x01\x01\0\x01\0\0",
            packed,
            b"\xff\xd9",
        ]
    )


def as_enhanced(folder):
    """One Enhanced MR object with a frame for every slice."""
    found = slices(folder)
    whole = copy.deepcopy(found[0][1])
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    whole.NumberOfFrames = len(found)
    whole.PixelData = b"".join(slice_.PixelData for _, slice_ in found)
    shared = pydicom.Dataset()
    orientation, measures = pydicom.Dataset(), pydicom.Dataset()
    orientation.ImageOrientationPatient = whole.ImageOrientationPatient
    measures.PixelSpacing, measures.SliceThickness = whole.PixelSpacing, whole.SliceThickness
    measures.SpacingBetweenSlices = whole.SpacingBetweenSlices
    shared.PlaneOrientationSequence = [orientation]
    shared.PixelMeasuresSequence = [measures]
    whole.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for number, (_, slice_) in enumerate(found, start=1):
        group, position, content = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        position.ImagePositionPatient = slice_.ImagePositionPatient
        content.DimensionIndexValues = [1, number]
        content.InStackPositionNumber, content.StackID = number, "1"
        group.PlanePositionSequence = [position]
        group.FrameContentSequence = [content]
        groups.append(group)
    whole.PerFrameFunctionalGroupsSequence = groups
    for key in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(whole, key)
    for path, _ in found:
        path.unlink()
    whole.save_as(found[0][0], enforce_file_format=True)


# --- what headers say -----------------------------------------------------------------------------


def change_slices(folder, *numbers, **changes):
    """Give header fields other values: of the slices of these numbers, or of all.

    A value may be a function of the slice's number.
    """
    for number, (path, slice_) in enumerate(slices(folder)):
        if number in numbers or not numbers:
            for key, value in changes.items():
                setattr(slice_, key, value(number) if callable(value) else value)
            slice_.save_as(path)


def change_pixels(folder, *numbers, change):
    """Give some slices other pixels, by a function of an array ``[row, column]``."""
    for number, (path, slice_) in enumerate(slices(folder)):
        if number in numbers:
            pixels = np.ascontiguousarray(change(slice_.pixel_array), slice_.pixel_array.dtype)
            slice_.PixelData = pixels.tobytes()
            slice_.Rows, slice_.Columns = pixels.shape
            slice_.save_as(path)


# --- how slices lie -------------------------------------------------------------------------------


def move_slices(folder, shift):
    """Move each slice by what a function of its number gives, mm along DICOM's axes."""
    for number, (path, slice_) in enumerate(slices(folder)):
        place = np.array(slice_.ImagePositionPatient, float) + shift(number)
        slice_.ImagePositionPatient = [round(float(value), 4) for value in place]
        slice_.save_as(path)


def drop_slices(folder, *numbers):
    for number, (path, _) in enumerate(slices(folder)):
        if number in numbers:
            path.unlink()


# --- what else lies there -------------------------------------------------------------------------


def add_series(folder, name, first=0, last=None, **changes):
    """Copy slices as another series, with other words in its header."""
    series = generate_uid(entropy_srcs=[str(folder), name])
    for path, slice_ in slices(folder)[first:last]:
        slice_.SeriesInstanceUID = series
        slice_.SOPInstanceUID = generate_uid(entropy_srcs=[series, path.name])
        slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID
        slice_.SeriesNumber = 9
        slice_.SeriesDescription = name
        for key, value in changes.items():
            setattr(slice_, key, value)
        slice_.save_as(Path(folder) / f"{name.replace('/', '_')}-{path.stem}.other")


def add_slices(folder, *numbers, name="more", change=None, **changes):
    """Copy slices within their series, each with an identifier of its own.

    Parameters
    ----------
    change
        Function of the pixels, as in :func:`change_pixels`.
    changes
        Other values in their headers.
    """
    for number, (path, slice_) in enumerate(slices(folder)):
        if number in numbers or not numbers:
            slice_.SOPInstanceUID = generate_uid(entropy_srcs=[name, slice_.SOPInstanceUID])
            slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID
            if change:
                slice_.PixelData = change(slice_.pixel_array).tobytes()
            for key, value in changes.items():
                setattr(slice_, key, value)
            slice_.save_as(path.with_name(f"{name} {path.name}.other"))


def add_screenshot(folder):
    path, shot = slices(folder)[0]
    shot.SOPClassUID = shot.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    shot.Modality = "OT"
    shot.SOPInstanceUID = shot.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    shot.SeriesInstanceUID = generate_uid()
    shot.save_as(path.with_name("screen"))


def add_junk(folder):
    """What systems, browsers and burners of discs leave behind."""
    folder = Path(folder)
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" * 100)
    (folder / "._I1.dcm").write_bytes(b"\0\5\x16\7")
    (folder / "index.html").write_text("<html>viewer</html>")
    (folder / "AUTORUN.INF").write_text("[autorun]")
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory = pydicom.dataset.FileDataset(
        folder / "DICOMDIR", {}, file_meta=meta, preamble=b"\0" * 128
    )
    directory.FileSetID = "DISC"
    directory.save_as(folder / "DICOMDIR", enforce_file_format=True)


def copy_files(folder):
    """The same images once more under other names."""
    for path, _ in slices(folder):
        path.with_name(f"copy of {path.name}").write_bytes(path.read_bytes())


def without_suffix(folder):
    for number, (path, _) in enumerate(slices(folder)):
        path.rename(path.with_name(f"IM{number:05d}"))


def name_person(folder, name="Alzheimer^Auguste", birth="18500516"):
    """Write a name and a birth date into every header."""
    for path in sorted(Path(folder).iterdir()):
        try:
            slice_ = pydicom.dcmread(path)
        except (pydicom.errors.InvalidDicomError, OSError):
            continue
        if "PixelData" in slice_:
            slice_.PatientName, slice_.PatientBirthDate = name, birth
            slice_.OtherPatientNames, slice_.PatientAddress = name, "Anstalt Frankfurt"
            slice_.save_as(path)
