"""One scan's files as a volume: DICOM converted by dcm2niix, or an existing volume."""

from __future__ import annotations

import copy
import hashlib
import re
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dcm2niix
import nibabel as nib
import numpy as np
import pydicom

from voxplain.cohort.acquisition import acquisition_fields, read_fields, read_sidecars
from voxplain.cohort.dicom_choice import FEWEST_SLICES, choose_series
from voxplain.cohort.dicom_images import AGAIN, DICOM_ENDINGS, check_subject, read_images
from voxplain.cohort.dicom_slices import Gap, check_person, check_slices, check_volume, one_volume
from voxplain.cohort.orientation import load_stored, read_oriented, stored_voxels
from voxplain.cohort.trees import is_volume
from voxplain.faults import AvoidableFault, DataFault
from voxplain.volumes import Grid, axis_aligned_grid, read_array, read_image

# Field of the sidecar for what a user should know of the conversion, as on the quality page.
NOTE = "ConversionNote"
# What dcm2niix says where its volume is not all slices that it was given, and what that means.
_REMARKS = {
    "missing images|distance varies": "are missing or uneven",
    "duplicates removed": "were taken for copies of others and left out",
    "not stacked": "are not of one volume",
}
# What stored pixels are multiplied by, and what is added; the last one is that of Philips.
_SCALES = ("RescaleSlope", "RescaleIntercept", (0x2005, 0x100E))
# Signals of a program that crashed on its input; a kill for memory or time has another signal.
_CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)
_LONGEST_S = 1800  # of dcm2niix, which takes seconds for a scan
_SHORTEST_SIDE_MM, _LONGEST_SIDE_MM = 80.0, 400.0


@dataclass(frozen=True)
class ConvertedSeries:
    """A converted series.

    Attributes
    ----------
    voxels
        ``[x, y, z]``, RAS+, in the stored type, or float32 if values are scaled.
    grid
        Grid of the voxels.
    sidecar
        BIDS fields of the acquisition.
    """

    voxels: np.ndarray
    grid: Grid
    sidecar: dict[str, Any]


def digest_voxels(voxels: np.ndarray) -> str:
    """SHA-256 of a volume's voxels and shape, ``[x, y, z]``, independent of header and type.

    It finds the same image under two ids, even if names and headers were changed.
    """
    # One type for all: DICOM stores integers, a NIfTI file of the same image may store floats.
    plain = np.ascontiguousarray(voxels, "<f4")
    return hashlib.sha256(f"{voxels.shape} ".encode() + plain.tobytes()).hexdigest()


@dataclass(frozen=True)
class Conversion:
    """Settings of the conversion.

    Attributes
    ----------
    missing_slices
        The largest number of missing slices within a series; they are filled from their neighbours.
    max_slice_mm
        The largest allowed distance between slices.
    nan_outside
        Whether NaN is treated as background (0), as some tools store it.
    trust
        Which affine of a volume is taken where its sform and qform contradict each other:
        ``sform``, ``qform``, or ``refuse``.
    unoriented
        How to treat a volume without an orientation (plain Analyze): ``refuse``, or the directions
        of its axes, as ``LAS``.
    """

    missing_slices: int = 0
    max_slice_mm: float = 4.0
    trust: str = "refuse"
    unoriented: str = "refuse"
    nan_outside: bool = False


