"""Event files hold every number of a training once."""

import pytest

from tfevents import read_curves, read_events, read_hyperparameters, rounded
from voxplain.training.events import CURVES, write_events

HISTORY = [
    {
        "epoch": float(epoch),
        "train_loss": 0.7 / epoch,
        "train_accuracy": 0.5 + epoch / 10,
        "test_loss": 0.8 / epoch,
        "test_accuracy": 0.4 + epoch / 10,
    }
    for epoch in (1, 2, 3)
]
RESULTS = {
    "scan": {"n": 4, "accuracy": 0.75, "roc_auc": None, "confusion": [[2, 0], [1, 1]]},
    "patient": {"n": 2, "accuracy": 1.0, "roc_auc": 0.9},
}
RECIPE = {"learning_rate": 1e-4, "pools": [2, 3, 2, 3], "optimiser": "adam", "every_class": True}


@pytest.fixture
def path(tmp_path):
    written = tmp_path / "events.out.tfevents.training"
    write_events(written, HISTORY, RECIPE, RESULTS, ended=1000.0)
    return written


def test_every_number_of_every_epoch_is_written_once(path):
    curves = read_curves(path)
    for column, tag in CURVES.items():
        assert curves[tag] == [(int(row["epoch"]), rounded(row[column])) for row in HISTORY]
    assert curves["learning_rate"] == [(epoch, rounded(1e-4)) for epoch in (1, 2, 3)]


def test_measures_are_written_at_the_last_epoch_and_missing_ones_are_not(path):
    curves = read_curves(path)
    measures = {tag: points for tag, points in curves.items() if tag[:4] in ("scan", "pati")}
    assert measures == {
        "scan/accuracy": [(3, 0.75)],
        "patient/accuracy": [(3, 1.0)],
        "patient/roc_auc": [(3, rounded(0.9))],
    }


def test_hyperparameters_keep_their_kinds(path):
    assert read_hyperparameters(path) == {**RECIPE, "pools": "[2, 3, 2, 3]"}


def test_all_events_have_the_time_of_the_end_of_the_training(path):
    assert {event.wall_time for event in read_events(path)} == {1000.0}


def test_all_events_belong_to_one_run(path):
    assert list(path.parent.iterdir()) == [path]
