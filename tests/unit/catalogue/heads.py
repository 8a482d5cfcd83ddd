"""Networks that differ in what they give: one output, probabilities, tuples, other shapes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from catalogue.bodies import stem
from catalogue.entries import gap, network, settle
from catalogue.layers import NO_CAM, NO_LRP


class Head(nn.Module):
    """A convolution, global average pooling, one dense layer, and what is done with the logits."""

    def __init__(self, after, classes: int = 3):
        super().__init__()
        self.body, self.end, self.after = stem(), nn.Sequential(*gap(4, classes)), after

    def forward(self, scans: Tensor):
        return self.after(self.end(self.body(scans)))


MAPS = {"layer": "body.1", "centre": 1}


def of_head(name, after, classes=3, **rest):
    network(name, "heads", lambda: settle(Head(after, classes)), **rest)


def same(outputs: Tensor) -> Tensor:
    return outputs


of_head("two classes", same, 2, **MAPS)
NO_LOGIT = dict.fromkeys(("cam", "maps", "lrp"), "explains the logit")
of_head("one output", same, 1, **MAPS)
of_head(
    "one output with a sigmoid", torch.sigmoid, 1, **MAPS, gives="probabilities", refused=NO_LOGIT
)
of_head(
    "softmax", lambda logits: logits.softmax(1), **MAPS, gives="probabilities", refused=NO_LOGIT
)
of_head(
    "log-softmax",
    lambda logits: logits.log_softmax(1),
    **MAPS,
    gives="log-probabilities",
    refused=NO_LOGIT,
)
of_head("a sigmoid for each class", torch.sigmoid, refused={"all": "sigmoid"})
of_head("temperature", lambda logits: logits / 0.5, **MAPS, refused=NO_CAM | NO_LRP)
of_head("a tuple", lambda logits: (logits, logits.mean()), refused={"all": "tuple"})
of_head("a list", lambda logits: [logits], refused={"all": "list"})
of_head("a dictionary", lambda logits: {"logits": logits}, refused={"all": "dict"})
of_head("a class index", lambda logits: logits.argmax(1), refused={"all": "logits"})
of_head("logits without a batch", lambda logits: logits[0], refused={"all": "logits"})
of_head(
    "logits of one voxel", lambda logits: logits[..., None, None, None], refused={"all": "logits"}
)
of_head("logits in float64", lambda logits: logits.double(), **MAPS, refused=NO_LRP)
of_head("a view of one scan", lambda logits: logits.view(1, -1), **MAPS)


class Voted(nn.Module):
    """Class maps by a convolution, averaged: no dense layer."""

    def __init__(self):
        super().__init__()
        self.body, self.vote = stem(), nn.Conv3d(4, 3, 1)

    def forward(self, scans: Tensor) -> Tensor:
        return self.vote(self.body(scans)).mean((2, 3, 4))


network(
    "averaged votes",
    "heads",
    lambda: settle(Voted()),
    layer="vote",
    centre=1,
    seed=1,
    refused=NO_CAM,
)


class Cosine(nn.Module):
    """Similarity to a direction for each class."""

    def __init__(self):
        super().__init__()
        self.body, self.ways = stem(), nn.Parameter(torch.randn(3, 4))

    def forward(self, scans: Tensor) -> Tensor:
        means = nn.functional.normalize(self.body(scans).mean((2, 3, 4)))
        return 5 * means @ nn.functional.normalize(self.ways).T


network("cosine classifier", "heads", lambda: settle(Cosine()), **MAPS, refused=NO_CAM | NO_LRP)


class Optional(nn.Module):
    """A second argument that may be left out, such as an age."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind, self.body, self.end = kind, stem(), nn.Sequential(*gap(4))
        self.age = nn.Linear(1, 3)

    def forward(self, scans: Tensor, age: Tensor | None = None, *, factor: float = 1.0) -> Tensor:
        logits = self.end(self.body(scans))
        if self.kind == "read" and age is not None:
            logits = logits + self.age(age)
        return logits * factor if self.kind == "factor" else logits


network(
    "an argument that may be left out",
    "heads",
    lambda: settle(Optional("read")),
    **MAPS,
)
network("an argument that is not read", "heads", lambda: settle(Optional("unread")), **MAPS)


class Both(nn.Module):
    """A scan and an age, which `explain` cannot give it."""

    def __init__(self):
        super().__init__()
        self.body, self.end, self.age = stem(), nn.Sequential(*gap(4)), nn.Linear(1, 3)

    def forward(self, scans: Tensor, age: Tensor) -> Tensor:
        return self.end(self.body(scans)) + self.age(age)


network("two arguments", "heads", lambda: Both(), refused={"all": "age|argument"})


class TwoChannels(nn.Module):
    """Wants two channels, such as T1 and T2."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(2, 4, 3), nn.ReLU(), *gap(4))

    def forward(self, scans: Tensor) -> Tensor:
        return self.body(scans)


network("two channels", "heads", TwoChannels, refused={"all": "channels"})
