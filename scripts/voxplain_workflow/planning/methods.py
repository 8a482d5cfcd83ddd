"""The explanation methods of a run, the networks to which they apply, and their options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from voxplain.relevance import METHODS
from voxplain_workflow.planning.settings import sort_keys

SUMMARY = "summary"
# Methods that need a network; the summary combines their heatmaps.
EXPLAINING = tuple(name for name in METHODS if name != SUMMARY)


class Methods:
    """The configured methods.

    Parameters
    ----------
    settings
        Completed settings of the whole run.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings

    def of(self, model: str | None = None) -> list[str]:
        """Names of the methods that apply to a network; of all methods if it is unknown.

        The summary is dropped if no other method applies.
        """
        applies = {name: METHODS[name].models for name in self._settings["heatmaps"]["methods"]}
        names = [
            name
            for name, models in applies.items()
            if model is None or not models or model in models
        ]
        return names if self._summarised(names) else [name for name in names if name != SUMMARY]

    def summarised(self, model: str | None = None) -> list[str]:
        """Names of the methods that the summary combines."""
        return self._summarised(self.of(model))

    def _summarised(self, methods: Sequence[str]) -> list[str]:
        chosen = self._settings["summary"]["methods"]
        return [n for n in methods if n != SUMMARY and (chosen == "all" or n in chosen)]

    def randomised(self, model: str) -> list[str]:
        """Names of the methods that explain the network while its layers are randomised."""
        chosen = self._settings["faithfulness"]["randomise"]
        explaining = [name for name in self.of(model) if name != SUMMARY]
        return [name for name in explaining if chosen == "all" or name in chosen]

    def layer_of(self, model: str) -> str:
        """Name of the network layer that CAM methods use, or ``auto``."""
        layer = self._settings["cam"]["layer"]
        return layer.get(model, "auto") if isinstance(layer, Mapping) else layer

    def options(self, method: str, model: str | None = None) -> dict[str, Any]:
        """Keyword arguments of :func:`voxplain.relevance.explain`, without masks and labels.

        Parameters
        ----------
        model
            None if only the job knows the network.
        """
        if method == "occlusion":
            cube = self._settings["occlusion"]
            size, stride = (self._in_voxels(cube[key]) for key in ("size_mm", "stride_mm"))
            return {"size": size, "spread": cube["spread"], "stride": stride}
        if method == "voxel_occlusion":
            cube = self._settings["voxel_occlusion"]
            return {"size": cube["size_voxels"], "stride": cube["stride_voxels"]}
        # (The section `cam` is shared by several methods.)
        options = dict(self._settings.get(method, {})) if method != "cam" else {}
        known = METHODS[method].options
        if "composite" in known:
            options["composite"] = self._settings["lrp"]["composite"]
        if "placement" in known:
            options["placement"] = self._settings["cam"]["placement"]
        # The name of a layer is checked and completed once the network is known.
        if "layer" in known:
            named = self._settings["cam"]["layer"] if model is None else self.layer_of(model)
            options["layer"] = named
        return sort_keys(options)

    def _in_voxels(self, edge_mm: float) -> int:
        """A length in voxels of the template, which are cubes; at least one."""
        return max(1, round(edge_mm / self._settings["resolution_mm"]))
