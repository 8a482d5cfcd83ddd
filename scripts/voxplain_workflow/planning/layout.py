"""Every path of the workflow, relative to its working directory; no other module defines any.

Patterns have Snakemake's wildcards in braces. Names of scans' files follow BIDS derivatives.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from voxplain.cohort.demographics import BASELINES
from voxplain.cohort.split_names import FIXED, FOLD_PATTERN, external_name
from voxplain.models import MODELS
from voxplain.relevance import METHODS
from voxplain_workflow.results import RESULTS

SPACE = "MNI152NLin2009cAsym"

# --- scans ----------------------------------------------------------------------------------------

SCAN_ENTITIES = "sub-{subject}_ses-{session}_acq-{image}"


def scan_file(suffix: str, kind: str = "anat") -> str:
    """Path of a file of one scan, named like BIDS derivatives."""
    folder = "results/{cohort}/derivatives/sub-{subject}/ses-{session}"
    return f"{folder}/{kind}/{SCAN_ENTITIES}_{suffix}"


T1W = scan_file("T1w.nii.gz")
DIGESTS = scan_file("T1w.sha256", kind="provenance")
QUALITY = scan_file("desc-quality_T1w.json")
# Of the brain mask, and of the brain in template space.
MASK_PICTURE = scan_file("desc-brain_mask.png", kind="figures")
REGISTRATION_PICTURE = scan_file(f"space-{SPACE}_desc-preproc_T1w.png", kind="figures")
PREPROCESSED = scan_file(f"space-{SPACE}_desc-preproc_T1w.nii.gz")
# Input of training and explanation: the brain's voxels in 16 bits.
STORED = scan_file(f"space-{SPACE}_desc-preproc_T1w.npy")
# Fraction by which each voxel of a simulated scan was changed, and the remaining difference from
# the healthy twin after preprocessing.
TRUTH = scan_file(f"space-{SPACE}_desc-truth_probseg.nii.gz")
RESIDUAL = scan_file(f"space-{SPACE}_desc-residual_T1w.nii.gz")
TRANSFORM = f"from-T1w_to-{SPACE}_mode-image_xfm.h5"
# Files of a scan that only stand between others; see keep_intermediates.
INTERMEDIATES = tuple(
    scan_file(suffix)
    for suffix in ("T1w.nii.gz", "desc-brain_mask.nii.gz", "desc-corrected_T1w.nii.gz", TRANSFORM)
)

# --- template -------------------------------------------------------------------------------------

TEMPLATE = f"results/template/tpl-{SPACE}_desc-brain"
ATLAS = f"results/template/tpl-{SPACE}_atlas-AAL_dseg"
# Cortex, hippocampus and lateral ventricle, which heatmaps of any cohort are localised against.
REGIONS = f"results/template/tpl-{SPACE}_atlas-DesikanKilliany_desc-regions_dseg"

# --- cohorts --------------------------------------------------------------------------------------

COHORT = "results/{cohort}"
SOURCE = f"{COHORT}/source"
SIMULATED_TABLE = f"{SOURCE}/scans.csv"
# What the simulation did, every scan with its fate, and whether few enough of them were lost.
SIMULATION = f"{COHORT}/simulation.tsv"
SCANS = f"{COHORT}/scans.tsv"
QUALITY_PAGE = f"{COHORT}/quality.html"
QUALITY_GATE = f"{COHORT}/quality_gate.json"


def head_file(part: str) -> str:
    """Path of a file of a head from which scans are simulated."""
    return f"{SOURCE}/heads/{{head}}_{part}.nii.gz"


# --- splits, networks, heatmaps -------------------------------------------------------------------

TASK = f"{COHORT}/{{task}}"
SPLIT = f"{TASK}/splits/{{split}}"
# Localisation scores of the voxelwise t of a split's training scans, which needs no network.
DIFFERENCE = f"{SPLIT}_group_difference_localisation.tsv"
BASELINE = f"{TASK}/baselines/{{baseline}}"
AREA_MEANS = f"{TASK}/baselines/areas.tsv"
NETWORK = f"{TASK}/{{model}}"
RUN = f"{NETWORK}/{{split}}/seed-{{seed}}"
# In the folder of the training: TensorBoard names a run by its folder.
EVENTS = f"{RUN}/events.out.tfevents.training"
# Comparison of the average heatmaps of the networks of all seeds of a split, or of all folds.
SEVERAL = f"{NETWORK}/{{several}}"
OF_FOLDS = "folds"
METHOD = f"{RUN}/{{method}}"
CHUNK = f"{METHOD}/scans/chunk-{{chunk}}"
MEAN = f"{METHOD}/mean_{{group}}.{{suffix}}"

# --- new scans ------------------------------------------------------------------------------------

APPLIED = f"{COHORT}/applied/{{network}}"
APPLIED_CHUNK = f"{APPLIED}/{{method}}/scans/chunk-{{chunk}}"

# --- pages of a run -------------------------------------------------------------------------------

SUMMARY = f"{RESULTS}/summary.tsv"
TRUST = f"{RESULTS}/trust.html"
VIEWER = f"{RESULTS}/viewer.html"
REPORT = f"{RESULTS}/report.html"

# --- logs and benchmarks --------------------------------------------------------------------------


def log(rule: str, *parts: str) -> str:
    """Path of the log of a rule's job; ``parts`` distinguish its jobs."""
    return f"logs/{'/'.join([rule, *parts])}.log"


