"""One DICOM series on disk: is it whole, what does it hash to, and its volume as NIfTI."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dcm2niix
import nibabel as nib
import numpy as np
import pydicom

from voxplain.faults import DataFault
from voxplain.volumes import Grid, read_array, read_image

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
_SHORTEST_SIDE_MM, _LONGEST_SIDE_MM = 80.0, 400.0
_FEWEST_SLICES = 20


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


def series_files(folder: str | Path) -> list[Path]:
    """The files of a series, sorted by name; hidden files are not part of it."""
    return sorted(
        path for path in Path(folder).iterdir() if path.is_file() and not path.name.startswith(".")
    )


def digest_series(folder: str | Path) -> dict[str, str]:
    """SHA-256 of every file of a series, by file name."""
    digests = {}
    for path in series_files(folder):
        with path.open("rb") as stream:
            digests[path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return digests


def digest_voxels(voxels: np.ndarray) -> str:
    """SHA-256 of a volume's voxels and shape, ``[x, y, z]``, whatever its file and type say.

    The same image under two ids is found by it, where names and headers were changed.
    """
    # One type for all: DICOM gives whole numbers, the same image as NIfTI may store floats.
    plain = np.ascontiguousarray(voxels, "<f4")
    return hashlib.sha256(f"{voxels.shape} ".encode() + plain.tobytes()).hexdigest()


def check_series(folder: str | Path) -> int:
    """Look for what would make a volume that is not the scan's.

    Files that are no DICOM at all are passed over, as archives put notes and lists beside images.

    Returns
    -------
    How many DICOM files there are.

    Raises
    ------
    DataFault
        There is no DICOM file, or one is truncated.
    """
    files = series_files(folder)
    if not files:
        raise DataFault(f"folder {folder} is empty", "download the image again")
    images = 0
    for path in files:
        try:
            with pydicom.config.disable_value_validation():
                header = pydicom.dcmread(path)
        except pydicom.errors.InvalidDicomError:
            if path.suffix.lower() in (".dcm", ".ima"):
                raise DataFault(
                    f"file {path} is no DICOM file, though its name says so",
                    "download the image again",
                ) from None
            continue
        except MemoryError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DataFault(
                f"DICOM file {path} breaks off or is corrupt ({type(error).__name__}: {error})",
                "download the image again",
            ) from error
        kind = header.file_meta.get("MediaStorageSOPClassUID", header.get("SOPClassUID"))
        if "PixelData" not in header:
            # A cut may lie in this very identifier: what is not known to be no image counts as one.
            name = getattr(kind, "name", "")
            if kind is None or "Image Storage" in name or name == str(kind):
                raise DataFault(
                    f"DICOM file {path} is truncated: it ends before its pixels",
                    "download the image again",
                )
            continue  # a directory or a report, as archives put beside images
        images += 1
        try:
            _check_pixels(path, header)
        except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
            raise DataFault(
                f"DICOM file {path} lacks what its pixels need ({error})",
                "download the image again",
            ) from error
    if not images:
        raise DataFault(
            f"folder {folder} holds {len(files)} files and no DICOM image among them",
            "download the image as DICOM",
        )
    return images


def _check_pixels(path: Path, header: pydicom.Dataset) -> None:
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is not None and syntax.is_compressed:
        return  # the length of compressed pixels is not known from the header
    expected = (
        int(header.Rows)
        * int(header.Columns)
        * int(header.get("NumberOfFrames", 1) or 1)
        * int(header.get("SamplesPerPixel", 1))
        * int(header.BitsAllocated)
        // 8
    )
    found = len(header.PixelData)
    if found < expected:
        raise DataFault(
            f"DICOM file {path} is truncated: {found} bytes of pixels, expected {expected}",
            "download the image again",
        )


def read_series(folder: str | Path) -> ConvertedSeries:
    """One scan's volume from its folder: DICOM files or one NIfTI file, as archives offer both.

    Raises
    ------
    DataFault
        As :func:`check_series` and :func:`convert_series`, or the NIfTI file is not the only image.
    """
    files = series_files(folder)
    volumes = [path for path in files if path.name.lower().endswith((".nii", ".nii.gz"))]
    if not volumes:
        check_series(folder)
        return convert_series(folder)
    images = [*volumes, *(path for path in files if path.suffix.lower() in (".dcm", ".ima"))]
    if len(images) > 1:
        raise DataFault(
            f"folder {folder} holds {len(images)} images, one of them {volumes[0].name}",
            "leave one image in the folder",
        )
    read_image(volumes[0])  # refuses what is no NIfTI
    header = nib.load(volumes[0]).header  # as stored: bringing it to RAS+ sets a code
    if header["sform_code"] == 0 and header["qform_code"] == 0:
        raise DataFault(
            f"{volumes[0]} does not say how it lies in space (sform and qform codes are 0)",
            "convert the scan again from DICOM; its left and right cannot be guessed",
        )
    voxels, grid = read_array(volumes[0], dtype=None)
    return ConvertedSeries(_checked(voxels, grid, folder), grid, {"Modality": "MR"})


def convert_series(folder: str | Path) -> ConvertedSeries:
    """Convert a series with dcm2niix.

    What dcm2niix writes is read from its output folder, not guessed from names: it may add files
    (``_Eq_1``, ``_ROI1``) beside the volume or split a folder into several.

    Raises
    ------
    DataFault
        dcm2niix made no volume or several that could be meant, it reports missing slices, or the
        volume is no head-sized 3D image.
    """
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
        if done.returncode < 0:
            raise ChildProcessError(f"dcm2niix was ended by signal {-done.returncode} on {folder}")
        if re.search(
            r"no space left|unable to (write|save|create)|disk full|out of memory", said, re.I
        ):
            raise OSError(f"dcm2niix could not write: {_last_line(said)}")
        volumes = sorted(Path(scratch).glob("*.nii"))
        if not volumes:
            raise DataFault(
                f"dcm2niix made no volume of {folder}: {_last_line(said)}",
                "check that the folder holds one T1-weighted series",
            )
        uneven = re.findall(r"^.*(?:missing images|distance varies).*$", said, re.I | re.M)
        if uneven:
            raise DataFault(
                f"slices of {folder} are missing or uneven (dcm2niix: {uneven[-1].strip()})",
                "download the image again",
            )
        chosen = _choose_volume(volumes, folder)
        image = read_image(chosen)
        grid = Grid.of(image)
        # Copied, since the file that it is mapped from goes away.
        voxels = _checked(np.asarray(image.dataobj), grid, folder).copy()
        beside = chosen.with_suffix(".json")
        told = json.loads(beside.read_text()) if beside.is_file() else {}
    sidecar = {key: told[key] for key in _SIDECAR_FIELDS if key in told}
    sidecar.setdefault("ConversionSoftware", "dcm2niix")
    sidecar.setdefault("ConversionSoftwareVersion", f"v{version('dcm2niix')}")
    return ConvertedSeries(voxels, grid, sidecar)


def _choose_volume(volumes: list[Path], folder: str | Path) -> Path:
    """The one volume that is meant: three-dimensional, and not derived by dcm2niix from another."""
    own = [
        path
        for path in volumes
        if not re.search(r"_(Eq(_\d+)?|ROI\d+|Tilt(_\d+)?)$", path.stem) or len(volumes) == 1
    ]
    candidates = [path for path in own if _slices(path) >= _FEWEST_SLICES]
    if len(candidates) == 1:
        return candidates[0]
    listed = ", ".join(f"{p.stem} ({'x'.join(map(str, nib.load(p).shape))})" for p in own)
    if not candidates:
        raise DataFault(
            f"no volume of {folder} has {_FEWEST_SLICES} slices or more: {listed}",
            "download the whole series",
        )
    raise DataFault(
        f"{folder} holds several volumes: {listed}",
        "leave only the T1-weighted series in the folder",
    )


def _slices(path: Path) -> int:
    shape = nib.load(path).shape
    return min(shape[:3]) if len(shape) >= 3 else 0


def _checked(voxels: np.ndarray, grid: Grid, folder: str | Path) -> np.ndarray:
    """The voxels in a type of at most 32 bit, after a look at whether they can be a head."""
    if voxels.dtype.kind not in "iuf":
        raise DataFault(
            f"the volume of {folder} holds colours or complex numbers, not intensities",
            "give the magnitude image of a T1-weighted scan",
        )
    voxels = voxels.astype(np.float32) if voxels.dtype.itemsize > 4 else voxels
    sides = np.array(grid.shape) * np.array(grid.voxel_size)
    if sides.min() < _SHORTEST_SIDE_MM or sides.max() > _LONGEST_SIDE_MM:
        told = "x".join(f"{side:.0f}" for side in sides)
        raise DataFault(
            f"the volume of {folder} measures {told} mm, expected {_SHORTEST_SIDE_MM:.0f} to "
            f"{_LONGEST_SIDE_MM:.0f} mm a side",
            "check that the series is a whole head and its voxel size is right",
        )
    if not np.isfinite(voxels).all() or voxels.min() == voxels.max():
        raise DataFault(
            f"the volume of {folder} holds one value only, or values that are no numbers",
            "download the image again",
        )
    return voxels


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def find_changes(folder: str | Path, digests_path: str | Path) -> list[str]:
    """What changed in a series since its digests were written (in the format of ``sha256sum``).

    Returns
    -------
    One line for every file that was replaced, removed or added; none where all is as it was.
    """
    lines = Path(digests_path).read_text("utf-8", "surrogateescape").splitlines()
    recorded = dict(reversed(line.split("  ", 1)) for line in lines)
    present = digest_series(folder) if Path(folder).is_dir() else {}
    words = {
        "replaced": [n for n in recorded if n in present and present[n] != recorded[n]],
        "removed": [n for n in recorded if n not in present],
        "added": [n for n in present if n not in recorded],
    }
    return [f"{Path(folder) / name} was {word}" for word, names in words.items() for name in names]
