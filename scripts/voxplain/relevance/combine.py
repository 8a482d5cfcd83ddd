"""Several heatmaps of one scan as one score per voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

from voxplain.faults import SetupFault
from voxplain.relevance.inputs import as_input

if TYPE_CHECKING:
    import torch
    from torch import nn

NORMALISATIONS = ("sum", "max", "rank")


def combine(
    maps: Sequence[np.ndarray], normalise: str = "sum", mask: np.ndarray | None = None
) -> np.ndarray:
    """Mean of heatmaps, each normalised first, since methods have no common unit.

    Kennedy, Shi and Cha, "Studying the Interpretability of Brain MR Image Deep Learning Modelling",
    combine methods into one score. A map that is 0 everywhere (in the mask) says nothing of where
    and is left out; of nothing but such maps the score is 0.

    Parameters
    ----------
    maps
        At least one, each ``[x, y, z]``, none below 0.
    normalise
        What each map becomes: ``sum``, its share of its sum; ``max``, of its maximum; ``rank``, of
        each voxel the share of the mask's voxels with a lower value, so that extreme values weigh
        no more than others; voxels of one value share the mean of their places, and 0 stays 0.
    mask
        ``[x, y, z]`` bool: the voxels that count; the others are 0. All if left out.

    Returns
    -------
    ``[x, y, z]`` float32, none below 0.

    Raises
    ------
    SetupFault
        There is no map, no such normalisation, or a map or the mask is of another shape than the
        first map; or a map has a value that is below 0 or no finite number.
    """
    _check_normalisation(normalise)
    if not len(maps):
        raise SetupFault("there is no heatmap to combine; give at least one")
    shape = np.shape(maps[0])
    inside = np.ones(shape, bool) if mask is None else np.asarray(mask, bool)
    if inside.shape != shape:
        raise SetupFault(
            f"the mask has shape {inside.shape} and the heatmaps {shape}; all must lie on one grid"
        )
    total, count = np.zeros(np.count_nonzero(inside)), 0
    for number, heatmap in enumerate(maps, start=1):
        if np.shape(heatmap) != shape:
            raise SetupFault(
                f"heatmap {number} of {len(maps)} has shape {np.shape(heatmap)} and the first "
                f"{shape}; all must lie on one grid"
            )
        values = np.asarray(heatmap, np.float64)
        if not np.isfinite(values).all() or values.min(initial=0) < 0:
            raise SetupFault(
                f"heatmap {number} of {len(maps)} has values below 0 or that are no finite "
                "number; relevance is 0 or above"
            )
        values = values[inside]
        if values.any():
            total += _normalised(values, normalise)
            count += 1
    combined = np.zeros(shape, np.float32)
    combined[inside] = total / max(count, 1)
    return combined


def _check_normalisation(normalise: str) -> None:
    if normalise not in NORMALISATIONS:
        raise SetupFault(
            f"there is no normalisation {normalise!r}; allowed: {', '.join(NORMALISATIONS)}"
        )


def _normalised(values: np.ndarray, normalise: str) -> np.ndarray:
    """A map that is not 0 everywhere, ``[voxels]``."""
    if normalise == "sum":
        # By the maximum first: the sum of large values could be beyond any number.
        values = values / values.max()
        return values / values.sum()
    if normalise == "max":
        return values / values.max()
    return np.where(values > 0, (rankdata(values) - 1) / len(values), 0)


def summary(
    model: nn.Module,
    scan: torch.Tensor | np.ndarray,
    target: int,
    methods: Mapping[str, Mapping[str, Any]],
    normalise: str = "sum",
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """The maps of several methods, made by :func:`voxplain.relevance.explain`, combined.

    Parameters
    ----------
    methods
        Name of each method to its options; ``{}`` for none.
    normalise, mask
        As :func:`combine`.

    The other parameters and the return value are as :func:`voxplain.relevance.explain`.

    Raises
    ------
    SetupFault
        No method is named, one does not exist, or it is the summary itself; what
        :func:`combine` refuses.

    Examples
    --------
    >>> import torch
    >>> from voxplain.relevance import explain
    >>> model = torch.nn.Sequential(
    ...     torch.nn.Conv3d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(2)
    ... )
    >>> scan = torch.ones(8, 8, 8)
    >>> _ = model(scan[None, None])
    >>> methods = {"sensitivity": {}, "occlusion": {"size": 3, "stride": 2}}
    >>> explain("summary", model.eval(), scan, target=0, methods=methods).shape
    (8, 8, 8)
    """
    from voxplain.relevance import explain, find_method

    if not methods:
        raise SetupFault("summary has no methods to combine; name at least one")
    if "summary" in methods:
        raise SetupFault("summary cannot be one of the methods that it combines; leave it out")
    _check_normalisation(normalise)
    # Before hours of work: the network and scan must do, and every method exist.
    as_input(model, scan)
    for name in methods:
        find_method(name)
    maps = [explain(name, model, scan, target, **options) for name, options in methods.items()]
    return combine(maps, normalise, mask)
