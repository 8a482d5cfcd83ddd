"""Settings, scans, paths and the helpers that rules use. No rule stands here."""

import ctypes
import dataclasses
import functools
import gc
import itertools
import logging
import sys
import time
from collections import Counter
from pathlib import Path

from snakemake import __version__ as SNAKEMAKE_VERSION
from snakemake.exceptions import WorkflowError
from snakemake.settings.enums import Quietness

# By this file's place: where voxplain is a module, workflow.basedir is the other workflow's.
SCRIPTS = Path(str(workflow.current_basedir)).parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

from pipeline.estimate import estimate, read_costs, read_sizes
from pipeline.failures import FailureRecorder, describe_failures
from pipeline.faulty import Faulty
from pipeline.progress import ProgressRecorder, Reporter, spare_log
from pipeline.scheduling import lift_default_rate_limit
from pipeline.selected import Codes
from pipeline.settings import complete_settings, name_repeats, read_schema
from pipeline.start import check_folders, clear_stale_lock, forget_run, note_run
from pipeline.summary import summarise_applied, summarise_networks, summarise_run
from voxplain import __version__ as VERSION
from voxplain.cohort.fates import read_fates, summarise
from voxplain.cohort.plan import plan_cohort
from voxplain.cohort.bids import read_dataset
from voxplain.cohort.scans import class_in, list_scans
from voxplain.cohort.splits import (
    EXTERNAL,
    FIXED,
    make_external,
    make_fixed,
    make_folds,
)
from voxplain.cohort.tables import read_table
from voxplain.cohort.trees import find_images, split_zip
from voxplain.cohort.twins import healthy_twin, image_of_twin, twin_image
from voxplain.cohort.demographics import AGE_SEX, AREAS, BASELINES, read_age, read_sex
from voxplain.faults import SetupFault
from voxplain.models import MODELS, Recipe, plan_model
from voxplain.relevance import METHODS, choose_target

SPACE = "MNI152NLin2009cAsym"
PACKAGED_HEAD = "packaged"
# What a BIDS dataset's listing calls the columns of a table of scans.
DATASET_COLUMNS = {
    "image": "image",
    "subject": "subject",
    "visit": "session",
    "date": "date",
    "description": "description",
}
# Voxels of the template at 1 mm.
TEMPLATE_SHAPE = (193, 229, 193)
STARTED = time.time()
# Snakemake counts nodes where jobs are submitted. (Which executor it takes it does not know yet.)
ON_CLUSTER = workflow.nodes is not None


# --- settings and scans ---------------------------------------------------------------------------


def head_names(simulation):
    """Name to path of a simulated cohort's head volumes."""
    names = {}
    for place, path in enumerate(simulation["heads"], start=1):
        if not Path(path).is_file():
            raise SetupFault(f"config: head volume {path} does not exist")
        names[f"head{place}"] = path
    return names or {PACKAGED_HEAD: ""}


def load_cohort(name, settings):
    """Plan of a cohort (if it is simulated), its scans, and images that its table does not name.

    All from the settings, the table and the names of folders.
    """
    if settings["source"] == "simulated":
        simulation = settings["simulation"]
        keys = ("seed", "groups", "visits", "age", "ageing_per_decade", "progression_per_year")
        plan = plan_cohort(
            **{key: simulation[key] for key in (*keys, "first_number", "shortcut")},
            heads=list(head_names(simulation)),
        )
        if not plan:
            raise SetupFault(f"config: cohorts.{name}.simulation.groups has no patients")
        rows = [scan.table_row() for scan in plan]
        table = f"results/{name}/source/scans.csv"
        places = {scan.image: [f"results/{name}/source/ADNI/{scan.folder}"] for scan in plan}
        companions, columns = {}, settings["columns"]
    elif settings["source"] == "bids":
        plan = []
        (root,) = images_of_source(settings)
        table = settings.get("table") or str(
            Path(root) / "participants.tsv (or the cohort's `table`)"
        )
        rows, places, companions = read_dataset(
            root, settings["images_are"], settings["files"], settings.get("table")
        )
        columns = {**DATASET_COLUMNS, **settings["columns"]}
    else:
        plan, table = [], settings["table"]
        rows = read_table(table)
        tree = find_images(images_of_source(settings))
        places, columns = tree.images, settings["columns"]
        companions = {image: [path] for image, path in tree.metadata.items()}
    # Of new scans nobody knows the diagnosis.
    tasks = config["tasks"] if takes_part(name) else None
    scans = list_scans(
        rows,
        places,
        tasks,
        table,
        columns,
        settings["diagnosis_words"],
        **config["progression"],
        select=settings["select"],
        companions=companions,
        image_ids="labels" if settings["source"] == "bids" else "archive",
    )
    usable = [scan for scan in scans if scan.fate is None]
    for classes in tasks or ():
        for group in classes:
            if not any(class_in(scan, classes) == group for scan in usable):
                counts = Counter(str(scan.diagnosis) for scan in scans).most_common(12)
                told = ", ".join(f"{word!r} ({count})" for word, count in counts)
                raise SetupFault(
                    f"cohort {name} has no scan of class {group} to process (table {table}); its "
                    f"diagnoses are {told}: say what they mean in `diagnosis_words` of the cohort, "
                    "correct the table, or leave the class out of `tasks`"
                )
    named = {scan.image for scan in scans}
    return {scan.image: scan for scan in plan}, scans, sorted(set(places) - named)


def images_of_source(settings):
    """The folders and zip files of a cohort."""
    images = settings["images"]
    return images if isinstance(images, list) else [images]


def takes_part(name):
    """Whether a cohort's scans are trained or tested on, not only preprocessed or applied to."""
    tested = {pair["test"] for pair in config["splits"]["external"]}
    return config["cohorts"][name]["train"] or name in tested


def models_of(name):
    """The networks that are trained on a cohort."""
    chosen = config["cohorts"][name]["models"]
    return [model for model in config["models"] if chosen == "all" or model in chosen]


def trains():
    """Whether any network is trained here; those that are only applied say what they are."""
    return any(cohort["train"] for cohort in config["cohorts"].values())


def layer_of(model):
    """The name of the layer that is read of a network, or auto."""
    layer = config["cam"]["layer"]
    return layer.get(model, "auto") if isinstance(layer, dict) else layer


def methods_of(model=None):
    """The configured methods that apply to a network; all of them where it is not known.

    A summary of no other method is none.
    """
    applies = {name: METHODS[name].models for name in config["heatmaps"]["methods"]}
    found = [n for n, models in applies.items() if model is None or not models or model in models]
    return found if summarised(found) else [name for name in found if name != "summary"]


def summarised(methods):
    """Those of some methods that the summary puts together."""
    chosen = config["summary"]["methods"]
    return [name for name in methods if name != "summary" and (chosen == "all" or name in chosen)]


def check_names():
    """Refuse names of cohorts and methods that the rest of the configuration does not have."""
    cohorts, methods = config["cohorts"], config["heatmaps"]["methods"]
    for place, pair in enumerate(config["splits"]["external"]):
        for key, name in pair.items():
            if name not in cohorts:
                raise SetupFault(
                    f"config: splits.external.{place}.{key} is {name!r}; allowed: {', '.join(cohorts)}"
                )
        if pair["train"] == pair["test"] or not cohorts[pair["train"]]["train"]:
            raise SetupFault(
                f"config: splits.external.{place} is {pair}; allowed: two cohorts, the first without "
                "train: false"
            )
    for name in config["apply"]["cohorts"]:
        if name not in cohorts:
            raise SetupFault(f"config: apply.cohorts has {name!r}; allowed: {', '.join(cohorts)}")
    chosen = config["heatmaps"]["cohorts"]
    for name in [] if chosen == "all" else chosen:
        if name not in cohorts:
            raise SetupFault(
                f"config: heatmaps.cohorts has {name!r}; allowed: all, or a list of {', '.join(cohorts)}"
            )
        if not cohorts[name]["train"]:
            raise SetupFault(
                f"config: heatmaps.cohorts has {name}, which has train: false; name the cohorts that "
                "networks are trained on (splits.external and heatmaps.splits: external explain the "
                "scans of others)"
            )
    for name, cohort in cohorts.items():
        for model in [] if cohort["models"] == "all" else cohort["models"]:
            if model not in config["models"]:
                raise SetupFault(
                    f"config: cohorts.{name}.models has {model!r}, which is not among the models; "
                    f"allowed: all, or a list of {', '.join(config['models'])}"
                )
    chosen = config["summary"]["methods"]
    for method in [] if chosen == "all" else chosen:
        if method not in methods or method == "summary":
            allowed = [other for other in methods if other != "summary"]
            raise SetupFault(
                f"config: summary.methods has {method!r}; allowed: the other heatmaps.methods: "
                f"{', '.join(allowed)}"
            )
    for method in methods if trains() else ():
        if not any(method in methods_of(model) for model in config["models"]):
            needs = (
                ", ".join(METHODS[method].models) or "networks with other methods to put together"
            )
            raise SetupFault(
                f"config: heatmaps.methods has {method}, which applies to {needs} only, and none of "
                "them is among the models"
            )
    layer = config["cam"]["layer"]
    for model in layer if trains() and isinstance(layer, dict) else ():
        if model not in config["models"]:
            raise SetupFault(
                f"config: cam.layer names {model}, which is not among the models; allowed: "
                f"{', '.join(config['models'])}"
            )
    if config["heatmaps"]["splits"] == "external" and not config["splits"]["external"]:
        raise SetupFault(
            "config: heatmaps.splits is external, but splits.external names no cohorts; allowed here: "
            "fixed, folds, all"
        )


