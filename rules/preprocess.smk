"""From a head in scanner space to a brain in template space."""


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
        wanted=SETTINGS["skull"]["tool"],
        code=code_of("choose_skull_tool"),
    script:
        "../scripts/choose_skull_tool.py"


rule strip_skull:
    """Find the brain in one scan's head with BET or deepbet."""
    input:
        volume=layout.T1W,
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
        volume=layout.T1W,
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
        brain=layout.PREPROCESSED,
        voxels=layout.STORED,
        sidecar=layout.scan_file(f"space-{layout.SPACE}_desc-preproc_T1w.json"),
        mask=layout.scan_file(f"space-{layout.SPACE}_desc-brain_mask.nii.gz"),
        transform=intermediate(layout.TRANSFORM),
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
