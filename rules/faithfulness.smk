"""How well heatmaps follow their network: areas deleted and inserted, layers made anew."""


rule change_areas:
    """Delete and insert the brain's areas in the order of each method's heatmaps, and at random."""
    input:
        model=f"{layout.RUN}/model.pt",
        members=f"{layout.SPLIT}_members.tsv",
        volumes=faithfulness.changed_volumes,
        maps=faithfulness.changed_maps,
        labels=f"{layout.ATLAS}.nii.gz",
    output:
        curves=f"{layout.RUN}/area_changes.tsv",
    log:
        layout.log("change_areas", *layout.of_split("{model}", "seed-{seed}")),
    benchmark:
        layout.benchmark("change_areas", *layout.of_split("{model}", "seed-{seed}"))
    conda:
        "../envs/torch.yaml"
    threads: SETTINGS["threads"]
    resources:
        gpu=GPUS,
        device=DEVICE,
        mem_mb=voxels_times(8000, least_mb=3000),
        runtime=growing(360),
    params:
        images=faithfulness.changed,
        settings=faithfulness.changing,
        threads=SETTINGS["threads"],
        code=faithfulness.code_of_changing,
    script:
        "../scripts/change_areas.py"


rule compare_faithfulness:
    """Compare the methods by the areas under their deletion and insertion curves, beside chance."""
    input:
        curves=f"{layout.RUN}/area_changes.tsv",
    output:
        table=report(
            f"{layout.RUN}/faithfulness.tsv",
            caption="../report/faithfulness.rst",
            category="Heatmaps",
            subcategory="{cohort} {task} {model} {split}",
            labels={"seed": "{seed}", "what": "faithfulness table"},
        ),
        picture=[
            report(
                f"{layout.RUN}/faithfulness.png",
                caption="../report/faithfulness.rst",
                category="Heatmaps",
                subcategory="{cohort} {task} {model} {split}",
                labels={"seed": "{seed}", "what": "faithfulness"},
            ),
            f"{layout.RUN}/faithfulness.pdf",
        ],
    log:
        layout.log("compare_faithfulness", *layout.of_split("{model}", "seed-{seed}")),
    benchmark:
        layout.benchmark("compare_faithfulness", *layout.of_split("{model}", "seed-{seed}"))
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        methods=faithfulness.methods,
        network=faithfulness.label,
        code=code_of("compare_faithfulness"),
    script:
        "../scripts/compare_faithfulness.py"


rule randomise_layers:
    """Remake a method's heatmaps while layer after layer loses what it learned, and compare them."""
    input:
        model=f"{layout.RUN}/model.pt",
        members=f"{layout.SPLIT}_members.tsv",
        volumes=faithfulness.randomised_volumes,
        maps=faithfulness.randomised_maps,
        labels=faithfulness.areas,
    output:
        correlations=f"{layout.RUN}/{{method}}/randomisation.tsv",
    log:
        layout.log("randomise_layers", *layout.of_split("{model}", "seed-{seed}", "{method}")),
    benchmark:
        layout.benchmark("randomise_layers", *layout.of_split("{model}", "seed-{seed}", "{method}"))
    wildcard_constraints:
        method="|".join(EXPLAINING),
    conda:
        "../envs/torch.yaml"
    threads: SETTINGS["threads"]
    resources:
        gpu=GPUS,
        device=DEVICE,
        mem_mb=voxels_times(8000, least_mb=3000),
        runtime=growing(360),
    params:
        images=faithfulness.randomised,
        settings=faithfulness.randomising,
        threads=SETTINGS["threads"],
        code=faithfulness.code_of_randomising,
    script:
        "../scripts/randomise_layers.py"


rule compare_randomisation:
    """Compare how the methods' heatmaps change while the network forgets."""
    input:
        correlations=faithfulness.correlation_files,
    output:
        table=report(
            f"{layout.RUN}/randomisation.tsv",
            caption="../report/randomisation.rst",
            category="Heatmaps",
            subcategory="{cohort} {task} {model} {split}",
            labels={"seed": "{seed}", "what": "layer randomisation table"},
        ),
        picture=[
            report(
                f"{layout.RUN}/randomisation.png",
                caption="../report/randomisation.rst",
                category="Heatmaps",
                subcategory="{cohort} {task} {model} {split}",
                labels={"seed": "{seed}", "what": "layer randomisation"},
            ),
            f"{layout.RUN}/randomisation.pdf",
        ],
    log:
        layout.log("compare_randomisation", *layout.of_split("{model}", "seed-{seed}")),
    benchmark:
        layout.benchmark("compare_randomisation", *layout.of_split("{model}", "seed-{seed}"))
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=growing(1000),
        runtime=growing(30),
    params:
        correlations=faithfulness.correlations,
        network=faithfulness.label,
        code=code_of("compare_randomisation"),
    script:
        "../scripts/compare_randomisation.py"
