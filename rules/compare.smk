"""The methods side by side: distances, areas, figures."""


rule compare_methods:
    """Compare the methods' average heatmaps by distance and by brain area."""
    input:
        means=compare.mean_files,
        areas=compare.of_methods(f"{layout.RUN}/{{method}}/areas.tsv"),
        template=f"{layout.TEMPLATE}_T1w.nii.gz",
        mask=f"{layout.TEMPLATE}_mask.nii.gz",
        labels=f"{layout.ATLAS}.nii.gz",
        names=f"{layout.ATLAS}.tsv",
    output:
        distances=report(
            f"{layout.RUN}/distances.tsv",
            caption="../report/distances.rst",
            category="Heatmaps",
            subcategory="{cohort} {task} {model} {split}",
            labels={"seed": "{seed}", "what": "distance table"},
        ),
        areas=report(
            f"{layout.RUN}/top_areas.tsv",
            caption="../report/top_areas.rst",
            category="Heatmaps",
            subcategory="{cohort} {task} {model} {split}",
            labels={"seed": "{seed}", "what": "area table"},
        ),
        distances_picture=[
            report(
                f"{layout.RUN}/distances.png",
                caption="../report/distances.rst",
                category="Heatmaps",
                subcategory="{cohort} {task} {model} {split}",
                labels={"seed": "{seed}", "what": "distances"},
            ),
            f"{layout.RUN}/distances.pdf",
        ],
        maps_picture=[
            report(
                f"{layout.RUN}/mean_maps.png",
                caption="../report/mean_maps.rst",
                category="Heatmaps",
                subcategory="{cohort} {task} {model} {split}",
                labels={"seed": "{seed}", "what": "average maps"},
            ),
            f"{layout.RUN}/mean_maps.pdf",
        ],
        areas_picture=[
            report(
                f"{layout.RUN}/area_distribution.png",
                caption="../report/area_distribution.rst",
                category="Heatmaps",
                subcategory="{cohort} {task} {model} {split}",
                labels={"seed": "{seed}", "what": "areas per patient"},
            ),
            f"{layout.RUN}/area_distribution.pdf",
        ],
    log:
        layout.log("compare_methods", *layout.of_split("{model}", "seed-{seed}")),
    benchmark:
        layout.benchmark("compare_methods", *layout.of_split("{model}", "seed-{seed}"))
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(3000, least_mb=1500),
        runtime=growing(30),
    params:
        means=compare.means,
        areas=compare.by_method(f"{layout.RUN}/{{method}}/areas.tsv"),
        network=compare.label,
        settings=compare.area_settings,
        radiological=SETTINGS["report"]["radiological"],
        code=code_of("compare_methods"),
    script:
        "../scripts/compare_methods.py"


rule compare_runs:
    """Put the noise of retraining under the distances between the methods."""
    input:
        means=compare.mean_files_of_runs,
        mask=f"{layout.TEMPLATE}_mask.nii.gz",
    output:
        table=report(
            f"{layout.SEVERAL}/retraining.tsv",
            caption="../report/retraining.rst",
            category="Heatmaps",
            subcategory="{cohort} {task} {model} {several}",
            labels={"seed": "all", "what": "distances and retraining, table"},
        ),
        picture=[
            report(
                f"{layout.SEVERAL}/retraining.png",
                caption="../report/retraining.rst",
                category="Heatmaps",
                subcategory="{cohort} {task} {model} {several}",
                labels={"seed": "all", "what": "distances and retraining"},
            ),
            f"{layout.SEVERAL}/retraining.pdf",
        ],
    log:
        layout.log("compare_runs", "{cohort}", "{task}", "{model}", "{several}"),
    benchmark:
        layout.benchmark("compare_runs", "{cohort}", "{task}", "{model}", "{several}")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(4000, least_mb=1500),
        runtime=growing(120),
    params:
        means=compare.means_of_runs,
        network=compare.label,
        code=code_of("compare_runs"),
    script:
        "../scripts/compare_runs.py"
