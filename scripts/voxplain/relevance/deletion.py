"""What a network says of a scan while parts of it are taken away, or put back."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from voxplain.faults import SetupFault
from voxplain.relevance.inputs import as_input

# Voxels that are sent through the network at once, at least one scan. A CPU works on more of them
# more slowly: at 4 mm a scan takes 8 ms in batches of two and 20 ms in batches of forty.
_VOXELS_A_BATCH = {"cpu": 300_000, "cuda": 35_000_000}


@torch.no_grad()
def delete_and_insert(
    model: nn.Module, scan: Tensor | np.ndarray, target: int, step_of_voxel: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The target's probability after every step of a deletion and of an insertion.

    Petsiuk, Das and Saenko 2018 (RISE, arXiv 1806.07421), section 4.2, over any parts of the scan:
    a deletion sets them to 0, the mean of the training scans, one step after another; an insertion
    puts them back onto a scan that is 0 in all of them, in the same order.

    Parameters
    ----------
    model
        From ``[batch, 1, x, y, z]`` to logits ``[batch, classes]``, in eval mode.
    scan
        ``[x, y, z]``, normalised.
    target
        Index of the class.
    step_of_voxel
        ``[x, y, z]`` integers: the step by which a voxel is changed, from 1; 0 for voxels that
        stay as they are.

    Returns
    -------
    deletion
        ``[steps + 1]`` float64, the probability of the scan as it is first.
    insertion
        ``[steps + 1]`` float64, that of the scan without any of it first.

    Raises
    ------
    SetupFault
        The network has no such class, or :func:`voxplain.relevance.inputs.as_input` refuses it.
    ValueError
        The steps are not on the scan's grid.
    """
    whole = as_input(model, scan)[0, 0]
    if step_of_voxel.shape != tuple(whole.shape):
        raise ValueError(
            f"steps {step_of_voxel.shape} lie not on the scan's grid {tuple(whole.shape)}"
        )
    steps = torch.as_tensor(np.ascontiguousarray(step_of_voxel, np.int16)).to(whole.device)
    last = int(steps.max())
    # The last scan of the deletion is the first of the insertion, and the other way round.
    kept = [steps > at for at in range(last)]
    kept += [(steps <= at) & (steps > 0) for at in range(last)]
    untouched = steps == 0
    device = "cuda" if whole.device.type == "cuda" else "cpu"
    at_once = max(1, _VOXELS_A_BATCH[device] // whole.numel())
    found = []
    for first in range(0, len(kept), at_once):
        batch = torch.stack([whole * (k | untouched) for k in kept[first : first + at_once]])
        probabilities = torch.softmax(model(batch[:, None]).double(), dim=1)
        if not 0 <= target < probabilities.shape[1]:
            raise SetupFault(
                f"the target is class {target}, and the network has "
                f"{probabilities.shape[1]} classes"
            )
        found.append(probabilities[:, target].cpu().numpy())
    both = np.concatenate(found) if found else np.empty(0)
    deletion, insertion = both[:last], both[last:]
    return np.append(deletion, insertion[:1]), np.append(insertion, deletion[:1])
