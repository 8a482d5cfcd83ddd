"""Write the scores of every method on every network and cohort on one page."""

from typing import Any

from voxplain_workflow.jobs.frame import job


def main(snakemake: Any) -> None:
    """Run the job that Snakemake describes."""
    from dataclasses import replace

    from voxplain import __version__
    from voxplain.comparison.models import Summary
    from voxplain.comparison.scorecard import findings, scorecard
    from voxplain.plots.figures import save
    from voxplain.plots.scorecard import plot_scorecard
    from voxplain.tables import write_tsv
    from voxplain_workflow.jobs.localisation import BASELINE, RESIDUAL
    from voxplain_workflow.jobs.predictions import read_predictions
    from voxplain_workflow.reports.trust import (
        page_of_trust,
        read_changes,
        read_retraining,
        read_runs,
        tested_networks,
        unmoved,
    )

    params, inputs, output = snakemake.params, snakemake.input, snakemake.output
    names = {cohort: fields["name"] for cohort, fields in params.cohorts.items()}
    effects = {fields["name"]: fields["effects"] for fields in params.cohorts.values()}
    all_predictions = (
        replace(each, cohort=names[each.cohort], tested_on=names[each.tested_on])
        for each in read_predictions(params.networks, params.baselines)
    )
    networks = tested_networks(Summary(all_predictions, params.roc_auc).rows())

    scores = read_runs(params.runs, names)
    # Scores of heatmaps with the least of the configured smoothing widths (it may be 0).
    least, *widths = sorted(params.smoothing_mm)
    card = scorecard(scores, smoothing_mm=least, draws=params.draws)
    variants = {f"smoothed by {width:g} mm": {"smoothing_mm": width} for width in widths}
    if (scores["region"] == RESIDUAL).any():
        variants["what is left after registration"] = {"region": RESIDUAL, "smoothing_mm": least}
    other_cards = {
        name: scorecard(scores, draws=params.draws, **options) for name, options in variants.items()
    }
    changes = read_changes(params.runs, names, params.draws)
    retraining = read_retraining(params.runs, names)

    keys = ["cohort", "task", "model", "method"]
    table = scores[keys].drop_duplicates().merge(card, how="left", on=keys)
    for name, other in other_cards.items():
        column = f"times_chance_{name.replace(' ', '_')}"
        scores_of_other = other[[*keys, "times_chance"]].rename(columns={"times_chance": column})
        table = table.merge(scores_of_other, how="left", on=keys)
    for other in (changes, retraining):
        table = table.merge(other, how="left", on=keys)
    write_tsv(table, output.table)

    title = "Average precision of the truth, in times chance; frame: twice chance or better, "
    title += "interval above chance"
    title += f" (heatmaps smoothed by {least:g} mm)" if least else ""
    save(plot_scorecard(card, title, baselines=[BASELINE]), output.picture)
    page = page_of_trust(
        sentences=[
            *findings(card, networks, effects, [BASELINE]),
            *unmoved(params.runs, names),
        ],
        networks=networks,
        table=table,
        others=other_cards,
        scorecard=output.picture[0],
        truths=inputs.pictures,
        simulations=inputs.simulations,
        version=__version__,
    )
    page.write(output.page)


if __name__ == "__main__":
    with job(snakemake):
        main(snakemake)
