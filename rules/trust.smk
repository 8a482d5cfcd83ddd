"""The answer: which heatmap can be trusted, over all cohorts and networks of a run."""


rule report_trust:
    """Put what is known of every method on every network and cohort on one page."""
    input:
        predictions=all_predictions,
        baselines=all_baseline_predictions,
        scores=scores_of_runs,
        tables=tables_of_runs,
        pictures=pictures_of_runs,
        simulations=checks_of_simulations,
    output:
        table=report(
            "results/trust.tsv",
            caption="../report/trust.rst",
            category="Summary",
            labels={"what": "which heatmap can be trusted, table"},
        ),
        picture=[
            report(
                "results/trust.png",
                caption="../report/trust.rst",
                category="Summary",
                labels={"what": "which heatmap can be trusted"},
            ),
            "results/trust.pdf",
        ],
        page="results/trust.html",
    log:
        "logs/report_trust.log",
    benchmark:
        "results/benchmarks/report_trust.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        networks=all_networks,
        baselines=all_baselines,
        runs=explained_runs,
        cohorts=told_of_cohorts,
        smoothing_mm=config["localisation"]["smoothing_mm"],
        draws=config["localisation"]["draws"],
        roc_auc=config["evaluation"]["roc_auc"],
        code=code_of("report_trust"),
    script:
        "../scripts/report_trust.py"
