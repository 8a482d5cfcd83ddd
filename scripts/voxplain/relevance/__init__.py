"""Heatmaps: how much each voxel of a scan matters for what a network says of it.

``explain(method, model, scan, target)`` serves any PyTorch network of 3D scans, not only ours. Only
the standard library is imported here; a method's own module is loaded when it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from voxplain.faults import SetupFault

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn


@dataclass(frozen=True)
class Method:
    """A way to explain a network.

    Attributes
    ----------
    module
        Dotted name of the module that has a function of the method's name.
    description
        One line.
    explains
        ``probability`` or ``logit`` of the target class, or ``as its methods``.
    options
        Name to what it means.
    """

    module: str
    description: str
    explains: str = "probability"
    options: dict[str, str] = field(default_factory=dict)


_MEMORY = {"memory_mb": "for batches of occlusions; by the number of threads if left out"}

METHODS: dict[str, Method] = {
    "sensitivity": Method(
        "voxplain.relevance.gradient",
        "absolute gradient of the probability by each voxel (Simonyan et al. 2014)",
    ),
    "guided_backprop": Method(
        "voxplain.relevance.gradient",
        "the same, negative gradients set to 0 at every ReLU on the way (Springenberg et al. 2015)",
    ),
    "occlusion": Method(
        "voxplain.relevance.occlusion",
        "drop of the probability when a cube around the voxel is set to 0 (Zeiler and Fergus 2014)",
        options={
            "size": "edge of the cube in voxels",
            "stride": "distance of the cubes' centres in voxels",
            "spread": "nearest gives a voxel the drop of the nearest cube, average the mean over "
            "all cubes that cover it",
            "mask": "[x, y, z] bool; a cube that covers none of it is not tried",
            **_MEMORY,
        },
    ),
    "voxel_occlusion": Method(
        "voxplain.relevance.occlusion",
        "change of the probability when a small cube at the voxel is set to 0 (Yang et al. 2018)",
        options={
            "size": "edge of the cube in voxels",
            "mask": "[x, y, z] bool; the voxels to do it for",
            **_MEMORY,
        },
    ),
    "area_occlusion": Method(
        "voxplain.relevance.occlusion",
        "drop of the probability when the voxel's brain area is set to 0 (Rieke et al. 2018)",
        options={"labels": "[x, y, z] integers, the area of each voxel, 0 for none", **_MEMORY},
    ),
    "lrp": Method(
        "voxplain.relevance.lrp",
        "the logit handed back layer by layer, what speaks for the class (Bach et al. 2015)",
        explains="logit",
        options={
            "composite": "rules: epsilon_plus or epsilon_alpha2_beta1 (epsilon for dense layers, "
            "alpha-beta for the others), or epsilon for all"
        },
    ),
    "lrp_grad_cam_pp": Method(
        "voxplain.relevance.lrp",
        "product of lrp and grad_cam_pp",
        explains="logit",
        options={
            "layer": "as grad_cam_pp",
            "placement": "as grad_cam_pp",
        },
    ),
    "sa_ucm": Method(
        "voxplain.relevance.supervoxels",
        "change of the probability when the voxel's segment is set to 0, mean over a hierarchy of "
        "segmentations of the scan (Yang et al. 2018; the boundary detector differs)",
        options={
            "levels": "of the hierarchy, at most",
            "most_segments": "of its finest level",
            "mask": "[x, y, z] bool, what to divide; where the scan is not 0 if left out",
            **_MEMORY,
        },
    ),
    "summary": Method(
        "voxplain.relevance.combine",
        "mean of other methods' maps, each normalised first",
        explains="as its methods",
        options={
            "methods": "name of each method to its options",
            "normalise": "each map by its sum, its max, or to its rank",
            "mask": "[x, y, z] bool; the voxels that count",
        },
    ),
}


def find_method(name: str) -> Method:
    """A method by name.

    Raises
    ------
    SetupFault
        There is none of that name.
    """
    if name not in METHODS:
        raise SetupFault(f"there is no method {name!r}; allowed: {', '.join(METHODS)}")
    return METHODS[name]


def choose_target(
    wanted: str, classes: Sequence[str], true: str, probabilities: Sequence[float]
) -> int:
    """Index of the class to explain a scan for.

    Parameters
    ----------
    wanted
        ``disease`` (the first class), ``predicted``, ``true``, or a class by name.
    classes
        In the order of the network's outputs.
    true
        The scan's own class.
    probabilities
        Of the classes, as the network gives them.

    Raises
    ------
    SetupFault
        No class has that name.
    """
    if wanted == "disease":
        return 0
    if wanted == "predicted":
        return max(range(len(classes)), key=lambda place: probabilities[place])
    name = true if wanted == "true" else wanted
    if name not in classes:
        raise SetupFault(
            f"heatmaps.target is {name!r}; allowed: disease, predicted, true, {', '.join(classes)}"
        )
    return list(classes).index(name)


def explain(
    method: str, model: nn.Module, scan: torch.Tensor | np.ndarray, target: int, **options: Any
) -> np.ndarray:
    """Heatmap of one scan.

    Parameters
    ----------
    method
        A key of :data:`METHODS`.
    model
        From ``[batch, 1, x, y, z]`` to logits ``[batch, classes]``, in eval mode; the scan is taken
        to the device and type of its parameters.
    scan
        ``[x, y, z]``, as the network is given it.
    target
        Index of the class whose probability is explained.
    options
        The method's own, see :data:`METHODS`.

    Returns
    -------
    ``[x, y, z]`` float32, none below 0.

    Raises
    ------
    SetupFault
        No method has that name, or the network is such that the method would be silently wrong.

    Examples
    --------
    >>> import torch
    >>> from voxplain.relevance import explain
    >>> model = torch.nn.Sequential(
    ...     torch.nn.Conv3d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(2)
    ... )
    >>> scan = torch.zeros(8, 8, 8)
    >>> _ = model(scan[None, None])
    >>> explain("sensitivity", model.eval(), scan, target=0).shape
    (8, 8, 8)
    """
    module = importlib.import_module(find_method(method).module)
    return getattr(module, method)(model, scan, target, **options)
