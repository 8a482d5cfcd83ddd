"""The predictions of all networks and baselines of a run, read from the inputs of a rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from voxplain.comparison.models import BASELINE, NETWORK, NetworkPredictions
from voxplain.tables import read_tsv


def read_predictions(inputs: Any, params: Any) -> Iterator[NetworkPredictions]:
    """The predictions of every network, then of every baseline on every split."""
    for network, path in zip(params.networks, inputs.predictions, strict=True):
        predictions = read_tsv(path)
        yield NetworkPredictions(**network, predictions=predictions, kind=NETWORK)
    for baseline, path in zip(params.baselines, inputs.baselines, strict=True):
        predictions = read_tsv(path)
        fields = {key: value for key, value in baseline.items() if key != "tested_on"}
        for split, table in predictions.groupby("split", sort=False):
            yield NetworkPredictions(
                **fields,
                tested_on=baseline["tested_on"][split],
                split=split,
                seed=0,
                predictions=table.drop(columns="split").reset_index(drop=True),
                kind=BASELINE,
            )
