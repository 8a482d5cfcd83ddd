"""How well heatmaps follow their network: areas deleted and inserted, layers made anew."""


rule change_areas:
    """Delete and insert the brain's areas in the order of each method's heatmaps, and at random."""
    input:
        model=f"{RUN}/model.pt",
        members=f"{SPLIT}_members.tsv",
        volumes=volumes_to_change,
        maps=maps_to_follow,
        labels=f"{ATLAS}.nii.gz",
    output:
        curves=f"{RUN}/area_changes.tsv",
    log:
        split_log("change_areas", "{model}", "seed-{seed}"),
    benchmark:
        split_benchmark("change_areas", "{model}", "seed-{seed}")
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        gpu=GPUS,
        device=config["device"],
        mem_mb=voxels_times(8000, least_mb=3000),
        runtime=growing(360),
    params:
        images=images_to_change,
        settings=changing_settings(),
        code=code_of_changing,
    script:
        "../scripts/change_areas.py"


rule compare_faithfulness:
    """Compare the methods by the areas under their deletion and insertion curves, beside chance."""
    input:
        curves=f"{RUN}/area_changes.tsv",
    output:
        table=report(
            f"{RUN}/faithfulness.tsv",
            caption="../report/faithfulness.rst",
            category="Heatmaps",
            subcategory="{cohort} {task} {model} {split}",
            labels={"seed": "{seed}", "what": "faithfulness table"},
        ),
        picture=[
            report(
                f"{RUN}/faithfulness.png",
                caption="../report/faithfulness.rst",
                category="Heatmaps",
                subcategory="{cohort} {task} {model} {split}",
                labels={"seed": "{seed}", "what": "faithfulness"},
            ),
            f"{RUN}/faithfulness.pdf",
        ],
    log:
        split_log("compare_faithfulness", "{model}", "seed-{seed}"),
    benchmark:
        split_benchmark("compare_faithfulness", "{model}", "seed-{seed}")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        methods=names_of_methods,
        network=network_label,
        code=code_of("compare_faithfulness"),
    script:
        "../scripts/compare_faithfulness.py"


rule randomise_layers:
    """Remake a method's heatmaps while layer after layer loses what it learned, and compare them."""
    input:
        model=f"{RUN}/model.pt",
        members=f"{SPLIT}_members.tsv",
        volumes=volumes_to_randomise,
        maps=maps_to_remake,
        labels=atlas_of_method,
    output:
        correlations=f"{RUN}/{{method}}/randomisation.tsv",
    log:
        split_log("randomise_layers", "{model}", "seed-{seed}", "{method}"),
    benchmark:
        split_benchmark("randomise_layers", "{model}", "seed-{seed}", "{method}")
    wildcard_constraints:
        method=EXPLAINING,
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        gpu=GPUS,
        device=config["device"],
        mem_mb=voxels_times(8000, least_mb=3000),
        runtime=growing(360),
    params:
        images=images_to_randomise,
        settings=randomising_settings,
        code=code_of_randomising,
    script:
        "../scripts/randomise_layers.py"


rule compare_randomisation:
    """Compare how the methods' heatmaps change while the network forgets."""
    input:
        correlations=correlations_of_methods,
    output:
        table=report(
            f"{RUN}/randomisation.tsv",
            caption="../report/randomisation.rst",
            category="Heatmaps",
            subcategory="{cohort} {task} {model} {split}",
            labels={"seed": "{seed}", "what": "layer randomisation table"},
        ),
        picture=[
            report(
                f"{RUN}/randomisation.png",
                caption="../report/randomisation.rst",
                category="Heatmaps",
                subcategory="{cohort} {task} {model} {split}",
                labels={"seed": "{seed}", "what": "layer randomisation"},
            ),
            f"{RUN}/randomisation.pdf",
        ],
    log:
        split_log("compare_randomisation", "{model}", "seed-{seed}"),
    benchmark:
        split_benchmark("compare_randomisation", "{model}", "seed-{seed}")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        methods=names_of_randomised,
        network=network_label,
        code=code_of("compare_randomisation"),
    script:
        "../scripts/compare_randomisation.py"
