"""Heatmaps of the test scans, by every method, and their averages."""


rule make_atlas:
    """Put the areas of AAL on the grid of this run."""
    input:
        template=f"{TEMPLATE}_T1w.nii.gz",
    output:
        labels=f"{ATLAS}.nii.gz",
        names=f"{ATLAS}.tsv",
    log:
        "logs/make_atlas.log",
    benchmark:
        "results/benchmarks/make_atlas.tsv"
    conda:
        "../envs/simulate.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        placement=config["areas"]["placement"],
        code=code_of("make_atlas"),
    script:
        "../scripts/make_atlas.py"


rule explain_scans:
    """Make the heatmaps of some test scans by one method."""
    input:
        model=f"{RUN}/model.pt",
        members=f"{SPLIT}_members.tsv",
        volumes=volumes_of_chunk,
        labels=atlas_of_method,
    output:
        maps=kept_maps(CHUNK),
    log:
        split_log("explain_scans", "{model}", "seed-{seed}", "{method}", "chunk-{chunk}"),
    benchmark:
        split_benchmark("explain_scans", "{model}", "seed-{seed}", "{method}", "chunk-{chunk}")
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
        images=images_of_chunk,
        settings=relevance_settings,
        code=code_of_relevance,
    script:
        "../scripts/explain_scans.py"


rule combine_heatmaps:
    """Combine the heatmaps of some scans by several methods into one score a voxel."""
    input:
        maps=maps_to_summarise,
        mask=f"{TEMPLATE}_mask.nii.gz",
    output:
        maps=kept_maps(CHUNK),
    log:
        split_log("combine_heatmaps", "{model}", "seed-{seed}", "{method}", "chunk-{chunk}"),
    benchmark:
        split_benchmark("combine_heatmaps", "{model}", "seed-{seed}", "{method}", "chunk-{chunk}")
    wildcard_constraints:
        method="summary",
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(3000, least_mb=1000),
        runtime=growing(60),
    params:
        methods=summarised_methods,
        normalise=config["summary"]["normalise"],
        code=code_of("combine_heatmaps"),
    script:
        "../scripts/combine_heatmaps.py"


rule average_heatmaps:
    """Average a method's heatmaps over the test scans of one class."""
    input:
        maps=maps_of_method,
        mask=f"{TEMPLATE}_mask.nii.gz",
    output:
        mean=f"{RUN}/{{method}}/mean_{{group}}.nii.gz",
        sidecar=f"{RUN}/{{method}}/mean_{{group}}.json",
    log:
        split_log("average_heatmaps", "{model}", "seed-{seed}", "{method}", "{group}"),
    benchmark:
        split_benchmark("average_heatmaps", "{model}", "seed-{seed}", "{method}", "{group}")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(2000, least_mb=1000),
        runtime=growing(60),
    params:
        network=network_label,
        code=code_of("average_heatmaps"),
    script:
        "../scripts/average_heatmaps.py"


rule tabulate_areas:
    """Sum the heatmaps of a method by brain area, scan by scan."""
    input:
        maps=maps_of_method,
        mask=f"{TEMPLATE}_mask.nii.gz",
        labels=f"{ATLAS}.nii.gz",
        names=f"{ATLAS}.tsv",
    output:
        areas=f"{RUN}/{{method}}/areas.tsv",
    log:
        split_log("tabulate_areas", "{model}", "seed-{seed}", "{method}"),
    benchmark:
        split_benchmark("tabulate_areas", "{model}", "seed-{seed}", "{method}")
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(2000, least_mb=1000),
        runtime=growing(60),
    params:
        share_of=config["areas"]["share_of"],
        code=code_of("tabulate_areas"),
    script:
        "../scripts/tabulate_areas.py"
