"""Each method once more, in float64, by the plainest means: what the cells are compared with.

Nothing of `voxplain.relevance` is used, except the segments of `sa_ucm`. Gradients are torch's, and
are tried by finite differences; occlusions are one forward pass each; receptive fields are those
that the catalogue states.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from catalogue.entries import SHAPE, Entry, head_scan
from catalogue.lrp_reference import relevance_of
from voxplain.relevance.supervoxels import segment

OCCLUSION = {"size": 5, "stride": 4}
VOXELS = {"size": 3, "stride": 4}
SEGMENTS = {"levels": 2, "most_segments": 5}
NOISE = {"samples": 2, "noise": 0.1, "seed": 5}
STEPS = 3
LABELS = np.where(
    head_scan() != 0, 1 + np.indices(SHAPE)[0] // 5 + 2 * (np.indices(SHAPE)[1] // 4), 0
)
OPTIONS: dict[str, dict[str, Any]] = {
    "occlusion": OCCLUSION,
    "voxel_occlusion": VOXELS,
    "area_occlusion": {"labels": LABELS},
    "sa_ucm": SEGMENTS,
    "smoothgrad": NOISE,
    "integrated_gradients": {"steps": STEPS},
    "summary": {"methods": {"sensitivity": {}, "occlusion": OCCLUSION}},
}
# Of finite differences, in float64.
_STEP = 1e-7
# Least drop of a probability that is compared.
_VISIBLE = 1e-5


class NoReferenceError(Exception):
    """No map would be right: the method cannot explain this network."""


def _once(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that is computed once for the same arguments."""

    @functools.wraps(method)
    def remembered(self: Reference, *args: Any, **kwargs: Any) -> Any:
        key = (method.__name__, *args, *kwargs.items())
        if key not in self._made:
            self._made[key] = method(self, *args, **kwargs)
        return self._made[key]

    return remembered


