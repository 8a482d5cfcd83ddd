"""Simulation of one scan: anatomy, ageing, atrophy, pose, shortcut and scanner artefacts.

All fields are *pull-back* displacements in mm: the value at a point gives the position in the
undeformed head that its tissue comes from. Where tissue shrank to a fraction ``1 - c`` of its
volume, the Jacobian determinant of the pull-back is therefore ``1 / (1 - c)``.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import fft, ndimage

from voxplain.cohort.heads import Head
from voxplain.volumes import Grid, axis_aligned_grid, centres_mm

CSF_LEVEL = 0.25  # T1 brightness of cerebrospinal fluid, white matter being 1
_FIELD_MM = 2.0  # grid of the displacement fields
_REACH_MM = 12.0  # distance from lost tissue at which fluid replaces it (SD of a Gaussian)
_FULLEST = 0.7  # fluid at a point expands at most to 1 / (1 - 0.7) of its volume
_WHITE_MATTER_UNITS = 600  # stored value of white matter at gain 1
_FIELD_OF_VIEW_MM = (200.0, 240.0, 240.0)
LARGEST_LOSS = 0.6  # of an area's tissue; above, the field was not tested for folding
_PATCH_MM = 8.0  # smoothness of the border between an area's affected part and the rest
_PATCH_STREAM, _MOTION_STREAM = 1, 2  # separate random streams: one option does not change another
# A capsule of 20 mm, taped to the upper left of the head along it.
_CAPSULE_MM, _CAPSULE_RADIUS_MM, _CAPSULE_GAP_MM = 20.0, 5.0, 2.0
_CAPSULE_DIRECTION = np.array([-1.0, 0.0, 1.0]) / np.sqrt(2)
_SKIN = 0.2  # brightness above that of bone and noise
_AIR = 0.02
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


@dataclass(frozen=True)
class Shortcut:
    """A change of a scan that is not caused by the disease.

    Attributes
    ----------
    kind
        ``mark``: a bright capsule beside the head. ``scanner``: a brighter spot inside the head.
    strength
        Fraction by which the capsule is brighter than white matter, or by which the centre of the
        spot is brightened.
    labels
        Label values of the area at whose centre the spot is.
    sd_mm
        SD of the Gaussian spot.
    """

    kind: str
    strength: float
    labels: Sequence[int] = ()
    sd_mm: float = 15.0


@dataclass(frozen=True)
class AreaMeasures:
    """Intended and achieved changes of one area of one scan.

    Attributes
    ----------
    intended_loss
        The intended fraction of tissue lost to the disease.
    volume_ml, volume_without_ml
        Tissue volume with and without the disease.
    intensity, intensity_without
        Mean brightness of the area's voxels (white matter is 1) with and without disease and
        shortcut; both before the coil's field, gain and noise, which preprocessing should remove.
    """

    intended_loss: float
    volume_ml: float
    volume_without_ml: float
    intensity: float
    intensity_without: float


@dataclass(frozen=True)
class SimulatedScan:
    """A scan and its ground truth, both ``[x, y, z]`` on ``grid``.

    Attributes
    ----------
    volume
        uint16, as a scanner would store it.
    truth
        float32, the fraction by which each voxel was changed: the tissue lost to the disease, or
        the brightness added by a shortcut (1 where the image was dark), whichever is larger.
    grid
        Sagittal slices, 1.2 times as thick as the pixels are wide, around the head.
    measures
        Label value of each measured area to its measures.
    """

    volume: np.ndarray
    truth: np.ndarray
    grid: Grid
    measures: Mapping[int, AreaMeasures] = field(default_factory=dict)


def simulate_scan(
    head: Head,
    losses: Mapping[int, float],
    ageing: float,
    anatomy_seed: int,
    scan_seed: int,
    scanner: ScannerSettings,
    extent: float = 1.0,
    shortcut: Shortcut | None = None,
    measured: Sequence[int] = (),
) -> SimulatedScan:
    """Simulate a scan of one patient.

    Parameters
    ----------
    head
        The head whose anatomy is deformed.
    losses
        Label value of an area to the fraction of its tissue lost to the disease, 0 to below 1.
    ageing
        Fraction of tissue lost everywhere in the brain.
    anatomy_seed, scan_seed
        Seed of the patient's anatomy and patches; seed of pose, motion, bias, gain, noise and voxel
        size.
    scanner
        Sizes of the random variations.
    extent
        Fraction of each area that is affected, see :func:`area_loss`.
    shortcut
        The shortcut of the scan; None: no shortcut.
    measured
        Label values of the areas to measure.
    """
    draw = np.random.default_rng(scan_seed)
    grid = _draw_grid(draw, scanner.voxel_size_mm)
    points = _posed(centres_mm(grid), draw, scanner, _brain_centre(head))

    anatomy, anatomy_grid = individual_anatomy(head.grid, anatomy_seed, scanner.deformation_mm)
    points += _sample_field(anatomy, anatomy_grid, points)
    fraction = tissue(head)
    disease = area_loss(head, losses, extent, anatomy_seed)
    loss = 1 - (1 - disease) * (1 - ageing * fraction)
    displacement, field_grid = atrophy_field(head, loss)
    shift = _sample_field(displacement, field_grid, points)
    points += shift

    # Beyond the border of the head's volume (the neck), the voxels at the border continue.
    whole = _sample(head.t1, head.grid, points, beyond="nearest")
    truth = _sample(disease, head.grid, points)
    lost = _sample(loss, head.grid, points)
    image = lose_tissue(whole, lost)
    if shortcut is not None:
        image, change = add_shortcut(image, points, head, shortcut)
        truth = np.maximum(truth, change)
    clean = image.copy() if len(measured) else None
    # The coil does not move with the head.
    image = _moved(image, grid, scanner.motion, scan_seed)
    image *= _bias_field(grid, draw, scanner.bias)
    image *= 1 + scanner.gain * draw.uniform(-1, 1)
    noise = draw.normal(0, scanner.noise, (2, *grid.shape)).astype(np.float32)
    image = np.hypot(image + noise[0], noise[1])  # a magnitude image's noise is Rician
    stored = np.clip(np.rint(image * _WHITE_MATTER_UNITS), 0, 4095).astype(np.uint16)

    measures = {}
    if clean is not None:
        labels = _sample(head.areas, head.grid, points, order=0)
        in_areas = np.isin(labels, measured)
        sources = points[:, in_areas].reshape(3, -1, 1, 1)
        stretched = _stretch(
            displacement, field_grid, sources - shift[:, in_areas].reshape(sources.shape)
        )
        diseased = _sample(disease, head.grid, sources).ravel()
        aged = 1 - (1 - lost[in_areas]) / (1 - diseased)
        area_fraction = _sample(fraction, head.grid, sources).ravel()
        sums = {
            "voxels": np.ones(len(aged)),
            "tissue": area_fraction * (1 - shrinkage(lost[in_areas])),
            # The voxel's tissue before it shrank, without the tissue lost to age.
            "tissue_without": area_fraction * (1 - aged) * stretched,
            "brightness": clean[in_areas],
            "brightness_without": lose_tissue(whole[in_areas], aged),
        }
        totals = {key: np.bincount(labels[in_areas], weights, 256) for key, weights in sums.items()}
        measures = _measures(
            totals,
            measured,
            {label: extent * losses.get(label, 0.0) for label in measured},
            grid.voxel_volume_ml,
        )
    return SimulatedScan(stored, truth.astype(np.float32), grid, measures)


def _measures(
    totals: Mapping[str, np.ndarray],
    measured: Sequence[int],
    intended: Mapping[int, float],
    voxel_ml: float,
) -> dict[int, AreaMeasures]:
    """Label to measures of the area, from sums over its voxels; an empty area is left out."""
    measures = {}
    for label in measured:
        area_sums = {key: float(sums[label]) for key, sums in totals.items()}
        if area_sums["voxels"] == 0:
            continue
        measures[label] = AreaMeasures(
            intended_loss=intended[label],
            volume_ml=area_sums["tissue"] * voxel_ml,
            volume_without_ml=area_sums["tissue_without"] * voxel_ml,
            intensity=area_sums["brightness"] / area_sums["voxels"],
            intensity_without=area_sums["brightness_without"] / area_sums["voxels"],
        )
    return measures


def _stretch(displacement: np.ndarray, grid: Grid, points: np.ndarray) -> np.ndarray:
    """The Jacobian determinant of a pull-back at points ``(3, n, 1, 1)`` in mm, ``[n]``."""
    # Only in the box around the points: for the whole head it would take longer than the scan.
    origin, sizes = grid.matrix[:3, 3], np.array(grid.voxel_size)
    indices = (points[:, :, 0, 0] - origin[:, None]) / sizes[:, None]
    if not indices.size:
        return np.ones(0)
    first = np.clip(np.floor(indices.min(axis=1)).astype(int) - 2, 0, np.array(grid.shape) - 2)
    last = np.clip(np.ceil(indices.max(axis=1)).astype(int) + 3, first + 2, grid.shape)
    box = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
    determinant = jacobian(displacement[(slice(None), *box)], grid.voxel_size)
    near = axis_aligned_grid(determinant.shape, sizes, origin + first * sizes)
    return _sample(determinant, near, points, beyond="nearest").ravel()


def jacobian(displacement: np.ndarray, voxel_size: Sequence[float]) -> np.ndarray:
    """The Jacobian determinant of ``x + displacement(x)``, by central differences.

    Parameters
    ----------
    displacement
        ``(3, x, y, z)``, mm.
    voxel_size
        Voxel size of its grid, mm.

    Returns
    -------
    ``[x, y, z]``; 1 where volumes do not change, 0 or less where the map folds.
    """
    rows = [list(np.gradient(part, *voxel_size, axis=(0, 1, 2))) for part in displacement]
    for number, row in enumerate(rows):
        row[number] = row[number] + 1
    (a, b, c), (d, e, f), (g, h, i) = rows
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def draw_losses(
    names: Mapping[int, str], loss: float, asymmetry: float, spread: float, seed: int
) -> dict[int, float]:
    """Label value to the fraction of tissue that the area of a patient loses.

    The draw of an area depends on its name and the patient's seed only: further areas, other
    options, and the patient's other visits do not change it.

    Parameters
    ----------
    names
        Label value to name, which ends in ``_L`` or ``_R`` where an area has sides.
    loss
        Mean loss over patients and areas.
    asymmetry
        Largest difference between left and right as a fraction of their mean; drawn uniformly, in
        both directions.
    spread
        SD over areas as a fraction of the mean; log-normal, the same for both sides of an area.
    seed
        Seed of the patient.

    Returns
    -------
    Label value to fraction, at most :data:`LARGEST_LOSS`.
    """
    lean = asymmetry / 2 * random.Random(f"{seed}/asymmetry").uniform(-1, 1)
    sides = {"_L": 1 + lean, "_R": 1 - lean}
    sigma = np.sqrt(np.log1p(spread**2))  # SD of the logarithm, for a mean of 1 and SD of spread
    losses = {}
    for label, name in names.items():
        area, side = name.removesuffix("_L").removesuffix("_R"), sides.get(name[-2:], 1.0)
        drawn = random.Random(f"{seed}/spread/{area}").gauss(0, 1)
        area_loss_drawn = loss * side * float(np.exp(sigma * drawn - sigma**2 / 2))
        losses[label] = min(area_loss_drawn, LARGEST_LOSS)
    return losses


def add_shortcut(
    image: np.ndarray, points: np.ndarray, head: Head, shortcut: Shortcut
) -> tuple[np.ndarray, np.ndarray]:
    """Add a shortcut to an image whose voxels come from ``points``, in mm of the undeformed head.

    In the undeformed head it is at the same position for every patient, so that registration brings
    it to the same position.

    Returns
    -------
    The image, and the fraction by which its brightness changed (1 where it was dark); both with the
    shape of ``image``.
    """
    if shortcut.kind == "mark":
        covered = _capsule(points, head)
        changed = np.maximum(image, (1 + shortcut.strength) * covered)
        change = np.clip((changed - image) / np.maximum(image, _AIR), 0, 1)
        return changed.astype(np.float32), change.astype(np.float32)
    voxels = np.argwhere(np.isin(head.areas, shortcut.labels))
    centre = head.grid.matrix[:3, :3] @ voxels.mean(axis=0) + head.grid.matrix[:3, 3]
    squared = sum((axis - middle) ** 2 for axis, middle in zip(points, centre, strict=True))
    gain = shortcut.strength * np.exp(-squared / (2 * shortcut.sd_mm**2))
    change = np.where(image > _AIR, gain, 0).astype(np.float32)
    return image * (1 + change), change


def _capsule(points: np.ndarray, head: Head) -> np.ndarray:
    """Fraction of each point filled by a capsule along the upper left of the head, 0 to 1."""
    centre = _brain_centre(head)
    steps = np.arange(0.0, 200.0, 0.5)
    ray = (centre[:, None] + _CAPSULE_DIRECTION[:, None] * steps).reshape(3, -1, 1, 1)
    skin = steps[np.flatnonzero(_sample(head.t1, head.grid, ray).ravel() > _SKIN)[-1]]
    middle = centre + _CAPSULE_DIRECTION * (skin + _CAPSULE_GAP_MM + _CAPSULE_RADIUS_MM)
    across, along, up = (axis - place for axis, place in zip(points, middle, strict=True))
    beyond = np.maximum(abs(along) - (_CAPSULE_MM / 2 - _CAPSULE_RADIUS_MM), 0)
    distance = np.sqrt(across**2 + beyond**2 + up**2)
    return np.clip(_CAPSULE_RADIUS_MM + 0.5 - distance, 0, 1)


def tissue(head: Head) -> np.ndarray:
    """Fraction of each voxel that is brain tissue and not fluid, 0 to 1, ``[x, y, z]`` float32."""
    brightness = (head.t1 - CSF_LEVEL) / (0.6 - CSF_LEVEL)  # grey matter is above 0.6
    return np.where(head.brain, np.clip(brightness, 0, 1), 0).astype(np.float32)


def area_loss(
    head: Head, losses: Mapping[int, float], extent: float = 1.0, seed: int = 0
) -> np.ndarray:
    """The fraction of tissue lost at each voxel of the undeformed head, ``[x, y, z]`` float32.

    Only tissue is lost, no fluid, and the borders of areas are smoothed by about a voxel.

    Parameters
    ----------
    head
        Head with the areas.
    losses
        Label value to fraction.
    extent
        Fraction of each area's voxels that lose tissue, in one or a few smooth patches; the other
        voxels lose nothing. The patches of a larger extent contain those of a smaller one.
    seed
        Seed of the patches.
    """
    table = np.zeros(256, np.float32)
    for label, loss in losses.items():
        table[label] = loss
    lost = table[head.areas]
    if extent < 1:
        lost[~_patches(head, [label for label in losses if table[label] > 0], extent, seed)] = 0
    smooth = ndimage.gaussian_filter(lost, 1.0 / np.array(head.grid.voxel_size))
    return smooth * tissue(head)


def _patches(head: Head, labels: Sequence[int], extent: float, seed: int) -> np.ndarray:
    """The voxels of each area with the highest values of a smooth noise, ``[x, y, z]`` bool."""
    coarse = head.grid.coarsened(4.0)
    noise = np.random.default_rng([seed, _PATCH_STREAM]).standard_normal(coarse.shape)
    smooth = ndimage.gaussian_filter(noise, _PATCH_MM / 4.0, mode="wrap")
    voxels = np.nonzero(np.isin(head.areas, labels))
    places = np.array(voxels) * (np.array(head.grid.voxel_size) / 4.0)[:, None]
    values = ndimage.map_coordinates(smooth, places, order=1, mode="nearest")
    areas, affected = head.areas[voxels], np.zeros(head.areas.shape, bool)
    for label in labels:
        in_area = areas == label
        if in_area.any():
            highest = values[in_area] >= np.quantile(values[in_area], 1 - extent)
            affected[tuple(axis[in_area] for axis in voxels)] = highest
    return affected


def shrinkage(loss: np.ndarray) -> np.ndarray:
    """The part ``c`` of a loss that is contraction; the rest thins the voxels (`lose_tissue`).

    Both parts are equal, ``(1 - c)**2 = 1 - loss``.
    """
    return 1 - np.sqrt(1 - loss)


def lose_tissue(image: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """The image with fluid mixed into its voxels, by the part of a loss that is not contraction."""
    thinned = shrinkage(loss)
    return np.where(image > CSF_LEVEL, image * (1 - thinned) + CSF_LEVEL * thinned, image)


def atrophy_field(head: Head, loss: np.ndarray) -> tuple[np.ndarray, Grid]:
    """The displacement field of a brain whose tissue shrinks and is replaced by fluid.

    The divergence of the pull-back is ``1 / (1 - c) - 1`` where tissue shrank by ``c``, and
    negative in the fluid nearby, with the same total, so that nothing far away moves: the skull
    stays in place. The field is the gradient of a potential that solves Poisson's equation on a
    periodic box.

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
    """An amount distributed by weight, limited to the capacity of each voxel."""
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
    """A smooth random displacement: one patient's anatomy relative to the head it is made from.

    It has two scales, lobes (Gaussian of 22 mm) and gyri (9 mm). The finer scale has a quarter of
    the amplitude, so that the map does not fold for ``sd_mm`` up to about 4.

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
    """The centre of the brain's bounding box in mm, moved up by 10 mm: less neck, as in ADNI."""
    corners = np.array(
        [np.flatnonzero(head.brain.any(axis=other))[[0, -1]] for other in ((1, 2), (0, 2), (0, 1))]
    )
    centre = head.grid.matrix[:3, :3] @ corners.mean(axis=1) + head.grid.matrix[:3, 3]
    return centre + np.array([0.0, 0.0, 10.0])


