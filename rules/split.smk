"""Who trains and who tests, and the statistics of those who train."""


rule audit_split:
    """Look for leaks between the sides of a split and list its usable scans."""
    input:
        quality=scans_of_split(scan_file("desc-quality_T1w.json"), "train", "test"),
    output:
        members=f"{SPLIT}_members.tsv",
        audit=f"{SPLIT}_audit.json",
    log:
        split_log("audit_split"),
    benchmark:
        split_benchmark("audit_split")
    # What it finds at fault, it finds again.
    retries: 0
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        # No param, and the cohort's verdict no input: they decide whether to go on, not what comes
        # out, and another limit is no reason to train again. (An ancient() input would do it, but
        # where its own job reruns, Snakemake overlooks other changes of this one.)
        most_lost=most_lost,
        mem_mb=1000,
        runtime=10,
    params:
        rows=members_of_split,
        classes=classes_of_task,
        group_by=config["splits"]["group_by"],
        code=code_of("audit_split"),
    script:
        "../scripts/audit_split.py"


rule report_splits:
    """Write all splits of a cohort into one table, with the numbers of scans and patients."""
    input:
        members=of_splits(f"{SPLIT}_members.tsv"),
        audits=of_splits(f"{SPLIT}_audit.json"),
    output:
        splits="results/{cohort}/{task}/splits.tsv",
        counts=report(
            "results/{cohort}/{task}/splits_counts.tsv",
            caption="../report/splits.rst",
            category="Cohort",
            subcategory="{cohort} {task}",
            labels={"what": "splits"},
        ),
        audit=report(
            "results/{cohort}/{task}/leakage_audit.tsv",
            caption="../report/leakage_audit.rst",
            category="Cohort",
            subcategory="{cohort} {task}",
            labels={"what": "leakage audit"},
        ),
    log:
        "logs/report_splits/{cohort}/{task}.log",
    benchmark:
        "results/benchmarks/report_splits/{cohort}/{task}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        classes=classes_of_task,
        people=people_of_task,
        code=code_of("report_splits"),
    script:
        "../scripts/report_splits.py"


rule fit_statistics:
    """Fit the voxelwise mean and SD on the training scans of a split, and on nothing else."""
    input:
        members=f"{SPLIT}_members.tsv",
        volumes=scans_of_split(STORED, "train"),
        mask=f"{TEMPLATE}_mask.nii.gz",
    output:
        mean=f"{SPLIT}_mean.nii.gz",
        sd=f"{SPLIT}_sd.nii.gz",
        sidecar=f"{SPLIT}_statistics.json",
    log:
        split_log("fit_statistics"),
    benchmark:
        split_benchmark("fit_statistics")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(2000, least_mb=1000),
        runtime=growing(60),
    params:
        settings=settings_of("normalisation")["normalisation"],
        code=code_of("fit_statistics"),
    script:
        "../scripts/fit_statistics.py"
