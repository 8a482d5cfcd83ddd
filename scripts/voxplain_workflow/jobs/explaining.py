"""How jobs ask for a heatmap: a method's options, completed where the network is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from voxplain.relevance import explain, find_method
from voxplain.training.networks import TrainedNetwork
from voxplain.volumes import read_array


class Explainer:
    """One method on one trained network.

    Attributes
    ----------
    applies
        Whether the method applies to the network.
    told
        The options as a sidecar tells them, without masks and labels.
    """

    def __init__(
        self, name: str, network: TrainedNetwork, options: Mapping[str, Any], labels: Sequence[str]
    ) -> None:
        method = find_method(name)
        self._name, self._mask = name, network.statistics.mask
        self.applies = not method.models or network.name in method.models
        self.told = dict(options)
        if isinstance(self.told.get("layer"), dict):
            self.told["layer"] = self.told["layer"].get(network.name, "auto")
        if self.told.get("layer") == "auto":
            self.told["layer"] = network.last_layer
        self._options = dict(self.told)
        if "mask" in method.options:
            self._options["mask"] = self._mask
        if "labels" in method.options:
            self._options["labels"] = read_array(labels[0], np.uint8)[0]

    def explain(self, model: nn.Module, scan: np.ndarray, target: int) -> np.ndarray:
        """Heatmap ``[x, y, z]`` of a scan by the network, or by one of its architecture.

        Outside the brain the network is given constants, which no voxel of the scan can change.
        """
        heatmap = explain(self._name, model, scan, target, **self._options)
        return np.where(self._mask, heatmap, 0)