def _posed(
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


def _moved(
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


def _bias_field(grid: Grid, draw: np.random.Generator, sd: float) -> np.ndarray:
    """A smooth multiplicative field with mean near 1, as of a receive coil."""
    extent = np.array(grid.shape) * np.array(grid.voxel_size)
    coarse = np.maximum(np.round(extent / 10).astype(int), 4)
    noise = ndimage.gaussian_filter(draw.standard_normal(coarse), 5.0, mode="reflect")
    noise = (noise - noise.mean()) / noise.std()
    zoom = ndimage.zoom(
        noise, np.array(grid.shape) / coarse, order=1, mode="nearest", grid_mode=True
    )
    return np.exp(sd * zoom).astype(np.float32)


def _block_mean(array: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Mean over blocks of ``step`` voxels; incomplete blocks are padded with the border voxels."""
    padding = [(0, -n % s) for n, s in zip(array.shape, step, strict=True)]
    padded = np.pad(array, padding, mode="edge")
    split = [k for n, s in zip(padded.shape, step, strict=True) for k in (n // s, s)]
    return padded.reshape(split).mean(axis=(1, 3, 5))


def _sample(
    array: np.ndarray, grid: Grid, points: np.ndarray, beyond: str = "constant", order: int = 1
) -> np.ndarray:
    """Values of a volume at points in mm, interpolated linearly; 0 outside of the volume.

    With ``beyond="nearest"``, points outside take the value of the nearest voxel. Order 0 takes the
    value of the nearest voxel everywhere, for labels.
    """
    origin = grid.matrix[:3, 3].astype(np.float32).reshape(3, 1, 1, 1)
    sizes = np.array(grid.voxel_size, np.float32).reshape(3, 1, 1, 1)
    return ndimage.map_coordinates(array, (points - origin) / sizes, order=order, mode=beyond)


def _sample_field(field: np.ndarray, grid: Grid, points: np.ndarray) -> np.ndarray:
    """Values of a vector field ``(3, ...)`` at points in mm, linear; outside, as at its border."""
    origin = grid.matrix[:3, 3].astype(np.float32).reshape(3, 1, 1, 1)
    sizes = np.array(grid.voxel_size, np.float32).reshape(3, 1, 1, 1)
    places = (points - origin) / sizes
    return np.stack(
        [ndimage.map_coordinates(axis, places, order=1, mode="nearest") for axis in field]
    )
