"""Reading and writing of NIfTI volumes, grids and their affines.

Every array is indexed ``[x, y, z]`` in RAS+ orientation (x to the right, y to the front, z to the
top), and every affine maps voxel indices to millimetres.
"""

from __future__ import annotations

import errno
import gzip
import io
import itertools
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from voxplain.faults import DataFault

# Exceptions of nibabel for a file with corrupt content.
_UNREADABLE = (
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
    nib.orientations.OrientationError,
    EOFError,
    OSError,
    OverflowError,
    ValueError,
    zlib.error,
)

# Errors of the system from a place in the file that its header gives, beside those without number.
_OF_CONTENT = (None, errno.EINVAL, errno.EOVERFLOW)
# A head of 20 cm in voxels of 0.25 mm has this many; a header that claims more is wrong.
_MOST_VOXELS = 2**29
# The format of gzip shrinks no content to less than a part of so many.
_GZIP_AT_BEST = 1032


# Bytes of a compressed file that are read at a time.
_CHUNK_BYTES = 2**24


@dataclass(frozen=True)
class Grid:
    """A voxel grid in physical space.

    Attributes
    ----------
    shape
        Voxels along x, y, z.
    affine
        4x4, voxel indices to millimetres (RAS+), as nested tuples so that grids compare and hash.
    """

    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, image: nib.spatialimages.SpatialImage) -> Grid:
        """The grid of an image."""
        shape = tuple(int(n) for n in image.shape[:3])
        return cls(shape, tuple(tuple(float(v) for v in row) for row in image.affine))

    @property
    def matrix(self) -> np.ndarray:
        """The affine as a (4, 4) float64 array."""
        return np.array(self.affine, dtype=np.float64)

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel in mm along x, y, z."""
        return tuple(float(v) for v in nib.affines.voxel_sizes(self.matrix))

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.matrix[:3, :3]))) / 1000.0

    def matches(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Whether two grids have the same shape and, within a tolerance, the same affine."""
        return self.shape == other.shape and bool(
            np.allclose(self.matrix, other.matrix, atol=tolerance_mm)
        )

    @property
    def is_axis_aligned(self) -> bool:
        """Whether the grid's axes have the order and direction of the axes of space."""
        matrix = self.matrix[:3, :3]
        return bool(np.allclose(matrix, np.diag(self.voxel_size), atol=1e-4))

    def straightened(self) -> Grid:
        """The smallest axis-aligned grid that contains this grid, with the same voxel sizes."""
        corners = np.array(list(itertools.product(*((0, n - 1) for n in self.shape))))
        places = corners @ self.matrix[:3, :3].T + self.matrix[:3, 3]
        low, high = places.min(axis=0), places.max(axis=0)
        sizes = np.array(self.voxel_size)
        return axis_aligned_grid(np.ceil((high - low) / sizes - 1e-6) + 1, sizes, low)

    def coarsened(self, size_mm: float) -> Grid:
        """The grid with isotropic voxels of ``size_mm`` and the same origin.

        This is the convention of TemplateFlow's resolutions: MNI152NLin2009cAsym has 193x229x193
        voxels at 1 mm and 97x115x97 at 2 mm, the first voxel's centre at (-96, -132, -78) in both.
        """
        factors = size_mm / np.array(self.voxel_size)
        shape = tuple(int(np.ceil(n / f - 1e-6)) for n, f in zip(self.shape, factors, strict=True))
        affine = self.matrix.copy()
        affine[:3, :3] = affine[:3, :3] * factors
        return Grid(shape, tuple(tuple(float(v) for v in row) for row in affine))

    def part(self, start: Sequence[int], end: Sequence[int]) -> Grid:
        """The grid of the voxels from ``start`` to ``end``, ``end`` excluded."""
        affine = self.matrix.copy()
        affine[:3, 3] += affine[:3, :3] @ np.asarray(start)
        shape = tuple(int(b) - int(a) for a, b in zip(start, end, strict=True))
        return Grid(shape, tuple(tuple(float(v) for v in row) for row in affine))


