"""Receptive fields of the voxels of a feature map, and feature maps on the grid of the scan.

A voxel of a feature map depends on a box of the scan, its receptive field, and is placed at the
centre of the box. Valid convolutions and poolings move the centres inwards: in the network of Rieke
at 1 mm the receptive field of the first of twelve voxels is centred at voxel 26.5, while stretching
the map over the scan would place it at 7.5.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from voxplain.faults import SetupFault

PLACEMENTS = ("receptive_field", "stretch")

Numbers = tuple[float, float, float]


@dataclass(frozen=True)
class Field:
    """Receptive fields of a feature map's voxels, along x, y, z.

    Voxel ``i`` depends on the voxels ``first + i * step`` to ``last + i * step`` of the scan;
    voxels outside the scan are padding.
    """

    first: Numbers = (0, 0, 0)
    last: Numbers = (0, 0, 0)
    step: Numbers = (1, 1, 1)

    @property
    def centre(self) -> Numbers:
        """Centre of the receptive field of the first voxel, in voxels of the scan."""
        return tuple((a + b) / 2 for a, b in zip(self.first, self.last, strict=True))


@dataclass(eq=False)
class _Trace:
    """Receptive field of a tensor that was computed from the scan, and whether it is pooled."""

    field: Field | None
    pooled: bool = False


@dataclass(frozen=True)
class Layer:
    """A call of a module whose output is a feature map.

    Attributes
    ----------
    name
        As in ``dict(model.named_modules())``.
    shape
        Voxels of its output along x, y, z.
    field
        Receptive fields of its output; None if unknown.
    output
        The same object for all modules that pass on the same map.
    pooled
        Whether the map comes directly from a pooling.
    """

    name: str
    shape: tuple[int, ...]
    field: Field | None
    output: object
    pooled: bool


def follow(model: nn.Module, batch: Tensor) -> list[Layer]:
    """Calls of modules that give a feature map of a scan, in the order of the calls.

    The network runs without values (on torch's meta device) if possible, else once in full.

    Parameters
    ----------
    batch
        ``[1, 1, x, y, z]``.
    """
    values = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {name: value.detach().to("meta") for name, value in values.items()}

    def run_on_shapes(scan: Tensor) -> None:
        torch.func.functional_call(model, shapes, (scan,))

    try:
        return _record(model, run_on_shapes, torch.empty_like(batch, device="meta"))
    except Exception:  # the network's own code may read values or create tensors on another device
        return _record(model, model, batch.clone())


def _record(model: nn.Module, run: Callable[[Tensor], Any], scan: Tensor) -> list[Layer]:
    layers: list[Layer] = []

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 5 and output.shape[0] == 1:
                trace = getattr(output, "_trace", None) or _Trace(None)
                of = trace.field, trace, trace.pooled
                layers.append(Layer(name, tuple(output.shape[2:]), *of))

        return hook

    scan._trace = _Trace(Field())
    handles = [
        module.register_forward_hook(note(name))
        for name, module in model.named_modules()
        # Scripted modules take no hooks: what they give is not known.
        if name and not isinstance(module, torch.jit.ScriptModule)
    ]
    try:
        with torch.no_grad(), _Follower():
            run(scan)
    finally:
        for handle in handles:
            handle.remove()
    return [layer for layer in layers if layer.output is not scan._trace]


_SAME_PLACES = (
    "alias",
    "clone",
    "detach",
    "_to_copy",
    "_prelu_kernel",
    "rrelu_with_noise",
    "hardswish",
    "log_sigmoid_forward",
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm",
    "miopen_batch_norm",
    "native_group_norm",
    "native_layer_norm",
    "native_dropout",
)
# New tensors that take no value of their argument.
_NEW = ("zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full")
_IF_OF_ONE_SHAPE = ("view", "_unsafe_view", "expand")
_PADS = ("constant_pad_nd", "reflection_pad3d", "replication_pad3d")
_POOLS = (
    "max_pool3d_with_indices",
    "avg_pool3d",
    "_adaptive_avg_pool3d",
    "adaptive_max_pool3d",
    "fractional_max_pool3d",
)


class _Follower(TorchDispatchMode):
    """Mode that attaches to the output of each operation the receptive fields of its voxels.

    Whatever modules and functions a network calls, they use few basic operations, and torch marks
    those that act on each voxel separately. A tensor without ``_trace`` does not depend on the
    scan.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lost = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run an operation and attach the receptive fields to its output."""
        if torch.is_inference_mode_enabled():
            # There torch does not divide operations such as conv3d into the basic ones.
            with self:
                divided = func.decompose(*args, **(kwargs or {}))
            if divided is not NotImplemented:
                return divided
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if hasattr(leaf, "_trace")]
        # Read before it runs: in place, its input becomes its output.
        traces = [(value, value._trace, tuple(value.shape[2:])) for value in inputs]
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if not traces or name in _NEW:
            return output
        pointwise = torch.Tag.pointwise in func.tags
        # Writing into a part of a tensor does not update the trace of the whole tensor.
        writes = func._schema.is_mutable and not pointwise and name not in _SAME_PLACES
        self._lost = self._lost or writes
        results = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        for result in results:
            field = None
            if not self._lost and result.ndim == 5:
                field = _field_of(name, pointwise, args, result, traces)
            result._trace = _Trace(field, name in _POOLS)
        return output


def _field_of(
    name: str, pointwise: bool, args: tuple, output: Tensor, traces: list[tuple]
) -> Field | None:
    """Field of the output of an operation; None if unknown."""
    shape = tuple(output.shape[2:])
    if pointwise or (name == "cat" and (args[1:] or (0,))[0] in (1, -4)):
        return _join(shape, traces)
    field, before = traces[0][1].field, traces[0][2]
    if field is None or traces[0][0] is not args[0] or len(before) != 3:
        return None
    if name in _SAME_PLACES or (name in _IF_OF_ONE_SHAPE and before == shape):
        return field
    if name == "convolution" and not args[6]:
        kernel = args[1].shape[2:]
        return _slide(field, kernel, args[3], args[4], args[5])
    if name in ("max_pool3d_with_indices", "avg_pool3d"):
        given, defaults = args[1:5], ((), (0,), (1,))
        kernel, stride, padding, dilation = (*given, *defaults[len(given) - 1 :])
        if name == "avg_pool3d":
            dilation = (1,)  # this argument has another meaning here
        return _slide(field, kernel, stride or kernel, padding, dilation)
    if name in ("_adaptive_avg_pool3d", "adaptive_max_pool3d"):
        edges = [n // m for n, m in zip(before, shape, strict=True)]
        even = all(n % m == 0 for n, m in zip(before, shape, strict=True))
        return _slide(field, edges, edges, (0,), (1,)) if even else None
    if name in _PADS:
        ahead = [0, 0, 0]
        for place, axis in zip(range(0, min(len(args[1]), 6), 2), (2, 1, 0), strict=False):
            ahead[axis] = args[1][place]
        return _slide(field, (1,), (1,), ahead, (1,))
    if name == "slice":
        return _cut(field, before, *args[1:])
    if name in ("split", "split_with_sizes") and args[2:] in ((1,), (-4,)):
        return field
    return None


def _join(shape: tuple[int, ...], traces: list[tuple]) -> Field | None:
    """Field of the output of an operation that reads several maps at the same voxel."""
    # A tensor with at most one voxel, such as a gate, has the same effect everywhere.
    maps = [(of, trace) for value, trace, of in traces if value.ndim == 5 and math.prod(of) > 1]
    fields = [trace.field for _, trace in maps]
    alike = all(of == shape for of, _ in maps)
    if not maps or not alike or None in fields or len({f.step for f in fields}) > 1:
        return None
    first = tuple(min(numbers) for numbers in zip(*(f.first for f in fields), strict=True))
    last = tuple(max(numbers) for numbers in zip(*(f.last for f in fields), strict=True))
    return replace(fields[0], first=first, last=last)


def _slide(
    field: Field,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Field:
    """Field of the output of a sliding window over a map."""
    first, last, step = [], [], []
    for axis in range(3):
        k, s, p, d = (
            int(numbers[axis] if len(numbers) == 3 else numbers[0])
            for numbers in (kernel, stride, padding, dilation)
        )
        first.append(field.first[axis] - p * field.step[axis])
        last.append(field.last[axis] + (d * (k - 1) - p) * field.step[axis])
        step.append(field.step[axis] * s)
    return Field(tuple(first), tuple(last), tuple(step))


def _cut(
    field: Field,
    shape: tuple[int, ...],
    dim: int = 0,
    start: int | None = None,
    stop: int | None = None,
    step: int = 1,
) -> Field:
    axis = dim % 5 - 2
    if axis < 0:
        return field
    start = slice(start, stop, step).indices(shape[axis])[0]
    ahead, stride = [0, 0, 0], [1, 1, 1]
    ahead[axis], stride[axis] = -start, step
    return _slide(field, (1,), stride, ahead, (1,))


def bring_onto_grid(
    coarse: Tensor, field: Field | None, shape: Sequence[int], placement: str = "receptive_field"
) -> np.ndarray:
    """A feature map on the scan's grid, interpolated linearly along x, y and z.

    Parameters
    ----------
    coarse
        ``[x', y', z']``.
    field
        Receptive fields of the map; None if unknown.
    shape
        Voxels of the scan along x, y, z.
    placement
        ``receptive_field`` puts a voxel at the centre of its receptive field; voxels beyond the
        outermost centres get the value there. ``stretch`` stretches the map over the scan as in
        published code (torch's trilinear interpolation with ``align_corners=False``).

    Returns
    -------
    ``[x, y, z]`` float32, within the range of the map.

    Raises
    ------
    SetupFault
        There is no such placement.

    Warns
    -----
    RuntimeWarning
        The field is unknown, so the map is stretched.
    """
    check_placement(placement)
    if placement == "receptive_field" and field is None:
        warnings.warn(
            "the layer's map cannot be followed back to the scan, so it is stretched over the "
            "scan: what it shows may lie tens of voxels off (silence with placement='stretch')",
            RuntimeWarning,
            stacklevel=4,
        )
    if placement == "stretch" or field is None:
        wide = functional.interpolate(coarse[None, None].double(), tuple(shape), mode="trilinear")
        return wide[0, 0].float().cpu().numpy()
    heatmap = coarse.detach().double().cpu().numpy()
    for axis, (edge, n) in enumerate(zip(shape, coarse.shape, strict=True)):
        where = (np.arange(edge) - field.centre[axis]) / field.step[axis]
        weights = np.stack([np.interp(where, np.arange(n), row) for row in np.eye(n)])
        heatmap = np.moveaxis(np.tensordot(heatmap, weights, axes=(axis, 0)), -1, axis)
    return heatmap.astype(np.float32)


def check_placement(placement: str) -> None:
    """Check that a placement is one of :data:`PLACEMENTS`.

    Raises
    ------
    SetupFault
        It is not.
    """
    if placement not in PLACEMENTS:
        raise SetupFault(f"there is no placement {placement!r}; allowed: {', '.join(PLACEMENTS)}")
