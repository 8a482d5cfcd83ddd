"""Heatmaps in jobs: the options of a method, completed for a trained network."""

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
    recorded_options
        The options for the sidecar, without masks and labels.
    """

    def __init__(
        self, name: str, network: TrainedNetwork, options: Mapping[str, Any], labels: Sequence[str]
    ) -> None:
        method = find_method(name)
        self._name, self._mask = name, network.statistics.mask
        self.applies = not method.models or network.name in method.models
        completed = dict(options)
        if isinstance(completed.get("layer"), dict):
            completed["layer"] = completed["layer"].get(network.name, "auto")
        if completed.get("layer") == "auto":
            completed["layer"] = network.last_layer
        self.recorded_options = completed
        self._options = dict(self.recorded_options)
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