def benchmark(rule: str, *parts: str) -> str:
    """Path of the table with time and memory of a rule's job."""
    return f"results/benchmarks/{'/'.join([rule, *parts])}.tsv"


# Parts of paths that distinguish the jobs of a rule: for scans here, for splits in of_split.
OF_SCAN = ("{cohort}", SCAN_ENTITIES)


def of_split(*further: str) -> tuple[str, ...]:
    """Parts of paths that distinguish jobs of splits; further parts come before the split."""
    return ("{cohort}", "{task}", *further, "{split}")


# --- wildcards ------------------------------------------------------------------------------------


def constraints() -> dict[str, str]:
    """Wildcard to the regular expression that it matches."""
    word = "[A-Za-z0-9]+"
    split = "|".join([FOLD_PATTERN, FIXED, external_name(word)])
    return {
        **dict.fromkeys(("cohort", "subject", "session", "image", "network"), word),
        **dict.fromkeys(("ptid", "description", "moment"), "[^/]+"),
        **dict.fromkeys(("seed", "chunk"), r"\d+"),
        "head": "head[0-9]+",
        "task": "[A-Za-z]+(-[A-Za-z]+)*",
        "group": "[A-Za-z]+",
        "split": split,
        "several": f"{split}|{OF_FOLDS}",
        "model": "|".join(MODELS),
        "method": "|".join(METHODS),
        "baseline": "|".join(BASELINES),
    }


# --- filling patterns -----------------------------------------------------------------------------


def figures(*names: str) -> list[str]:
    """Paths of figures: PNG for screens and PDF for print."""
    return [f"{name}.{kind}" for name in names for kind in ("png", "pdf")]


def fill(pattern: str, wildcards: object, **more: object) -> str:
    """Path from a pattern; values in ``more`` precede those of the wildcards."""
    values = {name: more[name] for name in more if name in _names(pattern)}
    for name in _names(pattern) - values.keys():
        values[name] = _value(wildcards, name)
    return pattern.format(**values)


def each(pattern: str, wildcards: object = None, **lists: Iterable[Any]) -> list[str]:
    """Paths for every combination of the lists' values; the last list varies fastest."""
    names = [name for name in lists if name in _names(pattern)]
    return [
        fill(pattern, wildcards, **dict(zip(names, values, strict=True)))
        for values in itertools.product(*(lists[name] for name in names))
    ]


@cache
def _names(pattern: str) -> frozenset[str]:
    """The wildcards of a pattern."""
    return frozenset(name for _, name, *_ in string.Formatter().parse(pattern) if name)


def _value(wildcards: object, name: str) -> object:
    return wildcards[name] if isinstance(wildcards, Mapping) else getattr(wildcards, name)