def read_image(path: str | Path) -> nib.Nifti1Image:
    """A NIfTI image as a 3D volume in RAS+ orientation.

    Raises
    ------
    DataFault
        The file is missing, is empty (its scan failed in an earlier stage), is not a readable
        NIfTI file, does not match its checksum (``.nii.gz``), or is not 3D.
    """
    path = Path(path)
    if not path.is_file():
        raise DataFault(f"volume {path} is missing", "restore the file or run its stage again")
    if path.stat().st_size == 0:
        raise DataFault(
            f"volume {path} is empty: its scan failed in an earlier stage",
            "see the scan's fate in scans.tsv and leave the scan out",
        )
    try:
        image = _load(path)
        shape = image.shape
        if len(shape) == 4 and shape[3] == 1:
            image = image.slicer[..., 0]
        if len(image.shape) != 3:
            raise DataFault(
                f"volume {path} has shape {'x'.join(map(str, shape))}, expected three axes",
                "give a single 3D T1-weighted volume",
            )
        return nib.as_closest_canonical(image)
    except DataFault:
        raise
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.errno not in _OF_CONTENT:
            raise  # the disk is at fault, not the file's content
        raise DataFault(
            f"volume {path} is not a readable NIfTI file ({error})", "restore or export it again"
        ) from error


def _load(path: Path) -> nib.spatialimages.SpatialImage:
    """An image as nibabel reads it; of a ``.nii.gz`` every byte is read and its CRC-32 checked.

    Nibabel stops reading where the voxels end, before the checksum, so that a damaged file would
    be read with other voxels. To read the file here takes no longer than to have nibabel read it.
    """
    image = nib.load(path)
    _check_size(path, image)
    if not path.name.lower().endswith(".nii.gz"):
        return image
    expected = image.dataobj.offset + math.prod(image.shape) * image.get_data_dtype().itemsize
    content = io.BytesIO()
    with gzip.open(path) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            if content.tell() > expected + _CHUNK_BYTES:
                raise DataFault(
                    f"volume {path} is longer than its header says ({expected:,} bytes)",
                    "restore or export it again",
                )
            content.write(chunk)
    content.seek(0)
    return type(image).from_stream(content)


def _check_size(path: Path, image: nib.spatialimages.SpatialImage) -> None:
    """Raise if a header claims more voxels than a head has, or than its file can hold.

    The voxels of such a file would not fit into memory, which would look like a fault of the
    machine.
    """
    shape = "x".join(map(str, image.shape))
    voxels = math.prod(map(int, image.shape))
    if voxels < 1:
        raise DataFault(
            f"volume {path} has {shape or 'no'} voxels by its header",
            "restore the file or export it again",
        )
    if voxels > _MOST_VOXELS:
        raise DataFault(
            f"volume {path} has {shape} voxels by its header, more than any head",
            "restore the file or export it again",
        )
    stored = Path(image.file_map["image"].filename or path)
    if not stored.is_file():
        return  # the .img file of a pair, which nibabel will miss
    gzipped = stored.suffix.lower() == ".gz"
    expected, held = voxels * image.get_data_dtype().itemsize, stored.stat().st_size
    if expected > held * (_GZIP_AT_BEST if gzipped else 1):
        raise DataFault(
            f"volume {path} is truncated: {held} bytes, expected {expected} for {shape} voxels",
            "restore the file or export it again",
        )


def read_array(
    path: str | Path, dtype: np.dtype | type | None = np.float32
) -> tuple[np.ndarray, Grid]:
    """A volume as an array ``[x, y, z]``, and its grid.

    The array has the type ``dtype`` or, with None, the stored type of the file (float64 if its
    values are scaled).

    Raises
    ------
    DataFault
        As :func:`read_image`, or if the voxel data is truncated or corrupt.
    """
    image = read_image(path)
    try:
        return np.asarray(image.dataobj, dtype), Grid.of(image)
    except _UNREADABLE as error:
        if isinstance(error, OSError) and error.errno not in _OF_CONTENT:
            raise
        raise DataFault(
            f"the voxels of {path} cannot be read ({error})", "restore the file or export it again"
        ) from error


