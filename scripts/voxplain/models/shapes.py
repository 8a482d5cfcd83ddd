"""Shapes of the maps of each network on a grid; computed without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from voxplain.faults import ParameterFault, SetupFault

Shape = tuple[int, ...]
# Rows of the smallest number of voxels along the smallest axis, and the pools from that size on;
# the first row has the pools of the paper.
PoolTable = tuple[tuple[int, tuple[int, ...]], ...]

RIEKE_CHANNELS = (8, 16, 32, 64)
# The paper's pools need at least 78 voxels, and those of the last row at least 38 (one voxel is
# left); the second row leaves at least two voxels along the smallest axis. The grid at 3 mm
# (65x77x65) uses the second row, that at 4 mm (49x58x49) the third.
RIEKE_POOLS: PoolTable = ((78, (2, 3, 2, 3)), (62, (2, 2, 2, 2)), (38, (2, 2, 2, 1)))

# Channels and number of the convolutions of each block.
VOXCNN_BLOCKS = ((8, 2), (16, 2), (32, 3), (64, 3))
# The smallest grid of each row leaves one voxel. All rows keep the first pool, since the maps
# before it are the largest. Other pools are removed so that the map of the last convolution is
# closest to the paper's 3x3x3 and not smaller: the grid at 2 mm (97x115x97) uses the second row
# (9x13x9), 3 mm (65x77x65) the third (4x7x4), 4 mm (49x58x49) the fourth (6x11x6).
VOXCNN_POOLS: PoolTable = (
    (100, (2, 2, 2, 2)),
    (68, (2, 2, 1, 2)),
    (56, (2, 1, 2, 2)),
    (40, (2, 1, 1, 2)),
)

VOXRESNET_POOL = 7
VOXRESNET_CHANNELS = (32, 64, 64, 128)
# Halvings of the grid, each with the layers up to its strided convolution and the residual blocks
# after it.
VOXRESNET_STAGES = (
    (("conv1c",), (2, 3)),
    (("bn4", "relu4", "conv4"), (5, 6)),
    (("bn7", "relu7", "conv7"), (8, 9)),
)


@dataclass(frozen=True)
class Plan:
    """A network on one grid.

    Attributes
    ----------
    label
        Name in tables and figures; it includes the pools if they are not those of the paper.
    layers
        Name of every layer whose output is a map, without poolings, as in ``named_modules()`` and
        in the order of execution, to the shape of its output, ``(x, y, z)``.
    last_layer
        The last of these layers: the input of the last pooling, or of the dense layers if that
        pooling has an edge of 1.
    features
        Number of inputs of the first dense layer.
    """

    label: str
    layers: dict[str, Shape]
    last_layer: str
    features: int


@dataclass(frozen=True)
class RiekePlan(Plan):
    """Rieke's network on one grid.

    Attributes
    ----------
    pools
        Edge of each of the four poolings.
    dropout
        Drop probability before the dense layers.
    """

    pools: tuple[int, ...]
    dropout: float


@dataclass(frozen=True)
class VoxCNNPlan(Plan):
    """VoxCNN on one grid.

    Attributes
    ----------
    pools
        Edge of each of the four poolings.
    dropout
        Drop probability between the dense layers.
    """

    pools: tuple[int, ...]
    dropout: float


@dataclass(frozen=True)
class VoxResNetPlan(Plan):
    """VoxResNet or one of its variants on one grid.

    Attributes
    ----------
    stages
        Number of halvings of the grid: 3, or 1 in the shallow variant.
    pool
        Edge of the last max pooling; None with global average pooling.
    """

    stages: int
    pool: int | None


def plan_rieke(
    grid_shape: Sequence[int], pools: str | Sequence[int] = "auto", dropout: float = 0.8
) -> RiekePlan:
    """The plan of Rieke's network: four times a valid convolution of 3^3 and a pooling.

    Parameters
    ----------
    grid_shape
        Voxels along x, y, z.
    pools
        Four edges of poolings, or ``auto``: the paper's 2, 3, 2, 3 if the grid is large enough,
        else the row of :data:`RIEKE_POOLS` for its smallest axis.
    dropout
        Drop probability, 0.8 in the paper.

    Raises
    ------
    SetupFault
        The grid is too small, or ``pools`` are no four edges.
    """
    pools = _choose_pools("rieke", grid_shape, pools, RIEKE_POOLS)
    shape, layers, place = tuple(grid_shape), {}, 0
    for pool in pools:
        shape = _after_valid(shape)
        for _ in range(3):  # convolution, batch norm, ReLU
            layers[f"features.{place}"] = shape
            place += 1
        place += pool > 1
        shape = _after_pool(shape, pool)
        _check_room("rieke", grid_shape, shape, pools, RIEKE_POOLS)
    label = _label("rieke", pools, RIEKE_POOLS)
    return RiekePlan(
        label, layers, _last(layers), RIEKE_CHANNELS[-1] * _size(shape), pools, dropout
    )


def plan_voxcnn(
    grid_shape: Sequence[int], pools: str | Sequence[int] = "auto", dropout: float = 0.7
) -> VoxCNNPlan:
    """The plan of VoxCNN: four blocks of valid convolutions of 3^3 and a pooling.

    Parameters
    ----------
    grid_shape
        Voxels along x, y, z; 110 along each in the paper.
    pools
        Four edges of poolings, or ``auto``: 2, 2, 2, 2 as in the paper if the grid is large enough,
        else the row of :data:`VOXCNN_POOLS` for its smallest axis.
    dropout
        Drop probability between the dense layers, 0.7 in the paper.

    Raises
    ------
    SetupFault
        The grid is too small, or ``pools`` are no four edges.
    """
    pools = _choose_pools("voxcnn", grid_shape, pools, VOXCNN_POOLS)
    shape, layers = tuple(grid_shape), {}
    for block, ((_, count), pool) in enumerate(zip(VOXCNN_BLOCKS, pools, strict=True), start=1):
        for letter in "abc"[:count]:
            shape = _after_valid(shape)
            layers.update({f"conv{block}{letter}": shape, f"relu{block}{letter}": shape})
        shape = _after_pool(shape, pool)
        _check_room("voxcnn", grid_shape, shape, pools, VOXCNN_POOLS)
    label = _label("voxcnn", pools, VOXCNN_POOLS)
    features = VOXCNN_BLOCKS[-1][0] * _size(shape)
    return VoxCNNPlan(label, layers, _last(layers), features, pools, dropout)


def plan_voxresnet(grid_shape: Sequence[int], pool: str | int = "auto") -> VoxResNetPlan:
    """The plan of VoxResNet: three halvings and a max pooling.

    Parameters
    ----------
    grid_shape
        Voxels along x, y, z; 110 along each in the paper.
    pool
        Edge of the max pooling before the dense layers, or ``auto``: the paper's 7, or the smallest
        axis of the last map if that has fewer voxels (grids of less than 49 voxels).

    Raises
    ------
    SetupFault
        The grid is too small, or ``pool`` is not a valid edge.
    """
    layers = _voxresnet_layers("voxresnet", grid_shape, 3)
    shape = layers[_last(layers)]
    if pool == "auto":
        pool = min(VOXRESNET_POOL, *shape)
    elif not isinstance(pool, int) or pool < 1:
        raise SetupFault(f"model voxresnet takes a pool of 1 or more, or auto, not {pool!r}")
    if pool > min(shape):
        raise ParameterFault(
            "pool",
            f"is {pool}, with which model voxresnet does not fit a grid of {_as_text(grid_shape)} "
            f"voxels: its last map has {_as_text(shape)}; choose a pool of at most {min(shape)}, "
            "or a finer grid",
            "grid_shape",
        )
    label = "voxresnet" if pool == VOXRESNET_POOL else f"voxresnet (pool {pool})"
    features = VOXRESNET_CHANNELS[-1] * _size(_after_pool(shape, pool))
    return VoxResNetPlan(label, layers, _last(layers), features, 3, pool)


def plan_voxresnet_gap(grid_shape: Sequence[int]) -> VoxResNetPlan:
    """As :func:`plan_voxresnet`, with global average pooling instead of the max pooling."""
    return _plan_gap("voxresnet_gap", grid_shape, 3)


def plan_voxresnet_shallow_gap(grid_shape: Sequence[int]) -> VoxResNetPlan:
    """As :func:`plan_voxresnet_gap`, with one halving instead of three."""
    return _plan_gap("voxresnet_shallow_gap", grid_shape, 1)


def _plan_gap(model: str, grid_shape: Sequence[int], stages: int) -> VoxResNetPlan:
    layers = _voxresnet_layers(model, grid_shape, stages)
    return VoxResNetPlan(
        model, layers, _last(layers), VOXRESNET_CHANNELS[stages], stages, pool=None
    )


def _voxresnet_layers(model: str, grid_shape: Sequence[int], stages: int) -> dict[str, Shape]:
    """The layers of VoxResNet up to the last residual sum of some stages, and their shapes."""
    # A map of one voxel has no spatial information: at least two voxels are needed.
    least = 2**stages + 1
    if min(grid_shape) < least:
        raise _too_small(model, grid_shape, least)
    shape = tuple(grid_shape)
    layers = {f"{kind}1{letter}": shape for letter in "ab" for kind in ("conv", "bn", "relu")}
    for (*before, strided), blocks in VOXRESNET_STAGES[:stages]:
        layers.update(dict.fromkeys(before, shape))
        shape = tuple((n + 1) // 2 for n in shape)
        layers[strided] = shape
        for block in blocks:
            names = ("bn1", "relu1", "conv1", "bn2", "relu2", "conv2", "out")
            layers.update({f"voxres{block}_{name}": shape for name in names})
    return layers


def _choose_pools(
    model: str, grid_shape: Sequence[int], pools: str | Sequence[int], table: PoolTable
) -> tuple[int, ...]:
    if pools == "auto":
        fitting = [row for least, row in table if min(grid_shape) >= least]
        if not fitting:
            raise _too_small(model, grid_shape, table[-1][0])
        return fitting[0]
    edges = () if isinstance(pools, str) else tuple(pools)
    if len(edges) != 4 or not all(isinstance(edge, int) and edge >= 1 for edge in edges):
        raise SetupFault(f"model {model} takes four pools of 1 or more, or auto, not {pools!r}")
    return edges


def _check_room(
    model: str, grid_shape: Sequence[int], shape: Shape, pools: tuple[int, ...], table: PoolTable
) -> None:
    """Raise if a pooling leaves no voxel of a grid."""
    if min(shape) < 1:
        least, papers = table[0]
        raise ParameterFault(
            "pools",
            f"is {_listed(pools)}, with which model {model} does not fit a grid of "
            f"{_as_text(grid_shape)} voxels (the paper's {_listed(papers)} needs at least {least} "
            "along each axis); choose smaller pools, or a finer grid",
            "grid_shape",
        )


def _too_small(model: str, grid_shape: Sequence[int], least: int) -> ParameterFault:
    """The error for a grid that is too small for a network with any options."""
    return ParameterFault(
        "grid_shape",
        f"is {_as_text(grid_shape)} voxels, too small for model {model}: its smallest axis must "
        f"have at least {least}; choose a finer grid",
    )


def _label(model: str, pools: tuple[int, ...], table: PoolTable) -> str:
    return model if pools == table[0][1] else f"{model} (pools {_listed(pools)})"


def _after_valid(shape: Shape) -> Shape:
    """The shape after a convolution of 3^3 without padding."""
    return tuple(n - 2 for n in shape)


def _after_pool(shape: Shape, edge: int) -> Shape:
    return tuple(n // edge for n in shape)


def _size(shape: Shape) -> int:
    x, y, z = shape
    return x * y * z


def _last(layers: dict[str, Shape]) -> str:
    return next(reversed(layers))


def _as_text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _listed(pools: Sequence[int]) -> str:
    return ",".join(map(str, pools))
