"""The networks, by name: what each needs of a grid, and the network itself.

Only the standard library is imported here, since the workflow asks while it is parsed whether a
grid fits; a network's own module is loaded when it is built.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from voxplain.faults import SetupFault
from voxplain.models.shapes import plan_rieke

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Model:
    """A network that can be built by name.

    Attributes
    ----------
    module
        Dotted name of the module whose ``build(plan, n_classes)`` makes it.
    description
        One line, with the paper.
    plan
        From a grid's shape and the options to all that depends on them; raises SetupFault where the
        grid is too small. The plan has a ``label``, the name that tables and figures show.
    """

    module: str
    description: str
    plan: Callable[..., Any]


MODELS: dict[str, Model] = {
    "rieke": Model(
        "voxplain.models.rieke",
        "four convolutions and three dense layers (Rieke et al. 2018)",
        plan_rieke,
    ),
}


def find_model(name: str) -> Model:
    """A network by name.

    Raises
    ------
    SetupFault
        There is none of that name.
    """
    if name not in MODELS:
        raise SetupFault(f"there is no model {name!r}; allowed: {', '.join(MODELS)}")
    return MODELS[name]


def describe_model(name: str, grid_shape: Sequence[int], **options: Any) -> str:
    """The name that tables and figures show, e.g. ``rieke (pools 2,2,2,1)``.

    Raises
    ------
    SetupFault
        As :func:`build_model`.
    """
    return find_model(name).plan(grid_shape, **options).label


def build_model(name: str, grid_shape: Sequence[int], n_classes: int, **options: Any) -> nn.Module:
    """Build a network for scans on a grid.

    Parameters
    ----------
    name
        A key of :data:`MODELS`.
    grid_shape
        Voxels along x, y, z.
    n_classes
        Number of outputs.
    options
        The model's own, see its module.

    Returns
    -------
    A network from ``[batch, 1, x, y, z]`` float32 to logits ``[batch, n_classes]``. Every ReLU is a
    module of its own, as guided backpropagation needs.

    Raises
    ------
    SetupFault
        No model has that name, or the grid is too small for it; the message names both.
    """
    model = find_model(name)
    plan = model.plan(grid_shape, **options)
    return importlib.import_module(model.module).build(plan, n_classes)
