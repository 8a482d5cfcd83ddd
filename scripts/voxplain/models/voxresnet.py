"""VoxResNet, the residual network of Korolev et al. 2017, and its variants of Yang et al. 2018."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from voxplain.models.layers import Sum, initialise_glorot
from voxplain.models.shapes import VOXRESNET_CHANNELS, VOXRESNET_STAGES, VoxResNetPlan


class VoxResNet(nn.Module):
    """Three halvings of the scan, each followed by two residual blocks, and a pooling.

    Korolev et al. 2017 (arXiv 1701.06643) and their published code, which gives the layer names;
    the 3D-ResNet of Yang et al. 2018 (arXiv 1803.02544). Convolutions of 3^3, padded by a voxel of
    zeros and with a bias, as in that code: two of 32 channels with batch norm and ReLU, ``conv1c``
    of 64 with stride 2 (55^3 voxels of 110^3); pre-activation blocks ``voxres2`` and ``voxres3``
    (batch norm, ReLU, convolution, twice, plus the block's input: ``voxres3_out``); ``bn4``, ReLU
    and ``conv4`` of 64 with stride 2 (28^3), ``voxres5`` and ``voxres6``; ``bn7``, ReLU and
    ``conv7`` of 128 with stride 2 (14^3), ``voxres8`` and ``voxres9``. Max pooling of 7 takes
    ``voxres9_out`` as it is, without batch norm and ReLU; then a dense layer of 128, ReLU, and the
    outputs.

    The variants of Yang et al. have global average pooling and the outputs instead of max pooling
    and dense layers. VoxResNet-GAP averages ``voxres9_out``; VoxResNet-Shallow-GAP ends before the
    second convolution with stride 2 and averages ``voxres3_out``: ``bn4`` and its ReLU are the
    activation of the convolution that is left out, and are left out as well, so that both variants
    average a residual sum.

    Parameters
    ----------
    plan
        From :func:`voxplain.models.shapes.plan_voxresnet` or the plans of its variants.
    n_classes
        Number of outputs.
    """

    def __init__(self, plan: VoxResNetPlan, n_classes: int) -> None:
        super().__init__()
        before, *of_stages = VOXRESNET_CHANNELS
        self._add(("conv1a", "bn1a", "relu1a"), 1, before)
        self._add(("conv1b", "bn1b", "relu1b"), before, before)
        stages = zip(VOXRESNET_STAGES[: plan.stages], of_stages, strict=False)
        for (entry, blocks), channels in stages:
            self._add(entry, before, channels, stride=2)
            for block in blocks:
                for half in (1, 2):
                    names = [f"voxres{block}_{kind}{half}" for kind in ("bn", "relu", "conv")]
                    self._add(names, channels, channels)
                self.add_module(f"voxres{block}_out", Sum())
            before = channels
        if plan.pool is None:
            self.gap = nn.AdaptiveAvgPool3d(1)
            self.flatten = nn.Flatten()
            self.classifier = nn.Linear(plan.features, n_classes)
        else:
            self.pool10 = nn.MaxPool3d(plan.pool)
            self.flatten = nn.Flatten()
            self.fc11 = nn.Linear(plan.features, 128)
            self.relu11 = nn.ReLU()
            self.classifier = nn.Linear(128, n_classes)
        self.cam_layer = plan.last_layer
        initialise_glorot(self)

    def _add(self, names: Sequence[str], before: int, channels: int, stride: int = 1) -> None:
        """Add layers by name: a convolution, and batch norm and ReLU before or after it."""
        for name in names:
            if "conv" in name:
                layer = nn.Conv3d(before, channels, kernel_size=3, stride=stride, padding=1)
                before = channels
            else:
                layer = nn.BatchNorm3d(before) if "bn" in name else nn.ReLU()
            self.add_module(name, layer)

    def forward(self, scans: Tensor) -> Tensor:
        """Logits ``[batch, n_classes]`` of scans ``[batch, 1, x, y, z]``."""
        maps = identity = scans
        # The layers run in the order in which they were added; a block's input takes the shortcut.
        for name, layer in self.named_children():
            if name == "gap" and any(map(torch.is_autocast_enabled, ("cpu", "cuda"))):
                # Means over a whole map differ little between scans; bfloat16 would lose this.
                with torch.autocast(maps.device.type, enabled=False):
                    return self.classifier(self.flatten(self.gap(maps.float())))
            if name.endswith("_bn1"):
                identity = maps
            maps = layer(identity, maps) if name.endswith("_out") else layer(maps)
        return maps


def build(plan: VoxResNetPlan, n_classes: int) -> VoxResNet:
    """The network of a plan."""
    return VoxResNet(plan, n_classes)
