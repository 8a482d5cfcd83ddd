"""How well heatmaps find what is known to be there: simulated atrophy, and regions of the brain."""


rule carry_truth:
    """Carry what was changed in a simulated scan to the template by the scan's own registration."""
    input:
        truth=truth_of_scan,
        transform=intermediate(f"from-T1w_to-{SPACE}_mode-image_xfm.h5"),
        sidecar=scan_file(f"space-{SPACE}_desc-preproc_T1w.json"),
        template=f"{TEMPLATE}_T1w.nii.gz",
    output:
        truth=TRUTH,
        sidecar=TRUTH.replace(".nii.gz", ".json"),
    log:
        scan_log("carry_truth"),
    benchmark:
        scan_benchmark("carry_truth")
    wildcard_constraints:
        cohort=SIMULATED,
    conda:
        "../envs/ants.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(3000, least_mb=1500),
        runtime=growing(5),
    params:
        code=code_of("carry_truth"),
    script:
        "../scripts/carry_truth.py"


rule measure_residual:
    """Measure where a simulated scan still differs from its healthy twin after preprocessing."""
    input:
        brain=PREPROCESSED,
        sidecar=scan_file(f"space-{SPACE}_desc-preproc_T1w.json"),
        twin=twin_file(f"space-{SPACE}_desc-preproc_T1w.nii.gz"),
        twin_quality=twin_file("desc-quality_T1w.json"),
        mask=f"{TEMPLATE}_mask.nii.gz",
    output:
        residual=RESIDUAL,
        sidecar=RESIDUAL.replace(".nii.gz", ".json"),
    log:
        scan_log("measure_residual"),
    benchmark:
        scan_benchmark("measure_residual")
    wildcard_constraints:
        cohort=SIMULATED,
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(1000, least_mb=1000),
        runtime=growing(5),
    params:
        twin=twin_of_scan,
        code=code_of("measure_residual"),
    script:
        "../scripts/measure_residual.py"


rule make_regions:
    """Put cortex, hippocampus and lateral ventricle on the grid of this run."""
    input:
        template=f"{TEMPLATE}_T1w.nii.gz",
    output:
        labels=f"{REGIONS}.nii.gz",
        names=f"{REGIONS}.tsv",
    log:
        "logs/make_regions.log",
    benchmark:
        "results/benchmarks/make_regions.tsv"
    conda:
        "../envs/simulate.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        code=code_of("make_regions"),
    script:
        "../scripts/make_regions.py"


rule map_group_difference:
    """Compare the training scans' classes voxel by voxel: what finds a disease without a network."""
    input:
        members=f"{SPLIT}_members.tsv",
        volumes=scans_of_split(STORED, "train"),
        mask=f"{TEMPLATE}_mask.nii.gz",
    output:
        difference=f"{SPLIT}_group_difference.nii.gz",
    log:
        split_log("map_group_difference"),
    benchmark:
        split_benchmark("map_group_difference")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(2000, least_mb=1000),
        runtime=growing(60),
    params:
        classes=classes_of_task,
        code=code_of("map_group_difference"),
    script:
        "../scripts/map_group_difference.py"


rule localise_difference:
    """Measure how well the classes' plain difference finds what heatmaps are to find."""
    input:
        difference=f"{SPLIT}_group_difference.nii.gz",
        members=f"{SPLIT}_members.tsv",
        truths=truths_of_split,
        residuals=residuals_of_split,
        mask=f"{TEMPLATE}_mask.nii.gz",
        regions=f"{REGIONS}.nii.gz",
        names=f"{REGIONS}.tsv",
    output:
        scores=f"{SPLIT}{DIFFERENCE}",
    log:
        split_log("localise_difference"),
    benchmark:
        split_benchmark("localise_difference")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(2000, least_mb=1000),
        runtime=growing(60),
    params:
        images=images_with_truth,
        settings=scoring_settings(),
        code=code_of("localise_difference"),
    script:
        "../scripts/localise_difference.py"


rule localise_heatmaps:
    """Measure how well a method's heatmaps find the true atrophy, and regions of the brain."""
    input:
        maps=maps_of_method,
        truths=truths_of_split,
        residuals=residuals_of_split,
        mask=f"{TEMPLATE}_mask.nii.gz",
        regions=f"{REGIONS}.nii.gz",
        names=f"{REGIONS}.tsv",
    output:
        scores=f"{RUN}/{{method}}/localisation.tsv",
        curves=f"{RUN}/{{method}}/precision_recall.tsv",
    log:
        split_log("localise_heatmaps", "{model}", "seed-{seed}", "{method}"),
    benchmark:
        split_benchmark("localise_heatmaps", "{model}", "seed-{seed}", "{method}")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(2000, least_mb=1000),
        runtime=growing(120),
    params:
        images=images_with_truth,
        settings=scoring_settings(),
        code=code_of("localise_heatmaps"),
    script:
        "../scripts/localise_heatmaps.py"


rule compare_localisation:
    """Compare the methods by what they find, beside chance and the classes' plain difference."""
    input:
        scores=of_methods(f"{RUN}/{{method}}/localisation.tsv"),
        curves=of_methods(f"{RUN}/{{method}}/precision_recall.tsv"),
        baseline=f"{SPLIT}{DIFFERENCE}",
    output:
        table=report(
            f"{RUN}/localisation.tsv",
            caption="../report/localisation.rst",
            category="Heatmaps",
            subcategory="{cohort} {task} {model} {split}",
            labels={"seed": "{seed}", "what": "localisation table"},
        ),
        picture=[
            report(
                f"{RUN}/localisation.png",
                caption="../report/localisation.rst",
                category="Heatmaps",
                subcategory="{cohort} {task} {model} {split}",
                labels={"seed": "{seed}", "what": "localisation"},
            ),
            f"{RUN}/localisation.pdf",
        ],
        curves=[
            report(
                f"{RUN}/precision_recall.png",
                caption="../report/localisation.rst",
                category="Heatmaps",
                subcategory="{cohort} {task} {model} {split}",
                labels={"seed": "{seed}", "what": "precision and recall"},
            ),
            f"{RUN}/precision_recall.pdf",
        ],
    log:
        split_log("compare_localisation", "{model}", "seed-{seed}"),
    benchmark:
        split_benchmark("compare_localisation", "{model}", "seed-{seed}")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        methods=names_of_methods,
        network=network_label,
        draws=config["localisation"]["draws"],
        code=code_of("compare_localisation"),
    script:
        "../scripts/compare_localisation.py"


rule show_truth:
    """Draw the true atrophy of one test scan and every method's heatmap of it side by side."""
    input:
        truths=truths_of_split,
        residuals=residuals_of_split,
        maps=maps_with_truth,
        template=f"{TEMPLATE}_T1w.nii.gz",
        mask=f"{TEMPLATE}_mask.nii.gz",
    output:
        picture=[
            report(
                f"{RUN}/truth.png",
                caption="../report/truth.rst",
                category="Heatmaps",
                subcategory="{cohort} {task} {model} {split}",
                labels={"seed": "{seed}", "what": "truth and heatmaps"},
            ),
            f"{RUN}/truth.pdf",
        ],
    log:
        split_log("show_truth", "{model}", "seed-{seed}"),
    benchmark:
        split_benchmark("show_truth", "{model}", "seed-{seed}")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(2000, least_mb=1000),
        runtime=growing(30),
    params:
        images=images_with_truth,
        network=network_label,
        thresholds=thresholds_of_truth(),
        radiological=config["report"]["radiological"],
        code=code_of("show_truth"),
    script:
        "../scripts/show_truth.py"
