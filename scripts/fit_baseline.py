"""Classify scans by a baseline without a network, on every split of a task."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import pandas as pd

    from voxplain.cohort.demographics import AREAS, Person
    from voxplain.cohort.split_names import FOLDS, SplitName, fold_name
    from voxplain.comparison.baselines import predict_split
    from voxplain.tables import read_tsv, write_tsv
    from voxplain.training.cross_validation import cross_validation_table

    params, output = snakemake.params, snakemake.output
    if snakemake.wildcards.baseline == AREAS:
        (path,) = snakemake.input.areas
        features, categories = read_tsv(path), []
    else:
        features = pd.DataFrame([Person(**fields) for fields in params.people])
        features = features.astype({"age": float, "male": float})
        categories = ["male"]
    features = features.set_index(["cohort", "image"])

    predictions, coefficients = {}, {}
    for split, path in params.members.items():
        predictions[split], coefficients[split] = predict_split(
            read_tsv(path), features, params.classes, categories
        )
    for tables, path in ((predictions, output.predictions), (coefficients, output.coefficients)):
        all_splits = pd.concat([table.assign(split=split) for split, table in tables.items()])
        all_splits = all_splits[["split", *all_splits.columns.drop("split")]]
        write_tsv(all_splits, path, "%.6f")

    folds = {}
    for split, table in predictions.items():
        name = SplitName.parse(split)
        if name.kind == FOLDS:
            # A baseline has no seed: its fit is deterministic.
            folds[name.repeat, name.fold, 0] = table
    evaluated = cross_validation_table(folds, params.classes, params.roc_auc).drop(columns="seed")
    imputed = {
        fold_name(repeat, fold): (table["imputed"] > 0).sum()
        for (repeat, fold, _), table in folds.items()
    }
    evaluated["scans_imputed"] = evaluated["split"].map(imputed).astype("Int64")
    evaluated = evaluated.assign(model=params.label)
    write_tsv(evaluated, output.table, "%.4f")
    print(f"{params.label}: {len(predictions)} splits, {features.shape[1]} features")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
