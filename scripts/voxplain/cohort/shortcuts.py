"""Changes of a simulated scan that the disease does not cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxplain.cohort.heads import Head
from voxplain.cohort.sampling import brain_centre, sample

# A capsule of 20 mm, taped to the upper left of the head along it.
_CAPSULE_MM, _CAPSULE_RADIUS_MM, _CAPSULE_GAP_MM = 20.0, 5.0, 2.0
_CAPSULE_DIRECTION = np.array([-1.0, 0.0, 1.0]) / np.sqrt(2)
_SKIN = 0.2  # brightness above that of bone and noise
_AIR = 0.02


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
    centre = brain_centre(head)
    steps = np.arange(0.0, 200.0, 0.5)
    ray = (centre[:, None] + _CAPSULE_DIRECTION[:, None] * steps).reshape(3, -1, 1, 1)
    skin = steps[np.flatnonzero(sample(head.t1, head.grid, ray).ravel() > _SKIN)[-1]]
    middle = centre + _CAPSULE_DIRECTION * (skin + _CAPSULE_GAP_MM + _CAPSULE_RADIUS_MM)
    across, along, up = (axis - place for axis, place in zip(points, middle, strict=True))
    beyond = np.maximum(abs(along) - (_CAPSULE_MM / 2 - _CAPSULE_RADIUS_MM), 0)
    distance = np.sqrt(across**2 + beyond**2 + up**2)
    return np.clip(_CAPSULE_RADIUS_MM + 0.5 - distance, 0, 1)
