"""A trained network in one file: its weights, and everything needed to apply it to other scans."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from voxplain.faults import SetupFault
from voxplain.models import build_model, plan_model
from voxplain.training.checkpoints import save_whole
from voxplain.training.statistics import VoxelStatistics
from voxplain.volumes import Grid


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


def load_network(path: str | Path, device: torch.device | str = "cpu") -> TrainedNetwork:
    """A network from a file of :func:`save_network`.

    Raises
    ------
    SetupFault
        The file is missing, or is not a network of voxplain, or its contents are inconsistent.
    """
    try:
        metadata = torch.load(path, map_location="cpu", weights_only=True)
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
    except FileNotFoundError:
        raise SetupFault(f"network {path} does not exist") from None
    except Exception as error:  # torch raises various exceptions for other files
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
        raise SetupFault(
            f"{path} is no network that voxplain trained ({reason}); give the file model.pt of a "
            "run"
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