def write_array(
    path: str | Path, array: np.ndarray, grid: Grid, dtype: np.dtype | type = np.float32
) -> None:
    """Write an array ``[x, y, z]`` on its grid as NIfTI, stored without scaling as ``dtype``.

    Both affines of the format (sform and qform) and the voxel sizes agree, since tools differ in
    which of them they read.
    """
    if array.shape != grid.shape:
        raise ValueError(f"array of shape {array.shape} does not lie on a grid of {grid.shape}")
    image = nib.Nifti1Image(np.asarray(array, dtype=dtype), grid.matrix)
    image.set_data_dtype(dtype)
    image.header.set_xyzt_units("mm")
    image.set_sform(grid.matrix, code="scanner")
    image.set_qform(grid.matrix, code="scanner")
    nib.save(image, path)


def axis_aligned_grid(
    shape: Sequence[int], voxel_size: Sequence[float], origin: Sequence[float]
) -> Grid:
    """A grid along the axes of space: its shape, voxel edges in mm and first voxel's centre."""
    affine = np.diag([*voxel_size, 1.0]).astype(np.float64)
    affine[:3, 3] = origin
    return Grid(tuple(int(n) for n in shape), tuple(tuple(float(v) for v in row) for row in affine))


def centres_mm(grid: Grid) -> np.ndarray:
    """Positions of all voxel centres in mm, shape ``(3, x, y, z)``, float32."""
    indices = np.indices(grid.shape, dtype=np.float32)
    matrix = grid.matrix.astype(np.float32)
    positions = np.tensordot(matrix[:3, :3], indices, axes=1)
    return positions + matrix[:3, 3].reshape(3, 1, 1, 1)


def smooth_for(array: np.ndarray, grid: Grid, target: Grid) -> np.ndarray:
    """A volume smoothed for resampling to a coarser grid, to avoid aliasing.

    The full width at half maximum of the Gaussian along each axis is
    ``sqrt(target_size**2 - size**2)``, with the voxel sizes of the two grids; 0 if the target is
    not coarser.

    Parameters
    ----------
    array
        ``[x, y, z]`` on ``grid``.
    target
        The grid it will be sampled on.

    Returns
    -------
    ``[x, y, z]`` float32, still on ``grid``.
    """
    size, target_size = np.array(grid.voxel_size), np.array(target.voxel_size)
    fwhm = np.sqrt(np.clip(target_size**2 - size**2, 0, None))
    return ndimage.gaussian_filter(array.astype(np.float32), fwhm / size / np.sqrt(8 * np.log(2)))


def resample(
    array: np.ndarray, grid: Grid, target: Grid, order: int = 1, beyond: str = "constant"
) -> np.ndarray:
    """A volume interpolated at the voxel centres of another grid.

    Parameters
    ----------
    array
        ``[x, y, z]`` on ``grid``.
    order
        0 takes the nearest voxel (labels), 1 interpolates linearly.
    beyond
        Values outside the volume: ``constant`` gives 0, ``nearest`` the value at its border.
    """
    to_source = np.linalg.inv(grid.matrix) @ target.matrix
    return ndimage.affine_transform(
        array, to_source[:3, :3], to_source[:3, 3], target.shape, order=order, mode=beyond, cval=0
    )


def white_matter_level(values: np.ndarray) -> float:
    """The T1 intensity of white matter: the highest peak in the upper half of the histogram.

    Parameters
    ----------
    values
        Intensities inside a brain mask, any shape.
    """
    values = values[values > 0]
    low, high = np.percentile(values, [2, 99.5])
    counts, edges = np.histogram(values, bins=128, range=(low, high))
    smooth = ndimage.gaussian_filter1d(counts.astype(float), 3.0, mode="nearest")
    middles = (edges[:-1] + edges[1:]) / 2
    upper = middles > np.median(values)
    peaks = [
        i
        for i in range(1, len(smooth) - 1)
        if upper[i] and smooth[i] >= smooth[i - 1] and smooth[i] > smooth[i + 1]
    ]
    # If grey and white matter have one common peak (coarse voxels, children), take its upper part.
    return float(
        middles[max(peaks, key=lambda i: smooth[i])] if peaks else np.percentile(values, 75)
    )
