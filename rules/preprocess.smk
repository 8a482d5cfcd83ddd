"""From a head in scanner space to a brain in template space, and the fate of every scan."""


rule choose_skull_tool:
    """Decide once for a cohort which tool removes the skull."""
    output:
        tools="results/{cohort}/tools.json",
    log:
        "logs/choose_skull_tool/{cohort}.log",
    benchmark:
        "results/benchmarks/choose_skull_tool/{cohort}.tsv"
    conda:
        "../envs/fsl.yaml" if MAY_USE_FSL else "../envs/deepbet.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=5,
    params:
        wanted=config["skull"]["tool"],
        code=code_of("choose_skull_tool"),
    script:
        "../scripts/choose_skull_tool.py"


rule strip_skull:
    """Find the brain in one scan's head with BET or deepbet."""
    input:
        volume=scan_file("T1w.nii.gz"),
        sidecar=scan_file("T1w.json"),
        tools="results/{cohort}/tools.json",
    output:
        mask=intermediate("desc-brain_mask.nii.gz"),
        sidecar=scan_file("desc-brain_mask.json"),
    log:
        scan_log("strip_skull"),
    benchmark:
        scan_benchmark("strip_skull")
    conda:
        "../envs/fsl.yaml" if MAY_USE_FSL else "../envs/deepbet.yaml"
    threads: 1
    resources:
        **SCAN_CHAIN,
        mem_mb=growing(4000),
        runtime=growing(10),
    params:
        settings=skull_settings_of,
        code=code_of("strip_skull"),
    script:
        "../scripts/strip_skull.py"


rule correct_intensity:
    """Correct one brain's bias field with N4 and bring it to the common scale."""
    input:
        volume=scan_file("T1w.nii.gz"),
        sidecar=scan_file("T1w.json"),
        mask=scan_file("desc-brain_mask.nii.gz"),
        mask_sidecar=scan_file("desc-brain_mask.json"),
    output:
        brain=intermediate("desc-corrected_T1w.nii.gz"),
        sidecar=scan_file("desc-corrected_T1w.json"),
    log:
        scan_log("correct_intensity"),
    benchmark:
        scan_benchmark("correct_intensity")
    conda:
        "../envs/ants.yaml"
    threads: 1
    resources:
        **SCAN_CHAIN,
        mem_mb=growing(3000),
        runtime=growing(5),
    params:
        settings=correction_settings,
        code=code_of("correct_intensity"),
    script:
        "../scripts/correct_intensity.py"


rule make_template:
    """Put the template brain on the grid of this run."""
    output:
        brain=f"{TEMPLATE}_T1w.nii.gz",
        mask=f"{TEMPLATE}_mask.nii.gz",
    log:
        "logs/make_template.log",
    benchmark:
        "results/benchmarks/make_template.tsv"
    conda:
        "../envs/simulate.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        settings=settings_of("template", "resolution_mm"),
        code=code_of("make_template"),
    script:
        "../scripts/make_template.py"


rule register_to_template:
    """Register one brain to the template with ANTs."""
    input:
        brain=scan_file("desc-corrected_T1w.nii.gz"),
        sidecar=scan_file("desc-corrected_T1w.json"),
        mask=scan_file("desc-brain_mask.nii.gz"),
        template=f"{TEMPLATE}_T1w.nii.gz",
        template_mask=f"{TEMPLATE}_mask.nii.gz",
    output:
        brain=scan_file(f"space-{SPACE}_desc-preproc_T1w.nii.gz"),
        voxels=STORED,
        sidecar=scan_file(f"space-{SPACE}_desc-preproc_T1w.json"),
        mask=scan_file(f"space-{SPACE}_desc-brain_mask.nii.gz"),
        transform=intermediate(f"from-T1w_to-{SPACE}_mode-image_xfm.h5"),
    log:
        scan_log("register_to_template"),
    benchmark:
        scan_benchmark("register_to_template")
    conda:
        "../envs/ants.yaml"
    threads: 1
    resources:
        **SCAN_CHAIN,
        mem_mb=voxels_times(4000, least_mb=1500),
        runtime=growing(REGISTRATION_MINUTES),
    params:
        settings=registration_settings,
        code=code_of("register_to_template"),
    script:
        "../scripts/register_to_template.py"


