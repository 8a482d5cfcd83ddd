"""One scan's files as a volume: DICOM converted by dcm2niix, or a volume taken as it is."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import dcm2niix
import nibabel as nib
import numpy as np
import pydicom

from voxplain.cohort.dicom_images import (
    AGAIN,
    DICOM_ENDINGS,
    FEWEST_SLICES,
    Gap,
    check_slices,
    check_subject,
    choose_series,
    read_images,
)
from voxplain.cohort.trees import is_volume
from voxplain.faults import DataFault
from voxplain.volumes import Grid, axis_aligned_grid, read_array, read_image

# Header fields that go from dcm2niix's sidecar into ours. What identifies a person or a date is not
# among them.
_SIDECAR_FIELDS = (
    "Modality",
    "Manufacturer",
    "ManufacturersModelName",
    "MagneticFieldStrength",
    "MRAcquisitionType",
    "SeriesDescription",
    "ProtocolName",
    "ScanningSequence",
    "SequenceVariant",
    "ScanOptions",
    "SequenceName",
    "ImageType",
    "SliceThickness",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "FlipAngle",
    "ConversionSoftware",
    "ConversionSoftwareVersion",
)
# How a program ends that reads what it should not; a kill for memory or time looks otherwise.
_CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)
_SHORTEST_SIDE_MM, _LONGEST_SIDE_MM = 80.0, 400.0


@dataclass(frozen=True)
class ConvertedSeries:
    """A converted series.

    Attributes
    ----------
    voxels
        ``[x, y, z]``, RAS+, in the stored type or, where values are scaled, float32.
    grid
        Where they lie.
    sidecar
        BIDS fields of the acquisition.
    """

    voxels: np.ndarray
    grid: Grid
    sidecar: dict[str, Any]


def digest_voxels(voxels: np.ndarray) -> str:
    """SHA-256 of a volume's voxels and shape, ``[x, y, z]``, whatever its file and type say.

    The same image under two ids is found by it, where names and headers were changed.
    """
    # One type for all: DICOM gives whole numbers, the same image as NIfTI may store floats.
    plain = np.ascontiguousarray(voxels, "<f4")
    return hashlib.sha256(f"{voxels.shape} ".encode() + plain.tobytes()).hexdigest()


@dataclass(frozen=True)
class Conversion:
    """What is asked of a scan's files.

    Attributes
    ----------
    missing_slices
        So many slices within a series may be missing; they are filled from their neighbours.
    max_slice_mm
        The largest distance between slices.
    nan_outside
        Whether what is no number is outside of the brain, as in volumes of some tools.
    unoriented
        What a volume that does not say how it lies (plain Analyze) is: ``refuse``, or the
        directions in which its axes run, as ``LAS``.
    """

    missing_slices: int = 0
    max_slice_mm: float = 4.0
    unoriented: str = "refuse"
    nan_outside: bool = False


def read_scan(
    files: Sequence[Path],
    place: str | Path,
    conversion: Conversion = Conversion(),
    subject: str = "",
    description: str = "",
) -> ConvertedSeries:
    """One scan's volume from its files: DICOM images or one volume, as archives offer both.

    Parameters
    ----------
    files, place
        See :func:`voxplain.cohort.files.open_source`. Beside a volume may lie its JSON sidecar, the
        archive's XML, and a brain mask (``*_mask.nii.gz``), outside of which it becomes 0.
    conversion
        What is asked of them.
    subject, description
        As in the cohort's table.

    Raises
    ------
    DataFault
        As the functions of :mod:`voxplain.cohort.dicom_images` and :func:`convert_series`, or the
        volume is not the only image.
    """
    masks = [path for path in files if is_volume(path.name) and "_mask." in path.name]
    volumes = [path for path in files if is_volume(path.name) and path not in masks]
    if volumes:
        images = [*volumes, *(path for path in files if path.suffix.lower() in DICOM_ENDINGS)]
        if len(images) > 1:
            raise DataFault(
                f"folder {place} holds {len(images)} images, one of them {volumes[0].name}",
                "leave one image in the folder",
            )
        series = _read_volume(volumes[0], place, conversion)
        if masks:
            series = replace(series, voxels=_masked(series, masks, place))
        return replace(series, sidecar=series.sidecar | _told_beside(files))
    images = read_images(files, place)
    check_subject(images, subject, place)
    chosen = choose_series(images, place, description)
    gaps = check_slices(chosen, place, conversion.missing_slices, conversion.max_slice_mm)
    with tempfile.TemporaryDirectory() as scratch:
        # Nothing but the series, whatever else lies beside it and whatever its files are called.
        for number, image in enumerate(chosen):
            (Path(scratch) / f"{number:06d}.dcm").symlink_to(image.path.resolve())
        for number, gap in enumerate(gaps):
            fill_gap(gap, Path(scratch), f"filled{number:03d}")
        series = convert_series(scratch, place)
    sidecar = series.sidecar | _told_beside(files)
    if gaps:
        sidecar["FilledSlices"] = sum(gap.missing for gap in gaps)
    return replace(series, sidecar=sidecar)


def _read_volume(path: Path, place: str | Path, conversion: Conversion) -> ConvertedSeries:
    """A volume as it is stored, where it says how it lies."""
    if path.suffix.lower() == ".hdr" and not any(
        path.with_suffix(ending).is_file() for ending in (".img", ".IMG")
    ):
        raise DataFault(f"{path.name} of {place} has no .img beside it", AGAIN)
    read_image(path)  # refuses what is no volume
    image = nib.load(path)  # as stored: bringing it to RAS+ sets a code
    header = image.header
    oriented = isinstance(image, nib.Nifti1Pair) and (header["sform_code"] or header["qform_code"])
    if oriented:
        voxels, grid = read_array(path, dtype=None)
        if conversion.nan_outside and voxels.dtype.kind == "f":
            voxels = np.nan_to_num(voxels, nan=0, posinf=0, neginf=0)
        return ConvertedSeries(_checked(voxels, grid, place), grid, {"Modality": "MR"})
    if conversion.unoriented == "refuse":
        raise DataFault(
            f"{path.name} of {place} does not say how it lies in space (plain Analyze, or sform "
            "and qform codes of 0)",
            "convert the scan again from DICOM, or say how all such volumes of yours lie with "
            "conversion.unoriented; left and right cannot be guessed",
        )
    sizes = [abs(float(size)) or 1.0 for size in header.get_zooms()[:3]]
    ornt = nib.orientations.axcodes2ornt(conversion.unoriented)
    array = nib.orientations.apply_orientation(np.asanyarray(image.dataobj).squeeze(), ornt)
    order = [int(np.flatnonzero(ornt[:, 0] == axis)[0]) for axis in range(3)]
    sizes = [sizes[axis] for axis in order]
    centre = [-(n - 1) / 2 * size for n, size in zip(array.shape, sizes, strict=True)]
    grid = axis_aligned_grid(array.shape, sizes, centre)
    sidecar = {"Modality": "MR", "AssumedOrientation": conversion.unoriented}
    return ConvertedSeries(_checked(array, grid, place), grid, sidecar)


def _masked(series: ConvertedSeries, masks: Sequence[Path], place: str | Path) -> np.ndarray:
    if len(masks) > 1:
        raise DataFault(
            f"beside {place} lie {len(masks)} masks: {', '.join(path.name for path in masks)}",
            "leave one",
        )
    mask, grid = read_array(masks[0])
    if not grid.matches(series.grid, tolerance_mm=1e-2):
        raise DataFault(
            f"{masks[0].name} beside {place} lies on another grid than its volume",
            "give the mask that was made with the volume",
        )
    return np.where(mask > 0, series.voxels, 0).astype(series.voxels.dtype)


def _told_beside(files: Sequence[Path]) -> dict[str, Any]:
    """What a JSON sidecar, or the archive's XML, tells of the acquisition."""
    told: dict[str, Any] = {}
    for path in files:
        if path.suffix.lower() == ".xml":
            told |= read_metadata(path)
    for path in files:
        if path.suffix.lower() == ".json":
            try:
                fields = _read_json(path.read_bytes())
            except ValueError as error:
                raise DataFault(
                    f"sidecar {path.name} is no JSON ({error})", "mend it, or take it away"
                ) from error
            if isinstance(fields, dict):
                told |= fields
    return {key: told[key] for key in _SIDECAR_FIELDS if told.get(key) is not None}


