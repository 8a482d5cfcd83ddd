"""The simulated scanner: grid, pose, motion, and the field of the receive coil."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import fft, ndimage

from voxplain.volumes import Grid, axis_aligned_grid

_FIELD_OF_VIEW_MM = (200.0, 240.0, 240.0)
_MOTION_STREAM = 2  # a separate random stream: motion does not change the other draws
_MOST_POSES = 4  # largest number of poses of a moving head


@dataclass(frozen=True)
class ScannerSettings:
    """Variation of anatomy, position and scanner.

    Attributes
    ----------
    deformation_mm
        SD of the smooth random displacement that defines each patient's anatomy.
    rotation_deg, translation_mm
        Largest pose about and along each axis.
    bias
        SD of the logarithm of the smooth multiplicative intensity field.
    noise
        SD of the Rician noise, white matter being 1.
    gain
        Largest change of the overall brightness, as a fraction.
    voxel_size_mm
        Smallest and largest in-plane voxel edge; slices are 1.2 times as thick, as in ADNI-1.
    motion
        ``share`` (probability that the head moves) and, if that is not 0, ``translation_mm`` and
        ``rotation_deg``, the largest along and about each axis.
    """

    deformation_mm: float
    rotation_deg: float
    translation_mm: float
    bias: float
    noise: float
    gain: float
    voxel_size_mm: Sequence[float]
    motion: Mapping[str, float] = field(default_factory=lambda: {"share": 0.0})


def draw_grid(draw: np.random.Generator, voxel_size_mm: Sequence[float]) -> Grid:
    """The scanner's grid, with a random voxel size; its middle is at 0 mm."""
    pixel = round(float(draw.uniform(*voxel_size_mm)), 2)
    sizes = np.array([round(1.2 * pixel, 3), pixel, pixel])
    shape = np.round(np.array(_FIELD_OF_VIEW_MM) / sizes).astype(int)
    return axis_aligned_grid(shape, sizes, -sizes * (shape - 1) / 2)


def pose_points(
    points: np.ndarray, draw: np.random.Generator, scanner: ScannerSettings, centre: np.ndarray
) -> np.ndarray:
    """The scanner's points in coordinates of the head, after a random rotation and translation."""
    rotation = _rotation(draw.uniform(-scanner.rotation_deg, scanner.rotation_deg, 3))
    shift = draw.uniform(-scanner.translation_mm, scanner.translation_mm, 3)
    moved = points - shift.astype(np.float32).reshape(3, 1, 1, 1)
    turned = np.tensordot(rotation.astype(np.float32), moved, axes=1)
    return turned + centre.astype(np.float32).reshape(3, 1, 1, 1)


def _rotation(degrees: np.ndarray) -> np.ndarray:
    """The matrix that rotates about z, then y, then x."""
    a, b, c = np.deg2rad(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


def move_head(
    image: np.ndarray, grid: Grid, motion: Mapping[str, float], scan_seed: int
) -> np.ndarray:
    """The image of a head that may have moved while its k-space lines were acquired in order.

    A moving head has two to four poses. Its pose at the centre of k-space, which holds most of the
    image, is that of ``image``, so that ground truth and measures stay valid.
    """
    draw = np.random.default_rng([scan_seed, _MOTION_STREAM])
    if draw.random() >= motion["share"]:
        return image
    lines = image.shape[1]
    count = int(draw.integers(2, _MOST_POSES + 1))
    # A change outside the inner half would be invisible; at the very centre, no pose would be that
    # of the scan.
    off_middle = abs(np.arange(lines) - lines // 2)
    moments = np.flatnonzero((off_middle > lines // 16) & (off_middle <= lines // 4))
    changes = np.sort(draw.choice(moments, count - 1, replace=False))
    pose_of_line = np.searchsorted(changes, np.arange(lines), side="right")
    still = pose_of_line[lines // 2]  # k = 0, lines running from the lowest frequency up
    sizes, origin = np.array(grid.voxel_size), grid.matrix[:3, 3]
    images = []
    for pose in range(count):
        rotation = _rotation(draw.uniform(-motion["rotation_deg"], motion["rotation_deg"], 3))
        shift = draw.uniform(-motion["translation_mm"], motion["translation_mm"], 3)
        if pose == still:
            images.append(image)
            continue
        # From voxels to mm about the middle of the field of view, through the pose, and back.
        matrix = rotation * sizes / sizes[:, None]
        offset = (rotation @ (origin - shift) - origin) / sizes
        images.append(ndimage.affine_transform(image, matrix, offset, order=3, mode="nearest"))
    return compose_kspace(images, pose_of_line)


def compose_kspace(images: Sequence[np.ndarray], pose_of_line: Sequence[int]) -> np.ndarray:
    """The magnitude image whose phase-encoding lines come from different images.

    Phases are encoded along y (front to back). Along the other axes a whole line comes from one
    image, so that the Fourier transform along y is sufficient.

    Parameters
    ----------
    images
        Each ``[x, y, z]``.
    pose_of_line
        Index of the image of each line, ``[y]``, the lowest frequency first and 0 at ``y // 2``.

    Returns
    -------
    ``[x, y, z]`` float32.
    """
    owners = np.fft.ifftshift(np.asarray(pose_of_line))
    spectrum = np.zeros(images[0].shape, np.complex64)
    for number, image in enumerate(images):
        lines = fft.fft(image.astype(np.float32), axis=1)
        spectrum[:, owners == number] = lines[:, owners == number]
    return abs(fft.ifft(spectrum, axis=1)).astype(np.float32)


def bias_field(grid: Grid, draw: np.random.Generator, sd: float) -> np.ndarray:
    """A smooth multiplicative field with mean near 1, as of a receive coil."""
    extent = np.array(grid.shape) * np.array(grid.voxel_size)
    coarse = np.maximum(np.round(extent / 10).astype(int), 4)
    noise = ndimage.gaussian_filter(draw.standard_normal(coarse), 5.0, mode="reflect")
    noise = (noise - noise.mean()) / noise.std()
    zoom = ndimage.zoom(
        noise, np.array(grid.shape) / coarse, order=1, mode="nearest", grid_mode=True
    )
    return np.exp(sd * zoom).astype(np.float32)
