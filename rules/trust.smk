"""The answer: which heatmap can be trusted, over all cohorts and networks of a run."""


rule report_trust:
    """Put what is known of every method on every network and cohort on one page."""
    input:
        predictions=pages.all_predictions,
        scores=pages.scores,
        tables=pages.tables,
        pictures=pages.truth_pictures,
        simulations=pages.simulations,
    output:
        table=report(
            f"{layout.RESULTS}/trust.tsv",
            caption="../report/trust.rst",
            category="Summary",
            labels={"what": "which heatmap can be trusted, table"},
        ),
        picture=[
            report(
                f"{layout.RESULTS}/trust.png",
                caption="../report/trust.rst",
                category="Summary",
                labels={"what": "which heatmap can be trusted"},
            ),
            f"{layout.RESULTS}/trust.pdf",
        ],
        page=layout.TRUST,
    log:
        layout.log("report_trust"),
    benchmark:
        layout.benchmark("report_trust")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        networks=pages.tested_networks,
        baselines=pages.tested_baselines,
        runs=pages.runs,
        cohorts=pages.effects,
        smoothing_mm=SETTINGS["localisation"]["smoothing_mm"],
        draws=SETTINGS["localisation"]["draws"],
        roc_auc=SETTINGS["evaluation"]["roc_auc"],
        code=code_of("report_trust"),
    script:
        "../scripts/report_trust.py"