def _read_json(raw: bytes) -> Any:
    """JSON as scanners' words make it: with escapes of other alphabets, not always in UTF-8."""
    return json.loads(raw.decode("utf-8", "replace"), strict=False)


# The archive's words for an acquisition, as its XML files use them, and BIDS's.
_METADATA_FIELDS = {
    "Manufacturer": "Manufacturer",
    "Mfg Model": "ManufacturersModelName",
    "Field Strength": "MagneticFieldStrength",
    "Acquisition Type": "MRAcquisitionType",
    "Slice Thickness": "SliceThickness",
    "TE": "EchoTime",
    "TR": "RepetitionTime",
    "TI": "InversionTime",
    "Flip Angle": "FlipAngle",
    "Pulse Sequence": "ScanningSequence",
}
_SECONDS = ("EchoTime", "RepetitionTime", "InversionTime")


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What the archive's XML file about an image tells of its acquisition, in BIDS's words.

    Raises
    ------
    DataFault
        The file is no XML.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise DataFault(
            f"metadata file {path} is no XML ({error})", "download it again, or take it away"
        ) from error
    told: dict[str, Any] = {}
    for term in root.iter():
        name = _METADATA_FIELDS.get(term.get("term", ""))
        text = (term.text or "").strip()
        if not name or not text:
            continue
        try:
            value: Any = float(text)
        except ValueError:
            value = text
        # BIDS counts in seconds, the archive in milliseconds.
        told[name] = value / 1000 if name in _SECONDS and isinstance(value, float) else value
    return told


