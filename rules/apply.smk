"""New scans, by networks that are trained already: `snakemake apply`."""


# Their docstrings come from the rules that they are made of.
use rule explain_scans as explain_new_scans with:
    input:
        model=new_scans.network,
        members=f"{layout.APPLIED}/members.tsv",
        volumes=new_scans.new_volumes,
        labels=new_scans.areas,
    output:
        maps=directory(layout.APPLIED_CHUNK),
    log:
        layout.log("explain_new_scans", "{cohort}", "{network}", "{method}", "chunk-{chunk}"),
    benchmark:
        layout.benchmark("explain_new_scans", "{cohort}", "{network}", "{method}", "chunk-{chunk}")
    params:
        images=new_scans.new_scans,
        settings=new_scans.new_settings,
        threads=SETTINGS["threads"],
        code=new_scans.code_of_new_scans,


use rule combine_heatmaps as combine_new_heatmaps with:
    input:
        maps=new_scans.new_maps_to_summarise,
        mask=f"{layout.TEMPLATE}_mask.nii.gz",
    output:
        maps=directory(layout.APPLIED_CHUNK),
    log:
        layout.log("combine_new_heatmaps", "{cohort}", "{network}", "{method}", "chunk-{chunk}"),
    benchmark:
        layout.benchmark(
            "combine_new_heatmaps", "{cohort}", "{network}", "{method}", "chunk-{chunk}"
        )


use rule tabulate_areas as tabulate_areas_of_new_scans with:
    input:
        maps=new_scans.new_maps,
        mask=f"{layout.TEMPLATE}_mask.nii.gz",
        labels=f"{layout.ATLAS}.nii.gz",
        names=f"{layout.ATLAS}.tsv",
    output:
        areas=f"{layout.APPLIED}/{{method}}/areas.tsv",
    log:
        layout.log("tabulate_areas_of_new_scans", "{cohort}", "{network}", "{method}"),
    benchmark:
        layout.benchmark("tabulate_areas_of_new_scans", "{cohort}", "{network}", "{method}")


rule apply_network:
    """Predict the scans of a cohort by a network that is trained already."""
    input:
        model=new_scans.network,
        volumes=new_scans.cohort_volumes,
        quality=new_scans.qualities,
    output:
        predictions=f"{layout.APPLIED}/predictions.tsv",
        members=f"{layout.APPLIED}/members.tsv",
    log:
        layout.log("apply_network", "{cohort}", "{network}"),
    benchmark:
        layout.benchmark("apply_network", "{cohort}", "{network}")
    conda:
        "../envs/torch.yaml"
    threads: SETTINGS["threads"]
    resources:
        gpu=GPUS,
        device=DEVICE,
        mem_mb=voxels_times(8000, least_mb=3000),
        runtime=growing(60),
    params:
        scans=new_scans.predicted_scans,
        preprocessing=new_scans.preprocessing,
        threads=SETTINGS["threads"],
        code=new_scans.code_of_applying,
    script:
        "../scripts/apply_network.py"
