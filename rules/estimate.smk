"""What a run will cost, before it is run."""


rule estimate:
    """Print the jobs, hours and disk that the configured cohorts will take; nothing else runs."""

    # No output and no benchmark file: a rule that would leave one runs only once.
    log:
        layout.log("estimate"),
    localrule: True
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    params:
        text=estimate_of_run,
    script:
        "../scripts/estimate.py"
