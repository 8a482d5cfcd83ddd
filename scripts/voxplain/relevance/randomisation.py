"""A network whose layers lose what they learned, one after another from the output on."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from voxplain.faults import SetupFault
from voxplain.relevance.inputs import as_input


def layers_of(model: nn.Module, scan: Tensor | np.ndarray) -> list[list[str]]:
    """The layers that hold what a network learned, in the order in which they run on a scan.

    Parameters
    ----------
    model
        From ``[batch, 1, x, y, z]`` to logits, in eval mode.
    scan
        ``[x, y, z]``.

    Returns
    -------
    Names as ``named_modules()`` has them, norms together with the convolution or dense layer before
    them (the one behind them where none is before): each a list, the layer first that gives it its
    name.

    Raises
    ------
    SetupFault
        A module holds parameters or statistics and is not called by the network as a module.
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
    """A copy of a network that forgets, layer by layer, from the output to the input.

    The cascading randomisation of Adebayo et al. 2018 (arXiv 1810.03292), section 3: a heatmap that
    stays the same meanwhile does not show what the network learned.

    Parameters
    ----------
    model
        Trained, in eval mode; it is left as it is.
    untrained
        Of the same architecture, with its first weights and statistics.
    scan
        ``[x, y, z]``, see :func:`layers_of`.

    Yields
    ------
    The name of the layer that was made anew last, and the network, in which all layers behind it
    are new as well. It is one network that goes on changing: use it before the next.

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
    """A module's own parameters and buffers, without those of the modules in it."""
    return {
        **dict(module.named_parameters(recurse=False)),
        **dict(module.named_buffers(recurse=False)),
    }
