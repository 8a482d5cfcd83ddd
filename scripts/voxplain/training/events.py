"""A finished training as an event file for TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboardX import RecordWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import hparams

# Column of a training's history to the name of its curve; TensorBoard groups by the part before /.
CURVES = {
    "train_loss": "loss/train",
    "test_loss": "loss/test",
    "train_accuracy": "accuracy/train",
    "test_accuracy": "accuracy/test",
}


def write_events(
    path: str | Path,
    history: Sequence[Mapping[str, float]],
    hyperparameters: Mapping[str, Any],
    results: Mapping[str, Mapping[str, Any]],
    ended: float,
) -> None:
    """Write the history, hyperparameters and results of one training as one event file.

    The file is written from the whole history, so that every epoch occurs once, even if the
    training was interrupted.

    Parameters
    ----------
    path
        Output file. TensorBoard reads files with ``tfevents`` in their names; the folder is the
        name of the run.
    history
        For every epoch, ``epoch`` and the columns of :data:`CURVES`, as in ``history.tsv``; losses
        and accuracies as in :class:`voxplain.training.loop.Epoch`.
    hyperparameters
        Hyperparameters with the ``learning_rate``, which is a curve as well. Lists and None are
        shown as text.
    results
        The measures of the trained network, ``scan`` and ``patient`` to the result of
        :func:`voxplain.training.metrics.measure`. Measures that are None are left out.
    ended
        End of the training in seconds since 1970, the time of all events: the history has no times.
    """
    measures = {
        f"{level}/{name}": float(value)
        for level, level_results in results.items()
        for name, value in level_results.items()
        if isinstance(value, float)
    }
    writer = RecordWriter(str(path))
    for event in _events(history, hyperparameters, measures, ended):
        writer.write(event.SerializeToString())
    writer.close()


def _events(
    history: Sequence[Mapping[str, float]],
    hyperparameters: Mapping[str, Any],
    measures: Mapping[str, float],
    ended: float,
) -> Iterator[Event]:
    yield Event(wall_time=ended, file_version="brain.Event:2")
    shown = {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in hyperparameters.items()
    }
    # Not the method add_hparams of the writer, which adds a second run for every training.
    for summary in hparams(shown, measures):
        yield Event(wall_time=ended, summary=summary)
    for epoch in history:
        curves = {name: epoch[column] for column, name in CURVES.items()}
        curves["learning_rate"] = hyperparameters["learning_rate"]
        yield _scalars(curves, epoch["epoch"], ended)
    yield _scalars(measures, history[-1]["epoch"], ended)


def _scalars(values: Mapping[str, float], step: float, time: float) -> Event:
    entries = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    return Event(wall_time=time, step=int(step), summary=Summary(value=entries))