def fill_gap(gap: Gap, folder: Path, stem: str) -> list[Path]:
    """Write the slices that are missing between two, each the weighted mean of both.

    Raises
    ------
    DataFault
        The neighbours are not of one kind, or their pixels are compressed in a way that is not
        read here.
    """
    before, after = (pydicom.dcmread(image.path) for image in (gap.before, gap.after))
    if gap.before.frames > 1 or gap.after.frames > 1:
        raise DataFault(
            f"slices are missing within {gap.before.path}, which holds several frames", AGAIN
        )
    try:
        pixels = [slice_.pixel_array.astype(np.float64) for slice_ in (before, after)]
    except Exception as error:
        raise DataFault(
            f"slices are missing beside {gap.before.path}, and its pixels cannot be read to fill "
            f"them ({error})",
            AGAIN,
        ) from error
    if pixels[0].shape != pixels[1].shape:
        raise DataFault(f"{gap.before.path} and {gap.after.path} differ in size", AGAIN)
    places = [np.array(image.positions[0]) for image in (gap.before, gap.after)]
    paths = []
    for number in range(1, gap.missing + 1):
        share = number / (gap.missing + 1)
        between = copy.deepcopy(before)
        mean = np.rint((1 - share) * pixels[0] + share * pixels[1])
        dtype = before.pixel_array.dtype
        between.PixelData = mean.astype(dtype).astype(dtype.newbyteorder("<")).tobytes()
        between["PixelData"].VR = "OW" if dtype.itemsize > 1 else "OB"
        between.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        place = (1 - share) * places[0] + share * places[1]
        between.ImagePositionPatient = [round(float(value), 6) for value in place]
        locations = [slice_.get("SliceLocation") for slice_ in (before, after)]
        if None not in locations:
            ends = [float(location) for location in locations]
            between.SliceLocation = round((1 - share) * ends[0] + share * ends[1], 6)
        between.SOPInstanceUID = pydicom.uid.generate_uid()
        between.file_meta.MediaStorageSOPInstanceUID = between.SOPInstanceUID
        # Between its neighbours' numbers, where a place is left there.
        numbers = [int(slice_.get("InstanceNumber") or 0) for slice_ in (before, after)]
        between.InstanceNumber = round((1 - share) * numbers[0] + share * numbers[1])
        path = folder / f"{stem}_{number}.dcm"
        between.save_as(path, implicit_vr=False, little_endian=True, enforce_file_format=True)
        paths.append(path)
    return paths


