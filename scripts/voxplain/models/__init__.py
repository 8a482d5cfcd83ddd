"""Registry of the networks: their requirements for a grid, and their modules.

Only the standard library is imported here, since the workflow checks the grid while it is parsed;
the module of a network is imported when the network is built.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from voxplain.faults import SetupFault

if TYPE_CHECKING:
    from torch import nn

    from voxplain.models.shapes import Plan


@dataclass(frozen=True)
class Recipe:
    """Training settings of a paper; the loss is cross-entropy in all of them.

    Attributes
    ----------
    optimiser
        A key of :data:`voxplain.training.loop.OPTIMISERS`.
    learning_rate, batch_size, epochs
        Batch size in scans, epochs in passes over the training scans.
    every_class
        Whether every batch holds scans of every class.
    """

    optimiser: str
    learning_rate: float
    batch_size: int
    epochs: int
    every_class: bool


@dataclass(frozen=True)
class Model:
    """A network that can be built by name.

    Attributes
    ----------
    module
        Dotted name of the module whose ``build(plan, n_classes)`` makes it.
    description
        One line, with the paper.
    planner
        Dotted name of the function from a grid's shape and the options to a
        :class:`voxplain.models.shapes.Plan`, in a module without torch. It raises SetupFault if the
        grid is too small.
    recipe
        Training settings of the paper.
    passes
        Cost of a forward pass at 2 mm, relative to that of rieke (``benchmarks/methods.py``).
    layers
        Number of convolutions and dense layers, which are randomised one after another.
    sources
        Papers, by their keys in ``voxplain_workflow/reports/references.bib``.
    """

    module: str
    description: str
    planner: str
    recipe: Recipe
    passes: float
    layers: int
    sources: tuple[str, ...] = ()

    @property
    def plan(self) -> Callable[..., Plan]:
        """The function that ``planner`` names."""
        module, _, name = self.planner.rpartition(".")
        return getattr(importlib.import_module(module), name)

    @property
    def options(self) -> tuple[str, ...]:
        """Names of its options."""
        return tuple(inspect.signature(self.plan).parameters)[1:]


_VOXRESNET_RECIPE = Recipe("sgd", 1e-3, batch_size=3, epochs=150, every_class=True)

MODELS: dict[str, Model] = {
    "rieke": Model(
        "voxplain.models.rieke",
        "four convolutions and three dense layers (Rieke et al. 2018)",
        "voxplain.models.shapes.plan_rieke",
        Recipe("adam", 1e-4, batch_size=5, epochs=20, every_class=False),
        passes=1,
        layers=7,
        sources=("rieke2018",),
    ),
    "voxcnn": Model(
        "voxplain.models.voxcnn",
        "ten convolutions and three dense layers (Korolev et al. 2017, Yang et al. 2018)",
        "voxplain.models.shapes.plan_voxcnn",
        Recipe("adam", 2.7e-5, batch_size=5, epochs=150, every_class=True),
        passes=2,
        layers=13,
        sources=("korolev2017",),
    ),
    "voxresnet": Model(
        "voxplain.models.voxresnet",
        "six residual blocks and two dense layers (Korolev et al. 2017, Yang et al. 2018)",
        "voxplain.models.shapes.plan_voxresnet",
        _VOXRESNET_RECIPE,
        passes=25,
        layers=19,
        sources=("korolev2017",),
    ),
    "voxresnet_gap": Model(
        "voxplain.models.voxresnet",
        "six residual blocks and global average pooling (Yang et al. 2018)",
        "voxplain.models.shapes.plan_voxresnet_gap",
        _VOXRESNET_RECIPE,
        passes=25,
        layers=18,
        sources=("korolev2017", "yang2018"),
    ),
    "voxresnet_shallow_gap": Model(
        "voxplain.models.voxresnet",
        "two residual blocks and global average pooling (Yang et al. 2018)",
        "voxplain.models.shapes.plan_voxresnet_shallow_gap",
        _VOXRESNET_RECIPE,
        passes=22,
        layers=8,
        sources=("korolev2017", "yang2018"),
    ),
}


def find_model(name: str) -> Model:
    """A network by name.

    Raises
    ------
    SetupFault
        There is no network of that name.
    """
    if name not in MODELS:
        raise SetupFault(f"there is no model {name!r}; allowed: {', '.join(MODELS)}")
    return MODELS[name]


def plan_model(name: str, grid_shape: Sequence[int], **options: Any) -> Plan:
    """The plan of a network on a grid: its label, its layers and their shapes.

    Parameters
    ----------
    name
        A key of :data:`MODELS`.
    grid_shape
        Voxels along x, y, z.
    options
        Options of the model, see its plan in :mod:`voxplain.models.shapes`.

    Raises
    ------
    SetupFault
        There is no model of that name, it has no such option, or the grid is too small for it; the
        message names both.
    """
    model = find_model(name)
    unknown = [option for option in options if option not in model.options]
    if unknown:
        known = ", ".join(model.options) or "none"
        raise SetupFault(f"model {name} has no option {unknown[0]!r}; allowed: {known}")
    return model.plan(grid_shape, **options)


def describe_model(name: str, grid_shape: Sequence[int], **options: Any) -> str:
    """The name that tables and figures show, e.g. ``rieke (pools 2,2,2,1)``.

    Raises
    ------
    SetupFault
        As :func:`plan_model`.
    """
    return plan_model(name, grid_shape, **options).label


def build_model(name: str, grid_shape: Sequence[int], n_classes: int, **options: Any) -> nn.Module:
    """Build a network for scans on a grid.

    Parameters
    ----------
    n_classes
        Number of outputs.

    The other parameters are as :func:`plan_model`.

    Returns
    -------
    A network from ``[batch, 1, x, y, z]`` float32 to logits ``[batch, n_classes]``. Every ReLU is a
    separate module, as guided backpropagation needs, and so is every sum of two maps; the attribute
    ``cam_layer`` is the plan's ``last_layer``.

    Raises
    ------
    SetupFault
        As :func:`plan_model`.
    """
    plan = plan_model(name, grid_shape, **options)
    return importlib.import_module(find_model(name).module).build(plan, n_classes)
