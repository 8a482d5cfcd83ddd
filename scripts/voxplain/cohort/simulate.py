"""One scan of a simulated patient: anatomy, ageing, atrophy, pose and the scanner's own marks.

All fields are *pull-back* displacements in mm: the value at a point says where in the undeformed
head its tissue comes from. A place where tissue shrank to a fraction ``1 - c`` of its volume is
therefore one where the pull-back's Jacobian determinant is ``1 / (1 - c)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from voxplain.cohort.heads import Head
from voxplain.volumes import Grid, axis_aligned_grid, centres_mm

CSF_LEVEL = 0.25  # T1 brightness of cerebrospinal fluid, white matter being 1
_FIELD_MM = 2.0  # grid of the displacement fields
_REACH_MM = 12.0  # how far from lost tissue fluid takes its place (SD of a Gaussian)
_FULLEST = 0.7  # fluid at a point grows at most to 1 / (1 - 0.7) of its volume
_WHITE_MATTER_UNITS = 600  # stored value of white matter at gain 1
_FIELD_OF_VIEW_MM = (200.0, 240.0, 240.0)


@dataclass(frozen=True)
class ScannerSettings:
    """What the patient's position and the scanner add.

    Attributes
    ----------
    deformation_mm
        SD of the smooth random displacement that makes each patient's anatomy.
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
    """

    deformation_mm: float
    rotation_deg: float
    translation_mm: float
    bias: float
    noise: float
    gain: float
    voxel_size_mm: Sequence[float]


@dataclass(frozen=True)
class SimulatedScan:
    """A scan and its ground truth, both ``[x, y, z]`` on ``grid``.

    Attributes
    ----------
    volume
        uint16, as the scanner would store it.
    truth
        float32, the fraction of tissue that the disease took at each place (0 outside the areas).
    grid
        Sagittal slices, 1.2 times as thick as the pixels are wide, around the head.
    """

    volume: np.ndarray
    truth: np.ndarray
    grid: Grid


def simulate_scan(
    head: Head,
    losses: Mapping[int, float],
    ageing: float,
    anatomy_seed: int,
    scan_seed: int,
    scanner: ScannerSettings,
) -> SimulatedScan:
    """Simulate a scan of one patient.

    Parameters
    ----------
    head
        The head whose anatomy is deformed.
    losses
        Label value of an area to the fraction of its tissue that the disease took, 0 to below 1.
    ageing
        Fraction of tissue lost everywhere in the brain.
    anatomy_seed, scan_seed
        Of the patient's anatomy; of pose, bias, gain, noise and voxel size.
    scanner
        Sizes of what is drawn.
    """
    draw = np.random.default_rng(scan_seed)
    grid = _draw_grid(draw, scanner.voxel_size_mm)
    points = _posed(centres_mm(grid), draw, scanner, _brain_centre(head))

    anatomy, anatomy_grid = individual_anatomy(head.grid, anatomy_seed, scanner.deformation_mm)
    points += _sample_field(anatomy, anatomy_grid, points)
    disease = area_loss(head, losses)
    loss = 1 - (1 - disease) * (1 - ageing * tissue(head))
    field, field_grid = atrophy_field(head, loss)
    points += _sample_field(field, field_grid, points)

    # What the head ends with at its volume's border (the neck) goes on beyond it.
    image = _sample(head.t1, head.grid, points, beyond="nearest")
    truth = _sample(disease, head.grid, points)
    image = lose_tissue(image, _sample(loss, head.grid, points))
    image *= _bias_field(grid, draw, scanner.bias)
    image *= 1 + scanner.gain * draw.uniform(-1, 1)
    noise = draw.normal(0, scanner.noise, (2, *grid.shape)).astype(np.float32)
    image = np.hypot(image + noise[0], noise[1])  # a magnitude image's noise is Rician
    stored = np.clip(np.rint(image * _WHITE_MATTER_UNITS), 0, 4095).astype(np.uint16)
    return SimulatedScan(stored, truth.astype(np.float32), grid)


def tissue(head: Head) -> np.ndarray:
    """How much of each voxel is brain tissue and not fluid, 0 to 1, ``[x, y, z]`` float32."""
    brightness = (head.t1 - CSF_LEVEL) / (0.6 - CSF_LEVEL)  # grey matter lies above 0.6
    return np.where(head.brain, np.clip(brightness, 0, 1), 0).astype(np.float32)


def area_loss(head: Head, losses: Mapping[int, float]) -> np.ndarray:
    """The fraction of tissue lost at each voxel of the undeformed head, ``[x, y, z]`` float32.

    Areas end in tissue, not in fluid, and their borders are softened by about a voxel.
    """
    table = np.zeros(256, np.float32)
    for label, loss in losses.items():
        table[label] = loss
    smooth = ndimage.gaussian_filter(table[head.areas], 1.0 / np.array(head.grid.voxel_size))
    return smooth * tissue(head)


def shrinkage(loss: np.ndarray) -> np.ndarray:
    """The part of a loss that shows as contraction; the rest thins the voxels (`lose_tissue`).

    Both parts are alike, ``(1 - c)**2 = 1 - loss``.
    """
    return 1 - np.sqrt(1 - loss)


def lose_tissue(image: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Mix fluid into voxels by the part of a loss that does not show as contraction."""
    thinned = shrinkage(loss)
    return np.where(image > CSF_LEVEL, image * (1 - thinned) + CSF_LEVEL * thinned, image)