def splits_of(name, task):
    """Splits of a cohort for one task; none where there is nothing to train."""
    classes = TASKS[task]
    if len(classes) == 1 or not config["cohorts"][name]["train"]:
        return {}
    try:
        return split_cohort(name, classes)
    except SetupFault as fault:
        raise SetupFault(f"{fault} (cohort {name}, task {task})") from None


@functools.cache
def heads_of_patients(cohort):
    """Patient to head, which is called the same in all cohorts; nothing of scans that are real."""
    plan = PLANNED[cohort]
    if not plan:
        return {}
    names = head_names(config["cohorts"][cohort]["simulation"])
    # A user's own by its path: two cohorts number their heads for themselves.
    heads = {name: Path(path).as_posix() if path else name for name, path in names.items()}
    return {scan.patient: heads[plan[image].head] for image, scan in SCANS[cohort].items()}


def heads_kept_together(cohort):
    """Patient to head, where splits are to be by head; else None."""
    if config["splits"]["group_by"] != "head":
        return None
    if not PLANNED[cohort]:
        raise SetupFault(
            f"config: splits.group_by is head, but of the scans of cohort {cohort} no head is known; "
            "allowed for scans that are not simulated: patient"
        )
    return heads_of_patients(cohort)


def split_cohort(name, classes):
    """Splits of a cohort for one task, by name: folds, the fixed one, tests on other cohorts."""
    settings, scans = config["splits"], list(SCANS[name].values())
    shared = {"scans": scans, "classes": classes, "seed": settings["seed"]}
    shared["heads"] = heads_kept_together(name)
    splits = make_folds(
        **shared, **{key: settings[key] for key in ("folds", "repeats", "stratify")}
    )
    draw = settings["fixed_draw"]
    if draw == "as_published":
        shared["seed"] = 0
    splits.append(make_fixed(**shared, test_patients=settings["fixed_test_patients"], draw=draw))
    for pair in settings["external"]:
        if pair["train"] == name:
            check_other_people(name, pair["test"])
            others = list(SCANS[pair["test"]].values())
            heads = shared["heads"] and (shared["heads"], heads_kept_together(pair["test"]))
            splits.append(make_external(scans, others, classes, pair["test"], heads))
    return {split.name: split for split in splits}


def check_other_people(*cohorts):
    """Refuse a test on the people that were trained on, under other numbers."""
    seeds = {config["cohorts"][name]["simulation"]["seed"] for name in cohorts if PLANNED[name]}
    if all(PLANNED[name] for name in cohorts) and len(seeds) == 1:
        raise SetupFault(
            f"config: cohorts {' and '.join(cohorts)} have the same simulation.seed ({seeds.pop()}), so "
            "that their patients are the same people, whatever their numbers are; for a test on others "
            "give each cohort a seed of its own"
        )


def check_target(task, classes):
    """Refuse a class to explain that a task has not."""
    try:
        choose_target(config["heatmaps"]["target"], classes, classes[0], [0.0] * len(classes))
    except SetupFault as fault:
        raise SetupFault(f"config: {fault} (task {task})") from None


def check_apply():
    """Refuse to apply networks that do not exist, or to cohorts without what is asked for.

    Raises
    ------
    SetupFault
    """
    check_device()
    told = config["apply"]
    for key in ("networks", "cohorts"):
        if not told[key]:
            raise SetupFault(f"config: apply.{key} is empty; `snakemake apply` needs it")
    for name, path in told["networks"].items():
        if not Path(path).is_file():
            raise SetupFault(f"config: apply.networks.{name} is {path}, which does not exist")
    for name in told["cohorts"]:
        if config["heatmaps"]["target"] == "true" and not all(
            s.group for s in SCANS[name].values()
        ):
            raise SetupFault(
                f"config: heatmaps.target is true, but cohort {name} has scans without a diagnosis; "
                "allowed here: disease, predicted, or a class by name"
            )


def check_kept():
    """Refuse to keep scans by name that are not there."""
    known = {scan.image for _, scans, _ in LOADED.values() for scan in scans}
    for image in config["quality"]["keep"]:
        if image not in known:
            raise SetupFault(
                f"config: quality.keep has {image!r}, which no cohort's table names; allowed: image ids "
                "as in scans.tsv, e.g. I32237"
            )


def check_models():
    """Refuse a layer that a network has not, and a batch that cannot hold every class."""
    for model, plan in PLANS.items():
        wanted = layer_of(model)
        if wanted != "auto" and wanted not in plan.layers:
            raise SetupFault(
                f"config: cam.layer is {wanted!r}, which {model} has not; allowed: auto, "
                f"{', '.join(plan.layers)}; one for each network is written {{{model}: ...}}"
            )
        settings = config["models"][model]
        most = max(map(len, config["tasks"]))
        if settings["every_class"] and settings["batch_size"] < most:
            raise SetupFault(
                f"config: models.{model}.batch_size is {settings['batch_size']}, too few for a scan "
                f"of each of {most} classes; choose {most} or more, or every_class: false"
            )


def check_device():
    """Refuse a GPU that this machine lacks; on a cluster the job's own node will say."""
    if not workflow.is_main_process:
        return  # this job may need no GPU, and run on a node that has none
    if config["device"] == "cuda" and not ON_CLUSTER and not has_gpu():
        raise SetupFault(
            "config: device is cuda, but this machine has no NVIDIA driver or no GPU; allowed "
            "here: cpu, auto"
        )


def has_gpu():
    """Whether this machine has an NVIDIA GPU, and a driver that finds it."""
    try:
        return ctypes.CDLL("libcuda.so.1").cuInit(0) == 0
    except OSError:
        return False


def check_module():
    """Refuse to be a module with a prefix: tables of scans name volumes, which it would not reach."""
    paths = workflow.modifier.path_modifier
    if paths.prefix or paths.modifies_prefixes:
        raise SetupFault(
            "module voxplain: prefix and replace_prefix cannot be used; results lie below results/ in "
            "the working directory: choose another with --directory or workdir:"
        )


try:
    check_module()
    if workflow.is_main_process:
        check_folders()
    config = complete_settings(config, read_schema(SCRIPTS.parent / "schemas/config.schema.yaml"))
    check_names()
    LOADED = {name: load_cohort(name, settings) for name, settings in config["cohorts"].items()}
    check_kept()
except SetupFault as fault:
    raise WorkflowError(str(fault)) from None

