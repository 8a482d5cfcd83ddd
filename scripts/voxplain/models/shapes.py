"""What becomes of a grid inside each network; computed without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from voxplain.faults import SetupFault

RIEKE_CHANNELS = (8, 16, 32, 64)
RIEKE_POOLS = (2, 3, 2, 3)
# On grids too coarse for the paper's pools: smallest axis in voxels to pools. 78 is the least that
# the paper's pools take, and 38 the least that the last row takes (one voxel is left); the second
# row leaves at least two voxels along the smallest axis. 3 mm (65x77x65) takes the second row, 4 mm
# (49x58x49) the third.
REDUCED_POOLS = ((78, RIEKE_POOLS), (62, (2, 2, 2, 2)), (38, (2, 2, 2, 1)))


@dataclass(frozen=True)
class RiekePlan:
    """Rieke's network on one grid.

    Attributes
    ----------
    pools
        Edge of each of the four poolings.
    layers
        Shape after each pooling, ``(x, y, z)``.
    label
        Names the pools where they are not the paper's.
    dropout
        Drop probability before the dense layers.
    """

    pools: tuple[int, ...]
    layers: tuple[tuple[int, ...], ...]
    label: str
    dropout: float

    @property
    def features(self) -> int:
        """Inputs of the first dense layer."""
        x, y, z = self.layers[-1]
        return RIEKE_CHANNELS[-1] * x * y * z


def plan_rieke(
    grid_shape: Sequence[int], pools: str | Sequence[int] = "auto", dropout: float = 0.8
) -> RiekePlan:
    """Follow a grid through Rieke's network: four times a valid convolution of 3^3 and a pooling.

    Parameters
    ----------
    grid_shape
        Voxels along x, y, z.
    pools
        Four edges of poolings, or ``auto``: the paper's 2, 3, 2, 3 where the grid allows, else the
        row of :data:`REDUCED_POOLS` for its smallest axis.
    dropout
        Drop probability, 0.8 in the paper.

    Raises
    ------
    SetupFault
        The grid is too small.
    """
    size = "x".join(map(str, grid_shape))
    if pools == "auto":
        fitting = [row for least, row in REDUCED_POOLS if min(grid_shape) >= least]
        if not fitting:
            raise SetupFault(
                f"model rieke does not fit a grid of {size} voxels: its smallest axis must have at "
                f"least {REDUCED_POOLS[-1][0]}; choose a finer resolution_mm"
            )
        pools = fitting[0]
    pools = tuple(pools)
    shape, layers = tuple(grid_shape), []
    for pool in pools:
        shape = tuple((n - 2) // pool for n in shape)
        layers.append(shape)
        if min(shape) < 1:
            raise SetupFault(
                f"model rieke with pools {','.join(map(str, pools))} does not fit a grid of {size} "
                f"voxels; the paper's pools {','.join(map(str, RIEKE_POOLS))} need at least "
                f"{REDUCED_POOLS[0][0]} along each axis. Choose a finer resolution_mm or smaller "
                "model.pools"
            )
    label = "rieke" if pools == RIEKE_POOLS else f"rieke (pools {','.join(map(str, pools))})"
    return RiekePlan(pools, tuple(layers), label, dropout)
