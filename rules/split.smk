"""Who trains and who tests, and the statistics of those who train."""


rule audit_split:
    """Look for leaks between the sides of a split and list its usable scans."""
    input:
        quality=split.files(layout.QUALITY, "train", "test"),
    output:
        members=f"{layout.SPLIT}_members.tsv",
        audit=f"{layout.SPLIT}_audit.json",
    log:
        layout.log("audit_split", *layout.of_split()),
    benchmark:
        layout.benchmark("audit_split", *layout.of_split())
    # What it finds at fault, it finds again.
    retries: 0
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        # No param, and the cohort's verdict no input: they decide whether to go on, not what comes
        # out, and another limit is no reason to train again. (An ancient() input would do it, but
        # where its own job reruns, Snakemake overlooks other changes of this one.)
        failures_left=split.failures_left,
        mem_mb=1000,
        runtime=10,
    params:
        scans=split.members,
        classes=split.classes,
        group_by=SETTINGS["splits"]["group_by"],
        code=code_of("audit_split"),
    script:
        "../scripts/audit_split.py"


rule report_splits:
    """Write all splits of a cohort into one table, with the numbers of scans and patients."""
    input:
        splits=split.split_files,
    output:
        splits=f"{layout.TASK}/splits.tsv",
        counts=report(
            f"{layout.TASK}/splits_counts.tsv",
            caption="../report/splits.rst",
            category="Cohort",
            subcategory="{cohort} {task}",
            labels={"what": "splits"},
        ),
        audit=report(
            f"{layout.TASK}/leakage_audit.tsv",
            caption="../report/leakage_audit.rst",
            category="Cohort",
            subcategory="{cohort} {task}",
            labels={"what": "leakage audit"},
        ),
    log:
        layout.log("report_splits", "{cohort}", "{task}"),
    benchmark:
        layout.benchmark("report_splits", "{cohort}", "{task}")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        classes=split.classes,
        splits=split.splits,
        people=split.people,
        code=code_of("report_splits"),
    script:
        "../scripts/report_splits.py"


rule fit_statistics:
    """Fit the voxelwise mean and SD on the training scans of a split, and on nothing else."""
    input:
        members=f"{layout.SPLIT}_members.tsv",
        volumes=split.files(layout.STORED, "train"),
        mask=f"{layout.TEMPLATE}_mask.nii.gz",
    output:
        mean=f"{layout.SPLIT}_mean.nii.gz",
        sd=f"{layout.SPLIT}_sd.nii.gz",
        sidecar=f"{layout.SPLIT}_statistics.json",
    log:
        layout.log("fit_statistics", *layout.of_split()),
    benchmark:
        layout.benchmark("fit_statistics", *layout.of_split())
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(2000, least_mb=1000),
        runtime=growing(60),
    params:
        settings=split.normalisation,
        code=code_of("fit_statistics"),
    script:
        "../scripts/fit_statistics.py"
