"""How well heatmaps find what is known to be there: simulated atrophy, and regions of the brain."""


rule carry_truth:
    """Carry what was changed in a simulated scan to the template by the scan's own registration."""
    input:
        truth=localise.truth_of_scan,
        transform=intermediate(layout.TRANSFORM),
        sidecar=layout.scan_file(f"space-{layout.SPACE}_desc-preproc_T1w.json"),
        template=f"{layout.TEMPLATE}_T1w.nii.gz",
    output:
        truth=layout.TRUTH,
        sidecar=layout.TRUTH.replace(".nii.gz", ".json"),
    log:
        layout.log("carry_truth", *layout.OF_SCAN),
    benchmark:
        layout.benchmark("carry_truth", *layout.OF_SCAN)
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
        brain=layout.PREPROCESSED,
        sidecar=layout.scan_file(f"space-{layout.SPACE}_desc-preproc_T1w.json"),
        twin=preprocess.twin_file(f"space-{layout.SPACE}_desc-preproc_T1w.nii.gz"),
        twin_quality=preprocess.twin_file("desc-quality_T1w.json"),
        mask=f"{layout.TEMPLATE}_mask.nii.gz",
    output:
        residual=layout.RESIDUAL,
        sidecar=layout.RESIDUAL.replace(".nii.gz", ".json"),
    log:
        layout.log("measure_residual", *layout.OF_SCAN),
    benchmark:
        layout.benchmark("measure_residual", *layout.OF_SCAN)
    wildcard_constraints:
        cohort=SIMULATED,
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(1000, least_mb=1000),
        runtime=growing(5),
    params:
        twin=localise.twin,
        code=code_of("measure_residual"),
    script:
        "../scripts/measure_residual.py"


rule make_regions:
    """Put cortex, hippocampus and lateral ventricle on the grid of this run."""
    input:
        template=f"{layout.TEMPLATE}_T1w.nii.gz",
    output:
        labels=f"{layout.REGIONS}.nii.gz",
        names=f"{layout.REGIONS}.tsv",
    log:
        layout.log("make_regions"),
    benchmark:
        layout.benchmark("make_regions")
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
        members=f"{layout.SPLIT}_members.tsv",
        volumes=split.files(layout.STORED, "train"),
        mask=f"{layout.TEMPLATE}_mask.nii.gz",
    output:
        difference=f"{layout.SPLIT}_group_difference.nii.gz",
    log:
        layout.log("map_group_difference", *layout.of_split()),
    benchmark:
        layout.benchmark("map_group_difference", *layout.of_split())
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(2000, least_mb=1000),
        runtime=growing(60),
    params:
        classes=localise.classes,
        code=code_of("map_group_difference"),
    script:
        "../scripts/map_group_difference.py"


rule localise_difference:
    """Measure how well the classes' plain difference finds what heatmaps are to find."""
    input:
        difference=f"{layout.SPLIT}_group_difference.nii.gz",
        members=f"{layout.SPLIT}_members.tsv",
        truths=localise.truths,
        mask=f"{layout.TEMPLATE}_mask.nii.gz",
        regions=f"{layout.REGIONS}.nii.gz",
        names=f"{layout.REGIONS}.tsv",
    output:
        scores=layout.DIFFERENCE,
    log:
        layout.log("localise_difference", *layout.of_split()),
    benchmark:
        layout.benchmark("localise_difference", *layout.of_split())
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(2000, least_mb=1000),
        runtime=growing(60),
    params:
        scans=localise.with_truth,
        settings=localise.scoring,
        code=code_of("localise_difference"),
    script:
        "../scripts/localise_difference.py"


rule localise_heatmaps:
    """Measure how well a method's heatmaps find the true atrophy, and regions of the brain."""
    input:
        maps=localise.maps,
        truths=localise.truths,
        mask=f"{layout.TEMPLATE}_mask.nii.gz",
        regions=f"{layout.REGIONS}.nii.gz",
        names=f"{layout.REGIONS}.tsv",
    output:
        scores=f"{layout.RUN}/{{method}}/localisation.tsv",
        curves=f"{layout.RUN}/{{method}}/precision_recall.tsv",
    log:
        layout.log("localise_heatmaps", *layout.of_split("{model}", "seed-{seed}", "{method}")),
    benchmark:
        layout.benchmark(
            "localise_heatmaps", *layout.of_split("{model}", "seed-{seed}", "{method}")
        )
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(2000, least_mb=1000),
        runtime=growing(120),
    params:
        scans=localise.with_truth,
        settings=localise.scoring,
        code=code_of("localise_heatmaps"),
    script:
        "../scripts/localise_heatmaps.py"


rule compare_localisation:
    """Compare the methods by what they find, beside chance and the classes' plain difference."""
    input:
        scores=localise.of_methods(f"{layout.RUN}/{{method}}/localisation.tsv"),
        curves=localise.of_methods(f"{layout.RUN}/{{method}}/precision_recall.tsv"),
        baseline=layout.DIFFERENCE,
    output:
        table=report(
            f"{layout.RUN}/localisation.tsv",
            caption="../report/localisation.rst",
            category="Heatmaps",
            subcategory="{cohort} {task} {model} {split}",
            labels={"seed": "{seed}", "what": "localisation table"},
        ),
        picture=[
            report(
                f"{layout.RUN}/localisation.png",
                caption="../report/localisation.rst",
                category="Heatmaps",
                subcategory="{cohort} {task} {model} {split}",
                labels={"seed": "{seed}", "what": "localisation"},
            ),
            f"{layout.RUN}/localisation.pdf",
        ],
        curves=[
            report(
                f"{layout.RUN}/precision_recall.png",
                caption="../report/localisation.rst",
                category="Heatmaps",
                subcategory="{cohort} {task} {model} {split}",
                labels={"seed": "{seed}", "what": "precision and recall"},
            ),
            f"{layout.RUN}/precision_recall.pdf",
        ],
    log:
        layout.log("compare_localisation", *layout.of_split("{model}", "seed-{seed}")),
    benchmark:
        layout.benchmark("compare_localisation", *layout.of_split("{model}", "seed-{seed}"))
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        scores=localise.by_method(f"{layout.RUN}/{{method}}/localisation.tsv"),
        curves=localise.by_method(f"{layout.RUN}/{{method}}/precision_recall.tsv"),
        network=localise.label,
        draws=SETTINGS["localisation"]["draws"],
        code=code_of("compare_localisation"),
    script:
        "../scripts/compare_localisation.py"


rule show_truth:
    """Draw the true atrophy of one test scan and every method's heatmap of it side by side."""
    input:
        truths=localise.truths,
        maps=localise.maps_with_truth,
        template=f"{layout.TEMPLATE}_T1w.nii.gz",
        mask=f"{layout.TEMPLATE}_mask.nii.gz",
    output:
        picture=[
            report(
                f"{layout.RUN}/truth.png",
                caption="../report/truth.rst",
                category="Heatmaps",
                subcategory="{cohort} {task} {model} {split}",
                labels={"seed": "{seed}", "what": "truth and heatmaps"},
            ),
            f"{layout.RUN}/truth.pdf",
        ],
    log:
        layout.log("show_truth", *layout.of_split("{model}", "seed-{seed}")),
    benchmark:
        layout.benchmark("show_truth", *layout.of_split("{model}", "seed-{seed}"))
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(2000, least_mb=1000),
        runtime=growing(30),
    params:
        scans=localise.with_truth,
        network=localise.label,
        thresholds=localise.thresholds,
        radiological=SETTINGS["report"]["radiological"],
        code=code_of("show_truth"),
    script:
        "../scripts/show_truth.py"
