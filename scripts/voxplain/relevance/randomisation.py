"""Cascading randomisation: layers lose their trained weights, starting at the output."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from voxplain.faults import SetupFault
from voxplain.relevance.inputs import as_input


def layers_of(model: nn.Module, scan: Tensor | np.ndarray) -> list[list[str]]:
    """Layers with trained weights, in the order in which they run on a scan.

    Parameters
    ----------
    model
        From ``[batch, 1, x, y, z]`` to logits, in eval mode.
    scan
        ``[x, y, z]``.

    Returns
    -------
    Lists of names as in ``named_modules()``. Each list holds a convolution or dense layer first,
    which gives it its name, then the norms after it. Norms before the first layer are added to that
    layer.

    Raises
    ------
    SetupFault
        A module has parameters or statistics and is not called by the network as a module.
    """
    names = {module: name for name, module in model.named_modules()}
    called: list[nn.Module] = []

    def note(module: nn.Module, inputs: object, output: object) -> None:
        if module not in called:
            called.append(module)

    learned = [module for module in names if _state_of(module)]
    handles = [module.register_forward_hook(note) for module in learned]
    try:
        with torch.no_grad():
            model(as_input(model, scan))
    finally:
        for handle in handles:
            handle.remove()
    missed = [names[module] for module in learned if module not in called]
    if missed:
        raise SetupFault(
            f"the layer {missed[0]!r} has weights, and the network does not call it as a module: "
            "they would stay as they were trained"
        )
    blocks: list[list[str]] = []
    waiting: list[str] = []
    for module in called:
        is_norm = all(value.ndim <= 1 for value in _state_of(module).values())
        if not is_norm:
            blocks.append([names[module], *waiting])
            waiting = []
        elif blocks:
            blocks[-1].append(names[module])
        else:
            waiting.append(names[module])
    return blocks or [waiting]


def randomise_layers(
    model: nn.Module, untrained: nn.Module, scan: Tensor | np.ndarray
) -> Iterator[tuple[str, nn.Module]]:
    """Copies of a network in which layers are randomised one by one, from output to input.

    The cascading randomisation of Adebayo et al. 2018 (arXiv 1810.03292), section 3: a heatmap that
    does not change meanwhile does not show what the network learned.

    Parameters
    ----------
    model
        The trained network, in eval mode; it is not changed.
    untrained
        A network of the same architecture with its initial weights and statistics.
    scan
        ``[x, y, z]``, see :func:`layers_of`.

    Yields
    ------
    Name of the layer that was randomised last, and the network, in which all later layers are
    randomised as well. The same network is changed in each step: use it before the next step.

    Raises
    ------
    SetupFault
        As :func:`layers_of`.
    """
    forgetting = copy.deepcopy(model)
    for block in reversed(layers_of(model, scan)):
        for name in block:
            first = _state_of(untrained.get_submodule(name))
            with torch.no_grad():
                for key, value in _state_of(forgetting.get_submodule(name)).items():
                    value.copy_(first[key])
        yield block[0], forgetting


def _state_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of a module, without those of its submodules."""
    return {
        **dict(module.named_parameters(recurse=False)),
        **dict(module.named_buffers(recurse=False)),
    }
