"""The DICOM images among a scan's files: checks of each file, and choice of the T1 series."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom

from voxplain.cohort.words import plain
from voxplain.faults import DataFault

DICOM_ENDINGS = (".dcm", ".ima")
FEWEST_SLICES = 20
AGAIN = "download the image again"
_ARCHIVE_SUBJECT = re.compile(r"^[0-9]{3}_S_[0-9]{4,5}\Z")
_SCOUT = re.compile(r"locali[sz]er|scout|survey|aahead|3[- ]?pl(ane)?\b", re.IGNORECASE)
# A T1-weighted gradient echo has an echo time of a few ms; T2 and FLAIR have ten times as much.
_LONGEST_ECHO_MS = 30.0
# Largest deviation of a slice distance, as a fraction; rounding is smaller.
_EVEN = 0.1
_MOST_SHEAR_DEGREES = 1.0
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
    modality, sequence, echo_ms
        Modality, values of ScanningSequence, echo time or None.
    shape
        Rows and columns.
    positions
        ``[slice, 3]``, mm, DICOM's axes (LPS+): one for each frame; empty if they are unknown.
    orientation
        Direction cosines of rows and columns, six numbers, or empty.
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
    echo_ms: float | None
    shape: tuple[int, int]
    frames: int
    positions: tuple[tuple[float, ...], ...]
    orientation: tuple[float, ...]
    instance: str
    subject: str
    in_acquisition: int | None


def read_images(files: Sequence[Path], place: str | Path) -> list[DicomImage]:
    """The DICOM images among some files; raises if an image would give a wrong volume.

    Files that are not DICOM are skipped, since archives put notes and lists beside images; so are a
    DICOMDIR, reports and presentation states. The same image twice counts once.

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
    images: dict[str, DicomImage] = {}
    for path in files:
        header = _read_header(path)
        if header is None:
            continue
        image = _describe(path, header)
        images.setdefault(image.instance or str(path), image)
    if not images:
        raise DataFault(
            f"folder {place} holds {len(files)} files and no DICOM image among them",
            "download the image as DICOM",
        )
    return list(images.values())


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
    kind = header.file_meta.get("MediaStorageSOPClassUID", header.get("SOPClassUID"))
    if "PixelData" not in header:
        # The file may be cut within this identifier: an unknown object counts as an image. (Private
        # objects, which Philips and Siemens put beside images, have no name.)
        name = getattr(kind, "name", "")
        if kind is None or "Image Storage" in name or (name == str(kind) and not kind.is_private):
            raise DataFault(f"DICOM file {path} is truncated: it ends before its pixels", AGAIN)
        return None  # a DICOMDIR or a report beside the images
    try:
        _check_pixels(path, header)
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise DataFault(f"DICOM file {path} lacks what its pixels need ({error})", AGAIN) from error
    return header


def _check_pixels(path: Path, header: pydicom.Dataset) -> None:
    frames = int(header.get("NumberOfFrames", 1) or 1)
    if int(header.Rows) * int(header.Columns) * frames > _MOST_PIXELS:
        # Compressed, such an image has a few kB, and would not fit into memory.
        raise DataFault(
            f"DICOM file {path} has {frames} frames of {header.Rows}x{header.Columns} pixels by "
            "its header, more than any head",
            AGAIN,
        )
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is not None and syntax.is_compressed:
        _check_compressed(path, header)
        return
    expected = (
        int(header.Rows)
        * int(header.Columns)
        * int(header.get("NumberOfFrames", 1) or 1)
        * int(header.get("SamplesPerPixel", 1))
        * int(header.BitsAllocated)
        // 8
    )
    actual = len(header.PixelData)
    if actual < expected:
        raise DataFault(
            f"DICOM file {path} is truncated: {actual} bytes of pixels, expected {expected}", AGAIN
        )


