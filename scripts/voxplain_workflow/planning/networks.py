"""The networks of a run: their architectures and training recipes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxplain.models import Recipe, plan_model
from voxplain.models.shapes import Plan as Shapes
from voxplain_workflow.naming import naming

_RECIPE = [field.name for field in dataclasses.fields(Recipe)]
# Memory in MB of a training at 1 mm on a CPU, which holds the activations of a whole batch: 1.5
# times the memory of a step at 2 mm, times eight (VoxResNet: 3.4 GB).
_MB_AT_1_MM = {"rieke": 8000, "voxcnn": 16000}
_DEFAULT_MB_AT_1_MM = 40000


@dataclass(frozen=True)
class Network:
    """A network on the grid of a run.

    Attributes
    ----------
    name
        Key in :data:`voxplain.models.MODELS`.
    options
        Options of the architecture.
    recipe
        Settings of the training.
    shapes
        Label of the network, and its layers with the shapes of their outputs.
    """

    name: str
    options: Mapping[str, Any]
    recipe: Mapping[str, Any]
    shapes: Shapes

    @property
    def label(self) -> str:
        """Name of the network in tables and figures."""
        return self.shapes.label

    @property
    def mb_at_1_mm(self) -> int:
        """Memory in MB of a training at 1 mm on a CPU."""
        return _MB_AT_1_MM.get(self.name, _DEFAULT_MB_AT_1_MM)


def plan_networks(
    models: Mapping[str, Mapping[str, Any]], grid_shape: Sequence[int]
) -> dict[str, Network]:
    """Name to network, for the section ``models``.

    Parameters
    ----------
    grid_shape
        Voxels along x, y, z of the template's grid.

    Raises
    ------
    SetupFault
        An option is wrong.
    ParameterFault
        The grid is too small for a network.
    """
    networks = {}
    for name, settings in models.items():
        options = {key: value for key, value in sorted(settings.items()) if key not in _RECIPE}
        recipe = {key: settings[key] for key in _RECIPE}
        keys = {option: f"models.{name}.{option}" for option in options}
        with naming(keys, {"grid_shape": "a smaller resolution_mm makes the grid finer"}):
            shapes = plan_model(name, grid_shape, **options)
        networks[name] = Network(name, options, recipe, shapes)
    return networks
