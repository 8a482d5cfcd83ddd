"""Heatmaps: the relevance of each voxel of a scan for the output of a network.

``explain(method, model, scan, target)`` works for any PyTorch network of 3D scans, not only for
those of this package. This module imports the standard library only; the module of a method is
imported when the method is used.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from voxplain.faults import ParameterFault, SetupFault

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn


# The module by which every method is called.
EXPLAINING = "voxplain.relevance.door"


@dataclass(frozen=True)
class Method:
    """A method that explains a network.

    Attributes
    ----------
    module
        Dotted name of the module that has a function of the method's name.
    description
        One line.
    explains
        ``probability`` or ``logit`` of the target class, or ``as its methods``.
    options
        Name of each option to its meaning.
    models
        The models of this package that it applies to; empty for all.
    sources
        Papers, by their keys in ``voxplain_workflow/reports/references.bib``.
    passes
        Forward passes through the network that a heatmap of one scan takes
        (``benchmarks/methods.py``); None if the number depends on the occluded regions, or if the
        method does not run a network itself.
    per
        The option by which ``passes`` is multiplied; None for no option.
    """

    module: str
    description: str
    explains: str = "probability"
    options: dict[str, str] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    passes: float | None = None
    per: str | None = None


_PLACEMENT = {
    "placement": "receptive_field puts a voxel of the layer's map where it looks, stretch "
    "stretches the map over the scan",
}
_LAYER = {
    "layer": "name of the module whose output is read; the last feature map if left out",
    **_PLACEMENT,
}
_COMPOSITE = {
    "composite": "rules: epsilon_plus or epsilon_alpha2_beta1 (epsilon for dense layers, "
    "alpha-beta for the others), or epsilon for all",
}
_MEMORY = {"memory_mb": "for batches of occlusions; by the number of threads if left out"}

# A gradient takes a forward pass and a backward one, which is twice as long.
_GRADIENT = 3

METHODS: dict[str, Method] = {
    "sensitivity": Method(
        "voxplain.relevance.gradient",
        "absolute gradient of the probability by each voxel (Simonyan et al. 2014)",
        sources=("simonyan2014",),
        passes=_GRADIENT,
    ),
    "guided_backprop": Method(
        "voxplain.relevance.gradient",
        "the same, negative gradients set to 0 at every ReLU on the way (Springenberg et al. 2015)",
        sources=("springenberg2015",),
        passes=_GRADIENT,
    ),
    "smoothgrad": Method(
        "voxplain.relevance.gradient",
        "absolute mean gradient of the probability over noisy copies (Smilkov et al. 2017)",
        options={
            "samples": "number of noisy copies",
            "noise": "standard deviation of the noise, as part of the scan's range",
            "seed": "of the noise",
            "mask": "[x, y, z] bool; the voxels that get noise",
        },
        sources=("smilkov2017",),
        passes=_GRADIENT,
        per="samples",
    ),
    "integrated_gradients": Method(
        "voxplain.relevance.gradient",
        "absolute value of voxel times mean gradient on the way from 0 (Sundararajan et al. 2017)",
        options={"steps": "number of points on the way"},
        sources=("sundararajan2017",),
        passes=_GRADIENT,
        per="steps",
    ),
    "cam": Method(
        "voxplain.relevance.cam",
        "absolute sum of the feature maps by their weights for the class (Zhou et al. 2016)",
        explains="logit",
        options=_PLACEMENT,
        models=("voxresnet_gap", "voxresnet_shallow_gap"),
        sources=("zhou2016", "yang2018"),
        passes=1,
    ),
    "grad_cam": Method(
        "voxplain.relevance.cam",
        "positive sum of the feature maps by the logit's mean gradients (Selvaraju et al. 2017)",
        explains="logit",
        options=_LAYER,
        sources=("selvaraju2017", "yang2018"),
        passes=1.5,
    ),
    "grad_cam_pp": Method(
        "voxplain.relevance.cam",
        "Grad-CAM++, of positive gradients by their alphas (Chattopadhay et al. 2018)",
        explains="logit",
        options=_LAYER,
        sources=("chattopadhay2018",),
        passes=1.5,
    ),
    "guided_grad_cam": Method(
        "voxplain.relevance.cam",
        "grad_cam times guided backpropagation of the logit (Selvaraju et al. 2017)",
        explains="logit",
        options=_LAYER,
        sources=("selvaraju2017", "springenberg2015"),
        passes=2.5,
    ),
    "guided_grad_cam_pp": Method(
        "voxplain.relevance.cam",
        "grad_cam_pp times guided backpropagation of the logit (Chattopadhay et al. 2018)",
        explains="logit",
        options=_LAYER,
        sources=("chattopadhay2018", "springenberg2015"),
        passes=2.5,
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
        sources=("zeiler2014",),
    ),
    "voxel_occlusion": Method(
        "voxplain.relevance.occlusion",
        "change of the probability when a small cube at the voxel is set to 0 (Yang et al. 2018)",
        options={
            "size": "edge of the cube in voxels",
            "stride": "distance of the cubes in voxels; 1 lays one around every voxel",
            "mask": "[x, y, z] bool; the voxels to do it for",
            **_MEMORY,
        },
        sources=("zeiler2014", "yang2018"),
    ),
    "area_occlusion": Method(
        "voxplain.relevance.occlusion",
        "drop of the probability when the voxel's brain area is set to 0 (Rieke et al. 2018)",
        options={"labels": "[x, y, z] integers, the area of each voxel, 0 for none", **_MEMORY},
        sources=("rieke2018",),
    ),
    "lrp": Method(
        "voxplain.relevance.lrp",
        "the logit handed back layer by layer, what speaks for the class (Bach et al. 2015)",
        explains="logit",
        options=_COMPOSITE,
        sources=("bach2015",),
        passes=5,
    ),
    "lrp_grad_cam_pp": Method(
        "voxplain.relevance.lrp",
        "product of lrp and grad_cam_pp",
        explains="logit",
        options={
            "layer": "as grad_cam_pp",
            "placement": "as grad_cam_pp",
            **_COMPOSITE,
        },
        sources=("bach2015", "chattopadhay2018"),
        passes=6.5,
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
        sources=("yang2018",),
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
        There is no method of that name.
    """
    if name not in METHODS:
        raise SetupFault(f"there is no method {name!r}; allowed: {', '.join(METHODS)}")
    return METHODS[name]