class Reference:
    """The right maps of a network."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        scan = entry.scan()
        values = scan.detach().cpu().float().numpy() if isinstance(scan, Tensor) else scan
        self.scan = torch.from_numpy(np.array(values, np.float64))
        self.model = entry.true_network().double()
        self._made: dict[Any, Any] = {}
        if not torch.equal(self._outputs(self.scan), self._outputs(self.scan)):
            raise NoReferenceError("the network is random")

    def _outputs(self, scan: Tensor, model: nn.Module | None = None) -> Tensor:
        return (model or self.model)(scan.clone()[None, None])

    @functools.cached_property
    def target(self) -> int:
        """The likeliest class for which some cube and some area speaks, and its Grad-CAM too."""
        probabilities = self._probabilities(self.scan)
        if probabilities.ndim != 1:
            return 0
        for target in probabilities.argsort(descending=True).tolist():
            drops = self._of_areas()[..., target], self._of_cubes(**OCCLUSION)[..., target]
            if all(each.max() > _VISIBLE for each in drops) and self._has_grad_cam(target):
                return target
        raise AssertionError(f"{self.entry.name}: no class has maps; choose another seed")

    def _has_grad_cam(self, target: int) -> bool:
        if self.entry.layer is None or self.entry.expected("grad_cam") is not None:
            return True
        features, slopes, _ = self._at_layer(target)
        weights = slopes.mean((1, 2, 3)), slopes.clamp(min=0).sum((1, 2, 3))
        return all(float(_weighted(each, features).max()) > 0 for each in weights)

    @torch.no_grad()
    def _probabilities(self, scan: Tensor) -> Tensor:
        """Of each class."""
        return self._of_outputs(self._outputs(scan))

    def _of_outputs(self, outputs: Tensor) -> Tensor:
        """Probabilities of the classes; one output is that of the second class of two."""
        (outputs,) = outputs
        if len(outputs) == 1:
            second = outputs if self.entry.gives == "probabilities" else 1 / (1 + (-outputs).exp())
            return torch.cat([1 - second, second])
        if self.entry.gives == "probabilities":
            return outputs
        return outputs.exp() / outputs.exp().sum()

    def probability(self, scan: Tensor, model: nn.Module | None = None) -> Tensor:
        return self._of_outputs(self._outputs(scan, model))[self.target]

    def logit(self, scan: Tensor, target: int, model: nn.Module | None = None) -> Tensor:
        if self.entry.gives != "logits":
            raise NoReferenceError("it gives no logits")
        (outputs,) = self._outputs(scan, model)
        return outputs[target] if len(outputs) > 1 else (2 * target - 1) * outputs[0]

    def map_of(self, method: str) -> np.ndarray:
        """The right map ``[x, y, z]``."""
        return np.asarray(getattr(self, method)(), np.float64)

    # --- gradients

    def slope(self, at: Tensor) -> Tensor:
        """Gradient of the probability; by finite differences if torch's is not the network's."""
        return _gradient(self.probability, at)

    @functools.cached_property
    def _slope_of_torch(self) -> Tensor:
        return _gradient_of_torch(self.probability, self.scan)

    @_once
    def sensitivity(self) -> np.ndarray:
        return self.slope(self.scan).abs().numpy()

    def smoothgrad(self) -> np.ndarray:
        draw = torch.Generator().manual_seed(NOISE["seed"])
        kinds = [p.dtype for p in self.entry.network().parameters()]
        kind = torch.float64 if kinds and kinds[0] == torch.float64 else torch.float32
        sd = NOISE["noise"] * (self.scan.max() - self.scan.min())
        slopes = [
            self.slope(self.scan + sd * torch.randn(1, 1, *SHAPE, generator=draw, dtype=kind)[0, 0])
            for _ in range(NOISE["samples"])
        ]
        return (sum(slopes) / len(slopes)).abs().numpy()

    def integrated_gradients(self) -> np.ndarray:
        # Gauss and Legendre's three points on [0, 1].
        parts, weights = 0.5 + np.sqrt(0.15) * np.array([-1, 0, 1]), np.array([5, 8, 5]) / 18
        slopes = [w * self.slope(self.scan * p) for p, w in zip(parts, weights, strict=True)]
        return (sum(slopes) * self.scan).abs().numpy()

    @functools.cached_property
    def _guided(self) -> nn.Module:
        if self.entry.hidden:
            raise NoReferenceError("a rectifier is no nn.ReLU")
        if not _is_slope(self.probability, self.scan, self._slope_of_torch):
            raise NoReferenceError("torch's gradient is not the network's")
        model = copy.deepcopy(self.model)
        known = [name for name, module in model.named_modules() if type(module) is nn.ReLU]
        if not known:
            raise NoReferenceError("it has no nn.ReLU")
        for name in known:
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, _Guided())
        return model

    def guided_backprop(self) -> np.ndarray:
        scan = self.scan.clone().requires_grad_()
        (slope,) = torch.autograd.grad(self.probability(scan, self._guided), scan)
        return slope.abs().numpy()

    @_once
    def _guided_logit(self) -> np.ndarray:
        scan = self.scan.clone().requires_grad_()
        (slope,) = torch.autograd.grad(self.logit(scan, self.target, self._guided), scan)
        return slope.abs().numpy()

    # --- feature maps

    @_once
    def _at_layer(self, target: int) -> tuple[Tensor, Tensor, float]:
        """Features ``[channel, x', y', z']``, the logit's gradient by them, and the logit."""
        if self.entry.layer is None:
            raise NoReferenceError("the catalogue knows no layer")
        seen: list[Tensor] = []

        def logit(changed: Tensor | None) -> Tensor:
            def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
                seen.append(output.detach().clone())
                return output if changed is None else changed[None].clone()

            handle = self.model.get_submodule(self.entry.layer).register_forward_hook(hook)
            try:
                return self.logit(self.scan, target)
            finally:
                handle.remove()

        with torch.no_grad():
            value = float(logit(None))
        features = seen[0][0]
        return features, _gradient(logit, features), value

    def _on_grid(self, coarse: np.ndarray) -> np.ndarray:
        """Linear interpolation between the centres of the receptive fields."""
        numbers = np.array(coarse.shape)
        if self.entry.step is None:
            step = np.array(SHAPE) / numbers
            centre = step / 2 - 0.5
        else:
            centre, step = (np.broadcast_to(n, 3) for n in (self.entry.centre, self.entry.step))
        places = [
            np.clip((np.arange(edge) - c) / s, 0, n - 1)
            for edge, c, s, n in zip(SHAPE, centre, step, numbers, strict=True)
        ]
        where = np.stack(np.meshgrid(*places, indexing="ij"))
        return ndimage.map_coordinates(coarse, where, order=1, mode="nearest")

    def cam(self) -> np.ndarray:
        features, _, logit = self._at_layer(self.target)
        reading = [
            module
            for module in self.model.modules()
            if isinstance(module, nn.Linear) and module.in_features == len(features)
        ]
        if not reading:
            raise NoReferenceError("no dense layer reads the means of the maps")
        dense = reading[-1]
        row, sign = (self.target, 1) if dense.out_features > 1 else (0, 2 * self.target - 1)
        weights = sign * dense.weight[row].detach()
        bias = 0 if dense.bias is None else sign * float(dense.bias[row])
        if abs(float(weights @ features.mean((1, 2, 3))) + bias - logit) > 1e-9 * (1 + abs(logit)):
            raise NoReferenceError("the logit is not that of the means of the maps")
        return self._on_grid(_weighted(weights, features).abs().numpy())

    @_once
    def grad_cam(self) -> np.ndarray:
        features, slopes, _ = self._at_layer(self.target)
        return self._on_grid(_weighted(slopes.mean((1, 2, 3)), features).clamp(min=0).numpy())

    @_once
    def grad_cam_pp(self) -> np.ndarray:
        features, slopes, logit = self._at_layer(self.target)
        # Derivatives of the exponential of the logit.
        first, second, third = (np.exp(logit) * slopes**n for n in (1, 2, 3))
        weights = []
        for maps, one, two, three in zip(features, first, second, third, strict=True):
            below = 2 * two + maps.sum() * three
            alphas = torch.where(below == 0, 0.0, two / torch.where(below == 0, 1.0, below))
            weights.append((alphas * one.clamp(min=0)).sum())
        return self._on_grid(_weighted(torch.stack(weights), features).clamp(min=0).numpy())

    def guided_grad_cam(self) -> np.ndarray:
        return self.grad_cam() * self._guided_logit()

    def guided_grad_cam_pp(self) -> np.ndarray:
        return self.grad_cam_pp() * self._guided_logit()

    # --- occlusions

    def _drop(self, region: np.ndarray) -> np.ndarray:
        """Drop of each class's probability when the voxels of a mask are 0; one scan at a time."""
        occluded = self.scan.clone()
        occluded[torch.from_numpy(region)] = 0
        return (self._whole - self._probabilities(occluded)).numpy()

    @functools.cached_property
    def _whole(self) -> Tensor:
        return self._probabilities(self.scan)

    @_once
    def _of_cubes(self, size: int, stride: int, last: bool = False) -> np.ndarray:
        """For each voxel the drops of the nearest cube; `last`: the last centre is in the scan."""
        centres = []
        for edge in SHAPE:
            nearest = (np.arange(edge) + stride // 2) // stride * stride
            centres.append(np.minimum(nearest, edge - 1 if last else (edge - 1) // stride * stride))
        drops: dict[tuple[int, ...], np.ndarray] = {}
        found = np.zeros((*SHAPE, len(self._whole)))
        for voxel in np.ndindex(*SHAPE):
            centre = tuple(int(places[at]) for places, at in zip(centres, voxel, strict=True))
            if centre not in drops:
                region = np.zeros(SHAPE, bool)
                cut = [slice(max(c - size // 2, 0), c - size // 2 + size) for c in centre]
                region[tuple(cut)] = True
                drops[centre] = self._drop(region)
            found[voxel] = drops[centre]
        return found

    @_once
    def _of_areas(self) -> np.ndarray:
        found = np.zeros((*SHAPE, len(self._whole)))
        for label in range(1, LABELS.max() + 1):
            found[label == LABELS] = self._drop(label == LABELS)
        return found

    def occlusion(self) -> np.ndarray:
        return self._of_cubes(**OCCLUSION)[..., self.target].clip(min=0)

    def voxel_occlusion(self) -> np.ndarray:
        return abs(self._of_cubes(**VOXELS, last=True)[..., self.target])

    def area_occlusion(self) -> np.ndarray:
        return self._of_areas()[..., self.target].clip(min=0)

    def sa_ucm(self) -> np.ndarray:
        levels = _segments()
        found = np.zeros(SHAPE)
        for labels in levels:
            for label in range(1, labels.max() + 1):
                here = labels == label
                found[here] += abs(self._drop(here)[self.target]) / len(levels)
        return found

    # --- others

    @_once
    def lrp(self) -> np.ndarray:
        if self.entry.gives != "logits":
            raise NoReferenceError("it gives no logits")
        model = copy.deepcopy(self.model)
        return relevance_of(model, self.scan, self.target, self.entry.merged).clip(min=0)

    def lrp_grad_cam_pp(self) -> np.ndarray:
        return self.lrp() * self.grad_cam_pp()

    def summary(self) -> np.ndarray:
        maps = self.sensitivity(), self.occlusion()
        return sum(each / each.sum() for each in maps) / len(maps)


class _Guided(nn.Module):
    """A ReLU with the rule of guided backpropagation."""

    def forward(self, maps: Tensor) -> Tensor:
        return _GuidedRelu.apply(maps)


class _GuidedRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        ctx.save_for_backward(maps)
        return maps.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (maps,) = ctx.saved_tensors
        return torch.where((maps > 0) & (slope > 0), slope, torch.zeros_like(slope))


@functools.cache
def _segments() -> np.ndarray:
    return segment(head_scan(), **SEGMENTS)


def _weighted(weights: Tensor, features: Tensor) -> Tensor:
    return torch.einsum("c,cxyz->xyz", weights, features)


def _gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Gradient of a number by a tensor, in float64; by finite differences if torch's is wrong."""
    slope = _gradient_of_torch(function, at)
    return slope if _is_slope(function, at, slope) else _by_differences(function, at)


def _gradient_of_torch(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    read = at.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(function(read), read, allow_unused=True)
    except RuntimeError:  # cut before the output
        slope = None
    return torch.zeros_like(at) if slope is None else slope.detach()


def _is_slope(function: Callable[[Tensor], Tensor], at: Tensor, slope: Tensor) -> bool:
    """Whether the function changes as a gradient says, along three directions."""
    draw = torch.Generator().manual_seed(1)
    for _ in range(3):
        # Where a value is 0, by a ReLU or outside the brain, there may be a kink or a tie.
        way = torch.randn(at.shape, generator=draw, dtype=at.dtype) * (at != 0)
        change = _difference(function, at, way)
        if abs(change - float((slope * way).sum())) > 1e-5 * float(slope.norm() * way.norm()):
            return False
    return True


@torch.no_grad()
def _difference(function: Callable[[Tensor], Tensor], at: Tensor, way: Tensor) -> float:
    return float(function(at + _STEP * way) - function(at - _STEP * way)) / (2 * _STEP)


def _by_differences(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    found = torch.zeros_like(at)
    for voxel in np.ndindex(*at.shape):
        way = torch.zeros_like(at)
        way[voxel] = 1
        found[voxel] = _difference(function, at, way)
    return found
