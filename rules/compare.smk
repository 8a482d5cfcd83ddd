"""The methods side by side: distances, areas, figures."""


rule compare_methods:
    """Compare the methods' average heatmaps by distance and by brain area."""
    input:
        means=of_means("nii.gz"),
        sidecars=of_means("json"),
        areas=of_methods(f"{RUN}/{{method}}/areas.tsv"),
        template=f"{TEMPLATE}_T1w.nii.gz",
        mask=f"{TEMPLATE}_mask.nii.gz",
        labels=f"{ATLAS}.nii.gz",
        names=f"{ATLAS}.tsv",
    output:
        distances=report(
            f"{RUN}/distances.tsv",
            caption="../report/distances.rst",
            category="Heatmaps",
            subcategory="{cohort} {task} {model} {split}",
            labels={"seed": "{seed}", "what": "distance table"},
        ),
        areas=report(
            f"{RUN}/top_areas.tsv",
            caption="../report/top_areas.rst",
            category="Heatmaps",
            subcategory="{cohort} {task} {model} {split}",
            labels={"seed": "{seed}", "what": "area table"},
        ),
        distances_picture=[
            report(
                f"{RUN}/distances.png",
                caption="../report/distances.rst",
                category="Heatmaps",
                subcategory="{cohort} {task} {model} {split}",
                labels={"seed": "{seed}", "what": "distances"},
            ),
            f"{RUN}/distances.pdf",
        ],
        maps_picture=[
            report(
                f"{RUN}/mean_maps.png",
                caption="../report/mean_maps.rst",
                category="Heatmaps",
                subcategory="{cohort} {task} {model} {split}",
                labels={"seed": "{seed}", "what": "average maps"},
            ),
            f"{RUN}/mean_maps.pdf",
        ],
        areas_picture=[
            report(
                f"{RUN}/area_distribution.png",
                caption="../report/area_distribution.rst",
                category="Heatmaps",
                subcategory="{cohort} {task} {model} {split}",
                labels={"seed": "{seed}", "what": "areas per patient"},
            ),
            f"{RUN}/area_distribution.pdf",
        ],
    log:
        split_log("compare_methods", "{model}", "seed-{seed}"),
    benchmark:
        split_benchmark("compare_methods", "{model}", "seed-{seed}")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(3000, least_mb=1500),
        runtime=growing(30),
    params:
        classes=classes_of_task,
        methods=names_of_methods,
        network=network_label,
        settings=settings_of("areas")["areas"],
        radiological=config["report"]["radiological"],
        code=code_of("compare_methods"),
    script:
        "../scripts/compare_methods.py"


rule compare_runs:
    """Put the noise of retraining under the distances between the methods."""
    input:
        means=means_of_runs,
        mask=f"{TEMPLATE}_mask.nii.gz",
    output:
        table=report(
            f"{SEVERAL}/retraining.tsv",
            caption="../report/retraining.rst",
            category="Heatmaps",
            subcategory="{cohort} {task} {model} {several}",
            labels={"seed": "all", "what": "distances and retraining, table"},
        ),
        picture=[
            report(
                f"{SEVERAL}/retraining.png",
                caption="../report/retraining.rst",
                category="Heatmaps",
                subcategory="{cohort} {task} {model} {several}",
                labels={"seed": "all", "what": "distances and retraining"},
            ),
            f"{SEVERAL}/retraining.pdf",
        ],
    log:
        "logs/compare_runs/{cohort}/{task}/{model}/{several}.log",
    benchmark:
        "results/benchmarks/compare_runs/{cohort}/{task}/{model}/{several}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(4000, least_mb=1500),
        runtime=growing(120),
    params:
        classes=classes_of_task,
        methods=names_of_methods,
        runs=compared_runs,
        network=network_label,
        code=code_of("compare_runs"),
    script:
        "../scripts/compare_runs.py"
