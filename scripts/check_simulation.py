"""Compare the achieved with the intended effects of a simulation, and with simple classifiers."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    import json
    from pathlib import Path

    import pandas as pd

    from voxplain.cohort.effects import TOLERANCE, check_table
    from voxplain.plots.figures import save
    from voxplain.plots.simulation import plot_simulation
    from voxplain.tables import write_tsv
    from voxplain_workflow.records.scans import SimulatedScan

    params, output = snakemake.params, snakemake.output
    rows = []
    for scan in (SimulatedScan(**fields) for fields in params.scans):
        areas = json.loads(Path(scan.measures).read_text(encoding="utf-8"))["Areas"]
        scan_fields = {name: getattr(scan, name) for name in ("image", "patient", "group", "head")}
        rows += [{**scan_fields, "area": area, **measures} for area, measures in areas.items()]
    measures = pd.DataFrame(rows)
    table = check_table(measures, params.reference)
    write_tsv(table, output.table)
    title = f"{snakemake.wildcards.cohort}: what the simulation did"
    save(plot_simulation(measures, table, params.reference, title), output.picture)

    ratios = (table["achieved_loss"] / table["intended_loss"])[table["intended_loss"] > 0]
    least, most = TOLERANCE
    for row, ratio in ratios[(ratios < least) | (ratios > most)].items():
        group, area = table.loc[row, ["group", "name"]]
        print(f"{group}, {area}: achieved {ratio:.2f} of the intended loss, not {least} to {most}")
    for row in table[table["part"] == "baseline"].to_dict("records"):
        auc = "{roc_auc:.2f} ({low:.2f} to {high:.2f})".format(**row)
        print(f"{row['group']}, logistic regression on {row['name']}: ROC AUC {auc}")


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