COHORTS = list(LOADED)
# Only these are written by rules; another cohort may read what they wrote.
SIMULATED = "|".join(name for name, (plan, *_) in LOADED.items() if plan) or "none"
PLANNED = {name: plan for name, (plan, *_) in LOADED.items()}
ALL_SCANS = {name: scans for name, (_, scans, _) in LOADED.items()}
# The scans that are processed, by image id.
SCANS = {
    name: {scan.image: scan for scan in scans if scan.fate is None}
    for name, scans in ALL_SCANS.items()
}
# FSL is not free for everybody: conda brings it only where it may be asked for.
MAY_USE_FSL = config["skull"]["tool"] != "deepbet"
TASKS = {"-".join(classes): classes for classes in config["tasks"]}
GRID_SHAPE = [-(-n // config["resolution_mm"]) for n in TEMPLATE_SHAPE]
RECIPE = [field.name for field in dataclasses.fields(Recipe)]
try:
    # The options of a network's architecture; the others say how it is trained.
    MODEL_OPTIONS = {
        name: {key: value for key, value in sorted(settings.items()) if key not in RECIPE}
        for name, settings in config["models"].items()
    }
    PLANS = {
        name: plan_model(name, GRID_SHAPE, **options)
        for name, options in MODEL_OPTIONS.items()
        if trains()
    }
    check_models()
    for task, classes in TASKS.items():
        if trains() and len(classes) > 1:
            check_target(task, classes)
    SPLITS = {name: {task: splits_of(name, task) for task in TASKS} for name in COHORTS}
    check_device()
    FAULT = None
except SetupFault as fault:
    # Scans can be preprocessed that could not be trained on: the targets and jobs that need splits or
    # networks raise the fault when they look for them. Snakemake would print any other error of an input
    # function with a traceback.
    FAULT = SystemExit(str(fault))
    PLANS, SPLITS = Faulty(FAULT), Faulty(FAULT)

ANY_SPLIT = "|".join([r"repeat-\d+_fold-\d+", FIXED, EXTERNAL.format("[A-Za-z0-9]+")])
# Where the folds' networks are compared, a split's name stands otherwise.
OF_FOLDS = "folds"


wildcard_constraints:
    cohort="[A-Za-z0-9]+",
    subject="[A-Za-z0-9]+",
    session="[A-Za-z0-9]+",
    image="[A-Za-z0-9]+",
    head="head[0-9]+",
    ptid="[^/]+",
    description="[^/]+",
    moment="[^/]+",
    task="[A-Za-z]+(-[A-Za-z]+)*",
    model="|".join(MODELS),
    split=ANY_SPLIT,
    several=f"{ANY_SPLIT}|{OF_FOLDS}",
    baseline="|".join(BASELINES),
    seed=r"\d+",
    method="|".join(METHODS),
    group="[A-Za-z]+",
    network="[A-Za-z0-9]+",
    chunk=r"\d+",


# --- paths ----------------------------------------------------------------------------------------

SCAN_ENTITIES = "sub-{subject}_ses-{session}_acq-{image}"
TEMPLATE = f"results/template/tpl-{SPACE}_desc-brain"


def scan_file(suffix, kind="anat"):
    """A file of one scan, named as BIDS names derivatives."""
    return (
        "results/{cohort}/derivatives/sub-{subject}/ses-{session}/"
        + f"{kind}/{SCAN_ENTITIES}_{suffix}"
    )


def intermediate(suffix):
    """A file of one scan that only stands between others: kept, or removed when all used it."""
    path = scan_file(suffix)
    return path if config["keep_intermediates"] else temp(path)


def scan_log(rule):
    """The log of a rule for one scan."""
    return f"logs/{rule}/{{cohort}}/{SCAN_ENTITIES}.log"


def scan_benchmark(rule):
    """Time and memory of a rule for one scan."""
    return f"results/benchmarks/{rule}/{{cohort}}/{SCAN_ENTITIES}.tsv"


def entities_of(cohort, scan):
    """The wildcards of a scan's files."""
    return {
        "cohort": cohort,
        "subject": scan.subject_label,
        "session": scan.session,
        "image": scan.image,
    }


def of_images(pattern, cohort, images):
    """A file of each of some processed scans of a cohort."""
    return [pattern.format(**entities_of(cohort, SCANS[cohort][image])) for image in images]


def of_scans(pattern, cohort):
    """A file of every processed scan of a cohort."""
    return of_images(pattern, cohort, SCANS[cohort])


SPLIT = "results/{cohort}/{task}/splits/{split}"
# Scores of the voxelwise t of a split's training scans, which looks at no network.
DIFFERENCE = "_group_difference_localisation.tsv"
RUN = "results/{cohort}/{task}/{model}/{split}/seed-{seed}"
# In the folder of a training itself: TensorBoard calls a run by its folder.
EVENTS = f"{RUN}/events.out.tfevents.training"
# Networks of all seeds of a split, or of all folds.
SEVERAL = "results/{cohort}/{task}/{model}/{several}"
BASELINE = "results/{cohort}/{task}/baselines/{baseline}"
AREA_MEANS = "results/{cohort}/{task}/baselines/areas.tsv"
CHUNK = f"{RUN}/{{method}}/scans/chunk-{{chunk}}"
# Methods that look at a network; the summary looks at their maps.
EXPLAINING = "|".join(method for method in METHODS if method != "summary")
APPLIED = "results/{cohort}/applied/{network}"
APPLIED_CHUNK = f"{APPLIED}/{{method}}/scans/chunk-{{chunk}}"
ATLAS = f"results/template/tpl-{SPACE}_atlas-AAL_dseg"
# Regions that every brain has, to localise heatmaps against; and what was changed in a simulated scan.
REGIONS = f"results/template/tpl-{SPACE}_atlas-DesikanKilliany_desc-regions_dseg"
TRUTH = scan_file(f"space-{SPACE}_desc-truth_probseg.nii.gz")
# What is left of it in the preprocessed scan.
RESIDUAL = scan_file(f"space-{SPACE}_desc-residual_T1w.nii.gz")
PREPROCESSED = scan_file(f"space-{SPACE}_desc-preproc_T1w.nii.gz")
# What is trained on and explained: its brain voxels in 16 bits.
STORED = scan_file(f"space-{SPACE}_desc-preproc_T1w.npy")


def split_log(rule, *further):
    """The log of a rule for one split, and what else its wildcards tell apart."""
    further = "".join(f"{part}/" for part in further)
    return f"logs/{rule}/{{cohort}}/{{task}}/{further}{{split}}.log"


def split_benchmark(rule, *further):
    """Time and memory of a rule for one split."""
    further = "".join(f"{part}/" for part in further)
    return f"results/benchmarks/{rule}/{{cohort}}/{{task}}/{further}{{split}}.tsv"


def head_file(part):
    """A file of a head to simulate from."""
    return f"results/{{cohort}}/source/heads/{{head}}_{part}.nii.gz"


# --- inputs and params ----------------------------------------------------------------------------


# Fingerprints of the code that a rule's script runs, for its params.
CODES = Codes(SCRIPTS)
code_of = CODES.of_script


def sort_keys(value):
    """Nested dicts in the order of their keys, which Snakemake compares too."""
    if isinstance(value, dict):
        return {key: sort_keys(value[key]) for key in sorted(value)}
    return value


def settings_of(*keys):
    """Settings by name."""
    return sort_keys({key: config[key] for key in keys})


def quality_settings(wildcards):
    """Thresholds of quality control, and whether they decide on this scan."""
    thresholds = {key: value for key, value in config["quality"].items() if key != "keep"}
    return sort_keys(
        {"thresholds": thresholds, "kept": wildcards.image in config["quality"]["keep"]}
    )


def is_given(wildcards, what):
    """Whether a cohort's images are without skull ("brains"), or in template space ("registered")."""
    steps = ["heads", "brains", "registered"]
    return steps.index(config["cohorts"][wildcards.cohort]["images_are"]) >= steps.index(what)


def skull_settings_of(wildcards):
    """Options of the skull tools that may run; of none where the skull is off already."""
    return {"given": {}} if is_given(wildcards, "brains") else skull_settings()


def skull_settings():
    """Options of the skull tools that may run, and of the ladder as far as they can climb it."""
    skull = settings_of("skull")["skull"]
    if skull["tool"] == "deepbet":
        tools, ladder = ["deepbet"], [rung for rung in skull["ladder"] if rung in ("neck", "bias")]
    else:
        ladder = skull["ladder"]
        second = skull["tool"] == "auto" or "deepbet" in ladder
        tools = ["bet", "deepbet"] if second else ["bet"]
    used = ["gate", "neck_mm"] if "neck" in ladder else ["gate"] if ladder else []
    return {"ladder": ladder, **{key: skull[key] for key in [*tools, *used]}}


def simulation_of(wildcards):
    """What a scan's simulation is drawn from, beside its own plan; no options of what is off."""
    simulation = config["cohorts"][wildcards.cohort]["simulation"]
    planned = plan_of(wildcards)
    settings = {key: dict(simulation[key]) for key in ("atrophy", "scanner", "shortcut")}
    if planned.severity == 0:
        # Whatever the disease does, it does not do it here; its areas are measured all the same.
        settings["atrophy"] |= {"max_loss": 0, "extent": 1, "asymmetry": 0, "spread": 0}
    if settings["scanner"]["motion"]["share"] == 0:
        settings["scanner"]["motion"] = {"share": 0}
    # Who carries it, the plan says; of all others its place is measured as well.
    shortcut = settings["shortcut"]
    used = {"none": [], "mark": ["strength"], "scanner": ["area", "strength", "sd_mm"]}
    options = [key for key in used[shortcut["kind"]] if planned.shortcut or key == "area"]
    settings["shortcut"] = {key: shortcut[key] for key in ("kind", *options)}
    return sort_keys(settings)


def plan_of(wildcards):
    """The plan of one simulated scan, or of a scan's healthy twin."""
    plan, image = PLANNED[wildcards.cohort], wildcards.image
    return plan[image] if image in plan else healthy_twin(plan[image_of_twin(image)])


def scan_of(wildcards):
    """One processed scan, or a scan's healthy twin, which stands in no table."""
    scans, image = SCANS[wildcards.cohort], wildcards.image
    if image in scans:
        return scans[image]
    place = f"results/{wildcards.cohort}/source/ADNI/{plan_of(wildcards).folder}"
    return dataclasses.replace(scans[image_of_twin(image)], image=image, place=place)


def planned_scan(wildcards):
    """The plan of one simulated scan."""
    return plan_of(wildcards).as_dict()


def simulated_scans(wildcards):
    """Image, patient, group and head of every scan that is simulated."""
    plan = PLANNED[wildcards.cohort]
    return [
        [image, plan[image].subject, plan[image].group, plan[image].head]
        for image in SCANS[wildcards.cohort]
    ]


def measures_of_cohort(wildcards):
    """What was done to the areas of each scan, in the order of `simulated_scans`."""
    plan = PLANNED[wildcards.cohort]
    place = f"results/{wildcards.cohort}/source/truth"
    return [f"{place}/{plan[image].folder}_truth.json" for image in SCANS[wildcards.cohort]]


def reference_group(wildcards):
    """The group that others are compared with: the last without a disease, else the last."""
    groups = config["cohorts"][wildcards.cohort]["simulation"]["groups"]
    there = {group for _, _, group, _ in simulated_scans(wildcards)}
    here = [group for group in groups if group in there]
    well = [group for group in here if not any(groups[group]["severity"])]
    return (well or here)[-1]


def planned_rows(wildcards):
    """The table of a simulated cohort."""
    return [scan.table_row() for scan in PLANNED[wildcards.cohort].values()]


def head_of_scan(part):
    """The head that a simulated scan is made from."""

    def path(wildcards):
        return head_file(part).format(cohort=wildcards.cohort, head=plan_of(wildcards).head)

    return path


def users_head(wildcards):
    """The volume of a user's own head."""
    return head_names(config["cohorts"][wildcards.cohort]["simulation"])[wildcards.head]


def source_of_scan(wildcards):
    """The folder or file of one scan, and what belongs to it.

    Snakemake takes braces in a name for wildcards, with no way to say that they are none: the folder
    above them stands for what lies in it.
    """
    scan = scan_of(wildcards)
    pair = [scan.place[:-4] + ending for ending in (".img", ".IMG")]
    pair = [path for path in pair if scan.place.lower().endswith(".hdr") and Path(path).is_file()]
    places = [split_zip(place)[0] for place in (scan.place, *scan.companions, *pair)]
    return list(dict.fromkeys(path if "{" not in path else above_braces(path) for path in places))


def above_braces(path):
    """The folder in which the first name with a brace lies."""
    parts = Path(path).parts
    return str(Path(*parts[: next(n for n, part in enumerate(parts) if "{" in part)]))


def conversion_settings(wildcards):
    """What is asked of a scan's files, where they lie, and what the table says of them."""
    scan = scan_of(wildcards)
    told = {"subject": scan.subject, "description": scan.description}
    told["nan_outside"] = is_given(wildcards, "brains")
    where = {"place": scan.place, "companions": list(scan.companions)}
    return sort_keys({**config["conversion"], **told, **where})


def correction_settings(wildcards):
    """Settings of the intensity correction, and the table's word on what was done before."""
    description = scan_of(wildcards).description
    return {**settings_of("bias_correction", "intensity_scale"), "description": description}


def registration_settings(wildcards):
    """Settings of the registration, the grid's resolution among them."""
    settings = {**config["registration"], "resolution_mm": config["resolution_mm"]}
    if is_given(wildcards, "registered"):
        settings["transform"] = "none"
    return dict(sorted(settings.items()))


def qualities_of_cohort(wildcards):
    """The quality of every processed scan."""
    return of_scans(scan_file("desc-quality_T1w.json"), wildcards.cohort)


def assessed_scans(wildcards):
    """The quality of every processed scan, each with its truth in the template's space.

    Of all that were simulated with a disease or a shortcut, not only of those that are explained now: where
    intermediate volumes are not kept, the registration that carries it is gone later. Side by side,
    so that `--batch` takes whole scans, and their healthy twins with them.
    """
    cohort = wildcards.cohort
    twinned = twinned_images(cohort)
    paths = []
    for image in SCANS[cohort]:
        files = [scan_file("desc-quality_T1w.json"), *([TRUTH] if has_truth(cohort, image) else [])]
        files += [RESIDUAL] if image in twinned else []
        paths += [path for file in files for path in of_images(file, cohort, [image])]
    return paths


def pictures_of_cohort(name):
    """Function: a picture of every processed scan, in the order of `images_of_cohort`."""

    def paths(wildcards):
        return of_scans(scan_file(name, kind="figures"), wildcards.cohort)

    return paths


def images_of_cohort(wildcards):
    """The image ids, in the order of `assessed_scans`."""
    return list(SCANS[wildcards.cohort])


def rows_of_cohort(wildcards):
    """The cohort's table as far as it is known before processing."""
    rows = []
    for scan in ALL_SCANS[wildcards.cohort]:
        keys = ("image", "subject", "session", "visit", "date", "diagnosis", "group", "progression")
        keys += ("sex", "age", "description", "phase", "field_strength")
        row = {key: getattr(scan, key) for key in keys}
        if scan.fate is None:
            path = PREPROCESSED.format(**entities_of(wildcards.cohort, scan))
            row["preprocessed"] = path.removeprefix(f"results/{wildcards.cohort}/")
        else:
            fate = scan.fate.as_dict()
            row |= {"fate": fate.pop("status"), **fate}
        rows.append(row)
    return rows


def unlisted_images(wildcards):
    """Images of the cohort's tree that its table does not name."""
    return LOADED[wildcards.cohort][2]


def split_of(wildcards):
    """The split of a job."""
    return SPLITS[wildcards.cohort][wildcards.task][wildcards.split]


def tested_cohort(wildcards):
    """The cohort on a split's test side: its own, but in an external test."""
    return split_of(wildcards).test_cohort or wildcards.cohort


def classes_of_task(wildcards):
    """The classes that a task tells apart, the disease first."""
    return TASKS[wildcards.task]


def network_label(wildcards):
    """What tables and figures call a network."""
    return PLANS[wildcards.model].label


def cohorts_of_sides(wildcards):
    """The cohort on each side of a split, training side first."""
    return {"train": wildcards.cohort, "test": tested_cohort(wildcards)}


def scans_of_split(pattern, *sides):
    """Input function: a file of every scan on the given sides of a split."""

    def paths(wildcards):
        split, cohorts = split_of(wildcards), cohorts_of_sides(wildcards)
        return [
            path
            for side in sides
            for path in of_images(pattern, cohorts[side], getattr(split, side))
        ]

    return paths


def members_of_split(wildcards):
    """Image, patient, class, side, volume, other cohort and head of every scan of a split.

    The training side first.
    """
    split, classes = split_of(wildcards), TASKS[wildcards.task]
    rows = []
    for side, cohort in cohorts_of_sides(wildcards).items():
        for image in getattr(split, side):
            scan = SCANS[cohort][image]
            volume = STORED.format(**entities_of(cohort, scan))
            # Two cohorts may use the same image ids.
            other = "" if cohort == wildcards.cohort else cohort
            row = [image, scan.patient, class_in(scan, classes), side, volume, other]
            rows.append([*row, heads_of_patients(cohort).get(scan.patient, "")])
    return rows


def preprocessing_settings():
    """What a brain in template space depends on, for those who apply a network to others.

    Which of the skull tools was used, the scans' own records say.
    """
    keys = ("template", "resolution_mm", "bias_correction", "intensity_scale", "registration")
    return sort_keys({**settings_of(*keys), "skull": skull_settings()})


def shared_recipe():
    """How all networks are trained.

    The seeds are wildcards: one more is no change of the others. What is told of a training is none.
    """
    told = ("seeds", "tensorboard")
    return {key: value for key, value in config["training"].items() if key not in told}


def training_settings(wildcards):
    """How a network is built and trained."""
    settings = config["models"][wildcards.model]
    return sort_keys(
        {
            "model": {"name": wildcards.model, **MODEL_OPTIONS[wildcards.model]},
            "training": {**shared_recipe(), **{key: settings[key] for key in RECIPE}},
            "classes": TASKS[wildcards.task],
            "preprocessing": preprocessing_settings(),
            "roc_auc": config["evaluation"]["roc_auc"],
        }
    )


def hyperparameters_of_training(wildcards):
    """How a network is built and trained, in one table."""
    return sort_keys({**config["models"][wildcards.model], **shared_recipe()})


def code_of_training(wildcards):
    """The code that trains this network, and no other network's."""
    return CODES.of_training(wildcards.model)


def chunked(images):
    """Scans in chunks, each the work of one job."""
    size = config["heatmaps"]["chunk_size"]
    return [images[start : start + size] for start in range(0, len(images), size)]


def chunk_numbers(images):
    """The numbers of their chunks, from 1."""
    return range(1, len(chunked(images)) + 1)


def images_of_chunk(wildcards):
    """The scans that one job explains."""
    return list(chunked(split_of(wildcards).test)[int(wildcards.chunk) - 1])


def volumes_of_chunk(wildcards):
    """Their volumes."""
    return of_images(STORED, tested_cohort(wildcards), images_of_chunk(wildcards))


def maps_of_method(wildcards):
    """The heatmaps of all chunks of a split."""
    return expand(CHUNK, **wildcards, chunk=chunk_numbers(split_of(wildcards).test))


def in_voxels(edge_mm):
    """A length in voxels of the template, which are cubes; at least one."""
    return max(1, round(edge_mm / config["resolution_mm"]))


def options_of_method(method, model=None):
    """What `explain` is asked for, beside masks and labels, which a job reads."""
    if method == "occlusion":
        cube = config["occlusion"]
        size, stride = in_voxels(cube["size_mm"]), in_voxels(cube["stride_mm"])
        return {"size": size, "spread": cube["spread"], "stride": stride}
    if method == "voxel_occlusion":
        cube = config["voxel_occlusion"]
        return {"size": cube["size_voxels"], "stride": cube["stride_voxels"]}
    options = dict(config.get(method, {})) if method != "cam" else {}
    known = METHODS[method].options
    if "composite" in known:
        options["composite"] = config["lrp"]["composite"]
    # A layer's name is checked and completed where the network is known.
    if "placement" in known:
        options["placement"] = config["cam"]["placement"]
    if "layer" in known:
        options["layer"] = config["cam"]["layer"] if model is None else layer_of(model)
    return sort_keys(options)


def relevance_settings(wildcards):
    """What a method's heatmaps depend on beside the network."""
    return {
        "options": options_of_method(wildcards.method, wildcards.model),
        "target": config["heatmaps"]["target"],
    }


def summarised_methods(wildcards):
    """The methods whose maps the summary puts together."""
    return summarised(methods_of(wildcards.get("model")))


def maps_to_summarise(wildcards):
    """The heatmaps of a chunk by every method of the summary."""
    return expand(
        CHUNK.replace("{method}", "{one}"), **wildcards, one=summarised_methods(wildcards)
    )


def atlas_of_method(wildcards):
    """The areas that area occlusion sets to 0; nothing for the other methods."""
    return [f"{ATLAS}.nii.gz"] if wildcards.method == "area_occlusion" else []


def kept_maps(path):
    """The heatmaps of single scans: kept, or removed when all that needs them is done."""
    return directory(path) if config["heatmaps"]["keep_scans"] else temp(directory(path))


def code_of_relevance(wildcards):
    """The code that explains by this method, and no other method's."""
    return CODES.of_explaining(wildcards.model, wildcards.method)


def folds_of(cohort, task):
    """The splits of a cross-validation."""
    return [name for name in SPLITS[cohort][task] if name.startswith("repeat-")]


def of_folds(pattern):
    """Input function: a file of every fold and seed of a cross-validation."""

    def paths(wildcards):
        folds = folds_of(wildcards.cohort, wildcards.task)
        return expand(pattern, **wildcards, split=folds, seed=config["training"]["seeds"])

    return paths


def of_splits(pattern):
    """Input function: a file of every split."""

    def paths(wildcards):
        return expand(pattern, **wildcards, split=list(SPLITS[wildcards.cohort][wildcards.task]))

    return paths


def of_methods(pattern):
    """Input function: a file of every method that applies to the network."""

    def paths(wildcards):
        return expand(pattern, **wildcards, method=methods_of(wildcards.model))

    return paths


def new_scans_settings(wildcards):
    """What the heatmaps of new scans depend on; whose network it is, its file says."""
    options = options_of_method(wildcards.method)
    return {"options": options, "target": config["heatmaps"]["target"]}


def code_of_new_scans(wildcards):
    """The code that explains new scans: of which network is not known yet."""
    return CODES.of_explaining(None, wildcards.method)


def new_maps_of_method(wildcards):
    """The heatmaps of all chunks of new scans."""
    numbers = chunk_numbers(list(SCANS[wildcards.cohort]))
    return expand(APPLIED_CHUNK, **wildcards, chunk=numbers)


def new_maps_to_summarise(wildcards):
    """The heatmaps of a chunk of new scans by every method of the summary."""
    pattern = APPLIED_CHUNK.replace("{method}", "{one}")
    return expand(pattern, **wildcards, one=summarised_methods(wildcards))


def names_of_methods(wildcards):
    """The methods that apply to the network."""
    return methods_of(wildcards.model)


def of_means(suffix):
    """Input function: the average heatmaps, or their sidecars, the classes of a method side by side."""

    def paths(wildcards):
        pattern = f"{RUN}/{{method}}/mean_{{group}}.{suffix}"
        methods, groups = methods_of(wildcards.model), TASKS[wildcards.task]
        return expand(pattern, **wildcards, method=methods, group=groups)

    return paths


def explained_folds(cohort, task):
    """The folds whose test scans get heatmaps."""
    return [name for name in explained_splits(cohort, task) if name.startswith("repeat-")]


def several_runs(cohort, task):
    """What names networks whose average heatmaps are compared: a split with seeds, or the folds."""
    found = explained_splits(cohort, task) if len(config["training"]["seeds"]) > 1 else []
    return found + [OF_FOLDS] * (len(explained_folds(cohort, task)) > 1)


def compared_runs(wildcards):
    """Split and seed of the networks whose average heatmaps are compared."""
    splits = [wildcards.several]
    if wildcards.several == OF_FOLDS:
        splits = explained_folds(wildcards.cohort, wildcards.task)
    return [[split, seed] for split in splits for seed in config["training"]["seeds"]]


def means_of_runs(wildcards):
    """Their average heatmaps, the classes of a method side by side."""
    return [
        f"{RUN}/{method}/mean_{group}.nii.gz".format(**wildcards, split=split, seed=seed)
        for split, seed in compared_runs(wildcards)
        for method in methods_of(wildcards.model)
        for group in TASKS[wildcards.task]
    ]


def cohorts_of_task(cohort, task):
    """The cohorts on any side of a task's splits, that which trains first."""
    others = {split.test_cohort for split in SPLITS[cohort][task].values()}
    return [cohort, *sorted(others - {"", cohort})]


def people_of(cohort, task):
    """Cohort, image, age and sex of the scans in a task's splits; None where the table says none."""
    rows = []
    for name in cohorts_of_task(cohort, task):
        for scan in SCANS[name].values():
            if class_in(scan, TASKS[task]):
                rows.append([name, scan.image, read_age(scan.age), read_sex(scan.sex)])
    return rows


def baselines_of(cohort, task):
    """The baselines of a task; without age and sex where its table tells neither of anybody."""
    told = any(
        name == cohort and (age is not None or male is not None)
        for name, _, age, male in people_of(cohort, task)
    )
    return [name for name in config["evaluation"]["baselines"] if told or name != AGE_SEX]


def scans_of_task(wildcards):
    """Cohort and image of the scans in a task's splits."""
    return [[name, image] for name, image, *_ in people_of(wildcards.cohort, wildcards.task)]


def volumes_of_task(wildcards):
    """Their volumes."""
    return [
        path
        for name, image in scans_of_task(wildcards)
        for path in of_images(STORED, name, [image])
    ]


def areas_of_task(wildcards):
    """The mean intensities of their areas, where the baseline is of these."""
    return [AREA_MEANS] if wildcards.baseline == AREAS else []


def people_of_task(wildcards):
    """Age and sex of everybody in a task's splits."""
    return people_of(wildcards.cohort, wildcards.task)


def people_of_splits(wildcards):
    """Age and sex, where the baseline is of these."""
    return people_of(wildcards.cohort, wildcards.task) if wildcards.baseline == AGE_SEX else []


def label_of_baseline(wildcards):
    """What tables and figures call a baseline."""
    return BASELINES[wildcards.baseline]


def truth_of_scan(wildcards):
    """By what fraction each place of a simulated scan was changed, in the scanner's space."""
    planned = PLANNED[wildcards.cohort][wildcards.image]
    return f"results/{wildcards.cohort}/source/truth/{planned.folder}_truth.nii.gz"


def has_truth(cohort, image):
    """Whether a scan was simulated with a disease, or carries a shortcut."""
    plan = PLANNED[cohort]
    return bool(plan) and (plan[image].severity > 0 or plan[image].shortcut)


def diseased_test_scans(cohort, split):
    """The test scans of a cohort's split that were simulated with a disease or a shortcut."""
    tested = split.test_cohort or cohort
    return [image for image in split.test if has_truth(tested, image)]


def images_with_truth(wildcards):
    """The test scans of which it is known what was changed."""
    return diseased_test_scans(wildcards.cohort, split_of(wildcards))


def maps_with_truth(wildcards):
    """Every method's heatmaps in the chunks that hold scans whose truth is known."""
    known = set(images_with_truth(wildcards))
    chunks = enumerate(chunked(split_of(wildcards).test), start=1)
    numbers = [number for number, images in chunks if known.intersection(images)]
    return expand(CHUNK, **wildcards, method=methods_of(wildcards.model), chunk=numbers)


def truths_of_split(wildcards):
    """What was changed in them, in the template's space, in the same order."""
    return of_images(TRUTH, tested_cohort(wildcards), images_with_truth(wildcards))


@functools.cache
def twinned_images(cohort):
    """The scans of a cohort that are made once more as healthy twins: explained diseased ones."""
    # Without splits nothing is explained.
    if not config["localisation"]["residual"] or FAULT:
        return set()
    return {
        image
        for name in COHORTS
        for task in TASKS
        for split in explained_splits(name, task)
        if cohort == (SPLITS[name][task][split].test_cohort or name)
        for image in diseased_test_scans(name, SPLITS[name][task][split])
    }


def twin_file(suffix):
    """Input function: a file of a scan's healthy twin."""

    def path(wildcards):
        twin = {**wildcards, "image": twin_image(wildcards.image)}
        return scan_file(suffix).format(**twin)

    return path


def twin_of_scan(wildcards):
    """The image id of a scan's healthy twin."""
    return twin_image(wildcards.image)


def residuals_of_split(wildcards):
    """What is left of the atrophy of `images_with_truth` after registration, where it is asked for."""
    if not config["localisation"]["residual"]:
        return []
    return of_images(RESIDUAL, tested_cohort(wildcards), images_with_truth(wildcards))


def localisation_settings(*without):
    """Settings of localisation; of the residual's only where it is asked for."""
    settings = settings_of("localisation")["localisation"]
    residual = [] if settings["residual"] else ["residual_threshold"]
    left_out = {"residual", *residual, *without}  # whether there are residuals, the inputs say
    return {key: value for key, value in settings.items() if key not in left_out}


def thresholds_of_truth():
    """From which value on a voxel belongs to a scan's own regions."""
    settings = localisation_settings()
    return {key: value for key, value in settings.items() if key.endswith("_threshold")}


def scoring_settings():
    """What the score of one heatmap depends on; not how they are averaged."""
    return localisation_settings("draws")


def first_test_scans(key):
    """Input function: so many of a split's test scans, of its classes in turn.

    Patients come before second scans of patients.
    """

    def images(wildcards):
        count = config["faithfulness"][key]
        return choose_first(wildcards.cohort, wildcards.task, split_of(wildcards), count)

    return images


def choose_first(cohort, task, split, count):
    """So many of a split's test scans, as `first_test_scans` chooses them."""
    scans, classes = SCANS[split.test_cohort or cohort], TASKS[task]
    of_patients = {}
    for image in split.test:
        of_patients.setdefault(scans[image].patient, []).append(image)
    ordered = [image for turn in itertools.zip_longest(*of_patients.values()) for image in turn]
    of_classes = {group: [] for group in classes}
    for image in filter(None, ordered):
        of_classes[class_in(scans[image], classes)].append(image)
    in_turn = [image for turn in itertools.zip_longest(*of_classes.values()) for image in turn]
    return list(filter(None, in_turn))[:count]


images_to_change = first_test_scans("scans")
images_to_randomise = first_test_scans("randomised_scans")


def volumes_to_change(wildcards):
    """The volumes of the scans whose areas are deleted and inserted."""
    return of_images(STORED, tested_cohort(wildcards), images_to_change(wildcards))


def volumes_to_randomise(wildcards):
    """The volumes of the scans that are explained again by a network that forgets."""
    return of_images(STORED, tested_cohort(wildcards), images_to_randomise(wildcards))


def chunks_with(wildcards, images):
    """The numbers of the chunks that hold some of a split's test scans."""
    return chunks_holding(split_of(wildcards), images)


def chunks_holding(split, images):
    """The same of a split."""
    chunks = enumerate(chunked(split.test), start=1)
    return [number for number, held in chunks if set(images).intersection(held)]


def maps_to_follow(wildcards):
    """Every method's heatmaps in the chunks that hold the scans whose areas are changed."""
    numbers = chunks_with(wildcards, images_to_change(wildcards))
    return expand(CHUNK, **wildcards, method=methods_of(wildcards.model), chunk=numbers)


def maps_to_remake(wildcards):
    """A method's heatmaps in the chunks that hold the scans that are explained again."""
    return expand(CHUNK, **wildcards, chunk=chunks_with(wildcards, images_to_randomise(wildcards)))


def changing_settings():
    """What the deletion and insertion of areas depends on, beside the network and the heatmaps."""
    keys = ("random_orders", "seed", "steps")
    settings = {key: config["faithfulness"][key] for key in keys}
    return {**settings, "target": config["heatmaps"]["target"]}


def code_of_changing(wildcards):
    """The code that follows this network, and no other network's."""
    return CODES.of_changing_areas(wildcards.model)


def randomised_methods(model):
    """The methods whose heatmaps are remade by a network that forgets; the summary looks at none."""
    chosen = config["faithfulness"]["randomise"]
    looking = [name for name in methods_of(model) if name != "summary"]
    return [name for name in looking if chosen == "all" or name in chosen]


def names_of_randomised(wildcards):
    """The methods of `randomised_methods`."""
    return randomised_methods(wildcards.model)


def correlations_of_methods(wildcards):
    """The rank correlations of each of them."""
    methods = randomised_methods(wildcards.model)
    return expand(f"{RUN}/{{method}}/randomisation.tsv", **wildcards, method=methods)


def randomising_settings(wildcards):
    """What a heatmap of a network that forgets depends on, beside the network."""
    return {**relevance_settings(wildcards), "seed": config["faithfulness"]["seed"]}


def code_of_randomising(wildcards):
    """The code that explains by this method, and no other method's."""
    return CODES.of_randomising(wildcards.model, wildcards.method)


def explained_splits(cohort, task):
    """The splits whose test scans get heatmaps."""
    chosen, wanted = (config["heatmaps"][key] for key in ("cohorts", "splits"))
    if chosen != "all" and cohort not in chosen:
        return []
    starts = {"fixed": FIXED, "folds": "repeat-", "external": EXTERNAL.format(""), "all": ""}
    return [name for name in SPLITS[cohort][task] if name.startswith(starts[wanted])]


def trained_networks(cohort):
    """Task, model, split and seed of every network of a cohort."""
    return [
        {"cohort": cohort, "task": task, "model": model, "split": split, "seed": seed}
        for task, splits in SPLITS[cohort].items()
        for model in models_of(cohort)
        for split in splits
        for seed in config["training"]["seeds"]
    ]


def all_predictions(wildcards):
    """The predictions of all networks of the run."""
    networks = [network for name in COHORTS for network in trained_networks(name)]
    return [f"{RUN}/predictions.tsv".format(**network) for network in networks]


def all_networks(wildcards):
    """Who made them, in the same order."""
    return [
        {
            **network,
            "classes": TASKS[network["task"]],
            "model": PLANS[network["model"]].label,
            "tested_on": SPLITS[name][network["task"]][network["split"]].test_cohort or name,
        }
        for name in COHORTS
        for network in trained_networks(name)
    ]


def explained_runs(wildcards=None):
    """Every network whose test scans get heatmaps, with what was made of them."""
    faithful = config["faithfulness"]
    return [
        {
            "cohort": cohort,
            "task": task,
            "label": PLANS[model].label,
            "split": split,
            "seed": seed,
            "folder": RUN.format(cohort=cohort, task=task, model=model, split=split, seed=seed),
            "difference": SPLIT.format(cohort=cohort, task=task, split=split) + DIFFERENCE,
            "disease": TASKS[task][0],
            "methods": methods_of(model),
            "with_truth": bool(diseased_test_scans(cohort, SPLITS[cohort][task][split])),
            "followed": faithful["scans"] > 0,
            "randomised": bool(faithful["randomised_scans"] and randomised_methods(model)),
            "retrained": split in several_runs(cohort, task),
        }
        for cohort in COHORTS
        for task in SPLITS[cohort]
        for model in models_of(cohort)
        for split in (explained_splits(cohort, task) if methods_of(model) else ())
        for seed in config["training"]["seeds"]
    ]


def scores_of_runs(wildcards):
    """How well each method, and the classes' difference, finds what is known to be there."""
    runs = explained_runs()
    paths = [f"{run['folder']}/{m}/localisation.tsv" for run in runs for m in run["methods"]]
    return paths + sorted({run["difference"] for run in runs})


def tables_of_runs(wildcards):
    """Faithfulness of each network's heatmaps, and how much of them another training changes."""
    paths = []
    for run in explained_runs():
        folder = run["folder"]
        tables = ("area_changes", "faithfulness") if run["followed"] else ()
        paths += [f"{folder}/{name}.tsv" for name in tables]
        paths += [f"{folder}/randomisation.tsv"] * run["randomised"]
        table = f"{Path(folder).parent}/retraining.tsv"
        paths += [table] * (run["retrained"] and table not in paths)
    return paths


def pictures_of_runs(wildcards):
    """Truth and heatmaps side by side, of each network's first split and seed with a truth to find."""
    runs = first_runs(run for run in explained_runs() if run["with_truth"])
    return [f"{run['folder']}/truth.png" for run in runs]


def first_runs(runs):
    """Of the runs of each network the first."""
    first = {}
    for run in runs:
        first.setdefault((run["cohort"], run["task"], run["label"]), run)
    return list(first.values())


def checks_of_simulations(wildcards):
    """What was done to each simulated cohort that is explained."""
    cohorts = dict.fromkeys(run["cohort"] for run in explained_runs() if PLANNED[run["cohort"]])
    return expand("results/{cohort}/simulation.png", cohort=cohorts)


def told_of_cohorts(wildcards):
    """What sets each cohort's classes apart, and the name that it shares with its repeats."""
    names = name_repeats(config["cohorts"])
    effects = {}
    for name, plan in PLANNED.items():
        found = {
            "disease": any(scan.severity > 0 for scan in plan.values()),
            "shortcut": any(scan.shortcut for scan in plan.values()),
        }
        # Nobody knows of real scans.
        effects[name] = [effect for effect, is_there in found.items() if is_there] if plan else None
    return {name: {"name": names[name], "effects": effects[name]} for name in COHORTS}


def reported_cohorts(wildcards=None):
    """The cohorts of the report."""
    return [
        {"name": cohort, "folder": f"results/{cohort}", "simulated": bool(PLANNED[cohort])}
        for cohort in COHORTS
    ]


def reported_config():
    """The completed configuration, from which the report says how the run is made again."""
    told = sort_keys(config)
    # The order of rows in tables, and of their jobs.
    for key in ("cohorts", "models"):
        told[key] = {name: told[key][name] for name in config[key]}
    told["apply"]["networks"] = dict(config["apply"]["networks"])
    for name, cohort in config["cohorts"].items():
        # Their order is that of the patients' numbers and of the visits.
        for key in ("groups", "visits") if PLANNED[name] else ():
            told["cohorts"][name]["simulation"][key] = cohort["simulation"][key]
    return told


def reported_tasks(wildcards=None):
    """The tasks of each cohort that have splits."""
    return [
        {
            "cohort": cohort,
            "task": task,
            "folder": f"results/{cohort}/{task}",
            "simulated": bool(PLANNED[cohort]),
        }
        for cohort in COHORTS
        for task, splits in SPLITS[cohort].items()
        if splits
    ]


def reported_networks(wildcards=None):
    """The networks of each task, with all their splits and seeds."""
    return [
        {**told, "label": PLANS[model].label, "folder": f"{told['folder']}/{model}"}
        for told in reported_tasks()
        for model in models_of(told["cohort"])
    ]


def code_of_report(wildcards):
    """The code that puts the report together, and the papers that it cites."""
    models = {model for told in reported_tasks() for model in models_of(told["cohort"])}
    methods = {method for run in explained_runs() for method in run["methods"]}
    return CODES.of_report(models, methods)


def retrained_folders(wildcards=None):
    """Where the networks of a split, or of the folds, that were trained several times are compared."""
    return [
        SEVERAL.format(cohort=cohort, task=task, model=model, several=several)
        for cohort in COHORTS
        for task in SPLITS[cohort]
        for model in models_of(cohort)
        if methods_of(model)
        for several in several_runs(cohort, task)
    ]


def figures(*names):
    """The files of figures: for screens, and as vectors for print."""
    return [f"{name}.{kind}" for name in names for kind in ("png", "pdf")]


def tables_of_cohorts(wildcards):
    """What is known of the scans of each cohort, and of what was done to simulated ones."""
    names = ["scans.tsv", "scans_people.tsv", "scans_oddities.tsv", "scans_flagged.tsv"]
    paths = expand("results/{cohort}/{name}", cohort=COHORTS, name=names)
    simulated = [cohort for cohort in COHORTS if PLANNED[cohort]]
    names = figures("simulation")
    return paths + expand("results/{cohort}/{name}", cohort=simulated, name=names)


def tables_of_tasks(wildcards):
    """The splits of each task, and their audit."""
    names = ["splits_counts.tsv", "leakage_audit.tsv"]
    return [f"{told['folder']}/{name}" for told in reported_tasks() for name in names]


def results_of_networks(wildcards):
    """How each network was trained, and how well it does."""
    names = ["cross_validation.tsv", *figures("learning_curves", "roc", "confusion")]
    networks = reported_networks()
    paths = [f"{told['folder']}/{name}" for told in networks for name in names]
    if networks:
        names = ["summary.tsv", *figures("summary"), "against_baselines.tsv"]
        paths += expand("results/{name}", name=names)
    return paths


def results_of_heatmaps(wildcards):
    """The heatmaps of each explained network side by side, and what they are worth."""
    compared = figures("mean_maps", "distances", "area_distribution", "localisation")
    compared += figures("precision_recall")
    compared += ["distances.tsv", "top_areas.tsv", "localisation.tsv", "metrics.json"]
    paths = []
    for run in explained_runs():
        names = compared + figures("truth") * run["with_truth"]
        for made, table in (("followed", "faithfulness"), ("randomised", "randomisation")):
            names += [*figures(table), f"{table}.tsv"] * run[made]
        paths += [f"{run['folder']}/{name}" for name in names]
    folders = retrained_folders()
    names = [*figures("retraining"), "retraining.tsv"]
    paths += expand("{folder}/{name}", folder=folders, name=names)
    pages = ["results/trust.html", "results/viewer.html"] if paths else []
    return list(dict.fromkeys(paths)) + pages


def viewed_runs(wildcards=None):
    """The first explained split and seed of every network, and the scans that are looked at."""
    runs = []
    for run in first_runs(explained_runs()):
        cohort, task = run["cohort"], run["task"]
        split = SPLITS[cohort][task][run["split"]]
        count = config["report"]["viewed_scans"] if config["report"]["subjects"] else 0
        images = choose_first(cohort, task, split, count)
        told = {key: run[key] for key in ("folder", "methods")}
        told |= {"name": f"{cohort}, {task}, {run['label']}", "images": images}
        told["classes"] = TASKS[task]
        scans = f"{run['folder']}{CHUNK.removeprefix(RUN)}"
        numbers = chunks_holding(split, images)
        told["maps"] = expand(scans, method=run["methods"], chunk=numbers)
        told["brains"] = of_images(PREPROCESSED, split.test_cohort or cohort, images)
        runs.append(told)
    return runs


def viewed_files(wildcards):
    """Average heatmaps, those of the scans that are looked at, and their brains."""
    paths = []
    for run in viewed_runs():
        mean = "{folder}/{method}/mean_{group}.{kind}"
        folder, methods, classes = (run[key] for key in ("folder", "methods", "classes"))
        kinds = ["nii.gz", "json"]
        paths += expand(mean, folder=folder, method=methods, group=classes, kind=kinds)
        paths += [f"{folder}/metrics.json", *run["maps"], *run["brains"]]
    return list(dict.fromkeys(paths))


def fitted_baselines():
    """Cohort, task and name of every baseline of the run."""
    return [
        {"cohort": cohort, "task": task, "baseline": baseline}
        for cohort in COHORTS
        for task, splits in SPLITS[cohort].items()
        for baseline in (baselines_of(cohort, task) if splits else ())
    ]


def all_baseline_predictions(wildcards):
    """Their predictions."""
    return [f"{BASELINE}/predictions.tsv".format(**fitted) for fitted in fitted_baselines()]


def all_baselines(wildcards):
    """Which they are, in the same order."""
    return [
        {
            "cohort": fitted["cohort"],
            "task": fitted["task"],
            "classes": TASKS[fitted["task"]],
            "model": BASELINES[fitted["baseline"]],
            "tested_on": {
                name: split.test_cohort or fitted["cohort"]
                for name, split in sorted(SPLITS[fitted["cohort"]][fitted["task"]].items())
            },
        }
        for fitted in fitted_baselines()
    ]


def estimated_settings():
    """The settings from which a run's cost is estimated."""
    return sort_keys({**config, "methods_of": {m: methods_of(m) for m in config["models"]}})


def cohort_sizes(wildcards=None):
    """The numbers of scans, splits and heads, from which a run's cost is estimated."""
    sizes = []
    fitted = fitted_baselines()
    for name in COHORTS:
        heads = {plan[image].head for image in SCANS[name]} if (plan := PLANNED[name]) else set()
        splits = [split for of_task in SPLITS[name].values() for split in of_task.values()]
        explained = []
        for task, classes in TASKS.items():
            for split in explained_splits(name, task):
                sides = SPLITS[name][task][split]
                diseased = diseased_test_scans(name, sides)
                explained.append(
                    {
                        "task": task,
                        "train": len(sides.train),
                        "test": len(sides.test),
                        "diseased": len(diseased),
                        "classes": len(classes),
                        "fold": split.startswith("repeat-"),
                    }
                )
        sizes.append(
            {
                "scans": len(SCANS[name]),
                "simulated": bool(plan),
                "packaged_heads": len(heads & {PACKAGED_HEAD}),
                "own_heads": len(heads - {PACKAGED_HEAD}),
                "tasks": sum(bool(of_task) for of_task in SPLITS[name].values()),
                "splits": [[len(split.train), len(split.test)] for split in splits],
                "explained": explained,
                "truths": sum(has_truth(name, image) for image in SCANS[name]),
                "twins": len(twinned_images(name)),
                "models": models_of(name),
                "baselines": sum(baseline["cohort"] == name for baseline in fitted),
                "measured": [
                    len(people_of(name, baseline["task"]))
                    for baseline in fitted
                    if (baseline["cohort"], baseline["baseline"]) == (name, AREAS)
                ],
            }
        )
    return sizes


# --- new scans ------------------------------------------------------------------------------------


def applied_network(wildcards):
    """A trained network's file. Its path is absolute: it is there, or it is not; nothing here makes it."""
    return str(Path(config["apply"]["networks"][wildcards.network]).absolute())


def volumes_of_cohort(wildcards):
    """The volumes of every processed scan."""
    return of_scans(STORED, wildcards.cohort)


def members_of_cohort(wildcards):
    """Image, patient, the table's group and volume of every processed scan."""
    return [
        [
            scan.image,
            scan.patient,
            scan.group,
            STORED.format(**entities_of(wildcards.cohort, scan)),
        ]
        for scan in SCANS[wildcards.cohort].values()
    ]


def new_images_of_chunk(wildcards):
    """The new scans that one job explains."""
    return list(chunked(list(SCANS[wildcards.cohort]))[int(wildcards.chunk) - 1])


def new_volumes_of_chunk(wildcards):
    """Their volumes."""
    return of_images(STORED, wildcards.cohort, new_images_of_chunk(wildcards))


def finished_scans(wildcards):
    """Place, image id, companions, recorded digests and volume of every converted scan."""
    digests, volume = scan_file("T1w.sha256", kind="provenance"), scan_file("T1w.nii.gz")
    finished = [
        [
            *(scan.place, scan.image, list(scan.companions)),
            *(path.format(**entities_of(cohort, scan)) for path in (digests, volume)),
        ]
        for cohort in COHORTS
        for scan in SCANS[cohort].values()
    ]
    return [scan for scan in finished if Path(scan[-2]).is_file()]


# --- resources ------------------------------------------------------------------------------------


def voxels_times(mb_at_1_mm, least_mb):
    """Memory in MB that grows with the grid's voxels, and with every further attempt."""

    def mem_mb(wildcards, attempt):
        return round(attempt * max(mb_at_1_mm / config["resolution_mm"] ** 3, least_mb))

    return mem_mb


def mb_of_training(wildcards, attempt):
    """Memory in MB of a training on a CPU: of a whole batch of activations.

    At 1 mm one half more than what a step takes at 2 mm, times eight (VoxResNet: 3.4 GB).
    """
    at_1_mm = {"rieke": 8000, "voxcnn": 16000}.get(wildcards.model, 40000)
    return voxels_times(at_1_mm, least_mb=3000)(wildcards, attempt)


def growing(amount):
    """A resource that grows with every attempt: MB, or minutes."""

    def grown(wildcards, attempt):
        return amount * attempt

    return grown


def lost_before(cohort):
    """The scans that are lost before anything runs: without images, or with a line that says too little."""
    return [s for s in ALL_SCANS[cohort] if s.fate is not None and s.fate.status == "failed"]


def most_lost(wildcards):
    """How many scans may be lost in processing under max_failed; as text, since it may be negative."""
    # The cohort's own gate has no split.
    test = tested_cohort(wildcards) if "split" in wildcards.keys() else wildcards.cohort
    left = 0
    for cohort in {wildcards.cohort, test}:
        gone = len(lost_before(cohort))
        wanted = gone + len(SCANS[cohort])
        left += int(config["max_failed"] * wanted + 1e-9) - gone
    return str(left)


# A group of scans that is sent to a cluster works through them one job after another. With one unit of
# this resource for a group it asks for the cores and the memory of one job, not of all at once.
SCAN_CHAIN = {"scan_chain": 1} if ON_CLUSTER else {}
if ON_CLUSTER:
    workflow.register_resource("scan_chain", 1)
GPUS = 0 if config["device"] == "cpu" else 1
# Three to five times what a slow core takes at 1 mm. A group asks for the sum over all its jobs, and
# many sites allow a day.
REGISTRATION_MINUTES = {"affine": 10, "syn_fast": 10, "syn_quick": 20, "syn": 240}[
    config["registration"]["transform"]
]


# --- the run --------------------------------------------------------------------------------------


def expected_seconds():
    """Rule to the seconds that a job of it is reckoned to take, for the time that is left of a run."""
    if FAULT:
        return {}  # nothing is known of the time that is left
    sizes, settings = read_sizes(cohort_sizes()), estimated_settings()
    on_gpu = config["device"] != "cpu" and (ON_CLUSTER or has_gpu())
    return dict.fromkeys(("all", "simulated", "converted", "preprocessed"), 0.0) | {
        row.rule: 3600 * (row.gpu_h if on_gpu and row.gpu_h else row.cpu_h) / row.jobs
        for row in estimate(sizes, settings, read_costs())
    }


def simulated_cohorts():
    """The cohorts that are simulated."""
    return [name for name in COHORTS if PLANNED[name]]


def rules_targets(stage):
    """The files that the target rule of a stage of scans asks for."""
    if stage == "simulated":
        cohorts = simulated_cohorts()
        trees = [s.place for name in cohorts for s in SCANS[name].values()]
        return trees + expand("results/{cohort}/source/scans.csv", cohort=cohorts)
    if stage == "converted":
        return [path for name in COHORTS for path in of_scans(scan_file("T1w.nii.gz"), name)]
    return expand("results/{cohort}/{name}", cohort=COHORTS, name=["scans.tsv", "quality.html"])


def targets_of_all(wildcards):
    """What a whole run makes; raises what is at fault with splits, networks or the device."""
    simulated = simulated_cohorts()
    # The table of a simulated cohort belongs to what a run leaves, as it would with real data.
    paths = expand("results/{cohort}/source/scans.csv", cohort=simulated)
    paths += expand("results/{cohort}/simulation.tsv", cohort=simulated)
    paths += expand("results/{cohort}/quality_gate.json", cohort=COHORTS)
    paths += expand("results/{cohort}/quality.html", cohort=COHORTS)
    for cohort in COHORTS:
        for task, splits in SPLITS[cohort].items():
            if not splits:
                continue  # one class, or nothing to train on: such a cohort is preprocessed
            paths.append(f"results/{cohort}/{task}/splits.tsv")
            fitted = {"cohort": cohort, "task": task, "baseline": baselines_of(cohort, task)}
            paths += expand(f"{BASELINE}/cross_validation.tsv", **fitted)
            for model in models_of(cohort):
                paths.append(f"results/{cohort}/{task}/{model}/cross_validation.tsv")
                paths += heatmap_targets(cohort, task, model)
        if config["training"]["tensorboard"]:
            paths += [EVENTS.format(**network) for network in trained_networks(cohort)]
    if any(trained_networks(cohort) for cohort in COHORTS):
        paths.append("results/summary.tsv")
    if explained_runs():
        paths += ["results/trust.html", "results/viewer.html"]
    return [*paths, "results/report.html"]


def heatmap_targets(cohort, task, model):
    """The comparison of methods for every explained split and seed, and the kept heatmaps."""
    paths = []
    for split in explained_splits(cohort, task) if methods_of(model) else ():
        runs = {"cohort": cohort, "task": task, "model": model, "split": split}
        runs["seed"] = config["training"]["seeds"]
        paths += expand(f"{RUN}/distances.tsv", **runs)
        paths += expand(f"{RUN}/localisation.tsv", **runs)
        if diseased_test_scans(cohort, SPLITS[cohort][task][split]):
            paths += expand(f"{RUN}/truth.png", **runs)
        if config["faithfulness"]["scans"]:
            paths += expand(f"{RUN}/faithfulness.tsv", **runs)
        if config["faithfulness"]["randomised_scans"] and randomised_methods(model):
            paths += expand(f"{RUN}/randomisation.tsv", **runs)
        if config["heatmaps"]["keep_scans"]:
            numbers = chunk_numbers(SPLITS[cohort][task][split].test)
            paths += expand(CHUNK, **runs, method=methods_of(model), chunk=numbers)
    if methods_of(model):
        runs = {"cohort": cohort, "task": task, "model": model}
        runs["several"] = several_runs(cohort, task)
        paths += expand(f"{SEVERAL}/retraining.tsv", **runs)
    return paths


def applied_targets(wildcards):
    """Predictions, heatmaps and areas of new scans by networks that are trained already."""
    try:
        check_apply()
    except SetupFault as fault:
        raise SystemExit(str(fault)) from None
    told = config["apply"]
    paths = expand("results/{cohort}/scans.tsv", cohort=told["cohorts"])
    for cohort in told["cohorts"]:
        runs = {"cohort": cohort, "network": list(told["networks"])}
        paths += expand(f"{APPLIED}/predictions.tsv", **runs)
        runs["method"] = methods_of()
        numbers = chunk_numbers(list(SCANS[cohort]))
        paths += expand(f"{APPLIED}/{{method}}/areas.tsv", **runs)
        paths += expand(APPLIED_CHUNK, **runs, chunk=numbers)
    return paths


# A DAG of thousands of jobs is millions of objects that all stay: looking through them for rubbish over
# and over takes a tenth of the time in which a run is planned (benchmarks/dag.py).
gc.set_threshold(200_000, 20, 100)
FAILURES = FailureRecorder()
PROGRESS = ProgressRecorder(expected_seconds, ON_CLUSTER)
REPORTER = Reporter(PROGRESS)
if workflow.is_main_process:
    if notice := clear_stale_lock():
        print(notice, file=sys.stderr)
    for recorder in (FAILURES, PROGRESS):
        logging.getLogger("snakemake.logging").addHandler(recorder)


def tell_of_missing():
    """Before anything runs, say how many scans of the tables have no images, and whether that is too many."""
    for cohort in COHORTS:
        if gone := lost_before(cohort):
            wanted = len(gone) + len(SCANS[cohort])
            told = (
                f"Cohort {cohort}: {len(gone)} of {wanted} scans cannot be processed; the first is "
            )
            told += f"{gone[0].image}: {gone[0].fate.reason} (all of them: scans.tsv)"
            if len(gone) > config["max_failed"] * wanted + 1e-9:
                told += (
                    f". That is more than max_failed = {config['max_failed']:g} allows: the run "
                )
                told += "will stop before any training"
            tell(told)


def begin_reports():
    """Say how far the run is every so often, unless somebody asked for quiet."""
    quiet = set(workflow.output_settings.quiet or ())
    if Quietness.RULES in quiet:
        spare_log(logging.getLogger("snakemake.logging"))
    if not quiet & {Quietness.PROGRESS, Quietness.ALL}:
        REPORTER.start()


def print_failures():
    """At the end of a run that failed, say which jobs did, why, and where their logs are."""
    failed = workflow.scheduler.failed if workflow.scheduler else []
    print(f"\n{describe_failures(FAILURES.tell_of(failed, STARTED))}", file=sys.stderr)


def print_summary(since=0):
    """At the end of a run, say what became of the scans, what came out, and where it is.

    A run that failed passes the time of its start: an earlier run's table would say nothing of it.
    """
    for cohort in COHORTS:
        table = Path(f"results/{cohort}/scans.tsv")
        if table.is_file() and table.stat().st_mtime >= since:
            print(f"\nCohort {cohort}: {summarise(read_fates(table))}", file=sys.stderr)
            print(f"  table: {table}", file=sys.stderr)
            print(f"  pictures of every scan: results/{cohort}/quality.html", file=sys.stderr)
        tell(describe_lost_twins(cohort, since))
        for task in [] if FAULT else TASKS:
            for model in models_of(cohort):
                place = Path(f"results/{cohort}/{task}/{model}")
                tell(summarise_run(place, explained_splits(cohort, task), since))
            wanted = AGE_SEX in config["evaluation"]["baselines"] and SPLITS[cohort][task]
            if wanted and AGE_SEX not in baselines_of(cohort, task):
                tell(f"\nCohort {cohort}, {task}: no age or sex in the table, so no such baseline")
        if cohort in config["apply"]["cohorts"]:
            for network in config["apply"]["networks"]:
                place = Path(f"results/{cohort}/applied/{network}")
                tell(summarise_applied(place, since))
    tell(summarise_networks(Path("results/summary.tsv"), since))
    for name, what in (
        ("trust", "Which heatmap can be trusted, on one page"),
        ("viewer", "Heatmaps slice by slice"),
        ("report", "All of this run, with its pictures"),
    ):
        page = Path(f"results/{name}.html")
        if page.is_file() and page.stat().st_mtime >= since:
            tell(f"\n{what}: {page}")


def describe_lost_twins(cohort, since):
    """Which scans have no residual, since they or their healthy twins did not come through."""
    paths = [Path(path) for path in of_images(RESIDUAL, cohort, sorted(twinned_images(cohort)))]
    told = [(path, path.stat()) for path in paths if path.is_file()]
    lost = [path for path, its in told if its.st_size == 0 and its.st_mtime >= since]
    if not lost:
        return ""
    sidecars = [f"  {path.with_suffix('').with_suffix('.json')}" for path in lost]
    return "\n".join(
        [f"\nCohort {cohort}: of {len(lost)} scans no residual could be measured, see", *sidecars]
    )


def tell(text):
    """Print on the terminal what there is to tell."""
    if text:
        print(text, file=sys.stderr)


if workflow.is_main_process:
    tell_of_missing()