def atrophy_field(head: Head, loss: np.ndarray) -> tuple[np.ndarray, Grid]:
    """The displacement of a brain whose tissue shrank, fluid taking the room.

    The divergence of the pull-back is ``1 / (1 - c) - 1`` where tissue shrank by ``c``, and
    negative in the fluid nearby, by as much in all, so that nothing moves far away: the skull
    stays. The field is the gradient of a potential that solves Poisson's equation on a periodic
    box.

    Parameters
    ----------
    loss
        ``[x, y, z]`` on the head's grid, see :func:`area_loss`.

    Returns
    -------
    field
        ``(3, x, y, z)`` float32, mm.
    grid
        Of the field, coarser than the head's.
    """
    step = np.maximum(np.round(_FIELD_MM / np.array(head.grid.voxel_size)), 1).astype(int)
    shrunk = shrinkage(_block_mean(loss, step))
    fluid = _block_mean(np.where(head.brain, 1 - tissue(head), 0).astype(np.float32), step)
    sizes = np.array(head.grid.voxel_size) * step
    stretch = 1 / (1 - shrunk) - 1
    near = ndimage.gaussian_filter(stretch, _REACH_MM / sizes) * fluid
    divergence = stretch - _fill(near, fluid * _FULLEST, float(stretch.sum()))

    frequencies = np.meshgrid(
        *(2 * np.pi * np.fft.fftfreq(n, d) for n, d in zip(stretch.shape, sizes, strict=True)),
        indexing="ij",
        sparse=True,
    )
    squared = sum(f**2 for f in frequencies)
    squared[0, 0, 0] = 1.0
    spectrum = np.fft.fftn(divergence)
    spectrum[0, 0, 0] = 0.0  # the box keeps its volume
    field = np.stack([np.fft.ifftn(-1j * f * spectrum / squared).real for f in frequencies]).astype(
        np.float32
    )
    origin = head.grid.matrix[:3, 3] + (sizes - np.array(head.grid.voxel_size)) / 2
    return field, axis_aligned_grid(stretch.shape, sizes, origin)


def _fill(weight: np.ndarray, capacity: np.ndarray, amount: float) -> np.ndarray:
    """Share an amount out by weight, no voxel taking more than its capacity."""
    if amount <= 0 or not weight.any():
        return np.zeros_like(weight)
    reachable = min(amount, 0.999 * float(capacity[weight > 0].sum()))
    low, high = 0.0, 1.0
    while np.minimum(weight * high, capacity).sum() < reachable:
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        if np.minimum(weight * middle, capacity).sum() < reachable:
            low = middle
        else:
            high = middle
    return np.minimum(weight * high, capacity)


def individual_anatomy(grid: Grid, seed: int, sd_mm: float) -> tuple[np.ndarray, Grid]:
    """A smooth random displacement: one patient's anatomy against the head it is made from.

    Two scales, with the shape of lobes (Gaussian of 22 mm) and of gyri (9 mm); the finer has a
    quarter of the amplitude, so that the map folds nowhere for ``sd_mm`` up to about 4.

    Returns
    -------
    field
        ``(3, x, y, z)`` float32, mm.
    grid
        Of the field, 4 mm.
    """
    coarse = grid.coarsened(4.0)
    draw = np.random.default_rng(seed)
    field = np.zeros((3, *coarse.shape), np.float32)
    for smoothness_mm, share in ((22.0, 1.0), (9.0, 0.25)):
        for component in field:
            noise = draw.standard_normal(coarse.shape, dtype=np.float32)
            smooth = ndimage.gaussian_filter(noise, smoothness_mm / 4.0, mode="wrap")
            component += sd_mm * share * smooth / smooth.std()
    return field, coarse


