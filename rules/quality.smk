"""The quality of every scan, and what becomes of it."""


rule assess_quality:
    """Measure one scan's preprocessing, and decide its fate."""
    input:
        mask=layout.scan_file("desc-brain_mask.nii.gz"),
        mask_sidecar=layout.scan_file("desc-brain_mask.json"),
        registered=layout.PREPROCESSED,
        registered_mask=layout.scan_file(f"space-{layout.SPACE}_desc-brain_mask.nii.gz"),
        sidecar=layout.scan_file(f"space-{layout.SPACE}_desc-preproc_T1w.json"),
        template=f"{layout.TEMPLATE}_T1w.nii.gz",
        template_mask=f"{layout.TEMPLATE}_mask.nii.gz",
    output:
        quality=layout.QUALITY,
    log:
        layout.log("assess_quality", *layout.OF_SCAN),
    benchmark:
        layout.benchmark("assess_quality", *layout.OF_SCAN)
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        **SCAN_CHAIN,
        mem_mb=growing(2500),
        runtime=growing(5),
    params:
        settings=preprocess.quality,
        code=code_of("assess_quality"),
    script:
        "../scripts/assess_quality.py"


rule draw_quality:
    """Draw one scan's brain mask and registration."""
    input:
        head=layout.T1W,
        mask=layout.scan_file("desc-brain_mask.nii.gz"),
        mask_sidecar=layout.scan_file("desc-brain_mask.json"),
        registered=layout.PREPROCESSED,
        quality=layout.QUALITY,
        template=f"{layout.TEMPLATE}_T1w.nii.gz",
        template_mask=f"{layout.TEMPLATE}_mask.nii.gz",
    output:
        mask_picture=report(
            layout.MASK_PICTURE,
            caption="../report/brain_mask.rst",
            category="Quality control",
            subcategory="{cohort}",
            labels={"scan": "{image}", "subject": "{subject}", "what": "brain mask"},
        ),
        registration_picture=report(
            layout.REGISTRATION_PICTURE,
            caption="../report/registration.rst",
            category="Quality control",
            subcategory="{cohort}",
            labels={"scan": "{image}", "subject": "{subject}", "what": "registration"},
        ),
    log:
        layout.log("draw_quality", *layout.OF_SCAN),
    benchmark:
        layout.benchmark("draw_quality", *layout.OF_SCAN)
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        **SCAN_CHAIN,
        mem_mb=growing(2500),
        runtime=growing(5),
    params:
        code=code_of("draw_quality"),
    script:
        "../scripts/draw_quality.py"


rule collect_scans:
    """Write the cohort's table: every scan with its measures and its fate."""
    input:
        scans=preprocess.assessed,
    output:
        table=report(
            layout.SCANS,
            caption="../report/scans.rst",
            category="Cohort",
            subcategory="{cohort}",
            labels={"what": "scans"},
        ),
        people=report(
            f"{layout.COHORT}/scans_people.tsv",
            caption="../report/people.rst",
            category="Cohort",
            subcategory="{cohort}",
            labels={"what": "people"},
        ),
        oddities=report(
            f"{layout.COHORT}/scans_oddities.tsv",
            caption="../report/oddities.rst",
            category="Cohort",
            subcategory="{cohort}",
            labels={"what": "oddities"},
        ),
        description=f"{layout.COHORT}/derivatives/dataset_description.json",
        ignored=f"{layout.COHORT}/derivatives/.bidsignore",
    log:
        layout.log("collect_scans", "{cohort}"),
    benchmark:
        layout.benchmark("collect_scans", "{cohort}")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=15,
    params:
        rows=preprocess.rows,
        qualities=preprocess.qualities,
        unlisted=preprocess.unlisted,
        code=code_of("collect_scans"),
    script:
        "../scripts/collect_scans.py"


rule show_quality:
    """Put every scan of a cohort with its verdict and its pictures on one page."""
    input:
        table=layout.SCANS,
    output:
        page=layout.QUALITY_PAGE,
        flags=report(
            f"{layout.COHORT}/scans_flagged.tsv",
            caption="../report/flagged.rst",
            category="Cohort",
            subcategory="{cohort}",
            labels={"what": "flagged scans"},
        ),
    log:
        layout.log("show_quality", "{cohort}"),
    benchmark:
        layout.benchmark("show_quality", "{cohort}")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=15,
    params:
        # The page only links to them; the jobs of the table's inputs draw them.
        pictures=preprocess.pictures,
        code=code_of("show_quality"),
    script:
        "../scripts/show_quality.py"


rule check_scans:
    """Stop where more scans were lost than max_failed allows."""
    input:
        table=layout.SCANS,
    output:
        verdict=layout.QUALITY_GATE,
    log:
        layout.log("check_scans", "{cohort}"),
    benchmark:
        layout.benchmark("check_scans", "{cohort}")
    # What it finds at fault, it finds again.
    retries: 0
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    params:
        max_failed=SETTINGS["max_failed"],
        code=code_of("check_scans"),
    script:
        "../scripts/check_scans.py"
