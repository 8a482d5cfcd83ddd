"""The predictions of all networks and baselines of a run, as rules hand them to scripts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from voxplain.comparison.models import BASELINE, NETWORK, NetworkPredictions
from voxplain.tables import read_tsv


def read_predictions(inputs: Any, params: Any) -> Iterator[NetworkPredictions]:
    """The predictions of every network, then of every baseline on every split."""
    for told, path in zip(params.networks, inputs.predictions, strict=True):
        predictions = read_tsv(path)
        yield NetworkPredictions(**told, predictions=predictions, kind=NETWORK)
    for told, path in zip(params.baselines, inputs.baselines, strict=True):
        predictions = read_tsv(path)
        own = {key: value for key, value in told.items() if key != "tested_on"}
        for split, table in predictions.groupby("split", sort=False):
            yield NetworkPredictions(
                **own,
                tested_on=told["tested_on"][split],
                split=split,
                seed=0,
                predictions=table.drop(columns="split").reset_index(drop=True),
                kind=BASELINE,
            )
