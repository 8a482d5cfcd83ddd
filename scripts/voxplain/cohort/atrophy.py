"""Anatomy of a simulated patient: individual shape, ageing and atrophy.

All fields are *pull-back* displacements in mm: the value at a point gives the position in the
undeformed head that its tissue comes from. Where tissue shrank to a fraction ``1 - c`` of its
volume, the Jacobian determinant of the pull-back is therefore ``1 / (1 - c)``.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import ndimage

from voxplain.cohort.heads import Head
from voxplain.cohort.sampling import sample
from voxplain.volumes import Grid, axis_aligned_grid

CSF_LEVEL = 0.25  # T1 brightness of cerebrospinal fluid, white matter being 1
_FIELD_MM = 2.0  # grid of the displacement fields
_REACH_MM = 12.0  # distance from lost tissue at which fluid replaces it (SD of a Gaussian)
_FULLEST = 0.7  # fluid at a point expands at most to 1 / (1 - 0.7) of its volume
LARGEST_LOSS = 0.6  # of an area's tissue; above, the field was not tested for folding
_PATCH_MM = 8.0  # smoothness of the border between an area's affected part and the rest
_PATCH_STREAM = 1  # a separate random stream: other options do not change the patches


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


def _block_mean(array: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Mean over blocks of ``step`` voxels; incomplete blocks are padded with the border voxels."""
    padding = [(0, -n % s) for n, s in zip(array.shape, step, strict=True)]
    padded = np.pad(array, padding, mode="edge")
    split = [k for n, s in zip(padded.shape, step, strict=True) for k in (n // s, s)]
    return padded.reshape(split).mean(axis=(1, 3, 5))


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


def stretch_at(displacement: np.ndarray, grid: Grid, points: np.ndarray) -> np.ndarray:
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
    return sample(determinant, near, points, beyond="nearest").ravel()


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
