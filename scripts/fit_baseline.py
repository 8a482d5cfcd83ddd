"""Tell the classes apart without a network, on every split of a task."""

from voxplain_workflow.jobs.frame import job

with job(snakemake):
    import re
    from pathlib import Path

    import pandas as pd

    from voxplain.cohort.demographics import AREAS
    from voxplain.comparison.baselines import predict_split
    from voxplain.training.metrics import cross_validation_table

    params, output = snakemake.params, snakemake.output
    if snakemake.wildcards.baseline == AREAS:
        (path,) = snakemake.input.areas
        # A cohort may be called null, which is no missing value.
        names = {"cohort": str, "image": str}
        features, categories = pd.read_csv(path, sep="\t", converters=names), []
    else:
        columns = ["cohort", "image", "age", "male"]
        features = pd.DataFrame(params.people, columns=columns)
        features = features.astype({"age": float, "male": float})
        categories = ["male"]
    features = features.set_index(["cohort", "image"])

    predictions, coefficients = {}, {}
    for path in snakemake.input.members:
        split = Path(path).name.removesuffix("_members.tsv")
        members = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        predictions[split], coefficients[split] = predict_split(
            members, features, params.classes, categories
        )
    look = {"sep": "\t", "index": False, "na_rep": "n/a"}
    for tables, path in ((predictions, output.predictions), (coefficients, output.coefficients)):
        told = pd.concat([table.assign(split=split) for split, table in tables.items()])
        told = told[["split", *told.columns.drop("split")]]
        told.to_csv(path, float_format="%.6f", **look)

    folds = {}
    for split, table in predictions.items():
        if told := re.fullmatch(r"repeat-(\d+)_fold-(\d+)", split):
            # It has no seed: fitted again, it is the same.
            folds[int(told.group(1)), int(told.group(2)), 0] = table
    evaluated = cross_validation_table(folds, params.classes, params.roc_auc).drop(columns="seed")
    imputed = {
        f"repeat-{repeat}_fold-{fold}": (table["imputed"] > 0).sum()
        for (repeat, fold, _), table in folds.items()
    }
    evaluated["scans_imputed"] = evaluated["split"].map(imputed).astype("Int64")
    evaluated = evaluated.assign(model=params.label)
    evaluated.to_csv(output.table, float_format="%.4f", **look)
    print(f"{params.label}: {len(predictions)} splits, {features.shape[1]} features")
