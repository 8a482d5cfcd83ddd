"""Heatmaps of the test scans, by every method, and their averages."""


rule make_atlas:
    """Put the areas of AAL on the grid of this run."""
    input:
        template=f"{layout.TEMPLATE}_T1w.nii.gz",
    output:
        labels=f"{layout.ATLAS}.nii.gz",
        names=f"{layout.ATLAS}.tsv",
    log:
        layout.log("make_atlas"),
    benchmark:
        layout.benchmark("make_atlas")
    conda:
        "../envs/simulate.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        placement=SETTINGS["areas"]["placement"],
        code=code_of("make_atlas"),
    script:
        "../scripts/make_atlas.py"


rule explain_scans:
    """Make the heatmaps of some test scans by one method."""
    input:
        model=f"{layout.RUN}/model.pt",
        members=f"{layout.SPLIT}_members.tsv",
        volumes=relevance.volumes,
        labels=relevance.areas,
    output:
        maps=kept_maps(layout.CHUNK),
    log:
        layout.log(
            "explain_scans",
            *layout.of_split("{model}", "seed-{seed}", "{method}", "chunk-{chunk}"),
        ),
    benchmark:
        layout.benchmark(
            "explain_scans",
            *layout.of_split("{model}", "seed-{seed}", "{method}", "chunk-{chunk}"),
        )
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
        images=relevance.images,
        settings=relevance.settings,
        threads=SETTINGS["threads"],
        code=relevance.code_of_relevance,
    script:
        "../scripts/explain_scans.py"


rule combine_heatmaps:
    """Combine the heatmaps of some scans by several methods into one score a voxel."""
    input:
        maps=relevance.maps_to_summarise,
        mask=f"{layout.TEMPLATE}_mask.nii.gz",
    output:
        maps=kept_maps(layout.CHUNK),
    log:
        layout.log(
            "combine_heatmaps",
            *layout.of_split("{model}", "seed-{seed}", "{method}", "chunk-{chunk}"),
        ),
    benchmark:
        layout.benchmark(
            "combine_heatmaps",
            *layout.of_split("{model}", "seed-{seed}", "{method}", "chunk-{chunk}"),
        )
    wildcard_constraints:
        method="summary",
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(3000, least_mb=1000),
        runtime=growing(60),
    params:
        methods=relevance.summarised,
        normalise=SETTINGS["summary"]["normalise"],
        code=code_of("combine_heatmaps"),
    script:
        "../scripts/combine_heatmaps.py"


rule average_heatmaps:
    """Average a method's heatmaps over the test scans of one class."""
    input:
        maps=relevance.maps,
        mask=f"{layout.TEMPLATE}_mask.nii.gz",
    output:
        mean=f"{layout.RUN}/{{method}}/mean_{{group}}.nii.gz",
        sidecar=f"{layout.RUN}/{{method}}/mean_{{group}}.json",
    log:
        layout.log(
            "average_heatmaps", *layout.of_split("{model}", "seed-{seed}", "{method}", "{group}")
        ),
    benchmark:
        layout.benchmark(
            "average_heatmaps", *layout.of_split("{model}", "seed-{seed}", "{method}", "{group}")
        )
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(2000, least_mb=1000),
        runtime=growing(60),
    params:
        network=relevance.label,
        code=code_of("average_heatmaps"),
    script:
        "../scripts/average_heatmaps.py"


rule tabulate_areas:
    """Sum the heatmaps of a method by brain area, scan by scan."""
    input:
        maps=relevance.maps,
        mask=f"{layout.TEMPLATE}_mask.nii.gz",
        labels=f"{layout.ATLAS}.nii.gz",
        names=f"{layout.ATLAS}.tsv",
    output:
        areas=f"{layout.RUN}/{{method}}/areas.tsv",
    log:
        layout.log("tabulate_areas", *layout.of_split("{model}", "seed-{seed}", "{method}")),
    benchmark:
        layout.benchmark("tabulate_areas", *layout.of_split("{model}", "seed-{seed}", "{method}"))
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=voxels_times(2000, least_mb=1000),
        runtime=growing(60),
    params:
        share_of=SETTINGS["areas"]["share_of"],
        code=code_of("tabulate_areas"),
    script:
        "../scripts/tabulate_areas.py"
