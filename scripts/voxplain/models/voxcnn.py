"""VoxCNN, the plain network of Korolev et al. 2017."""

from __future__ import annotations

from torch import nn

from voxplain.models.layers import initialise_glorot
from voxplain.models.shapes import VOXCNN_BLOCKS, VoxCNNPlan


class VoxCNN(nn.Sequential):
    """Four blocks of convolutions and a max pooling, then three dense layers.

    Korolev et al. 2017 (arXiv 1701.06643) and their published code; the 3D-VGGNet of Yang et al.
    2018 (arXiv 1803.02544). Valid convolutions of 3^3, each with a bias and a ReLU and none with a
    batch norm: two of 8 channels, two of 16, three of 32, three of 64. Then a dense layer of 128,
    ReLU, batch norm, dropout of 0.7, a dense layer of 64, ReLU, and the outputs. Batch norm is
    before dropout as in the code of Korolev et al.; in the text of Yang et al. it is after dropout.

    Layers have the papers' names: ``conv2b`` is the second convolution of the second block before
    its ReLU, ``relu2b`` the map after it.

    Parameters
    ----------
    plan
        From :func:`voxplain.models.shapes.plan_voxcnn`.
    n_classes
        Number of outputs.
    """

    def __init__(self, plan: VoxCNNPlan, n_classes: int) -> None:
        super().__init__()
        before = 1
        for block, ((channels, count), pool) in enumerate(
            zip(VOXCNN_BLOCKS, plan.pools, strict=True), start=1
        ):
            for letter in "abc"[:count]:
                self.add_module(f"conv{block}{letter}", nn.Conv3d(before, channels, kernel_size=3))
                self.add_module(f"relu{block}{letter}", nn.ReLU())
                before = channels
            if pool > 1:
                self.add_module(f"pool{block}", nn.MaxPool3d(pool))
        self.flatten = nn.Flatten()
        self.fc5 = nn.Linear(plan.features, 128)
        self.relu5 = nn.ReLU()
        self.bn5 = nn.BatchNorm1d(128)
        self.dropout5 = nn.Dropout(plan.dropout)
        self.fc6 = nn.Linear(128, 64)
        self.relu6 = nn.ReLU()
        self.classifier = nn.Linear(64, n_classes)
        self.cam_layer = plan.last_layer
        initialise_glorot(self)


def build(plan: VoxCNNPlan, n_classes: int) -> VoxCNN:
    """The network of a plan."""
    return VoxCNN(plan, n_classes)