def choose_target(
    target: str,
    classes: Sequence[str],
    true: str,
    probabilities: Sequence[float],
    image: str = "the scan",
) -> int:
    """Index of the class to explain a scan for.

    Parameters
    ----------
    target
        ``disease`` (the first class), ``predicted``, ``true``, or a class by name.
    classes
        In the order of the network's outputs.
    true
        The class of the scan.
    probabilities
        Probabilities of the classes, as the network gives them.
    image
        Name of the scan for the message.

    Raises
    ------
    ParameterFault
        No class has that name.
    SetupFault
        A probability is not finite: a network without a prediction has nothing to explain.
    """
    if not all(map(math.isfinite, probabilities)):
        raise SetupFault(
            f"the network's probabilities of {image} are not finite numbers "
            f"({', '.join(f'{probability:g}' for probability in probabilities)}); the network or "
            "the scan is damaged: train it again, or restore its file"
        )
    if target == "disease":
        return 0
    if target == "predicted":
        return max(range(len(classes)), key=lambda place: probabilities[place])
    name = true if target == "true" else target
    if target == "true" and name not in classes:
        raise ParameterFault(
            "target",
            f"is true, but a scan's class is {true or 'not known'}; allowed here: disease, "
            f"predicted, {', '.join(classes)}",
        )
    if name not in classes:
        raise ParameterFault(
            "target", f"is {name!r}; allowed: disease, predicted, true, {', '.join(classes)}"
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
        to the device and type of its parameters, float32 for those of half precision. Methods that
        explain the probability also take a network that ends in a softmax, a log-softmax, or one
        sigmoid. The first time that a network is explained it is run some ten times more.
    scan
        ``[x, y, z]``, as it is given to the network; finite numbers.
    target
        Index of the class whose probability or logit is explained; ``explains`` of the method says
        which of the two. A network with one output z has two classes: class 1 has the logit z and
        the probability sigmoid(z), class 0 the logit -z and the rest of the probability.
    options
        Options of the method, see :data:`METHODS`.

    Returns
    -------
    ``[x, y, z]`` float32, no value below 0.

    Raises
    ------
    SetupFault
        No method has that name, the network has no such class or cannot be run, a voxel is no
        finite number, or the method would give a wrong result for the network without an error.

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
    function = getattr(importlib.import_module(find_method(method).module), method)
    door = importlib.import_module(EXPLAINING)
    return door.explain_at_door(function, model, scan, target, options)