def convert_series(folder: str | Path, place: str | Path = "") -> ConvertedSeries:
    """Convert a folder of one series with dcm2niix.

    What dcm2niix writes is read from its output folder, not guessed from names: it may add files
    (``_Eq_1``, ``_ROI1``) beside the volume or split a folder into several.

    Parameters
    ----------
    folder
        Where the series lies.
    place
        What messages call it, if not that.

    Raises
    ------
    DataFault
        dcm2niix made no volume or several that could be meant, it reports missing slices, or the
        volume is no head-sized 3D image.
    """
    place = place or folder
    with tempfile.TemporaryDirectory() as scratch:
        # -d 0: what lies in subfolders was neither checked nor recorded; -g i: the user's own
        # defaults file does not decide; -ba y: no name or date in sidecars; -z n: the volume is
        # compressed once, when it is written for good.
        command = [
            "-d",
            "0",
            "-g",
            "i",
            "-b",
            "y",
            "-ba",
            "y",
            "-z",
            "n",
            "-f",
            "%s_%p",
            "-o",
            scratch,
        ]
        done = dcm2niix.main(
            [*command, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said = done.stdout.decode(errors="replace")
        print(said, flush=True)
        if -done.returncode in _CRASHES:
            crash = signal.Signals(-done.returncode).name
            raise DataFault(
                f"dcm2niix crashed on {place} ({crash}): one of its files is not what it says",
                AGAIN,
            )
        if done.returncode < 0:
            raise ChildProcessError(f"dcm2niix was ended by signal {-done.returncode} on {place}")
        if re.search(
            r"no space left|unable to (write|save|create)|disk full|out of memory", said, re.I
        ):
            raise OSError(f"dcm2niix could not write: {_last_line(said)}")
        volumes = sorted(Path(scratch).glob("*.nii"))
        if not volumes:
            raise DataFault(
                f"dcm2niix made no volume of {place}: {_last_line(said)}",
                "check that the folder holds one T1-weighted series",
            )
        uneven = re.findall(r"^.*(?:missing images|distance varies).*$", said, re.I | re.M)
        if uneven:
            raise DataFault(
                f"slices of {place} are missing or uneven (dcm2niix: {uneven[-1].strip()})",
                "download the image again",
            )
        chosen = _choose_volume(volumes, place)
        if nib.load(chosen).ndim > 3 and nib.load(chosen).shape[3] > 1:
            shape = "x".join(map(str, nib.load(chosen).shape))
            raise DataFault(
                f"{place} holds several volumes of one place ({shape})",
                "give a series of one T1-weighted volume",
            )
        image = read_image(chosen)
        grid = Grid.of(image)
        # Copied, since the file that it is mapped from goes away.
        voxels = _checked(np.asarray(image.dataobj), grid, place).copy()
        beside = chosen.with_suffix(".json")
        told = _read_json(beside.read_bytes()) if beside.is_file() else {}
    sidecar = {key: told[key] for key in _SIDECAR_FIELDS if told.get(key) is not None}
    sidecar.setdefault("ConversionSoftware", "dcm2niix")
    sidecar.setdefault("ConversionSoftwareVersion", f"v{version('dcm2niix')}")
    return ConvertedSeries(voxels, grid, sidecar)


def _choose_volume(volumes: list[Path], place: str | Path) -> Path:
    """The one volume that is meant: three-dimensional, and not derived by dcm2niix from another."""
    own = [
        path
        for path in volumes
        if not re.search(r"_(Eq(_\d+)?|ROI\d+|Tilt(_\d+)?)$", path.stem) or len(volumes) == 1
    ]
    candidates = [path for path in own if _slices(path) >= FEWEST_SLICES]
    if len(candidates) == 1:
        return candidates[0]
    listed = ", ".join(f"{p.stem} ({'x'.join(map(str, nib.load(p).shape))})" for p in own)
    if not candidates:
        raise DataFault(
            f"no volume of {place} has {FEWEST_SLICES} slices or more: {listed}",
            "download the whole series",
        )
    raise DataFault(
        f"{place} holds several volumes: {listed}",
        "leave only the T1-weighted series in the folder",
    )


def _slices(path: Path) -> int:
    shape = nib.load(path).shape
    return min(shape[:3]) if len(shape) >= 3 else 0


def _checked(voxels: np.ndarray, grid: Grid, place: str | Path) -> np.ndarray:
    """The voxels in a type of at most 32 bit, after a look at whether they can be a head."""
    if voxels.dtype.kind not in "iuf":
        raise DataFault(
            f"the volume of {place} holds colours or complex numbers, not intensities",
            "give the magnitude image of a T1-weighted scan",
        )
    voxels = voxels.astype(np.float32) if voxels.dtype.itemsize > 4 else voxels
    sides = np.array(grid.shape) * np.array(grid.voxel_size)
    if sides.min() < _SHORTEST_SIDE_MM or sides.max() > _LONGEST_SIDE_MM:
        told = "x".join(f"{side:.0f}" for side in sides)
        raise DataFault(
            f"the volume of {place} measures {told} mm, expected {_SHORTEST_SIDE_MM:.0f} to "
            f"{_LONGEST_SIDE_MM:.0f} mm a side",
            "check that the series is a whole head and its voxel size is right",
        )
    if not np.isfinite(voxels).all() or voxels.min() == voxels.max():
        raise DataFault(
            f"the volume of {place} holds one value only, or values that are no numbers",
            "download the image again",
        )
    return voxels


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
