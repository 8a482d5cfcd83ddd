"""The page of a run, to look at, and to pass on with the folder beside it."""


rule report_results:
    """Put what came out of the run on one page, with the files that it shows beside it."""
    input:
        cohorts=pages.cohort_files,
        tasks=pages.task_files,
        networks=pages.network_files,
        heatmaps=pages.heatmap_files,
    output:
        page=layout.REPORT,
        files=directory(f"{layout.RESULTS}/report_files"),
    log:
        layout.log("report_results"),
    benchmark:
        layout.benchmark("report_results")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        cohorts=pages.cohorts,
        tasks=pages.tasks,
        networks=pages.networks,
        runs=pages.runs,
        retrained=pages.retrained,
        config=pages.config,
        snakemake_version=SNAKEMAKE_VERSION,
        code=pages.code_of_report,
    script:
        "../scripts/report_results.py"


rule show_heatmaps:
    """Put average heatmaps, and those of some scans, on a page to look at slice by slice."""
    input:
        files=pages.viewed_files,
        template=f"{layout.TEMPLATE}_T1w.nii.gz",
        mask=f"{layout.TEMPLATE}_mask.nii.gz",
        labels=f"{layout.ATLAS}.nii.gz",
        names=f"{layout.ATLAS}.tsv",
    output:
        page=layout.VIEWER,
        files=directory(f"{layout.RESULTS}/viewer_files"),
    log:
        layout.log("show_heatmaps"),
    benchmark:
        layout.benchmark("show_heatmaps")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(2000, least_mb=1000),
        runtime=growing(60),
    params:
        runs=pages.viewed,
        subjects=SETTINGS["report"]["subjects"],
        radiological=SETTINGS["report"]["radiological"],
        code=code_of("show_heatmaps"),
    script:
        "../scripts/show_heatmaps.py"