def read_scan(
    files: Sequence[Path],
    place: str | Path,
    conversion: Conversion = Conversion(),
    subject: str = "",
    description: str = "",
) -> ConvertedSeries:
    """One scan as a volume, from its DICOM images or its volume file; archives offer both.

    Parameters
    ----------
    files, place
        See :func:`voxplain.cohort.files.open_source`. The files of a volume may include its JSON
        sidecar, the archive's XML, and a brain mask (``*_mask.nii.gz``); voxels outside of the mask
        become 0.
    conversion
        Settings of the conversion.
    subject, description
        As in the cohort's table.

    Raises
    ------
    DataFault
        As the functions of :mod:`voxplain.cohort.dicom_images`, ``dicom_choice`` and
        ``dicom_slices``, of :mod:`voxplain.cohort.orientation`, and :func:`convert_series`, or
        there are other images besides the volume.
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
            series = replace(series, voxels=_masked(series, masks, place, conversion.trust))
        return replace(series, sidecar=series.sidecar | read_sidecars(files))
    images = read_images(files, place)
    check_subject(images, subject, place)
    check_person(images, place)
    chosen = one_volume(choose_series(images, place, description), place)
    gaps = check_slices(chosen, place, conversion.missing_slices, conversion.max_slice_mm)
    with tempfile.TemporaryDirectory() as scratch:
        # A folder with the files of this series only, under new names.
        for number, image in enumerate(chosen):
            (Path(scratch) / f"{number:06d}.dcm").symlink_to(image.path.resolve())
        for number, gap in enumerate(gaps):
            fill_gap(gap, Path(scratch), f"filled{number:03d}")
        series = convert_series(scratch, place)
    check_volume(series.grid, chosen, gaps, place)
    sidecar = series.sidecar | read_sidecars(files)
    if gaps:
        filled = sidecar["FilledSlices"] = sum(gap.missing for gap in gaps)
        counted = "1 slice was" if filled == 1 else f"{filled} slices were"
        sidecar[NOTE] = f"{counted} missing and filled from the neighbours"
    return replace(series, sidecar=sidecar)


def _read_volume(path: Path, place: str | Path, conversion: Conversion) -> ConvertedSeries:
    """A volume in RAS+, by the orientation in its header or, without one, that of the settings."""
    if path.suffix.lower() == ".hdr" and not any(
        path.with_suffix(ending).is_file() for ending in (".img", ".IMG")
    ):
        raise DataFault(f"{path.name} of {place} has no .img beside it", AGAIN)
    oriented = read_oriented(path, place, conversion.trust)
    if oriented:
        voxels, grid, note = oriented
        if conversion.nan_outside and voxels.dtype.kind == "f":
            voxels = np.nan_to_num(voxels, nan=0, posinf=0, neginf=0)
        sidecar = {"Modality": "MR", **({NOTE: note} if note else {})}
        return ConvertedSeries(_checked(voxels, grid, place), grid, sidecar)
    if conversion.unoriented == "refuse":
        raise AvoidableFault(
            f"{path.name} of {place} does not say how it lies in space (plain Analyze, sform and "
            "qform codes of 0, or affines of zeros)",
            "convert the scan again from DICOM, or say how all such volumes of yours lie, as with "
            "{setting}; left and right cannot be guessed",
            "unoriented",
            "LAS",
        )
    image = load_stored(path)
    sizes = [abs(float(size)) or 1.0 for size in image.header.get_zooms()[:3]]
    ornt = nib.orientations.axcodes2ornt(conversion.unoriented)
    array = nib.orientations.apply_orientation(stored_voxels(image, path), ornt)
    order = [int(np.flatnonzero(ornt[:, 0] == axis)[0]) for axis in range(3)]
    sizes = [sizes[axis] for axis in order]
    centre = [-(n - 1) / 2 * size for n, size in zip(array.shape, sizes, strict=True)]
    grid = axis_aligned_grid(array.shape, sizes, centre)
    note = f"its axes were taken to run to {conversion.unoriented}, since it does not say so"
    sidecar = {"Modality": "MR", "AssumedOrientation": conversion.unoriented, NOTE: note}
    return ConvertedSeries(_checked(array, grid, place), grid, sidecar)


def _masked(
    series: ConvertedSeries, masks: Sequence[Path], place: str | Path, trust: str
) -> np.ndarray:
    """The voxels of a series, 0 outside of the only mask."""
    if len(masks) > 1:
        raise DataFault(
            f"beside {place} lie {len(masks)} masks: {', '.join(path.name for path in masks)}",
            "leave one",
        )
    oriented = read_oriented(masks[0], place, trust)
    mask, grid = oriented[:2] if oriented else read_array(masks[0])
    if not grid.matches(series.grid, tolerance_mm=1e-2):
        raise DataFault(
            f"{masks[0].name} beside {place} lies on another grid than its volume",
            "give the mask that was made with the volume",
        )
    return np.where(mask > 0, series.voxels, 0).astype(series.voxels.dtype)


def fill_gap(gap: Gap, folder: Path, stem: str) -> list[Path]:
    """Write the missing slices of a gap, each a weighted mean of the two neighbours; their paths.

    Raises
    ------
    DataFault
        The neighbours have several frames, or different sizes or scales, or their pixels cannot be
        read, for example because of an unsupported compression.
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
    scales = [[slice_.get(key) for key in _SCALES] for slice_ in (before, after)]
    if pixels[0].shape != pixels[1].shape or scales[0] != scales[1]:
        raise DataFault(f"{gap.before.path} and {gap.after.path} differ in size or scale", AGAIN)
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
        # A number between those of the neighbours, if there is one.
        numbers = [int(slice_.get("InstanceNumber") or 0) for slice_ in (before, after)]
        between.InstanceNumber = round((1 - share) * numbers[0] + share * numbers[1])
        path = folder / f"{stem}_{number}.dcm"
        between.save_as(path, implicit_vr=False, little_endian=True, enforce_file_format=True)
        paths.append(path)
    return paths


