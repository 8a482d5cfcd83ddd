"""New scans, by networks that are trained already: `snakemake apply`."""


# Their docstrings come from the rules that they are made of.
use rule explain_scans as explain_new_scans with:
    input:
        model=applied_network,
        members=f"{APPLIED}/members.tsv",
        volumes=new_volumes_of_chunk,
        labels=atlas_of_method,
    output:
        maps=directory(APPLIED_CHUNK),
    log:
        "logs/explain_new_scans/{cohort}/{network}/{method}/chunk-{chunk}.log",
    benchmark:
        "results/benchmarks/explain_new_scans/{cohort}/{network}/{method}/chunk-{chunk}.tsv"
    params:
        images=new_images_of_chunk,
        settings=new_scans_settings,
        code=code_of_new_scans,


use rule combine_heatmaps as combine_new_heatmaps with:
    input:
        maps=new_maps_to_summarise,
        mask=f"{TEMPLATE}_mask.nii.gz",
    output:
        maps=directory(APPLIED_CHUNK),
    log:
        "logs/combine_new_heatmaps/{cohort}/{network}/{method}/chunk-{chunk}.log",
    benchmark:
        "results/benchmarks/combine_new_heatmaps/{cohort}/{network}/{method}/chunk-{chunk}.tsv"


use rule tabulate_areas as tabulate_areas_of_new_scans with:
    input:
        maps=new_maps_of_method,
        mask=f"{TEMPLATE}_mask.nii.gz",
        labels=f"{ATLAS}.nii.gz",
        names=f"{ATLAS}.tsv",
    output:
        areas=f"{APPLIED}/{{method}}/areas.tsv",
    log:
        "logs/tabulate_areas_of_new_scans/{cohort}/{network}/{method}.log",
    benchmark:
        "results/benchmarks/tabulate_areas_of_new_scans/{cohort}/{network}/{method}.tsv"


rule apply_network:
    """Predict the scans of a cohort by a network that is trained already."""
    input:
        model=applied_network,
        volumes=volumes_of_cohort,
        quality=qualities_of_cohort,
    output:
        predictions=f"{APPLIED}/predictions.tsv",
        members=f"{APPLIED}/members.tsv",
    log:
        "logs/apply_network/{cohort}/{network}.log",
    benchmark:
        "results/benchmarks/apply_network/{cohort}/{network}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        gpu=GPUS,
        device=config["device"],
        mem_mb=voxels_times(8000, least_mb=3000),
        runtime=growing(60),
    params:
        rows=members_of_cohort,
        preprocessing=preprocessing_settings(),
        code=CODES.of_applying(),
    script:
        "../scripts/apply_network.py"
