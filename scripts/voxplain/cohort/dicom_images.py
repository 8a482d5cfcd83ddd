"""The DICOM images among a scan's files: checks of each file, and what their headers say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from voxplain.cohort.dicom_streams import size_of_frame
from voxplain.faults import DataFault

DICOM_ENDINGS = (".dcm", ".ima")
AGAIN = "download the image again"
_ARCHIVE_SUBJECT = re.compile(r"^[0-9]{3}_S_[0-9]{4,5}\Z")
# Header fields that all slices of a series share: whose head it is, and of which scan.
PERSON = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
SCAN = (
    *("StudyInstanceUID", "FrameOfReferenceUID", "SeriesNumber"),
    *("Manufacturer", "DeviceSerialNumber"),
)
# Numbers that differ between the volumes of a series of several echoes.
SETTINGS = ("EchoTime", "RepetitionTime", "InversionTime", "FlipAngle")
# A head of 20 cm in voxels of 0.25 mm has this many.
_MOST_PIXELS = 2**29


@dataclass(frozen=True)
class DicomImage:
    """The header fields of one file that the choice and the checks of a series need.

    Attributes
    ----------
    path
        The file.
    series, number, description
        Identifier, number and description of its series.
    kind
        ImageType, in capital letters.
    modality, sequence
        Modality, and values of ScanningSequence.
    shape
        Rows and columns.
    spacing
        Distance between rows, and between columns, in mm; empty if it is unknown.
    positions
        ``[slice, 3]``, mm, DICOM's axes (LPS+): one for each frame; empty if they are unknown.
    orientation
        Direction cosines of rows and columns, six numbers, or empty.
    component
        ``magnitude`` (or not said), ``phase``, ``real``, ``imaginary`` or ``mixed``.
    photometric
        PhotometricInterpretation.
    varies
        What differs between the frames of a file; empty if nothing does.
    settings
        Numbers of :data:`SETTINGS`, or None.
    shared
        Text of the fields :data:`PERSON` and :data:`SCAN`; empty where it is not given.
    instance
        Identifier of the image.
    subject
        Patient identifier.
    in_acquisition
        Number of images in the acquisition, or None.
    """

    path: Path
    series: str
    number: str
    description: str
    kind: tuple[str, ...]
    modality: str
    sequence: tuple[str, ...]
    shape: tuple[int, int]
    spacing: tuple[float, ...]
    frames: int
    positions: tuple[tuple[float, ...], ...]
    orientation: tuple[float, ...]
    component: str
    photometric: str
    varies: str
    settings: Mapping[str, float | None]
    shared: Mapping[str, str]
    instance: str
    subject: str
    in_acquisition: int | None


def read_images(files: Sequence[Path], place: str | Path) -> list[DicomImage]:
    """The DICOM images among some files; raises if an image would give a wrong volume.

    Files that are not DICOM are skipped, since archives put notes and lists beside images; so are a
    DICOMDIR, reports and presentation states. The same image twice counts once; two images under
    one identifier are both kept.

    Parameters
    ----------
    files
        See :func:`voxplain.cohort.files.open_source`.
    place
        Name of the folder in messages.

    Raises
    ------
    DataFault
        There is no DICOM image, or one is truncated or corrupt.
    """
    if not files:
        raise DataFault(f"folder {place} is empty", AGAIN)
    images: list[DicomImage] = []
    others: list[Path] = []
    known: dict[tuple[object, ...], list[DicomImage]] = {}
    for path in files:
        header = _read_header(path)
        if header is None:
            others.append(path)
            continue
        image = _describe(path, header)
        key = (image.series, image.instance or str(path), image.positions)
        if any(same_pixels(image, other) for other in known.get(key, ())):
            continue
        known.setdefault(key, []).append(image)
        images.append(image)
    if not images:
        raise DataFault(
            f"folder {place} holds {len(files)} files and no DICOM image among them",
            "download the image as DICOM",
        )
    named = {re.sub("[0-9]+", "1", image.path.name) for image in images}
    for path in others:
        if re.sub("[0-9]+", "1", path.name) in named and not pydicom.misc.is_dicom(path):
            raise DataFault(
                f"file {path} is no DICOM file, though it is named as the images beside it", AGAIN
            )
    return images


def same_pixels(image: DicomImage, other: DicomImage) -> bool:
    """Whether two files hold the same pixels, however they are compressed.

    The files are read again, since this is asked of copies only.
    """
    headers = [pydicom.dcmread(each.path) for each in (image, other)]
    if headers[0].PixelData == headers[1].PixelData:
        return True
    try:
        return np.array_equal(*(header.pixel_array for header in headers))
    except Exception:  # a compression that cannot be read: what differs is not the same
        return False


def _read_header(path: Path) -> pydicom.Dataset | None:
    """Header and pixels of a complete image; None if the file is not an image."""
    try:
        with pydicom.config.disable_value_validation():
            header = pydicom.dcmread(path)
    except pydicom.errors.InvalidDicomError:
        if path.suffix.lower() in DICOM_ENDINGS:
            raise DataFault(
                f"file {path} is no DICOM file, though its name says so", AGAIN
            ) from None
        return None
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataFault(
            f"DICOM file {path} breaks off or is corrupt ({type(error).__name__}: {error})", AGAIN
        ) from error
    if "PixelData" not in header:
        if not _is_other_object(header):
            raise DataFault(f"DICOM file {path} is truncated: it ends before its pixels", AGAIN)
        return None
    try:
        _check_pixels(path, header)
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise DataFault(f"DICOM file {path} lacks what its pixels need ({error})", AGAIN) from error
    return header


def _is_other_object(header: pydicom.Dataset) -> bool:
    """Whether a file without pixels is no image, as a DICOMDIR or a report beside the images.

    The file may be damaged within the identifier of its kind: an unknown object, and one of two
    kinds, count as an image. (Private objects, as Philips and Siemens put beside images, have no
    name.)
    """
    holders = ((header.file_meta, "MediaStorageSOPClassUID"), (header, "SOPClassUID"))
    kinds = {kind for holder, key in holders if (kind := _text(holder, key))}
    if len(kinds) != 1:
        return False
    kind = pydicom.uid.UID(kinds.pop())
    if not kind.is_valid or "Image Storage" in kind.name:
        return False
    return kind.is_private or kind.name != str(kind)


def _check_pixels(path: Path, header: pydicom.Dataset) -> None:
    frames = int(header.get("NumberOfFrames", 1) or 1)
    if int(header.Rows) * int(header.Columns) * frames > _MOST_PIXELS:
        # Compressed, such an image has a few kB, and would not fit into memory.
        raise DataFault(
            f"DICOM file {path} has {frames} frames of {header.Rows}x{header.Columns} pixels by "
            "its header, more than any head",
            AGAIN,
        )
    bits, stored = int(header.BitsAllocated), int(header.get("BitsStored", 0) or 0)
    if bits not in (1, 8, 16, 32, 64) or stored > bits:
        raise DataFault(
            f"DICOM file {path} stores {stored} bits of each pixel in {bits}, expected at most 8, "
            "16, 32 or 64 in as many",
            AGAIN,
        )
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is not None and syntax.is_compressed:
        _check_compressed(path, header)
        return
    row = int(header.Columns) * int(header.get("SamplesPerPixel", 1)) * bits // 8
    expected = int(header.Rows) * row * int(header.get("NumberOfFrames", 1) or 1)
    actual = len(header.PixelData)
    if actual < expected:
        raise DataFault(
            f"DICOM file {path} is truncated: {actual} bytes of pixels, expected {expected}", AGAIN
        )
    # Some archives fill up a block; a row and more of pixels says that rows, columns or bits lie.
    if actual - expected >= max(row, 2) and any(header.PixelData[expected:]):
        raise DataFault(
            f"DICOM file {path} holds {actual} bytes of pixels, but its header describes "
            f"{expected} ({header.Rows} rows, {header.Columns} columns, {bits} bits)",
            AGAIN,
        )


def _check_compressed(path: Path, header: pydicom.Dataset) -> None:
    """Raise if compressed frames are missing; headers do not give their length."""
    frames = int(header.get("NumberOfFrames", 1) or 1)
    size = None
    try:
        actual = 0
        for frame in pydicom.encaps.generate_frames(header.PixelData, number_of_frames=frames):
            if not actual:
                samples = int(header.get("SamplesPerPixel", 1))
                size = size_of_frame(frame, header.file_meta.TransferSyntaxUID, samples)
            actual += 1
    except Exception as error:
        raise DataFault(
            f"DICOM file {path} is truncated: its compressed pixels break off ({error})", AGAIN
        ) from error
    if actual < frames:
        raise DataFault(
            f"DICOM file {path} is truncated: {actual} compressed frames, expected {frames}", AGAIN
        )
    described, bits = (int(header.Rows), int(header.Columns)), int(header.BitsAllocated)
    stored = int(header.get("BitsStored", 0) or 0)
    if size is not None and not size.fits(*described, bits, stored):
        held, told = ("x".join(map(str, pixels)) for pixels in (size.pixels, described))
        raise DataFault(
            f"DICOM file {path} holds compressed frames of {held} pixels of {size.bits} bits, but "
            f"its header describes {told} pixels of {bits} bits",
            AGAIN,
        )


def _describe(path: Path, header: pydicom.Dataset) -> DicomImage:
    """The fields of a header; values that cannot be read count as missing."""
    frames = _number(header, "NumberOfFrames", int) or 1
    positions, orientation = _geometry(header, frames)
    return DicomImage(
        path=path,
        series=_text(header, "SeriesInstanceUID"),
        number=_text(header, "SeriesNumber"),
        description=_text(header, "SeriesDescription") or _text(header, "ProtocolName"),
        kind=tuple(word.upper() for word in _words(header, "ImageType")),
        modality=_text(header, "Modality").upper(),
        sequence=tuple(word.upper() for word in _words(header, "ScanningSequence")),
        shape=(_number(header, "Rows", int) or 0, _number(header, "Columns", int) or 0),
        frames=frames,
        spacing=_spacing(header),
        positions=positions,
        orientation=orientation,
        component=_component(header),
        photometric=_text(header, "PhotometricInterpretation").upper(),
        varies=_varies(header),
        settings={key: _number(header, key, float) for key in SETTINGS},
        shared={key: _text(header, key) for key in (*PERSON, *SCAN)},
        instance=_text(header, "SOPInstanceUID"),
        subject=_text(header, "PatientID"),
        in_acquisition=_number(header, "ImagesInAcquisition", int),
    )


def _geometry(
    header: pydicom.Dataset, frames: int
) -> tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]:
    """Position of each frame, and the orientation of the first."""
    shared = _first(header, "SharedFunctionalGroupsSequence")
    groups = _sequence(header, "PerFrameFunctionalGroupsSequence")[:frames] or [header]
    positions = []
    for group in groups:
        within = _first(group, "PlanePositionSequence") or group
        positions.append(_floats(within, "ImagePositionPatient", 3))
    orientation: tuple[float, ...] = ()
    for holder in (shared, groups[0]):
        if holder is not None and not orientation:
            within = _first(holder, "PlaneOrientationSequence") or holder
            orientation = _floats(within, "ImageOrientationPatient", 6)
    if not all(positions) or len(positions) != frames:
        return (), orientation
    return tuple(positions), orientation


def _spacing(header: pydicom.Dataset) -> tuple[float, ...]:
    """Distance between rows, and between columns; of the first frame."""
    for key in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        group = _first(header, key)
        measures = None if group is None else _first(group, "PixelMeasuresSequence")
        if measures is not None and (spacing := _floats(measures, "PixelSpacing", 2)):
            return spacing
    return _floats(header, "PixelSpacing", 2)


# Of each frame of an enhanced object: its sequence, field, and the number of values.
_OF_FRAME = (
    ("PlaneOrientationSequence", "ImageOrientationPatient", 6),
    ("PixelMeasuresSequence", "PixelSpacing", 2),
    ("MREchoSequence", "EffectiveEchoTime", 1),
    ("MRImageFrameTypeSequence", "ComplexImageComponent", 0),
)


def _varies(header: pydicom.Dataset) -> str:
    """The first field that differs between the frames of a file; empty if none does."""
    for sequence, key, count in _OF_FRAME:
        seen = set()
        for group in _sequence(header, "PerFrameFunctionalGroupsSequence"):
            within = _first(group, sequence)
            if within is not None and count:
                seen.add(tuple(np.round(_floats(within, key, count), 2)))
            elif within is not None:
                seen.add(_text(within, key))
        if len(seen) > 1:
            return key
    return ""


# Third values of ImageType, as makers write them, and of ComplexImageComponent.
_COMPONENTS = {"P": "phase", "R": "real", "I": "imaginary"}
# RawDataType of General Electric.
_RAW_TYPE = (0x0043, 0x102F)


def _component(header: pydicom.Dataset) -> str:
    """Which part of the complex signal an image shows; ``magnitude`` if it does not say."""
    said = _text(header, "ComplexImageComponent").lower()
    if said in ("phase", "real", "imaginary", "mixed"):
        return said
    for word in map(str.upper, _words(header, "ImageType")[2:]):
        if word == "MAGNITUDE" or re.match(r"M(_|$)", word):
            return "magnitude"
        if word.startswith("PHASE"):
            return "phase"
        if word in _COMPONENTS:
            return _COMPONENTS[word]
        if word in ("REAL", "IMAGINARY"):
            return word.lower()
    try:
        raw = int(header[_RAW_TYPE].value) if "GE" in _text(header, "Manufacturer") else 0
    except Exception:  # not there, or no number
        raw = 0
    return {1: "phase", 2: "real", 3: "imaginary"}.get(raw, "magnitude")


def _sequence(holder: pydicom.Dataset, key: str) -> Sequence[pydicom.Dataset]:
    value = holder.get(key)
    return value if isinstance(value, pydicom.Sequence) else []


def _first(holder: pydicom.Dataset, key: str) -> pydicom.Dataset | None:
    items = _sequence(holder, key)
    return items[0] if len(items) else None


def _text(header: pydicom.Dataset, key: str) -> str:
    try:
        return str(header.get(key, "") or "").strip()
    except Exception:  # a value that its own type cannot hold
        return ""


def _words(header: pydicom.Dataset, key: str) -> list[str]:
    try:
        value = header.get(key)
        return [str(value)] if isinstance(value, str) else [str(word) for word in value or ()]
    except Exception:
        return []


def _number(header: pydicom.Dataset, key: str, kind: type) -> float | int | None:
    try:
        return kind(header.get(key))
    except Exception:
        return None


def _floats(holder: pydicom.Dataset, key: str, count: int) -> tuple[float, ...]:
    try:
        values = tuple(float(value) for value in np.atleast_1d(holder.get(key, ())))
    except Exception:
        return ()
    return values if len(values) == count and np.isfinite(values).all() else ()


def check_subject(images: Sequence[DicomImage], subject: str, place: str | Path) -> None:
    """Raise if a header names another subject of the archive than the table.

    Names in another form than the archive's (``011_S_0003``) are not compared: hospitals and tables
    use different numbers.

    Raises
    ------
    DataFault
        The header names another subject.
    """
    for image in images:
        both = (image.subject, subject)
        if all(map(_ARCHIVE_SUBJECT.match, both)) and len(set(both)) == 2:
            raise DataFault(
                f"DICOM file {image.path} is of subject {image.subject}, its line in the table of "
                f"{subject} (in {place})",
                "correct the table, or download the image again",
            )