def convert_series(folder: str | Path, place: str | Path = "") -> ConvertedSeries:
    """The volume of a folder with one series, converted with dcm2niix.

    The output folder of dcm2niix is listed, its file names are not guessed: it may write further
    files (``_Eq_1``, ``_ROI1``) beside the volume, or several volumes.

    Parameters
    ----------
    folder
        Folder of the series.
    place
        Name of the folder in messages; by default its path.

    Raises
    ------
    DataFault
        dcm2niix wrote no volume or several candidates, it reports missing slices, or the volume is
        not a 3D image with the size of a head.
    """
    place = place or folder
    with tempfile.TemporaryDirectory() as scratch:
        # -d 0: files in subfolders were neither checked nor recorded; -g i: ignore the user's
        # defaults file; -m y: echo times that differ by rounding do not divide a series (what
        # differs more is refused before); -ba y: no name or date in sidecars; -z n: the volume is
        # compressed only when the final file is written.
        options = {"d": "0", "g": "i", "m": "y", "b": "y", "ba": "y", "z": "n", "f": "%s_%p"}
        command = [word for key, value in options.items() for word in (f"-{key}", value)]
        try:
            process = dcm2niix.main(
                [*command, "-o", scratch, str(folder)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_LONGEST_S,
            )
        except subprocess.TimeoutExpired:
            raise DataFault(
                f"dcm2niix did not end within {_LONGEST_S} s on {place}: one of its files is not "
                "what it says",
                AGAIN,
            ) from None
        output = process.stdout.decode(errors="replace")
        print(output, flush=True)
        if -process.returncode in _CRASHES:
            crash = signal.Signals(-process.returncode).name
            raise DataFault(
                f"dcm2niix crashed on {place} ({crash}): one of its files is not what it says",
                AGAIN,
            )
        if process.returncode < 0:
            raise ChildProcessError(
                f"dcm2niix was ended by signal {-process.returncode} on {place}"
            )
        if re.search(
            r"no space left|unable to (write|save|create)|disk full|out of memory", output, re.I
        ):
            raise OSError(f"dcm2niix could not write: {_last_line(output)}")
        volumes = sorted(Path(scratch).glob("*.nii"))
        if not volumes:
            raise DataFault(
                f"dcm2niix made no volume of {place}: {_last_line(output)}",
                "check that the folder holds one T1-weighted series",
            )
        for words, fault in _REMARKS.items():
            said = re.findall(rf"^.*(?:{words}).*$", output, re.I | re.M)
            if said:
                raise DataFault(f"slices of {place} {fault} (dcm2niix: {said[-1].strip()})", AGAIN)
        chosen = _choose_volume(volumes, place)
        if nib.load(chosen).ndim > 3 and nib.load(chosen).shape[3] > 1:
            shape = "x".join(map(str, nib.load(chosen).shape))
            raise DataFault(
                f"{place} holds several volumes of one place ({shape})",
                "give a series of one T1-weighted volume",
            )
        image = read_image(chosen)
        grid = Grid.of(image)
        # A copy, since the memory-mapped file is deleted.
        voxels = _checked(np.asarray(image.dataobj), grid, place).copy()
        sidecar_path = chosen.with_suffix(".json")
        sidecar = acquisition_fields(read_fields(sidecar_path) if sidecar_path.is_file() else {})
    sidecar.setdefault("ConversionSoftware", "dcm2niix")
    sidecar.setdefault("ConversionSoftwareVersion", f"v{version('dcm2niix')}")
    return ConvertedSeries(voxels, grid, sidecar)


def _choose_volume(volumes: list[Path], place: str | Path) -> Path:
    """The only 3D volume that dcm2niix did not derive from another volume."""
    originals = [
        path
        for path in volumes
        if not re.search(r"_(Eq(_\d+)?|ROI\d+|Tilt(_\d+)?)$", path.stem) or len(volumes) == 1
    ]
    candidates = [path for path in originals if _slices(path) >= FEWEST_SLICES]
    if len(candidates) == 1:
        return candidates[0]
    listed = ", ".join(f"{p.stem} ({'x'.join(map(str, nib.load(p).shape))})" for p in originals)
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
    """The voxels in a type of at most 32 bit; raises if they cannot be a head."""
    if voxels.dtype.kind not in "iuf":
        raise DataFault(
            f"the volume of {place} holds colours or complex numbers, not intensities",
            "give the magnitude image of a T1-weighted scan",
        )
    voxels = voxels.astype(np.float32) if voxels.dtype.itemsize > 4 else voxels
    sides = np.array(grid.shape) * np.array(grid.voxel_size)
    if sides.min() < _SHORTEST_SIDE_MM or sides.max() > _LONGEST_SIDE_MM:
        size = "x".join(f"{side:.0f}" for side in sides)
        raise DataFault(
            f"the volume of {place} measures {size} mm, expected {_SHORTEST_SIDE_MM:.0f} to "
            f"{_LONGEST_SIDE_MM:.0f} mm a side",
            "check that the series is a whole head and its voxel size is right",
        )
    if not np.isfinite(voxels).all() or voxels.min() == voxels.max():
        raise DataFault(
            f"the volume of {place} holds one value only, or values that are no numbers",
            "download the image again",
        )
    if voxels.max() <= 0:
        raise DataFault(
            f"the volume of {place} has no value above 0 (its greatest is {voxels.max():g})",
            "give the magnitude image of a T1-weighted scan, or download it again",
        )
    return voxels


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
