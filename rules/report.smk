"""The page of a run, to look at, and to pass on with the folder beside it."""


rule report_results:
    """Put what came out of the run on one page, with the files that it shows beside it."""
    input:
        cohorts=tables_of_cohorts,
        tasks=tables_of_tasks,
        networks=results_of_networks,
        heatmaps=results_of_heatmaps,
    output:
        page="results/report.html",
        files=directory("results/report_files"),
    log:
        "logs/report_results.log",
    benchmark:
        "results/benchmarks/report_results.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        cohorts=reported_cohorts,
        tasks=reported_tasks,
        networks=reported_networks,
        runs=explained_runs,
        retrained=retrained_folders,
        config=reported_config(),
        version=VERSION,
        snakemake_version=SNAKEMAKE_VERSION,
        code=code_of_report,
    script:
        "../scripts/report_results.py"


rule show_heatmaps:
    """Put average heatmaps, and those of some scans, on a page to look at slice by slice."""
    input:
        files=viewed_files,
        template=f"{TEMPLATE}_T1w.nii.gz",
        mask=f"{TEMPLATE}_mask.nii.gz",
        labels=f"{ATLAS}.nii.gz",
        names=f"{ATLAS}.tsv",
    output:
        page="results/viewer.html",
        files=directory("results/viewer_files"),
    log:
        "logs/show_heatmaps.log",
    benchmark:
        "results/benchmarks/show_heatmaps.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(2000, least_mb=1000),
        runtime=growing(60),
    params:
        runs=viewed_runs,
        subjects=config["report"]["subjects"],
        radiological=config["report"]["radiological"],
        code=code_of("show_heatmaps"),
    script:
        "../scripts/show_heatmaps.py"
