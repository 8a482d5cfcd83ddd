"""Write a training's history, hyperparameters and results for TensorBoard."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import json
    from pathlib import Path

    from voxplain.tables import read_rows
    from voxplain.training.events import write_events

    history = Path(snakemake.input.history)
    epochs = [{column: float(value) for column, value in row.items()} for row in read_rows(history)]
    metrics = json.loads(Path(snakemake.input.metrics).read_text(encoding="utf-8"))
    run = {key: metrics[key] for key in ("task", "split", "seed", "model", "train_scans")}
    write_events(
        snakemake.output.events,
        epochs,
        {"cohort": snakemake.wildcards.cohort, **run, **snakemake.params.hyperparameters},
        {level: metrics[level] for level in ("patient", "scan")},
        # The best estimate: the history is written right after the network is tested.
        ended=history.stat().st_mtime,
    )


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
