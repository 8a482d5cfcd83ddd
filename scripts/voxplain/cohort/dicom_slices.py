"""The slices of a DICOM series: whether they are one volume, and how they lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import Any

import numpy as np

from voxplain.cohort.dicom_images import AGAIN, PERSON, SCAN, SETTINGS, DicomImage, same_pixels
from voxplain.faults import AvoidableFault, DataFault
from voxplain.volumes import Grid

# Largest deviation of a slice distance, as a fraction; rounding is smaller.
_EVEN = 0.1
_MOST_SHEAR_DEGREES = 1.0
# Slices that are closer lie at the same place.
_SAME_PLACE_MM = 0.01
# Largest deviation of direction cosines from unit vectors at a right angle: they have few digits.
_COSINE_TOLERANCE = 0.01
_MOST_TURN_DEGREES = 0.3
# Largest differences within a series, as fractions: the settings of several echoes differ by more.
_SAME_SPACING, _SAME_SETTING = 1e-3, 0.01
# More missing slices are not worth filling.
_MOST_FILLED = 20
_ONE_VOLUME = "download the image again, or leave the slices of one volume in the folder"


# --- whose slices, and of what --------------------------------------------------------------------


def check_person(images: Sequence[DicomImage], place: str | Path) -> None:
    """Raise if a folder holds MR images of several people, in whatever series.

    Raises
    ------
    DataFault
        The headers have several patient identifiers, which are not told.
    """
    scanned = [image for image in images if image.modality in ("", "MR")]
    _check_shared(scanned, place, PERSON[:1])


def one_volume(images: Sequence[DicomImage], place: str | Path) -> list[DicomImage]:
    """The images of a series that make up its volume; raises if they are not of one volume.

    Left out are slices that lie there twice, and phase, real and imaginary images beside a
    magnitude image of the same place. Settings that differ by rounding are no difference.

    Parameters
    ----------
    images, place
        One series, see :func:`voxplain.cohort.dicom_choice.choose_series`.

    Raises
    ------
    DataFault
        Slices are of several people or scans, do not say how they lie, differ in size, orientation
        or settings, or two different ones lie at one place.
    """
    _check_shared(images, place, (*PERSON, *SCAN))
    for image in images:
        _check_geometry(image)
        _check_frames(image)
    images = _magnitudes(images, place)
    kinds = ["derived" if "DERIVED" in image.kind else "original" for image in images]
    sizes = ["{}x{} pixels".format(*image.shape) for image in images]
    stored = [image.photometric for image in images]
    for name, values in (("size", sizes), ("ImageType", kinds), ("kind of pixels", stored)):
        _check_alike(images, place, name, values, Counter(values).most_common(1)[0][0])
    _check_spacing(images, place)
    _check_orientation(images, place)
    for key in SETTINGS:
        told = [image for image in images if image.settings[key] is not None]
        values = [image.settings[key] for image in told]
        if told:
            common = median_low(values)
            near = [common if abs(v - common) <= _SAME_SETTING * abs(common) else v for v in values]
            _check_alike(told, place, key, near, common)
    return _without_copies(images, place)


def _check_shared(images: Sequence[DicomImage], place: str | Path, keys: Sequence[str]) -> None:
    """Raise if a header field differs that images of one scan share; its values are not told."""
    for key in keys:
        # Systems write a name as A^B or as A^B^^.
        told = [(image, " ".join(image.shared[key].replace("^", " ").split())) for image in images]
        told = [(image, value.casefold()) for image, value in told if value]
        counts = Counter(value for _, value in told)
        if len(counts) > 1:
            common = counts.most_common(1)[0][0]
            others = [image for image, value in told if value != common]
            whose = "another person" if key in PERSON else "another scan"
            raise DataFault(
                f"{len(others)} of {len(images)} DICOM images of {place} are of {whose} than the "
                f"others ({key} differs), such as {others[0].path.name}",
                "leave the images of one scan in the folder, or download it again",
            )


def _check_geometry(image: DicomImage) -> None:
    """Raise if an image does not say where its pixels lie."""
    if not image.positions or not image.orientation:
        # dcm2niix would still make a volume, in an arbitrary orientation.
        raise DataFault(
            f"DICOM file {image.path} does not say where its slices lie (place, orientation)",
            "download the image as the scanner wrote it; left and right cannot be guessed",
        )
    axes = np.array(image.orientation).reshape(2, 3)
    if np.abs(axes @ axes.T - np.eye(2)).max() > _COSINE_TOLERANCE:
        told = ", ".join(f"{value:g}" for value in image.orientation)
        raise DataFault(
            f"DICOM file {image.path} does not say how its slices lie: its direction cosines "
            f"({told}) are not two unit vectors at a right angle",
            "download the image as the scanner wrote it; left and right cannot be guessed",
        )
    if not image.spacing or min(image.spacing) <= 0:
        # dcm2niix would take 1 mm.
        raise DataFault(
            f"DICOM file {image.path} does not say how large its pixels are (PixelSpacing)",
            "download the image as the scanner wrote it",
        )


def _check_frames(image: DicomImage) -> None:
    """Raise if the frames of one file are not of one volume."""
    if image.varies:
        raise DataFault(
            f"the frames of DICOM file {image.path} differ in {image.varies}: they are several "
            "volumes, or not one",
            "give a file with one T1-weighted volume",
        )


def _magnitudes(images: Sequence[DicomImage], place: str | Path) -> list[DicomImage]:
    """The magnitude images, if others lie at places of theirs; raises if others replace some."""
    others = [image for image in images if image.component != "magnitude"]
    if not others or len({image.component for image in images}) == 1:
        return list(images)
    magnitudes = [image for image in images if image.component == "magnitude"]
    places = {_rounded(position) for image in magnitudes for position in image.positions}
    beside = {_rounded(position) for image in others for position in image.positions}
    words = " and ".join(sorted({image.component for image in others}))
    if not beside <= places:
        raise DataFault(
            f"{len(others)} of {len(images)} slices of {place} are {words} images, the others "
            f"magnitude images, such as {others[0].path.name}",
            "download the magnitude images again",
        )
    print(f"left out {len(others)} {words} images beside the magnitude images of {place}")
    return magnitudes


def _rounded(position: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(value, 1) + 0.0 for value in position)


def _check_alike(
    images: Sequence[DicomImage],
    place: str | Path,
    name: str,
    values: Sequence[Any],
    common: Any,
) -> None:
    """Raise if a value differs from that of most images."""
    others = [(image, v) for image, v in zip(images, values, strict=True) if v != common]
    if others:
        counted = "1 slice" if len(others) == 1 else f"{len(others)} slices"
        raise DataFault(
            f"{counted} among the {len(images)} of {place} differ in {name} ({others[0][1]}, "
            f"elsewhere {common}), such as {others[0][0].path.name}",
            _ONE_VOLUME,
        )


def _check_spacing(images: Sequence[DicomImage], place: str | Path) -> None:
    common = _middle([image.spacing for image in images])
    same = [np.allclose(image.spacing, common, rtol=_SAME_SPACING, atol=0) for image in images]
    words = ["{:g} x {:g} mm".format(*image.spacing) for image in images]
    told = "{:g} x {:g} mm".format(*common)
    near = [told if alike else word for alike, word in zip(same, words, strict=True)]
    _check_alike(images, place, "PixelSpacing", near, told)


def _check_orientation(images: Sequence[DicomImage], place: str | Path) -> None:
    common = _middle([image.orientation for image in images])
    turns = [_degrees_between(image.orientation, common) for image in images]
    words = [
        f"turned by {turn:.1f} degrees" if turn > _MOST_TURN_DEGREES else "not turned"
        for turn in turns
    ]
    _check_alike(images, place, "orientation", words, "not turned")


def _middle(values: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """The median of each component."""
    return tuple(median_low(component) for component in zip(*values, strict=True))


def _degrees_between(one: Sequence[float], other: Sequence[float]) -> float:
    """The largest angle between the axes of two orientations."""
    axes = [np.array(each).reshape(2, 3) for each in (one, other)]
    # By half the distance of the tips, since the arc cosine of nearly 1 has few digits.
    apart = np.linalg.norm(axes[0] - axes[1], axis=1).max()
    return float(np.degrees(2 * np.arcsin(min(apart / 2, 1))))


def _without_copies(images: Sequence[DicomImage], place: str | Path) -> list[DicomImage]:
    """The images without those that repeat another one of the same place."""
    frames, normal = _frames(images)
    kept, copies = [frames[0]], set()
    for frame in frames[1:]:
        position, image = frame
        before, other = kept[-1]
        if (position - before) @ normal >= _SAME_PLACE_MM:
            kept.append(frame)
            continue
        single = image is not other and image.frames == other.frames == 1
        beside = np.linalg.norm(position - before) < _SAME_PLACE_MM
        if not (single and beside and same_pixels(image, other)):
            depths = np.array([each @ normal for each, _ in frames])
            shared = int((np.diff(depths) < _SAME_PLACE_MM).sum())
            raise DataFault(
                f"{place} holds several different images of one place, such as {other.path.name} "
                f"and {image.path.name} ({shared} of {len(frames)} are at the place of another)",
                _ONE_VOLUME,
            )
        copies.add(id(image))
    if copies:
        print(f"left out {len(copies)} copies of slices of {place}")
    return [image for image in images if id(image) not in copies]


def _frames(images: Sequence[DicomImage]) -> tuple[list[tuple[np.ndarray, DicomImage]], np.ndarray]:
    """Position and image of each frame, sorted along the normal of the slices, and the normal."""
    rows, columns = np.array(_middle([image.orientation for image in images])).reshape(2, 3)
    normal = np.cross(rows, columns)
    frames = [(np.array(place), image) for image in images for place in image.positions]
    return sorted(frames, key=lambda frame: float(frame[0] @ normal)), normal


# --- where they lie -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gap:
    """Missing slices: the slices before and after the gap, and the number of missing slices."""

    before: DicomImage
    after: DicomImage
    missing: int


def check_slices(
    images: Sequence[DicomImage], place: str | Path, missing_slices: int, max_slice_mm: float
) -> list[Gap]:
    """The gaps of a volume; raises if its slices are not evenly spaced.

    Parameters
    ----------
    images, place
        One volume, see :func:`one_volume`.
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
        Too many slices are missing, or slices are uneven, shifted against each other (a tilted
        gantry), or too thick.
    """
    frames, normal = _frames(images)
    positions = np.array([position for position, _ in frames])
    steps = np.diff(positions @ normal)
    if not len(steps):
        raise DataFault(f"{place} has one slice only", "download the whole series")
    step = float(np.median(steps))
    if step > max_slice_mm:
        raise AvoidableFault(
            f"slices of {place} lie {step:.1f} mm apart, expected at most {max_slice_mm:g} mm",
            "give a scan of the whole head in thin slices, or take such slices with {setting}",
            "max_slice_mm",
            np.ceil(10 * step) / 10,
        )
    counts = np.maximum(np.round(steps / step), 1).astype(int)
    _check_line(positions, normal, counts, step, place)
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
        counted, are, them = (
            ("1 slice", "is", "it") if missing == 1 else (f"{missing} slices", "are", "them")
        )
        reason = (
            f"{counted} of {place} {are} missing (after slice {where} of those that are there), "
            f"at most {missing_slices} may be"
        )
        if missing > _MOST_FILLED:
            raise DataFault(reason, AGAIN)
        raise AvoidableFault(
            reason,
            f"{AGAIN}; if {them} cannot be had, {{setting}} fills {counted} of "
            f"{len(frames) + missing} from the neighbours",
            "missing_slices",
            missing,
        )
    return gaps


def _check_line(
    positions: np.ndarray, normal: np.ndarray, counts: np.ndarray, step: float, place: str | Path
) -> None:
    """Raise if slices do not lie behind each other, each by itself or all of them (a gantry)."""
    moves = np.diff(positions, axis=0)
    sideways = (moves - np.outer(moves @ normal, normal)) / counts[:, None]
    shared = np.median(sideways, axis=0)
    beside = np.linalg.norm(sideways - shared, axis=1) * counts
    if beside.max() > _EVEN * step:
        worst = int(beside.argmax())
        raise DataFault(
            f"slices {worst + 1} and {worst + 2} of {place} are shifted against each other by "
            f"{beside[worst]:.1f} mm within their plane, the others are not",
            _ONE_VOLUME,
        )
    shear = np.degrees(np.arctan2(np.linalg.norm(shared), step))
    if shear > _MOST_SHEAR_DEGREES:
        raise DataFault(
            f"slices of {place} are shifted against each other by {shear:.1f} degrees (a tilted "
            "gantry)",
            "give the scan resampled to a rectangular grid",
        )


def check_volume(
    grid: Grid, images: Sequence[DicomImage], gaps: Sequence[Gap], place: str | Path
) -> None:
    """Raise if a converted volume has other voxels than its slices, or lies at another place.

    Parameters
    ----------
    grid
        Grid of the volume, RAS+.
    images, gaps, place
        As in :func:`check_slices`; the gaps were filled.

    Raises
    ------
    DataFault
        The numbers of voxels differ, or the corners.
    """
    frames, normal = _frames(images)
    rows, columns = images[0].shape
    slices = len(frames) + sum(gap.missing for gap in gaps)
    if sorted(grid.shape) != sorted((columns, rows, slices)):
        raise DataFault(
            f"dcm2niix made a volume of {'x'.join(map(str, grid.shape))} voxels from {place}, "
            f"which holds {slices} slices of {columns}x{rows}",
            AGAIN,
        )
    along, down = np.array(_middle([image.orientation for image in images])).reshape(2, 3)
    first, last = frames[0][0], frames[-1][0]
    depth = (last - first) @ normal
    edges = (
        along * images[0].spacing[1] * (columns - 1),
        down * images[0].spacing[0] * (rows - 1),
        normal * depth,
    )
    # DICOM's axes run to the left and to the back.
    expected = _corners(first, edges) * (-1, -1, 1)
    shape = np.array(grid.shape) - 1
    actual = _corners(grid.matrix[:3, 3], grid.matrix[:3, :3].T * shape[:, None])
    apart = np.linalg.norm(expected[:, None] - actual[None], axis=2)
    farthest = max(apart.min(axis=0).max(), apart.min(axis=1).max())
    # What was found to be even may still be sheared and turned a little.
    sideways = np.linalg.norm(last - first - normal * depth)
    turned = np.radians(_MOST_TURN_DEGREES) * np.linalg.norm(edges, axis=1).max()
    if farthest > max(grid.voxel_size) / 2 + sideways + turned:
        raise DataFault(
            f"the volume that dcm2niix made of {place} lies {farthest:.1f} mm away from its slices",
            AGAIN,
        )


def _corners(origin: np.ndarray, edges: Sequence[np.ndarray]) -> np.ndarray:
    """The eight corners of a box, ``[corner, 3]``."""
    picks = np.indices((2, 2, 2)).reshape(3, -1).T
    return origin + picks @ np.array(edges)