rule assess_quality:
    """Measure one scan's preprocessing, decide its fate, and draw it."""
    input:
        head=scan_file("T1w.nii.gz"),
        mask=scan_file("desc-brain_mask.nii.gz"),
        mask_sidecar=scan_file("desc-brain_mask.json"),
        registered=scan_file(f"space-{SPACE}_desc-preproc_T1w.nii.gz"),
        registered_mask=scan_file(f"space-{SPACE}_desc-brain_mask.nii.gz"),
        sidecar=scan_file(f"space-{SPACE}_desc-preproc_T1w.json"),
        template=f"{TEMPLATE}_T1w.nii.gz",
        template_mask=f"{TEMPLATE}_mask.nii.gz",
    output:
        quality=scan_file("desc-quality_T1w.json"),
        mask_picture=report(
            scan_file("desc-brain_mask.png", kind="figures"),
            caption="../report/brain_mask.rst",
            category="Quality control",
            subcategory="{cohort}",
            labels={"scan": "{image}", "subject": "{subject}", "what": "brain mask"},
        ),
        registration_picture=report(
            scan_file(f"space-{SPACE}_desc-preproc_T1w.png", kind="figures"),
            caption="../report/registration.rst",
            category="Quality control",
            subcategory="{cohort}",
            labels={"scan": "{image}", "subject": "{subject}", "what": "registration"},
        ),
    log:
        scan_log("assess_quality"),
    benchmark:
        scan_benchmark("assess_quality")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        **SCAN_CHAIN,
        mem_mb=growing(2500),
        runtime=growing(5),
    params:
        settings=quality_settings,
        code=code_of("assess_quality"),
    script:
        "../scripts/assess_quality.py"


rule collect_scans:
    """Write the cohort's table: every scan with its measures and its fate."""
    input:
        scans=assessed_scans,
    output:
        table=report(
            "results/{cohort}/scans.tsv",
            caption="../report/scans.rst",
            category="Cohort",
            subcategory="{cohort}",
            labels={"what": "scans"},
        ),
        people=report(
            "results/{cohort}/scans_people.tsv",
            caption="../report/people.rst",
            category="Cohort",
            subcategory="{cohort}",
            labels={"what": "people"},
        ),
        oddities=report(
            "results/{cohort}/scans_oddities.tsv",
            caption="../report/oddities.rst",
            category="Cohort",
            subcategory="{cohort}",
            labels={"what": "oddities"},
        ),
        description="results/{cohort}/derivatives/dataset_description.json",
        ignored="results/{cohort}/derivatives/.bidsignore",
    log:
        "logs/collect_scans/{cohort}.log",
    benchmark:
        "results/benchmarks/collect_scans/{cohort}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=15,
    params:
        rows=rows_of_cohort,
        images=images_of_cohort,
        unlisted=unlisted_images,
        version=VERSION,
        code=code_of("collect_scans"),
    script:
        "../scripts/collect_scans.py"


rule show_quality:
    """Put every scan of a cohort with its verdict and its pictures on one page."""
    input:
        table="results/{cohort}/scans.tsv",
    output:
        page="results/{cohort}/quality.html",
        flags=report(
            "results/{cohort}/scans_flagged.tsv",
            caption="../report/flagged.rst",
            category="Cohort",
            subcategory="{cohort}",
            labels={"what": "flagged scans"},
        ),
    log:
        "logs/show_quality/{cohort}.log",
    benchmark:
        "results/benchmarks/show_quality/{cohort}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=15,
    params:
        images=images_of_cohort,
        # Made with what the table was made of, and only linked to.
        masks=pictures_of_cohort("desc-brain_mask.png"),
        registrations=pictures_of_cohort(f"space-{SPACE}_desc-preproc_T1w.png"),
        version=VERSION,
        code=code_of("show_quality"),
    script:
        "../scripts/show_quality.py"


rule check_scans:
    """Stop where more scans were lost than max_failed allows."""
    input:
        table="results/{cohort}/scans.tsv",
    output:
        verdict="results/{cohort}/quality_gate.json",
    log:
        "logs/check_scans/{cohort}.log",
    benchmark:
        "results/benchmarks/check_scans/{cohort}.tsv"
    # What it finds at fault, it finds again.
    retries: 0
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    params:
        max_failed=config["max_failed"],
        code=code_of("check_scans"),
    script:
        "../scripts/check_scans.py"
