"""Combination of several heatmaps of one scan into one."""

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
    """Mean of heatmaps, each normalised first since methods have no common unit.

    Kennedy, Shi and Cha, "Studying the Interpretability of Brain MR Image Deep Learning Modelling",
    combine methods into one score. A map that is 0 everywhere (in the mask) has no information
    about location and is left out. If all maps are 0, the result is 0.

    Parameters
    ----------
    maps
        At least one, each ``[x, y, z]``, no value below 0.
    normalise
        ``sum`` divides a map by its sum, ``max`` by its maximum. ``rank`` replaces each voxel by
        the share of the mask's voxels with a lower value, so extreme values do not dominate; voxels
        with equal values share their mean rank, and 0 stays 0.
    mask
        ``[x, y, z]`` bool: the voxels that count; the result is 0 outside. Default: all voxels.

    Returns
    -------
    ``[x, y, z]`` float32, no value below 0.

    Raises
    ------
    SetupFault
        There is no map or no such normalisation, a map or the mask differs in shape from the first
        map, or a map has a value that is negative or not finite.
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
    """Normalised values ``[voxels]`` of a map that is not 0 everywhere."""
    if normalise == "sum":
        # By the maximum first: the sum of large values could overflow.
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
    """Combined heatmap of several methods, each from :func:`voxplain.relevance.explain`.

    Parameters
    ----------
    methods
        Name of each method to its options; ``{}`` for no options.
    normalise, mask
        As :func:`combine`.

    The other parameters and the return value are as :func:`voxplain.relevance.explain`.

    Raises
    ------
    SetupFault
        ``methods`` is empty, a method does not exist or is the summary itself, or :func:`combine`
        raises it.

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
    # Check the network, the scan and all methods before hours of work.
    as_input(model, scan)
    for name in methods:
        find_method(name)
    maps = [explain(name, model, scan, target, **options) for name, options in methods.items()]
    return combine(maps, normalise, mask)
