"""voxplain: from DICOM series to compared relevance heatmaps of 3D convolutional networks."""

from snakemake.utils import min_version

min_version("9.14")


include: "rules/configuration.smk"


# Given with --configfile, a file replaces config.yaml instead of being merged into it: two cohorts
# where one was asked for would be a surprise.
if not workflow.overwrite_configfiles:

    configfile: DEFAULT_CONFIG


# What they limit is a machine, or one group of jobs on a cluster; never the whole cluster, where
# `--resources gpu=1`, out of habit, would train one network at a time.
resource_scopes:
    gpu="local",
    scan_chain="local",


include: "rules/common.smk"
include: "rules/simulate.smk"
include: "rules/convert.smk"
include: "rules/preprocess.smk"
include: "rules/quality.smk"
include: "rules/split.smk"
include: "rules/train.smk"
include: "rules/relevance.smk"
include: "rules/compare.smk"
include: "rules/localise.smk"
include: "rules/faithfulness.smk"
include: "rules/trust.smk"
include: "rules/report.smk"
include: "rules/apply.smk"
include: "rules/estimate.smk"


rule all:
    """Take every cohort all the way."""
    default_target: True
    input:
        targets.all,


rule simulated:
    """Only write the simulated cohorts' tables, and the DICOM of the classes that take part."""
    input:
        targets.simulated,


rule converted:
    """Only convert every series to NIfTI."""
    input:
        targets.converted,


rule preprocessed:
    """Take every scan to template space, whatever share of them fails."""
    input:
        targets.preprocessed,


rule apply:
    """Predict and explain new scans by networks that are trained already (config: apply)."""
    input:
        targets.applied,


onstart:
    # Jobs that are sent to a cluster go on without this run.
    note_run(ON_CLUSTER, "" if ON_CLUSTER else GUARD.start())
    begin_reports()
    lift_default_rate_limit(workflow.scheduler)


onsuccess:
    end_reports()


onerror:
    end_reports(since=STARTED)
    print_failures()
