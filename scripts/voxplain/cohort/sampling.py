"""Values of volumes and vector fields of a head at points in mm."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from voxplain.cohort.heads import Head
from voxplain.volumes import Grid


def brain_centre(head: Head) -> np.ndarray:
    """The centre of the brain's bounding box in mm, moved up by 10 mm: less neck, as in ADNI."""
    corners = np.array(
        [np.flatnonzero(head.brain.any(axis=other))[[0, -1]] for other in ((1, 2), (0, 2), (0, 1))]
    )
    centre = head.grid.matrix[:3, :3] @ corners.mean(axis=1) + head.grid.matrix[:3, 3]
    return centre + np.array([0.0, 0.0, 10.0])


def sample(
    array: np.ndarray, grid: Grid, points: np.ndarray, beyond: str = "constant", order: int = 1
) -> np.ndarray:
    """Values of a volume at points in mm, interpolated linearly; 0 outside of the volume.

    With ``beyond="nearest"``, points outside take the value of the nearest voxel. Order 0 takes the
    value of the nearest voxel everywhere, for labels.
    """
    origin = grid.matrix[:3, 3].astype(np.float32).reshape(3, 1, 1, 1)
    sizes = np.array(grid.voxel_size, np.float32).reshape(3, 1, 1, 1)
    return ndimage.map_coordinates(array, (points - origin) / sizes, order=order, mode=beyond)


def sample_field(field: np.ndarray, grid: Grid, points: np.ndarray) -> np.ndarray:
    """Values of a vector field ``(3, ...)`` at points in mm, linear; outside, as at its border."""
    origin = grid.matrix[:3, 3].astype(np.float32).reshape(3, 1, 1, 1)
    sizes = np.array(grid.voxel_size, np.float32).reshape(3, 1, 1, 1)
    places = (points - origin) / sizes
    return np.stack(
        [ndimage.map_coordinates(axis, places, order=1, mode="nearest") for axis in field]
    )
