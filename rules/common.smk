"""Settings, scans, paths and the helpers that rules use. No rule stands here."""

import ctypes
import gc
import logging
import sys
import time
from pathlib import Path

from snakemake.exceptions import WorkflowError

# By this file's place: where voxplain is a module, workflow.basedir is the other workflow's.
SCRIPTS = Path(str(workflow.current_basedir)).parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

from pipeline.failures import FailureRecorder, describe_failures
from pipeline.fingerprint import fingerprint
from pipeline.settings import complete_settings, read_schema
from pipeline.start import check_folders, clear_stale_lock, forget_run, note_run
from pipeline.summary import summarise_run
from voxplain import __version__ as VERSION
from voxplain.cohort.fates import read_fates, summarise
from voxplain.cohort.plan import plan_cohort
from voxplain.cohort.scans import find_image_folders, list_scans, read_table
from voxplain.cohort.splits import FIXED, make_fixed, make_folds, patient_of
from voxplain.faults import SetupFault
from voxplain.models import MODELS, describe_model
from voxplain.relevance import METHODS, choose_target

SPACE = "MNI152NLin2009cAsym"
PACKAGED_HEAD = "packaged"
# Voxels of the template at 1 mm.
TEMPLATE_SHAPE = (193, 229, 193)
# These end before any split is needed.
SCAN_TARGETS = {"simulated", "converted", "preprocessed", "verify_inputs"}
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
    """Plan of a cohort (if it is simulated) and its scans, from the settings and the table alone."""
    if settings["source"] == "simulated":
        simulation = settings["simulation"]
        keys = ("seed", "groups", "visits", "age", "ageing_per_decade", "progression_per_year")
        plan = plan_cohort(
            **{key: simulation[key] for key in keys}, heads=list(head_names(simulation))
        )
        if not plan:
            raise SetupFault(f"config: cohorts.{name}.simulation.groups has no patients")
        rows = [scan.table_row() for scan in plan]
        table = f"results/{name}/source/scans.csv"
        folders = {scan.image: [f"results/{name}/source/ADNI/{scan.folder}"] for scan in plan}
    else:
        plan, table = [], settings["table"]
        rows = read_table(table)
        folders = find_image_folders(settings["images"])
    scans = list_scans(
        rows,
        folders,
        config["classes"],
        table,
        settings["columns"],
        settings["diagnosis_words"],
    )
    for group in config["classes"]:
        if not any(scan.group == group and scan.fate is None for scan in scans):
            raise SetupFault(
                f"cohort {name} has no scan of class {group} to process (table {table}); "
                "correct the table, or leave the class out of `classes`"
            )
    return {scan.image: scan for scan in plan}, scans


def split_cohort(scans):
    """Splits of a cohort by name: the folds of its cross-validation, and the fixed one."""
    if len(config["classes"]) == 1:
        return {}
    settings = config["splits"]
    shared = {"scans": scans, "classes": config["classes"], "seed": settings["seed"]}
    folds = make_folds(**shared, **{key: settings[key] for key in ("folds", "repeats", "stratify")})
    fixed = make_fixed(**shared, test_patients=settings["fixed_test_patients"])
    return {split.name: split for split in [*folds, fixed]}


def check_device():
    """Refuse a GPU that this machine lacks; on a cluster the job's own node will say."""
    if config["device"] == "cuda" and not ON_CLUSTER:
        try:
            found = ctypes.CDLL("libcuda.so.1").cuInit(0) == 0
        except OSError:
            found = False
        if not found:
            raise SetupFault(
                "config: device is cuda, but this machine has no NVIDIA driver or no GPU; allowed "
                "here: cpu, auto"
            )


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
    LOADED = {name: load_cohort(name, settings) for name, settings in config["cohorts"].items()}
except SetupFault as fault:
    raise WorkflowError(str(fault)) from None

