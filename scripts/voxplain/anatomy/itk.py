"""Arrays on grids as ANTs images and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from voxplain.volumes import Grid

if TYPE_CHECKING:
    import ants


def as_ants(array: np.ndarray, grid: Grid) -> ants.ANTsImage:
    """An array ``[x, y, z]`` as an ANTs image, whose space is ITK's LPS+ where ours is RAS+."""
    import ants

    flip = np.diag([-1.0, -1.0, 1.0])
    direction = flip @ grid.matrix[:3, :3] / np.array(grid.voxel_size)
    return ants.from_numpy(
        np.asarray(array, np.float32),
        origin=tuple(flip @ grid.matrix[:3, 3]),
        spacing=grid.voxel_size,
        direction=direction,
    )
