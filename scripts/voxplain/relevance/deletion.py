"""Output of a network while parts of a scan are deleted or inserted."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from voxplain.faults import SetupFault
from voxplain.relevance.behaviour import check_target, observe
from voxplain.relevance.inputs import as_input, probabilities

# Voxels in one batch; a batch has at least one scan. Larger batches are slower on a CPU: at 4 mm a
# scan takes 8 ms in batches of two and 20 ms in batches of forty.
_VOXELS_A_BATCH = {"cpu": 300_000, "cuda": 35_000_000}


@torch.no_grad()
def delete_and_insert(
    model: nn.Module, scan: Tensor | np.ndarray, target: int, step_of_voxel: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Probability of the target after each step of a deletion and of an insertion.

    Petsiuk, Das and Saenko 2018 (RISE, arXiv 1806.07421), section 4.2, for any parts of the scan.
    A deletion sets the parts to 0, the mean of the training scans, step by step. An insertion
    starts with 0 in all parts and restores them in the same order.

    Parameters
    ----------
    model
        From ``[batch, 1, x, y, z]`` to logits ``[batch, classes]``, in eval mode.
    scan
        ``[x, y, z]``, normalised.
    target
        Index of the class.
    step_of_voxel
        ``[x, y, z]`` integers: the step at which a voxel is changed, from 1; 0 for voxels that do
        not change.

    Returns
    -------
    deletion
        ``[steps + 1]`` float64, starting with the unchanged scan.
    insertion
        ``[steps + 1]`` float64, starting with the scan without all parts.

    Raises
    ------
    SetupFault
        The network has no such class or gives a probability that is not finite, or
        :func:`voxplain.relevance.behaviour.observe` or :func:`voxplain.relevance.inputs.as_input`
        raises it.
    ValueError
        The steps are not on the scan's grid.
    """
    batch = as_input(model, scan)
    observe(model, batch, target)
    whole = batch[0, 0]
    if step_of_voxel.shape != tuple(whole.shape):
        raise ValueError(
            f"steps {step_of_voxel.shape} lie not on the scan's grid {tuple(whole.shape)}"
        )
    steps = torch.as_tensor(np.ascontiguousarray(step_of_voxel, np.int16)).to(whole.device)
    last = int(steps.max())
    # The last scan of the deletion is the first of the insertion, and vice versa.
    masks = [steps > at for at in range(last)]
    masks += [(steps <= at) & (steps > 0) for at in range(last)]
    untouched = steps == 0
    device = "cuda" if whole.device.type == "cuda" else "cpu"
    at_once = max(1, _VOXELS_A_BATCH[device] // whole.numel())
    batches = []
    for first in range(0, len(masks), at_once):
        batch = torch.stack([whole * (mask | untouched) for mask in masks[first : first + at_once]])
        outputs = model(batch[:, None])
        check_target(outputs[:1], target)
        batches.append(probabilities(model, outputs)[:, target].cpu().numpy())
    both = np.concatenate(batches) if batches else np.empty(0)
    if not np.isfinite(both).all():
        raise SetupFault(
            "the network gives probabilities that are not finite numbers while areas of the scan "
            "are 0; the network or the scan is damaged: train it again, or restore its file"
        )
    deletion, insertion = both[:last], both[last:]
    return np.append(deletion, insertion[:1]), np.append(insertion, deletion[:1])
