"""What a run will cost, before it is run; whether its results are whole, long after."""


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


rule verify_results:
    """Name every result that was damaged or deleted since it was made."""

    # No output and no benchmark file: a rule that would leave one runs only once.
    log:
        layout.log("verify_results"),
    # What it finds at fault, it finds again.
    retries: 0
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=120,
    params:
        temporary=targets.temporary,
    script:
        "../scripts/verify_results.py"
