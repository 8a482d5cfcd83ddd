"""The network of Rieke et al. 2018."""

from __future__ import annotations

from torch import Tensor, nn

from voxplain.models.shapes import RIEKE_CHANNELS, RiekePlan


class Rieke(nn.Module):
    """Four blocks of convolution, batch norm, ReLU and max pooling, then three dense layers.

    Rieke et al. 2018 (arXiv 1808.02874), section 2.2 and the published code: valid convolutions of
    3^3 with 8, 16, 32, 64 channels, pools 2, 3, 2, 3, dropout of 0.8, dense layers of 128 and 64.

    Parameters
    ----------
    plan
        From :func:`voxplain.models.shapes.plan_rieke`.
    n_classes
        Number of outputs.
    """

    def __init__(self, plan: RiekePlan, n_classes: int) -> None:
        super().__init__()
        blocks, before = [], 1
        for channels, pool in zip(RIEKE_CHANNELS, plan.pools, strict=True):
            blocks += [
                nn.Conv3d(before, channels, kernel_size=3),
                nn.BatchNorm3d(channels),
                nn.ReLU(),
            ]
            blocks += [nn.MaxPool3d(pool)] if pool > 1 else []
            before = channels
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(plan.dropout),
            nn.Linear(plan.features, 128),
            nn.ReLU(),
            nn.Linear(128, 64),
            nn.ReLU(),
            nn.Linear(64, n_classes),
        )
        self.cam_layer = plan.last_layer

    @property
    def layers_in_order(self) -> list[nn.Module]:
        """The layers, in the order in which `forward` runs them."""
        return [*self.features, *self.classifier]

    def forward(self, scans: Tensor) -> Tensor:
        """Logits ``[batch, n_classes]`` of scans ``[batch, 1, x, y, z]``."""
        return self.classifier(self.features(scans))


def build(plan: RiekePlan, n_classes: int) -> Rieke:
    """The network of a plan."""
    return Rieke(plan, n_classes)
