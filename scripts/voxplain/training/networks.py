"""A trained network in one file: its weights, and all that it takes to use them on another scan."""

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
from voxplain.training.statistics import VoxelStatistics
from voxplain.volumes import Grid


@dataclass(frozen=True)
class TrainedNetwork:
    """A network as it was trained.

    Attributes
    ----------
    model
        In eval mode, on the device that it was loaded to.
    statistics
        What a scan is normalised by before the network is given it.
    name, label
        Key of :data:`voxplain.models.MODELS`; what tables and figures call it.
    options
        What :func:`voxplain.models.build_model` built it from, beside grid and classes.
    classes
        In the order of the outputs, the disease first.
    last_layer
        Name of the last layer with a picture of the brain.
    told
        Everything else that was stored: training settings, seed, versions, the scans it was trained
        on, and how they were preprocessed.
    """

    model: nn.Module
    statistics: VoxelStatistics
    name: str
    label: str
    options: dict[str, Any]
    classes: list[str]
    last_layer: str
    told: dict[str, Any]


def save_network(
    path: str | Path,
    model: nn.Module,
    name: str,
    options: Mapping[str, Any],
    classes: list[str],
    statistics: VoxelStatistics,
    **told: Any,
) -> None:
    """Write a trained network.

    Parameters
    ----------
    name, options
        What :func:`voxplain.models.build_model` built it from.
    classes
        In the order of its outputs.
    statistics
        Of its training scans.
    told
        Anything that should be known of it: numbers, text, lists and dicts of them.
    """
    places = statistics.brain.places
    torch.save(
        {
            **told,
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
    """Read a network that :func:`save_network` wrote.

    Raises
    ------
    SetupFault
        The file is missing, or no network of voxplain: whatever it holds does not fit together.
    """
    try:
        told = torch.load(path, map_location="cpu", weights_only=True)
        shape, classes = tuple(told.pop("grid_shape")), told.pop("classes")
        name, options = told.pop("model"), told.pop("options")
        affine = tuple(map(tuple, told.pop("affine")))
        inside = np.unpackbits(told.pop("mask").numpy(), count=int(np.prod(shape)))
        values = [told.pop(key).numpy() for key in ("mean", "sd")]
        mask = inside.astype(bool).reshape(shape)
        mean, sd = np.zeros(shape, np.float32), np.ones(shape, np.float32)
        mean[mask], sd[mask] = values
        plan = plan_model(name, shape, **options)
        model = build_model(name, shape, len(classes), **options)
        model.load_state_dict(told.pop("state_dict"))
    except FileNotFoundError:
        raise SetupFault(f"network {path} does not exist") from None
    except Exception as error:  # what torch raises for a file that is none of its own varies
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
        told=told,
    )
