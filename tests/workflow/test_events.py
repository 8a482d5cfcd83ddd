"""Event files for TensorBoard, also of finished trainings, with the values of their tables."""

import csv
import json

import pytest

from tfevents import read_curves, read_hyperparameters, rounded
from voxplain.training.events import CURVES
from workflow.conftest import FIRST, snakemake
from workflow.test_rerun import changed


@pytest.mark.slow
def test_finished_trainings_get_their_event_files(finished):
    run = snakemake(finished, config=changed("training.tensorboard", True, FIRST))
    assert run.status == 0, run.said
    assert run.rules == {"write_events"}
    folders = sorted(path.parent for path in finished.rglob("rieke/*/seed-1/history.tsv"))
    paths = sorted((finished / "results").rglob("*tfevents*"))
    assert [path.parent for path in paths] == folders
    for path in paths:
        with (path.parent / "history.tsv").open() as stream:
            history = list(csv.DictReader(stream, delimiter="\t"))
        metrics = json.loads((path.parent / "metrics.json").read_text())
        curves = read_curves(path)
        for column, tag in CURVES.items():
            rows = [(int(row["epoch"]), rounded(float(row[column]))) for row in history]
            assert curves.pop(tag) == rows
        assert curves.pop("learning_rate") == [(epoch, rounded(1e-4)) for epoch in (1, 2)]
        for tag, points in curves.items():
            level, name = tag.split("/")
            assert points == [(2, rounded(metrics[level][name]))]
        shown = read_hyperparameters(path)
        assert shown["model"] == "rieke (pools 2,2,2,1)"
        assert (shown["cohort"], shown["split"], shown["epochs"]) == ("tiny", metrics["split"], 2)
