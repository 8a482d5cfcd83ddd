"""Layer-wise relevance propagation (LRP): the logit is propagated back to the voxels.

captum 0.9 has no rules for 3D convolutions, and zennit needs torchvision, whose wheels work only
with torch of the same build; so the rules are implemented here. They are applied to the graph of
the network (:mod:`torch.fx`), so additions and poolings that are not modules have a rule too. A
layer without a rule raises an error. Layers are processed one at a time, in slabs. If the maps that
layers read exceed the memory limit, the earliest maps are dropped and recomputed when needed.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from voxplain.faults import SetupFault
from voxplain.relevance.behaviour import first_line
from voxplain.relevance.inputs import as_input, column_of, logit, sign_of
from voxplain.relevance.lrp_layers import (
    Convolution,
    Elementwise,
    Layer,
    Linear,
    MaxPool,
    PassThrough,
    Rules,
    layer_of,
)
from voxplain.relevance.lrp_network import merge_batch_norms, trace_network

# Alpha and beta for convolutions; None for the epsilon rule, as in dense layers.
COMPOSITES = {
    "epsilon_plus": (1.0, 0.0),
    "epsilon_alpha2_beta1": (2.0, 1.0),
    "epsilon": None,
}
_EPSILON = 1e-6
# Memory for stored maps that layers read on the way back.
_KEPT_BYTES = 2.5e9
# Largest allowed difference between the logits of the graph and of the network, as a fraction of
# the largest logit, in addition to rounding.
_TRUSTED = 1e-3


class _Propagation:
    """Forward pass of one scan through the graph of a network, and propagation of relevance back.

    Parameters
    ----------
    model
        In eval mode; its batch norms may be merged.
    batch
        ``[1, 1, x, y, z]`` on the device and of the type of the parameters.
    kept_bytes
        Memory for maps that layers read, until they are used on the way back.
    """

    def __init__(self, model: nn.Module, batch: Tensor, kept_bytes: float) -> None:
        graph = trace_network(model)
        nodes = list(graph.nodes)
        self._input = next(node for node in nodes if node.op == "placeholder")
        self._output = next(node for node in nodes if node.op == "output").args[0]
        self._place = {node: place for place, node in enumerate(nodes)}
        self._plain: dict[fx.Node, Any] = {}
        self._sources: dict[fx.Node, list[fx.Node]] = {}
        self._layers: dict[fx.Node, Layer] = {}
        maps = {self._input}
        for node in nodes:
            if node.op == "placeholder" and node is not self._input:
                self._plain[node] = node.args[0] if node.args else None
            if node.op in ("placeholder", "output"):
                continue
            self._sources[node] = [a for a in node.args if isinstance(a, fx.Node) and a in maps]
            if node.op == "get_attr" or (
                maps & set(node.all_input_nodes) and not _reads_shape(node)
            ):
                maps.add(node)
                self._layers[node] = layer_of(node, model, batch, self._plain)
        if not isinstance(self._output, fx.Node) or self._output not in self._layers:
            raise SetupFault("lrp wants a network that gives one tensor of logits")
        self._kept_bytes = kept_bytes
        self._shapes = {self._input: batch.shape}
        self._kept = {self._input: batch}
        # For each map, the number of layers that still have to read its values.
        self._readers = Counter([self._output])
        for node in self._layers:
            self._readers.update(self._read_by(node))
        self.logits = self._value(self._output)

    def _needs_sign(self, node: fx.Node) -> bool:
        """Whether outputs below 0 can have relevance: not if only ReLUs read them."""
        layer, users = self._layers[node], [self._layers.get(user) for user in node.users]
        if isinstance(layer, PassThrough | MaxPool) or (isinstance(layer, Linear) and layer.dense):
            return False
        return not all(isinstance(user, PassThrough) and user.clips for user in users)

    def _read_by(self, node: fx.Node) -> list[fx.Node]:
        """Maps whose values the rule of a node reads: inputs, and the output of a convolution."""
        if not self._layers[node].reads:
            return []
        # The output of a convolution is stored, since it is the most expensive to recompute.
        reads_output = isinstance(self._layers[node], Convolution) and self._needs_sign(node)
        return [*self._sources[node], node] if reads_output else self._sources[node]

    def _value(self, wanted: fx.Node) -> Tensor:
        """A map, stored or recomputed."""
        if wanted not in self._kept:
            self._run(wanted)
        return self._kept[wanted]

    def _run(self, wanted: fx.Node) -> None:
        """Compute a map from the stored maps."""
        needed = {wanted}
        for node in reversed(list(self._sources)):
            if node in needed and node not in self._kept:
                needed.update(self._sources[node])
                needed.update(set(node.all_input_nodes) - self._plain.keys())
        todo = [node for node in self._sources if node in needed and node not in self._kept]
        pending = Counter(source for node in todo for source in self._sources[node])
        live = {node: self._kept[node] for node in needed if node in self._kept}
        for node in todo:
            sources = self._sources[node]
            if node not in self._layers:
                self._plain[node] = self._plain_value(node)
            else:
                live[node] = self._forward(node, [live[source] for source in sources])
                self._shapes[node] = live[node].shape
                if self._readers[node]:
                    self._keep(node, live[node])
            for source in sources:
                pending[source] -= 1
                if not pending[source]:
                    del live[source]

    def _forward(self, node: fx.Node, inputs: list[Tensor]) -> Tensor:
        layer, source = self._layers[node], self._sources[node][0]
        fresh = isinstance(self._layers.get(source), Linear | Convolution | Elementwise)
        if isinstance(layer, PassThrough) and layer.clips and fresh and len(source.users) == 1:
            return inputs[0].relu_()  # in place, since nothing else reads it
        return layer.forward(inputs)

    def _plain_value(self, node: fx.Node) -> Any:
        """Value of a node that is not a map: a shape, or a number from shapes."""
        if not self._sources[node]:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), self._plain.__getitem__)
            if node.op == "call_method":
                return getattr(args[0], node.target)(*args[1:], **kwargs)
            return node.target(*args, **kwargs)
        shape = self._shapes[self._sources[node][0]]
        if node.target in ("dim", "ndim") or node.args[1:] == ("ndim",):
            return len(shape)
        return shape[node.args[1]] if node.target == "size" and len(node.args) > 1 else shape

    def _keep(self, node: fx.Node, value: Tensor) -> None:
        """Store a map; above the memory limit drop the earliest maps, which are needed last."""
        self._kept[node] = value
        candidates = sorted(self._kept.keys() - {self._input, node}, key=self._place.get)
        size = sum(self._kept[candidate].nbytes for candidate in [*candidates, node])
        for candidate in candidates:
            if size <= self._kept_bytes:
                break
            size -= self._kept.pop(candidate).nbytes

    def back(self, target: int, rules: Rules) -> tuple[Tensor, float]:
        """Relevance of the voxels ``[1, 1, x, y, z]``, and the part absorbed by biases."""
        relevance = {self._output: torch.zeros_like(self.logits)}
        column = column_of(self.logits, target)
        relevance[self._output][:, column] = self.logits[:, column] * sign_of(self.logits, target)
        taken = 0.0
        for node in reversed(self._layers):
            if node not in relevance:
                continue
            layer, sources, output_relevance = (
                self._layers[node],
                self._sources[node],
                relevance.pop(node),
            )
            if layer.reads:
                inputs, outputs = [self._value(source) for source in sources], None
                if self._needs_sign(node):
                    outputs = self._kept.get(node)
                    outputs = layer.forward(inputs) if outputs is None else outputs
                input_relevances, of_bias = layer.back(inputs, output_relevance, rules, outputs)
                taken += of_bias
                del inputs, outputs
                for read in self._read_by(node):
                    self._readers[read] -= 1
                    if not self._readers[read] and read is not self._input:
                        self._kept.pop(read, None)
            else:
                input_relevances = [output_relevance.reshape(self._shapes[sources[0]])]
            for source, part in zip(sources, input_relevances, strict=True):
                relevance[source] = relevance[source] + part if source in relevance else part
        return relevance[self._input], taken


def _reads_shape(node: fx.Node) -> bool:
    """Whether a node reads only the shape of a map."""
    if node.target is getattr:
        return node.args[1] in ("shape", "ndim")
    return node.op == "call_method" and node.target in ("size", "dim")


@torch.no_grad()
def _signed(
    model: nn.Module,
    batch: Tensor,
    target: int,
    composite: str = "epsilon_plus",
    epsilon: float = _EPSILON,
    kept_bytes: float = _KEPT_BYTES,
) -> tuple[Tensor, float]:
    """Signed relevance ``[1, 1, x, y, z]``, and the part of the logit absorbed by biases.

    The two add up to the logit, except for the part absorbed by ``epsilon`` and rounding.
    """
    if composite not in COMPOSITES:
        raise SetupFault(f"there is no composite {composite!r}; allowed: {', '.join(COMPOSITES)}")
    with torch.autocast(batch.device.type, enabled=False):
        logits = model(batch.clone())
        logit(model, logits, target)
        merged = merge_batch_norms(model)
        try:
            propagation = _Propagation(merged, batch, kept_bytes)
        except (SetupFault, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # the network's layers, put together in an unusual way
            raise SetupFault(
                f"lrp cannot follow the network's layers: {first_line(error)}; write it with plain "
                "modules, or leave lrp out for it"
            ) from error
        rounding = 1e3 * torch.finfo(logits.dtype).eps
        allowed = (_TRUSTED if logits.dtype != torch.float64 else 0) + rounding
        if not torch.allclose(
            propagation.logits, logits, rtol=0, atol=allowed * float(logits.abs().max())
        ):
            raise SetupFault(
                "lrp reads the network as one whose logits are "
                f"{propagation.logits.tolist()}, and it says {logits.tolist()}: it does something "
                "that torch.fx does not see. Write "
                "it with plain modules, without hooks"
            )
        alpha, beta = COMPOSITES[composite] or (None, 0.0)
        return propagation.back(target, Rules(alpha, beta, epsilon))


def lrp(
    model: nn.Module, scan: Tensor | np.ndarray, target: int, composite: str = "epsilon_plus"
) -> np.ndarray:
    """Positive part of the layer-wise relevance propagation of the target's logit.

    Bach et al. 2015 (doi 10.1371/journal.pone.0130140), with a composite of rules as recommended by
    Montavon et al. 2019 and Kohlbrenner et al. 2020, after the batch norms are merged
    (:func:`merge_batch_norms`). Dense layers use the epsilon rule. Convolutions, averages,
    additions and the remaining batch norms use the alpha-beta rule, which separates the
    contributions ``input * weight`` with the sign of the output from those with the other sign; so
    positive relevance supports the class. Max pooling passes all relevance to the voxel with the
    maximum.

    The first layer has the same rule as the later convolutions. The rule uses contributions, so a
    voxel below the mean of the training scans can have relevance like one above it. A voxel at the
    mean, such as a voxel outside the brain, has none. The rule of squared weights and the flat rule
    would give it relevance; the rule for bounded inputs needs bounds, which z-scores do not have.

    Relevance sums to the logit except for the part absorbed by biases (alpha-beta rule: biases with
    the sign of the output).

    Parameters
    ----------
    composite
        ``epsilon_plus`` (alpha 1, beta 0), ``epsilon_alpha2_beta1``, or ``epsilon`` in all layers,
        which equals gradient times input for a network of ReLUs and max pooling.

    The other parameters and the return value are as :func:`voxplain.relevance.explain`; the logit
    is explained, and the map is 0 where relevance is below 0.

    Raises
    ------
    SetupFault
        A layer has no rule, the network cannot be traced or does not agree with its graph, or there
        is no such composite or class.
    """
    relevance, _ = _signed(model, as_input(model, scan), target, composite)
    return relevance[0, 0].clamp(min=0).float().cpu().numpy()


def lrp_grad_cam_pp(
    model: nn.Module,
    scan: Tensor | np.ndarray,
    target: int,
    layer: str | None = None,
    placement: str = "receptive_field",
    composite: str = "epsilon_plus",
) -> np.ndarray:
    """Voxelwise product of the maps of :func:`lrp` and Grad-CAM++.

    Kennedy, Shi and Cha, "Studying the Interpretability of Brain MR Image Deep Learning Modelling".

    Parameters
    ----------
    layer, placement
        As :func:`voxplain.relevance.cam.grad_cam_pp`.
    composite
        As :func:`lrp`.

    The other parameters and the return value are as :func:`voxplain.relevance.explain`.
    """
    from voxplain.relevance.cam import grad_cam_pp

    relevance = lrp(model, scan, target, composite)
    return relevance * grad_cam_pp(model, scan, target, layer, placement)