def _draw_grid(draw: np.random.Generator, voxel_size_mm: Sequence[float]) -> Grid:
    pixel = round(float(draw.uniform(*voxel_size_mm)), 2)
    sizes = np.array([round(1.2 * pixel, 3), pixel, pixel])
    shape = np.round(np.array(_FIELD_OF_VIEW_MM) / sizes).astype(int)
    return axis_aligned_grid(shape, sizes, -sizes * (shape - 1) / 2)


def _brain_centre(head: Head) -> np.ndarray:
    """The middle of the brain's bounding box in mm, a little higher: less neck, as in ADNI."""
    corners = np.array(
        [np.flatnonzero(head.brain.any(axis=other))[[0, -1]] for other in ((1, 2), (0, 2), (0, 1))]
    )
    centre = head.grid.matrix[:3, :3] @ corners.mean(axis=1) + head.grid.matrix[:3, 3]
    return centre + np.array([0.0, 0.0, 10.0])


def _posed(
    points: np.ndarray, draw: np.random.Generator, scanner: ScannerSettings, centre: np.ndarray
) -> np.ndarray:
    """Where in the head the scanner's points lie, the head being turned and moved at random."""
    a, b, c = np.deg2rad(draw.uniform(-scanner.rotation_deg, scanner.rotation_deg, 3))
    shift = draw.uniform(-scanner.translation_mm, scanner.translation_mm, 3)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    rotation = (about_x @ about_y @ about_z).astype(np.float32)
    moved = points - shift.astype(np.float32).reshape(3, 1, 1, 1)
    return np.tensordot(rotation, moved, axes=1) + centre.astype(np.float32).reshape(3, 1, 1, 1)


def _bias_field(grid: Grid, draw: np.random.Generator, sd: float) -> np.ndarray:
    """A smooth multiplicative field with mean near 1, as a receive coil makes it."""
    extent = np.array(grid.shape) * np.array(grid.voxel_size)
    coarse = np.maximum(np.round(extent / 10).astype(int), 4)
    noise = ndimage.gaussian_filter(draw.standard_normal(coarse), 5.0, mode="reflect")
    noise = (noise - noise.mean()) / noise.std()
    zoom = ndimage.zoom(
        noise, np.array(grid.shape) / coarse, order=1, mode="nearest", grid_mode=True
    )
    return np.exp(sd * zoom).astype(np.float32)


def _block_mean(array: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Mean over blocks of ``step`` voxels; a rest at the far border is padded with its edge."""
    padding = [(0, -n % s) for n, s in zip(array.shape, step, strict=True)]
    padded = np.pad(array, padding, mode="edge")
    split = [k for n, s in zip(padded.shape, step, strict=True) for k in (n // s, s)]
    return padded.reshape(split).mean(axis=(1, 3, 5))


def _sample(
    array: np.ndarray, grid: Grid, points: np.ndarray, beyond: str = "constant"
) -> np.ndarray:
    """Values of a volume at points in mm, linear; 0 beyond it, or its ``nearest`` voxel's."""
    origin = grid.matrix[:3, 3].astype(np.float32).reshape(3, 1, 1, 1)
    sizes = np.array(grid.voxel_size, np.float32).reshape(3, 1, 1, 1)
    return ndimage.map_coordinates(array, (points - origin) / sizes, order=1, mode=beyond)


def _sample_field(field: np.ndarray, grid: Grid, points: np.ndarray) -> np.ndarray:
    """Values of a vector field ``(3, ...)`` at points in mm, linear, its border's outside."""
    origin = grid.matrix[:3, 3].astype(np.float32).reshape(3, 1, 1, 1)
    sizes = np.array(grid.voxel_size, np.float32).reshape(3, 1, 1, 1)
    places = (points - origin) / sizes
    return np.stack(
        [ndimage.map_coordinates(axis, places, order=1, mode="nearest") for axis in field]
    )
