"""Small networks for the tests of ``explain``, with a function of a test at one place."""

import numpy as np
import torch
from torch import nn

from voxplain.relevance import METHODS, explain

SHAPE = (12, 13, 11)
OPTIONS = {
    "occlusion": {"size": 4, "stride": 3},
    "voxel_occlusion": {"size": 3, "stride": 4},
    "area_occlusion": {"labels": np.arange(np.prod(SHAPE)).reshape(SHAPE) // 200},
    "smoothgrad": {"samples": 3},
    "integrated_gradients": {"steps": 4},
    "sa_ucm": {"levels": 2, "most_segments": 4},
    "summary": {"methods": {"sensitivity": {}, "occlusion": {"size": 4, "stride": 3}}},
}
OF_THE_LOGIT = [name for name, method in METHODS.items() if method.explains == "logit"]
OF_THE_PROBABILITY = [name for name in METHODS if name not in OF_THE_LOGIT]


class Net(nn.Module):
    """Two convolutions, an average and a dense layer; a function may stand at one place."""

    def __init__(self, change=lambda values: values, at="outputs", classes=2):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.norm, self.relu1 = (
            nn.Conv3d(1, 4, 3, padding=1),
            nn.BatchNorm3d(4),
            nn.ReLU(),
        )
        self.pool, self.second, self.relu2 = nn.MaxPool3d(2), nn.Conv3d(4, 6, 3), nn.ReLU()
        self.mean, self.flat, self.last = (
            nn.AdaptiveAvgPool3d(1),
            nn.Flatten(),
            nn.Linear(6, classes),
        )
        with torch.no_grad():
            self.last.weight.mul_(5)
        self.change, self.at = change, at
        self.eval()

    def forward(self, values):
        """``[batch, 1, x, y, z]`` to ``[batch, classes]``."""
        steps = {
            "scan": (),
            "maps": (self.first, self.norm, self.relu1, self.pool),
            "late": (self.second, self.relu2),
            "outputs": (self.mean, self.flat, self.last),
        }
        for at, layers in steps.items():
            for layer in layers:
                values = layer(values)
            if at == self.at:
                values = self.change(values)
        return values


def random_scan():
    """A scan ``[x, y, z]``, 0 at one side."""
    scan = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    scan[:3] = 0
    return scan


def of(method, model, scan, target=0):
    """Heatmap by a method with its options."""
    return explain(method, model, scan, target, **OPTIONS.get(method, {}))


def close(found, expected, rtol=1e-4):
    """Assert that a heatmap is the expected one, which is not 0."""
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * expected.max())
