"""A trained network in one file: its weights, and everything needed to apply it to other scans."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import nn

from voxplain.faults import SetupFault
from voxplain.models import build_model, plan_model
from voxplain.training.checkpoints import load_whole, save_whole
from voxplain.training.statistics import VoxelStatistics
from voxplain.volumes import Grid

# Fields that every file has, and the type of each.
_FIELDS = {
    "state_dict": dict,
    "model": str,
    "options": dict,
    "classes": list,
    "grid_shape": list,
    "affine": list,
    "mask": torch.Tensor,
    "mean": torch.Tensor,
    "sd": torch.Tensor,
}
# Metadata that the workflow stores, without which a network is not applied to other scans.
TO_APPLY = {"preprocessing": dict, "skull_tool": str, "trained_on_patients": list}


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network with its metadata.

    Attributes
    ----------
    model
        The network in eval mode, on the device that it was loaded to.
    statistics
        Mean and SD to normalise a scan before it is given to the network.
    name, label
        Key of :data:`voxplain.models.MODELS`; name in tables and figures.
    options
        Options of :func:`voxplain.models.build_model`, besides grid and classes.
    classes
        Classes in the order of the outputs, the disease first.
    last_layer
        Name of the last layer whose output is a spatial map.
    metadata
        All other stored values: training settings, seed, versions, the scans it was trained on, and
        how they were preprocessed.
    """

    model: nn.Module
    statistics: VoxelStatistics
    name: str
    label: str
    options: dict[str, Any]
    classes: list[str]
    last_layer: str
    metadata: dict[str, Any]


def save_network(
    path: str | Path,
    model: nn.Module,
    name: str,
    options: Mapping[str, Any],
    classes: list[str],
    statistics: VoxelStatistics,
    **metadata: Any,
) -> None:
    """Write a trained network; the file is whole or absent, also after a power cut.

    Parameters
    ----------
    name, options
        Name and options of :func:`voxplain.models.build_model`.
    classes
        Classes in the order of its outputs.
    statistics
        Statistics of its training scans.
    metadata
        Further values to store, by key: numbers, text, lists and dicts of them.
    """
    places = statistics.brain.places
    save_whole(
        {
            **metadata,
            "state_dict": {key: value.cpu() for key, value in model.state_dict().items()},
            "model": name,
            "options": dict(options),
            "classes": list(classes),
            "grid_shape": list(statistics.grid.shape),
            "affine": [list(map(float, row)) for row in statistics.grid.affine],
            "mask": torch.from_numpy(np.packbits(statistics.mask)),
            "mean": torch.from_numpy(statistics.mean.reshape(-1)[places]),
            "sd": torch.from_numpy(statistics.sd.reshape(-1)[places]),
        },
        path,
    )


def load_network(
    path: str | Path,
    device: torch.device | str = "cpu",
    needed: Mapping[str, type] = MappingProxyType({}),
) -> TrainedNetwork:
    """A network from a file of :func:`save_network`.

    The file is read against the checksums that it carries, which torch ignores.

    Parameters
    ----------
    needed
        Metadata that the file must have, with the type of each, such as :data:`TO_APPLY`.

    Raises
    ------
    SetupFault
        The file is missing, damaged, or is not a network of voxplain, lacks a field, its contents
        are inconsistent, or a weight or statistic is not a finite number.
    """
    if not Path(path).is_file():
        raise SetupFault(f"network {path} does not exist")
    try:
        metadata = load_whole(path)
        _check_fields(metadata, needed)
        shape, classes = tuple(metadata.pop("grid_shape")), metadata.pop("classes")
        name, options = metadata.pop("model"), metadata.pop("options")
        affine = tuple(map(tuple, metadata.pop("affine")))
        inside = np.unpackbits(metadata.pop("mask").numpy(), count=int(np.prod(shape)))
        values = [metadata.pop(key).numpy() for key in ("mean", "sd")]
        mask = inside.astype(bool).reshape(shape)
        mean, sd = np.zeros(shape, np.float32), np.ones(shape, np.float32)
        mean[mask], sd[mask] = values
        plan = plan_model(name, shape, **options)
        model = build_model(name, shape, len(classes), **options)
        model.load_state_dict(metadata.pop("state_dict"))
        _check_numbers(model, mean, sd, affine)
    except Exception as error:  # torch raises various exceptions for other files
        known = isinstance(error, SetupFault)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        reason = textwrap.shorten(text, 200, placeholder=" ...")
        raise SetupFault(
            f"network {path} cannot be used: {reason}; give the file model.pt of a run, or train "
            "it again"
        ) from error
    return TrainedNetwork(
        model=model.to(device).eval(),
        statistics=VoxelStatistics(mean, sd, mask, Grid(shape, affine)),
        name=name,
        label=plan.label,
        options=options,
        classes=classes,
        last_layer=plan.last_layer,
        metadata=metadata,
    )


def _check_fields(stored: Any, needed: Mapping[str, type]) -> None:
    """Refuse a file without a field, or with one of another type."""
    if not isinstance(stored, dict):
        raise SetupFault(f"it holds a {type(stored).__name__}, expected named fields")
    kinds = {**_FIELDS, **needed}
    missing = [key for key in kinds if key not in stored]
    if missing:
        raise SetupFault(f"it has no field {', '.join(missing)}")
    for key, kind in kinds.items():
        if not isinstance(stored[key], kind):
            found = type(stored[key]).__name__
            raise SetupFault(f"its field {key} is a {found}, expected a {kind.__name__}")
    classes = stored["classes"]
    if len(classes) < 2 or len(set(map(str, classes))) < len(classes):
        raise SetupFault(f"its classes are {classes}, expected two or more different ones")


def _check_numbers(
    model: nn.Module, mean: np.ndarray, sd: np.ndarray, affine: tuple[tuple[float, ...], ...]
) -> None:
    """Refuse weights and statistics with which no scan has a finite result."""
    for key, value in model.state_dict().items():
        if not torch.isfinite(value).all():
            raise SetupFault(f"weights {key} have values that are not finite numbers")
        if key.endswith("running_var") and (value < 0).any():
            raise SetupFault(f"weights {key}, a variance, have values below 0")
    if not np.isfinite(mean).all():
        raise SetupFault("the mean of its training scans has values that are not finite numbers")
    # An SD is at least a floor above 0, see `voxplain.training.statistics.fit_statistics`.
    if not (np.isfinite(sd) & (sd > 0)).all():
        raise SetupFault("the SD of its training scans has values that are 0, below 0 or no number")
    if np.shape(affine) != (4, 4) or not all(math.isfinite(v) for row in affine for v in row):
        raise SetupFault("its affine is not a matrix of 4x4 finite numbers")
