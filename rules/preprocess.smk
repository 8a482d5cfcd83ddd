"""From a head in scanner space to a brain in template space, and the fate of every scan."""


rule choose_skull_tool:
    """Decide once for a cohort which tool removes the skull."""
    output:
        tools=f"{layout.COHORT}/tools.json",
    log:
        layout.log("choose_skull_tool", "{cohort}"),
    benchmark:
        layout.benchmark("choose_skull_tool", "{cohort}")
    conda:
        "../envs/fsl.yaml" if preprocess.may_use_fsl else "../envs/deepbet.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=5,
    params:
        wanted=preprocess.tool,
        code=code_of("choose_skull_tool"),
    script:
        "../scripts/choose_skull_tool.py"


rule strip_skull:
    """Find the brain in one scan's head with BET or deepbet."""
    input:
        volume=layout.scan_file("T1w.nii.gz"),
        sidecar=layout.scan_file("T1w.json"),
        tools=f"{layout.COHORT}/tools.json",
    output:
        mask=intermediate("desc-brain_mask.nii.gz"),
        sidecar=layout.scan_file("desc-brain_mask.json"),
    log:
        layout.log("strip_skull", *layout.OF_SCAN),
    benchmark:
        layout.benchmark("strip_skull", *layout.OF_SCAN)
    conda:
        "../envs/fsl.yaml" if preprocess.may_use_fsl else "../envs/deepbet.yaml"
    threads: 1
    resources:
        **SCAN_CHAIN,
        mem_mb=growing(4000),
        runtime=growing(10),
    params:
        settings=preprocess.skull,
        code=code_of("strip_skull"),
    script:
        "../scripts/strip_skull.py"


rule correct_intensity:
    """Correct one brain's bias field with N4 and bring it to the common scale."""
    input:
        volume=layout.scan_file("T1w.nii.gz"),
        sidecar=layout.scan_file("T1w.json"),
        mask=layout.scan_file("desc-brain_mask.nii.gz"),
        mask_sidecar=layout.scan_file("desc-brain_mask.json"),
    output:
        brain=intermediate("desc-corrected_T1w.nii.gz"),
        sidecar=layout.scan_file("desc-corrected_T1w.json"),
    log:
        layout.log("correct_intensity", *layout.OF_SCAN),
    benchmark:
        layout.benchmark("correct_intensity", *layout.OF_SCAN)
    conda:
        "../envs/ants.yaml"
    threads: 1
    resources:
        **SCAN_CHAIN,
        mem_mb=growing(3000),
        runtime=growing(5),
    params:
        settings=preprocess.correction,
        code=code_of("correct_intensity"),
    script:
        "../scripts/correct_intensity.py"


rule make_template:
    """Put the template brain on the grid of this run."""
    output:
        brain=f"{layout.TEMPLATE}_T1w.nii.gz",
        mask=f"{layout.TEMPLATE}_mask.nii.gz",
    log:
        layout.log("make_template"),
    benchmark:
        layout.benchmark("make_template")
    conda:
        "../envs/simulate.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        settings=preprocess.template,
        code=code_of("make_template"),
    script:
        "../scripts/make_template.py"


rule register_to_template:
    """Register one brain to the template with ANTs."""
    input:
        brain=layout.scan_file("desc-corrected_T1w.nii.gz"),
        sidecar=layout.scan_file("desc-corrected_T1w.json"),
        mask=layout.scan_file("desc-brain_mask.nii.gz"),
        template=f"{layout.TEMPLATE}_T1w.nii.gz",
        template_mask=f"{layout.TEMPLATE}_mask.nii.gz",
    output:
        brain=layout.scan_file(f"space-{layout.SPACE}_desc-preproc_T1w.nii.gz"),
        voxels=layout.STORED,
        sidecar=layout.scan_file(f"space-{layout.SPACE}_desc-preproc_T1w.json"),
        mask=layout.scan_file(f"space-{layout.SPACE}_desc-brain_mask.nii.gz"),
        transform=intermediate(f"from-T1w_to-{layout.SPACE}_mode-image_xfm.h5"),
    log:
        layout.log("register_to_template", *layout.OF_SCAN),
    benchmark:
        layout.benchmark("register_to_template", *layout.OF_SCAN)
    conda:
        "../envs/ants.yaml"
    threads: 1
    resources:
        **SCAN_CHAIN,
        mem_mb=voxels_times(4000, least_mb=1500),
        runtime=growing(preprocess.registration_minutes),
    params:
        settings=preprocess.registration,
        code=code_of("register_to_template"),
    script:
        "../scripts/register_to_template.py"


rule assess_quality:
    """Measure one scan's preprocessing, decide its fate, and draw it."""
    input:
        head=layout.scan_file("T1w.nii.gz"),
        mask=layout.scan_file("desc-brain_mask.nii.gz"),
        mask_sidecar=layout.scan_file("desc-brain_mask.json"),
        registered=layout.scan_file(f"space-{layout.SPACE}_desc-preproc_T1w.nii.gz"),
        registered_mask=layout.scan_file(f"space-{layout.SPACE}_desc-brain_mask.nii.gz"),
        sidecar=layout.scan_file(f"space-{layout.SPACE}_desc-preproc_T1w.json"),
        template=f"{layout.TEMPLATE}_T1w.nii.gz",
        template_mask=f"{layout.TEMPLATE}_mask.nii.gz",
    output:
        quality=layout.scan_file("desc-quality_T1w.json"),
        mask_picture=report(
            layout.scan_file("desc-brain_mask.png", kind="figures"),
            caption="../report/brain_mask.rst",
            category="Quality control",
            subcategory="{cohort}",
            labels={"scan": "{image}", "subject": "{subject}", "what": "brain mask"},
        ),
        registration_picture=report(
            layout.scan_file(f"space-{layout.SPACE}_desc-preproc_T1w.png", kind="figures"),
            caption="../report/registration.rst",
            category="Quality control",
            subcategory="{cohort}",
            labels={"scan": "{image}", "subject": "{subject}", "what": "registration"},
        ),
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


rule collect_scans:
    """Write the cohort's table: every scan with its measures and its fate."""
    input:
        scans=preprocess.assessed,
    output:
        table=report(
            f"{layout.COHORT}/scans.tsv",
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
        images=preprocess.images,
        unlisted=preprocess.unlisted,
        version=VERSION,
        code=code_of("collect_scans"),
    script:
        "../scripts/collect_scans.py"


rule show_quality:
    """Put every scan of a cohort with its verdict and its pictures on one page."""
    input:
        table=f"{layout.COHORT}/scans.tsv",
    output:
        page=f"{layout.COHORT}/quality.html",
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
        images=preprocess.images,
        # Made with what the table was made of, and only linked to.
        masks=preprocess.pictures("desc-brain_mask.png"),
        registrations=preprocess.pictures(f"space-{layout.SPACE}_desc-preproc_T1w.png"),
        version=VERSION,
        code=code_of("show_quality"),
    script:
        "../scripts/show_quality.py"


rule check_scans:
    """Stop where more scans were lost than max_failed allows."""
    input:
        table=f"{layout.COHORT}/scans.tsv",
    output:
        verdict=f"{layout.COHORT}/quality_gate.json",
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
        max_failed=PLAN.settings["max_failed"],
        code=code_of("check_scans"),
    script:
        "../scripts/check_scans.py"
