"""One network of the catalogue, its scan, and what is expected of each method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from voxplain.relevance import METHODS

SHAPE = (9, 10, 8)

# What a method needs: an entry refuses by a need, or by the name of a method.
NEEDS = {
    "sensitivity": ("gradient",),
    "guided_backprop": ("guided", "gradient"),
    "smoothgrad": ("gradient",),
    "integrated_gradients": ("gradient",),
    "cam": ("cam",),
    "grad_cam": ("maps",),
    "grad_cam_pp": ("maps",),
    "guided_grad_cam": ("guided", "maps"),
    "guided_grad_cam_pp": ("guided", "maps"),
    "occlusion": ("occlusion",),
    "voxel_occlusion": ("occlusion",),
    "area_occlusion": ("occlusion",),
    "lrp": ("lrp",),
    "lrp_grad_cam_pp": ("lrp", "maps"),
    "sa_ucm": ("occlusion",),
    "summary": ("gradient", "occlusion"),
}


def head_scan() -> np.ndarray:
    """A scan ``[x, y, z]`` float32: smooth noise, 0 outside a brain."""
    rng = np.random.default_rng(3)
    smooth = ndimage.gaussian_filter(rng.normal(size=SHAPE), 0.7)
    scan = 1.5 * smooth / smooth.std()
    scan[0], scan[:, -1], scan[:, :, :1] = 0, 0, 0
    return scan.astype(np.float32)


@dataclass(frozen=True)
class Entry:
    """A network, and what each method is expected to do with it.

    Attributes
    ----------
    make
        Builds the network; its random weights follow torch's global generator.
    kind
        Section of the catalogue.
    layer, centre, step
        Name of the module whose map the CAM family reads by default; centre of its first voxel's
        receptive field and distance of the next, in voxels of the scan, one number or x, y, z. A
        step of None: the map cannot be followed, and is stretched with a warning.
    refused
        Method or need (:data:`NEEDS`, or ``all``) to a regular expression of the cause that the
        refusal has to name. What is not listed must be right.
    hidden
        Whether there are rectifiers that are no ``nn.ReLU``, so that no guided gradient is right.
    merged
        Pairs of a layer and the batch norm that LRP merges into it; pairs that follow each other
        in an ``nn.Sequential`` need not be named.
    truth
        Builds the same function in a plain form, for the reference; ``make`` if left out.
    scan
        The scan as it is given to ``explain``.
    seed
        Of the weights.
    gives
        ``logits``, ``probabilities`` or ``log-probabilities``.
    tolerance
        Largest error as a part of the map's maximum.
    """

    name: str
    make: Callable[[], nn.Module]
    kind: str
    layer: str | None = None
    centre: Any = 0
    step: Any = 1
    refused: Mapping[str, str] = field(default_factory=dict)
    hidden: bool = False
    merged: tuple[tuple[str, str], ...] = ()
    truth: Callable[[], nn.Module] | None = None
    scan: Callable[[], Any] = head_scan
    seed: int = 0
    gives: str = "logits"
    tolerance: float = 5e-3

    def expected(self, method: str) -> str | None:
        """Regular expression that the refusal must match; None if the map must be right."""
        for key in (method, "all", *NEEDS[method]):
            if key in self.refused:
                return self.refused[key]
        return None

    def network(self) -> nn.Module:
        """The network as a user would bring it."""
        return self._built(self.make)

    def true_network(self) -> nn.Module:
        """The network that the reference computes with."""
        return self._built(self.truth or self.make)

    def _built(self, make: Callable[[], nn.Module]) -> nn.Module:
        torch.manual_seed(self.seed)
        return make().eval()


CATALOGUE: dict[str, Entry] = {}


def network(name: str, kind: str, make: Callable[[], nn.Module], **rest: Any) -> None:
    """Put a network into the catalogue."""
    assert name not in CATALOGUE, name
    unknown = rest.get("refused", {}).keys() - METHODS.keys() - {"all"}
    assert not unknown - {need for needs in NEEDS.values() for need in needs}, unknown
    CATALOGUE[name] = Entry(name, make, kind, **rest)


def as_trained(model: nn.Module) -> nn.Module:
    """The network with norms as after training, and a decided head."""
    for part in model.modules():
        if isinstance(part, _NormBase) and part.running_mean is not None:
            nn.init.normal_(part.running_mean, std=0.2)
            nn.init.uniform_(part.running_var, 0.6, 1.6)
        if isinstance(part, (_NormBase, nn.GroupNorm, nn.LayerNorm)) and part.weight is not None:
            nn.init.uniform_(part.weight, 0.6, 1.4)
            nn.init.normal_(part.bias, std=0.2)
    return model


def settle(model: nn.Module) -> nn.Module:
    """The network with its lazy modules made, and norms as after training."""
    with torch.no_grad():
        model.eval()(torch.zeros(1, 1, *SHAPE))
    return as_trained(model)


def sequence(*layers: nn.Module) -> nn.Sequential:
    """A sequence whose lazy modules are made, with norms as after training."""
    return settle(nn.Sequential(*layers))


def gap(channels: int, classes: int = 3) -> tuple[nn.Module, ...]:
    """Global average pooling and one dense layer."""
    return nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(channels, classes)


def dense(classes: int = 3) -> tuple[nn.Module, ...]:
    """A dense layer of all voxels."""
    return nn.Flatten(), nn.LazyLinear(classes)