COHORTS = list(LOADED)
# Only these are written by rules; another cohort may read what they wrote.
SIMULATED = "|".join(name for name, (plan, _) in LOADED.items() if plan) or "none"
PLANNED = {name: plan for name, (plan, _) in LOADED.items()}
ALL_SCANS = {name: scans for name, (_, scans) in LOADED.items()}
# The scans that are processed, by image id.
SCANS = {
    name: {scan.image: scan for scan in scans if scan.fate is None}
    for name, scans in ALL_SCANS.items()
}
# FSL is not free for everybody: conda brings it only where it may be asked for.
MAY_USE_FSL = config["skull"]["tool"] != "deepbet"
TASK = "-".join(config["classes"])
MODEL = config["model"]["name"]
GRID_SHAPE = [-(-n // config["resolution_mm"]) for n in TEMPLATE_SHAPE]
try:
    MODEL_OPTIONS = {key: value for key, value in config["model"].items() if key != "name"}
    NETWORK = describe_model(MODEL, GRID_SHAPE, **MODEL_OPTIONS)
    CLASSES = config["classes"]
    choose_target(config["heatmaps"]["target"], CLASSES, CLASSES[0], [0.0] * len(CLASSES))
    SPLITS = {name: split_cohort(list(scans.values())) for name, scans in SCANS.items()}
    check_device()
except SetupFault as fault:
    # Scans can be preprocessed that could not be trained on; jobs of such a run read this as well.
    # (Where this is a module, its name stands before a target's.)
    asked = {target for target in SCAN_TARGETS for word in sys.argv if word.endswith(target)}
    if workflow.is_main_process and not asked:
        raise WorkflowError(str(fault)) from None
    NETWORK, SPLITS = "", {name: {} for name in SCANS}


wildcard_constraints:
    cohort="[A-Za-z0-9]+",
    subject="[A-Za-z0-9]+",
    session="[A-Za-z0-9]+",
    image="[A-Za-z0-9]+",
    head="head[0-9]+",
    ptid="[^/]+",
    description="[^/]+",
    moment="[^/]+",
    task="[A-Z-]+",
    model="|".join(MODELS),
    split=r"repeat-\d+_fold-\d+|fixed",
    seed=r"\d+",
    method="|".join(METHODS),
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
RUN = "results/{cohort}/{task}/{model}/{split}/seed-{seed}"
CHUNK = f"{RUN}/{{method}}/scans/chunk-{{chunk}}"
ATLAS = f"results/template/tpl-{SPACE}_atlas-AAL_dseg"
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


def code_of(script, *modules):
    """The fingerprint of the code that a rule's script runs, for its params."""
    return fingerprint(SCRIPTS / f"{script}.py", SCRIPTS, modules)


def sort_keys(value):
    """Nested dicts in the order of their keys, which Snakemake compares too."""
    if isinstance(value, dict):
        return {key: sort_keys(value[key]) for key in sorted(value)}
    return value


def settings_of(*keys):
    """Settings by name."""
    return sort_keys({key: config[key] for key in keys})


def skull_settings():
    """Options of the skull tools that may run."""
    skull = settings_of("skull")["skull"]
    tools = ["bet", "deepbet"] if skull["tool"] == "auto" else [skull["tool"]]
    return {tool: skull[tool] for tool in tools}


def simulation_of(wildcards):
    """What a scan's simulation is drawn from, beside its own plan."""
    simulation = config["cohorts"][wildcards.cohort]["simulation"]
    return sort_keys({key: simulation[key] for key in ("atrophy", "scanner")})


def planned_scan(wildcards):
    """The plan of one simulated scan."""
    return PLANNED[wildcards.cohort][wildcards.image].as_dict()


def planned_rows(wildcards):
    """The table of a simulated cohort."""
    return [scan.table_row() for scan in PLANNED[wildcards.cohort].values()]


def head_of_scan(part):
    """The head that a simulated scan is made from."""

    def path(wildcards):
        head = PLANNED[wildcards.cohort][wildcards.image].head
        return head_file(part).format(cohort=wildcards.cohort, head=head)

    return path


def users_head(wildcards):
    """The volume of a user's own head."""
    return head_names(config["cohorts"][wildcards.cohort]["simulation"])[wildcards.head]


def dicom_of_scan(wildcards):
    """The folder of one scan's DICOM series; braces in its name are no wildcards."""
    return SCANS[wildcards.cohort][wildcards.image].folder.replace("{", "{{").replace("}", "}}")


def correction_settings(wildcards):
    """Settings of the intensity correction, and the table's word on what was done before."""
    description = SCANS[wildcards.cohort][wildcards.image].description
    return {**settings_of("bias_correction", "intensity_scale"), "description": description}


def registration_settings():
    """Settings of the registration, the grid's resolution among them."""
    settings = {**config["registration"], "resolution_mm": config["resolution_mm"]}
    return dict(sorted(settings.items()))


def qualities_of_cohort(wildcards):
    """The quality of every processed scan."""
    return of_scans(scan_file("desc-quality_T1w.json"), wildcards.cohort)


def images_of_cohort(wildcards):
    """The image ids, in the order of `qualities_of_cohort`."""
    return list(SCANS[wildcards.cohort])


def rows_of_cohort(wildcards):
    """The cohort's table as far as it is known before processing."""
    rows = []
    for scan in ALL_SCANS[wildcards.cohort]:
        keys = ("image", "subject", "session", "visit", "date", "diagnosis", "group")
        row = {key: getattr(scan, key) for key in (*keys, "sex", "age", "description")}
        if scan.fate is None:
            path = PREPROCESSED.format(**entities_of(wildcards.cohort, scan))
            row["preprocessed"] = path.removeprefix(f"results/{wildcards.cohort}/")
        else:
            fate = scan.fate.as_dict()
            row |= {"fate": fate.pop("status"), **fate}
        rows.append(row)
    return rows


def scans_of_split(pattern, *sides):
    """Input function: a file of every scan on the given sides of a split."""

    def paths(wildcards):
        split = SPLITS[wildcards.cohort][wildcards.split]
        images = [image for side in sides for image in getattr(split, side)]
        return of_images(pattern, wildcards.cohort, images)

    return paths


def members_of_split(wildcards):
    """Image, patient, class, side and volume of every scan of a split, training side first."""
    scans, split = SCANS[wildcards.cohort], SPLITS[wildcards.cohort][wildcards.split]
    rows = []
    for image in (*split.train, *split.test):
        scan = scans[image]
        volume = STORED.format(**entities_of(wildcards.cohort, scan))
        rows.append([image, patient_of(scan), scan.group, split.side(image), volume])
    return rows


def training_settings(wildcards):
    """How a network is built and trained."""
    model = {**MODEL_OPTIONS, "name": wildcards.model}
    # The seeds are wildcards: one more is no change of the others.
    training = {key: value for key, value in config["training"].items() if key != "seeds"}
    return sort_keys({"model": model, "training": training, **settings_of("classes")})


def code_of_training(wildcards):
    """The code that trains this network, and no other network's."""
    return code_of("train_network", MODELS[wildcards.model].module)


def chunks_of_split(cohort, split):
    """A split's test scans in chunks, each the work of one job."""
    images, size = SPLITS[cohort][split].test, config["heatmaps"]["chunk_size"]
    return [images[start : start + size] for start in range(0, len(images), size)]


def images_of_chunk(wildcards):
    """The scans that one job explains."""
    return list(chunks_of_split(wildcards.cohort, wildcards.split)[int(wildcards.chunk) - 1])


def volumes_of_chunk(wildcards):
    """Their volumes."""
    return of_images(STORED, wildcards.cohort, images_of_chunk(wildcards))


def maps_of_method(wildcards):
    """The heatmaps of all chunks of a split."""
    chunks = chunks_of_split(wildcards.cohort, wildcards.split)
    return expand(CHUNK, **wildcards, chunk=range(1, len(chunks) + 1))


def relevance_settings(wildcards):
    """What a method's heatmaps depend on beside the network."""
    own = [wildcards.method] if wildcards.method in config else []
    settings = {"target": config["heatmaps"]["target"]}
    return sort_keys({**settings, **settings_of("classes", *own)})


def atlas_of_method(wildcards):
    """The areas that area occlusion sets to 0; nothing for the other methods."""
    return [f"{ATLAS}.nii.gz"] if wildcards.method == "area_occlusion" else []


def kept_maps(path):
    """The heatmaps of single scans: kept, or removed when all that needs them is done."""
    return directory(path) if config["heatmaps"]["keep_scans"] else temp(directory(path))


def code_of_relevance(wildcards):
    """The code that explains by this method, and no other method's."""
    modules = MODELS[wildcards.model].module, METHODS[wildcards.method].module
    return code_of("explain_scans", *modules)


def of_folds(pattern):
    """Input function: a file of every fold and seed of a cross-validation."""

    def paths(wildcards):
        folds = [name for name in SPLITS[wildcards.cohort] if name != FIXED]
        return expand(pattern, **wildcards, split=folds, seed=config["training"]["seeds"])

    return paths


def of_splits(pattern):
    """Input function: a file of every split."""

    def paths(wildcards):
        return expand(pattern, **wildcards, split=list(SPLITS[wildcards.cohort]))

    return paths


def of_methods(pattern):
    """Input function: a file of every method."""

    def paths(wildcards):
        return expand(pattern, **wildcards, method=config["heatmaps"]["methods"])

    return paths


def means_of_methods(wildcards):
    """Average heatmaps, the classes of a method side by side."""
    return mean_files(wildcards, "nii.gz")


def sidecars_of_methods(wildcards):
    """What the average heatmaps were made from, in the same order."""
    return mean_files(wildcards, "json")


def mean_files(wildcards, suffix):
    """A file of every method and class."""
    return expand(
        f"{RUN}/{{method}}/mean_{{group}}.{suffix}",
        **wildcards,
        method=config["heatmaps"]["methods"],
        group=config["classes"],
    )


def explained_splits(cohort):
    """The splits whose test scans get heatmaps."""
    wanted = config["heatmaps"]["splits"]
    return [
        name for name in SPLITS[cohort] if wanted == "all" or (name == FIXED) == (wanted == FIXED)
    ]


def cohort_sizes():
    """The numbers of scans, splits and heads, from which a run's cost is estimated."""
    sizes = []
    for name in COHORTS:
        heads = {plan[image].head for image in SCANS[name]} if (plan := PLANNED[name]) else set()
        splits = SPLITS[name] if len(config["classes"]) > 1 else {}
        explained = explained_splits(name) if splits else []
        sizes.append(
            {
                "scans": len(SCANS[name]),
                "simulated": bool(plan),
                "packaged_heads": len(heads & {PACKAGED_HEAD}),
                "own_heads": len(heads - {PACKAGED_HEAD}),
                "splits": [[len(split.train), len(split.test)] for split in splits.values()],
                "explained": [len(splits[split].test) for split in explained],
            }
        )
    return sizes


def finished_scans(wildcards):
    """DICOM folder, recorded digests and volume of every scan that was converted."""
    digests, volume = scan_file("T1w.sha256", kind="provenance"), scan_file("T1w.nii.gz")
    finished = [
        [scan.folder, *(path.format(**entities_of(cohort, scan)) for path in (digests, volume))]
        for cohort in COHORTS
        for scan in SCANS[cohort].values()
    ]
    return [scan for scan in finished if Path(scan[1]).is_file()]


# --- resources ------------------------------------------------------------------------------------


def voxels_times(mb_at_1_mm, least_mb):
    """Memory in MB that grows with the grid's voxels, and with every further attempt."""

    def mem_mb(wildcards, attempt):
        return round(attempt * max(mb_at_1_mm / config["resolution_mm"] ** 3, least_mb))

    return mem_mb


def growing(amount):
    """A resource that grows with every attempt: MB, or minutes."""

    def grown(wildcards, attempt):
        return amount * attempt

    return grown


def most_lost(wildcards):
    """How many scans may be lost in processing under max_failed; as text, since it may be negative."""
    fates = [scan.fate.status for scan in ALL_SCANS[wildcards.cohort] if scan.fate is not None]
    gone = fates.count("failed")
    wanted = gone + len(SCANS[wildcards.cohort])
    return str(int(config["max_failed"] * wanted + 1e-9) - gone)


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


def rules_targets(stage):
    """The files that a target rule asks for."""
    simulated = [name for name in COHORTS if PLANNED[name]]
    if stage == "simulated":
        trees = [s.folder for name in simulated for s in SCANS[name].values()]
        return trees + expand("results/{cohort}/source/scans.csv", cohort=simulated)
    if stage == "converted":
        return [path for name in COHORTS for path in of_scans(scan_file("T1w.nii.gz"), name)]
    if stage == "scans":
        return expand("results/{cohort}/scans.tsv", cohort=COHORTS)
    # The table of a simulated cohort belongs to what a run leaves, as it would with real data.
    paths = expand("results/{cohort}/source/scans.csv", cohort=simulated)
    for cohort in COHORTS:
        paths.append(f"results/{cohort}/quality_gate.json")
        if len(config["classes"]) == 1:
            continue  # nothing to tell apart: such a cohort is preprocessed
        paths.append(f"results/{cohort}/{TASK}/splits.tsv")
        paths.append(f"results/{cohort}/{TASK}/{MODEL}/cross_validation.tsv")
        shared = {"cohort": cohort, "task": TASK, "model": MODEL}
        for split in explained_splits(cohort):
            runs = {**shared, "split": split, "seed": config["training"]["seeds"]}
            paths += expand(f"{RUN}/distances.tsv", **runs)
            if config["heatmaps"]["keep_scans"]:
                paths += expand(
                    CHUNK,
                    **runs,
                    method=config["heatmaps"]["methods"],
                    chunk=range(1, len(chunks_of_split(cohort, split)) + 1),
                )
    return paths


# A DAG of thousands of jobs is millions of objects that all stay: looking through them for rubbish over
# and over takes a tenth of the time in which a run is planned (benchmarks/dag.py).
gc.set_threshold(200_000, 20, 100)
FAILURES = FailureRecorder()
if workflow.is_main_process:
    if notice := clear_stale_lock():
        print(notice, file=sys.stderr)
    logging.getLogger("snakemake.logging").addHandler(FAILURES)


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
            print(
                f"  pictures: results/{cohort}/derivatives/sub-*/ses-*/figures/*.png",
                file=sys.stderr,
            )
        place = Path(f"results/{cohort}/{TASK}/{MODEL}")
        print(summarise_run(place, explained_splits(cohort), since), file=sys.stderr)