def _check_compressed(path: Path, header: pydicom.Dataset) -> None:
    """Raise if compressed frames are missing; headers do not give their length."""
    frames = int(header.get("NumberOfFrames", 1) or 1)
    try:
        actual = sum(
            1 for _ in pydicom.encaps.generate_frames(header.PixelData, number_of_frames=frames)
        )
    except Exception as error:
        raise DataFault(
            f"DICOM file {path} is truncated: its compressed pixels break off ({error})", AGAIN
        ) from error
    if actual < frames:
        raise DataFault(
            f"DICOM file {path} is truncated: {actual} compressed frames, expected {frames}", AGAIN
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
        echo_ms=_number(header, "EchoTime", float),
        shape=(_number(header, "Rows", int) or 0, _number(header, "Columns", int) or 0),
        frames=frames,
        positions=positions,
        orientation=orientation,
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
        values = tuple(float(value) for value in holder.get(key) or ())
    except Exception:
        return ()
    return values if len(values) == count and np.isfinite(values).all() else ()


# --- which series ---------------------------------------------------------------------------------


def choose_series(
    images: Sequence[DicomImage], place: str | Path, description: str = ""
) -> list[DicomImage]:
    """The images of the only T1-weighted series among several series.

    Other series are left out first: other modalities and screen shots, localizers, series of fewer
    than 20 slices, mosaics, echo-planar images and long echo times. If several are left, the series
    with the table's description is chosen, if there is one; then acquired series take precedence
    over reformatted ones. If several are still left, none is chosen.

    Parameters
    ----------
    images, place
        As in :func:`read_images`.
    description
        The table's description of the scan.

    Raises
    ------
    DataFault
        No series or several could be meant; each candidate is listed.
    """
    series: dict[str, list[DicomImage]] = {}
    for image in images:
        series.setdefault(image.series, []).append(image)
    reasons = {name: _why_not(members) for name, members in series.items()}
    left = {name: members for name, members in series.items() if not reasons[name]}
    if not left:
        listed = "; ".join(f"{_called(series[name])}: {why}" for name, why in reasons.items())
        raise DataFault(
            f"{place} holds no T1-weighted series of a whole head: {listed}",
            "download the whole T1-weighted series",
        )
    rules = (
        lambda members: bool(description) and plain(members[0].description) == plain(description),
        lambda members: "DERIVED" not in members[0].kind,
    )
    for rule in rules:
        if len(left) > 1:
            left = {name: members for name, members in left.items() if rule(members)} or left
    if len(left) > 1:
        listed = "; ".join(map(_called, left.values()))
        raise DataFault(
            f"{place} holds {len(left)} series that could be meant: {listed}",
            "leave the right one in the folder, or give its description in the table",
        )
    ((name, chosen),) = left.items()
    for other, why in reasons.items():
        if other != name:
            print(f"left out {_called(series[other])}: {why or 'another series is meant'}")
    return chosen


def _why_not(members: Sequence[DicomImage]) -> str:
    """Why a series is not a T1-weighted scan of a head; empty if it may be one."""
    first = members[0]
    slices = sum(image.frames for image in members)
    if first.modality not in ("", "MR"):
        return f"its modality is {first.modality}"
    if "LOCALIZER" in first.kind or _SCOUT.search(first.description):
        return "a localizer"
    if "MOSAIC" in first.kind:
        return "a mosaic, as functional series are stored"
    if slices < FEWEST_SLICES:
        return f"{slices} slices"
    if "EP" in first.sequence:
        return "echo-planar"
    if first.echo_ms is not None and first.echo_ms > _LONGEST_ECHO_MS:
        return f"an echo time of {first.echo_ms:g} ms"
    return ""


def _called(members: Sequence[DicomImage]) -> str:
    """Number, description, slices and kind of a series, for messages."""
    first = members[0]
    slices = sum(image.frames for image in members)
    number = f"series {first.number}" if first.number else "a series"
    kind = "/".join(first.kind)
    return f"{number} {first.description!r} ({slices} slices{', ' + kind if kind else ''})"


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


# --- slices ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gap:
    """Missing slices: the slices before and after the gap, and the number of missing slices."""

    before: DicomImage
    after: DicomImage
    missing: int


def check_slices(
    images: Sequence[DicomImage], place: str | Path, missing_slices: int, max_slice_mm: float
) -> list[Gap]:
    """The gaps of a series; raises if its slices are not evenly spaced.

    Parameters
    ----------
    images, place
        One series, see :func:`choose_series`.
    missing_slices
        The largest allowed number of missing slices between others.
    max_slice_mm
        The largest allowed distance between two slices, in mm.

    Returns
    -------
    The gaps where slices are missing.

    Raises
    ------
    DataFault
        A slice has no position or orientation, too many slices are missing, or slices are uneven,
        shifted against each other (a tilted gantry), or too thick.
    """
    for image in images:
        if not image.positions or not image.orientation:
            # dcm2niix would still make a volume, in an arbitrary orientation.
            raise DataFault(
                f"DICOM file {image.path} does not say where its slices lie (place, orientation)",
                "download the image as the scanner wrote it; left and right cannot be guessed",
            )
    frames = [(np.array(place), image) for image in images for place in image.positions]
    orientations = {tuple(np.round(image.orientation, 2)) for image in images}
    if len(orientations) > 1:
        return []  # several volumes, which are separated by the conversion
    rows, columns = np.array(images[0].orientation).reshape(2, 3)
    normal = np.cross(rows, columns)
    frames.sort(key=lambda frame: frame[0] @ normal)
    depths = np.array([position @ normal for position, _ in frames])
    steps = np.diff(depths)
    if (steps < 1e-3).any():
        return []  # several volumes at the same position, likewise
    step = float(np.median(steps))
    if step > max_slice_mm:
        raise DataFault(
            f"slices of {place} lie {step:.1f} mm apart, expected at most {max_slice_mm:g} mm",
            "give a scan of the whole head in thin slices, or raise max_slice_mm",
        )
    extent = frames[-1][0] - frames[0][0]
    sideways = float(np.linalg.norm(extent - (extent @ normal) * normal))
    shear = np.degrees(np.arctan2(sideways, abs(extent @ normal)))
    if shear > _MOST_SHEAR_DEGREES:
        raise DataFault(
            f"slices of {place} are shifted against each other by {shear:.1f} degrees (a tilted "
            "gantry)",
            "give the scan resampled to a rectangular grid",
        )
    counts = np.maximum(np.round(steps / step), 1).astype(int)
    if (np.abs(steps - counts * step) > _EVEN * step).any():
        worst = int(np.abs(steps - counts * step).argmax())
        raise DataFault(
            f"slices of {place} are uneven: {steps[worst]:.2f} mm between slices {worst + 1} and "
            f"{worst + 2}, elsewhere {step:.2f} mm",
            AGAIN,
        )
    expected = images[0].in_acquisition or 0
    if expected - len(frames) > missing_slices:
        # Missing first or last slices leave no gap.
        raise DataFault(f"{place} has {len(frames)} slices, its header says {expected}", AGAIN)
    gaps = [
        Gap(frames[n][1], frames[n + 1][1], int(count) - 1)
        for n, count in enumerate(counts)
        if count > 1
    ]
    missing = sum(gap.missing for gap in gaps)
    if missing > missing_slices:
        where = ", ".join(f"{n + 1}" for n, count in enumerate(counts) if count > 1)
        counted = "1 slice" if missing == 1 else f"{missing} slices"
        raise DataFault(
            f"{counted} of {place} missing (after slice {where} of those that are there), "
            f"at most {missing_slices} may be",
            f"{AGAIN}, or raise missing_slices, to fill them from their neighbours",
        )
    return gaps
