"""The networks of a run: how each is built and trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxplain.models import Recipe, plan_model
from voxplain.models.shapes import Plan as Shapes
from voxplain_workflow.naming import naming

_RECIPE = [field.name for field in dataclasses.fields(Recipe)]
# Memory in MB of a training at 1 mm on a CPU, which holds a whole batch of activations: one half
# more than what a step takes at 2 mm, times eight (VoxResNet: 3.4 GB).
_MB_AT_1_MM = {"rieke": 8000, "voxcnn": 16000}
_MB_OF_OTHERS = 40000


@dataclass(frozen=True)
class Network:
    """A network on the grid of a run.

    Attributes
    ----------
    name
        Its key of :data:`voxplain.models.MODELS`.
    options
        Of its architecture.
    recipe
        How it is trained.
    shapes
        Its label, and its layers with the shape of their outputs.
    """

    name: str
    options: Mapping[str, Any]
    recipe: Mapping[str, Any]
    shapes: Shapes

    @property
    def label(self) -> str:
        """What tables and figures call it."""
        return self.shapes.label

    @property
    def mb_at_1_mm(self) -> int:
        """Memory in MB of its training at 1 mm on a CPU."""
        return _MB_AT_1_MM.get(self.name, _MB_OF_OTHERS)


def plan_networks(
    models: Mapping[str, Mapping[str, Any]], grid_shape: Sequence[int]
) -> dict[str, Network]:
    """Name to network, of the section ``models``.

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
