"""The predictions of all networks and baselines of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from voxplain.comparison.models import BASELINE, NETWORK, NetworkPredictions
from voxplain.tables import read_tsv
from voxplain_workflow.records.networks import EvaluatedBaseline, EvaluatedNetwork


def read_predictions(
    networks: Sequence[Mapping[str, Any]], baselines: Sequence[Mapping[str, Any]]
) -> Iterator[NetworkPredictions]:
    """The predictions of every network, then of every baseline on every split.

    Parameters
    ----------
    networks, baselines
        Fields of :class:`EvaluatedNetwork` and of :class:`EvaluatedBaseline`, from params.
    """
    for network in (EvaluatedNetwork(**fields) for fields in networks):
        described = {**vars(network), "predictions": read_tsv(network.predictions)}
        yield NetworkPredictions(**described, kind=NETWORK)
    for baseline in (EvaluatedBaseline(**fields) for fields in baselines):
        table_of_splits = read_tsv(baseline.predictions)
        for split, table in table_of_splits.groupby("split", sort=False):
            described = {
                **vars(baseline),
                "tested_on": baseline.tested_on[split],
                "predictions": table.drop(columns="split").reset_index(drop=True),
            }
            yield NetworkPredictions(**described, split=split, seed=0, kind=BASELINE)
