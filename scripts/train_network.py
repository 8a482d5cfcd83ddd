"""Train a network on the training side of a split, and predict the test side."""

from typing import Any

from voxplain_workflow.jobs.frame import job
from voxplain_workflow.jobs.sidecars import write_sidecar


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import json
    from dataclasses import asdict
    from pathlib import Path

    import pandas as pd
    import torch

    from voxplain import __version__
    from voxplain.cohort.leakage import Member, check_fitted_on
    from voxplain.models import build_model, describe_model
    from voxplain.tables import read_tsv, write_tsv
    from voxplain.training.checkpoints import checkpoint_path, remove_checkpoints
    from voxplain.training.data import Scans
    from voxplain.training.device import choose_device
    from voxplain.training.loop import (
        Epoch,
        choose_precision,
        predict,
        seed_everything,
        train,
    )
    from voxplain.training.networks import save_network
    from voxplain.training.predictions import predictions_table
    from voxplain.training.statistics import read_statistics
    from voxplain_workflow.naming import naming

    torch.set_num_threads(snakemake.params.threads)
    device = choose_device(snakemake.resources.device)
    settings, seed = snakemake.params.settings, int(snakemake.wildcards.seed)
    classes, training = settings["classes"], settings["training"]
    options = {key: value for key, value in settings["model"].items() if key != "name"}

    members = read_tsv(snakemake.input.members, all_text=True)
    fit = json.loads(Path(snakemake.input.statistics).read_text(encoding="utf-8"))
    fitted_on, fit_on = fit["FittedOn"], fit["FitOn"]
    audit = json.loads(Path(snakemake.input.audit).read_text(encoding="utf-8"))
    skull_tool = audit["SkullStrippingTool"]
    check_fitted_on(
        fitted_on,
        [Member(*row) for row in members[["image", "patient", "side", "class"]].to_numpy()],
        "voxel statistics",
        None if fit_on == "all" else fit_on,
    )
    statistics = read_statistics(snakemake.input.mean, snakemake.input.sd, snakemake.input.mask)

    def scans_of(side: str) -> tuple[pd.DataFrame, Scans]:
        """The rows of one side of the split, and their scans."""
        rows = members[members["side"] == side]
        labels = [classes.index(group) for group in rows["class"]]
        return rows, Scans(list(rows["path"]), labels, statistics)

    _, train_scans = scans_of("train")
    test_rows, test_scans = scans_of("test")
    shape = statistics.grid.shape
    name = settings["model"]["name"]
    label = describe_model(name, shape, **options)
    seed_everything(seed, 0)
    model = build_model(name, shape, len(classes), **options)
    print(f"{label} on {device}: {len(train_scans)} scans, {training['epochs']} epochs", flush=True)

    def report(epoch: Epoch) -> None:
        """Print the measures of an epoch in one line of the log."""
        values = ", ".join(
            f"{key} {value:.3f}" for key, value in asdict(epoch).items() if key != "epoch"
        )
        print(f"epoch {epoch.epoch} of {training['epochs']}: {values}", flush=True)

    # Everything that the weights depend on; the voxels of the scans enter by the statistics.
    precision = str(choose_precision(training["precision"], device)).removeprefix("torch.")
    threads = snakemake.params.threads
    made_by = [settings, seed, snakemake.params.code, members.to_csv(), precision, threads]
    volumes = [snakemake.input.mean, snakemake.input.sd]
    output = Path(snakemake.output.model)
    checkpoint = checkpoint_path(output.parent, made_by, volumes)
    keys = {key: f"models.{name}.{key}" for key in ("batch_size", "learning_rate")}
    with naming(keys):
        history = train(
            model,
            train_scans,
            test_scans,
            epochs=training["epochs"],
            batch_size=training["batch_size"],
            learning_rate=training["learning_rate"],
            optimiser=training["optimiser"],
            every_class=training["every_class"],
            seed=seed,
            device=device,
            precision=precision,
            deterministic=training["deterministic"],
            checkpoint=checkpoint,
            report=report,
        )
    table = predictions_table(test_rows, predict(model, test_scans, device), classes)
    training_record = {
        "model": label,
        "task": snakemake.wildcards.task,
        "split": snakemake.wildcards.split,
        "seed": seed,
        "classes": classes,
        "train_scans": len(train_scans),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    save_network(
        output,
        model,
        name,
        options,
        classes,
        statistics,
        label=label,
        training=training,
        preprocessing=settings["preprocessing"],
        skull_tool=skull_tool,
        seed=seed,
        trained_on=list(members.loc[members["side"] == "train", "image"]),
        trained_on_patients=sorted(set(members.loc[members["side"] == "train", "patient"])),
        versions={"voxplain": __version__, "torch": str(torch.__version__)},
        device=str(device),
        precision=precision,
    )
    # Without its times, so that a training that is repeated writes the same file; the log has them.
    epochs = pd.DataFrame(map(asdict, history)).drop(columns="seconds")
    write_tsv(epochs, snakemake.output.history, floats=None)
    write_tsv(table, snakemake.output.predictions, floats="%.6f")
    write_sidecar(snakemake.output.record, training_record)
    remove_checkpoints(output.parent)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
