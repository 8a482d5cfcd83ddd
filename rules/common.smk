"""Wiring: the plan of the run, what rules ask of it, and what is said around the run."""

import gc
import logging
import time
from functools import partial

from snakemake import __version__ as SNAKEMAKE_VERSION
from snakemake.exceptions import WorkflowError
from snakemake.settings.enums import Quietness

from voxplain.faults import SetupFault
from voxplain_workflow.planning import layout
from voxplain_workflow.planning.cohorts import PACKAGED_HEAD
from voxplain_workflow.planning.methods import EXPLAINING
from voxplain_workflow.planning.plan import Plan
from voxplain_workflow.planning.resources import growing, of_grid
from voxplain_workflow.planning.stages.apply import ApplyJobs
from voxplain_workflow.planning.stages.compare import CompareJobs
from voxplain_workflow.planning.stages.faithfulness import FaithfulnessJobs
from voxplain_workflow.planning.stages.localise import LocaliseJobs
from voxplain_workflow.planning.stages.preprocess import PreprocessJobs
from voxplain_workflow.planning.stages.relevance import RelevanceJobs
from voxplain_workflow.planning.stages.report import ReportJobs
from voxplain_workflow.planning.stages.simulate import SimulateJobs
from voxplain_workflow.planning.stages.split import SplitJobs
from voxplain_workflow.planning.stages.targets import Targets
from voxplain_workflow.planning.stages.train import TrainJobs
from voxplain_workflow.running.console import describe_missing, describe_results, say
from voxplain_workflow.running.environment import protect_jobs
from voxplain_workflow.running.estimate import describe_plan, expected_seconds
from voxplain_workflow.running.failures import FailureRecorder, describe_failures
from voxplain_workflow.running.orphans import Guard
from voxplain_workflow.running.progress import ProgressRecorder, Reporter, spare_log
from voxplain_workflow.running.scheduling import lift_default_rate_limit
from voxplain_workflow.running.start import (
    check_folders,
    check_module,
    clear_stale_lock,
    forget_run,
    note_run,
)

STARTED = time.time()
# Snakemake counts nodes where jobs are submitted. (Which executor it takes it does not know yet.)
ON_CLUSTER = workflow.nodes is not None

try:
    protect_jobs(workflow.workdir_init, as_module=workflow.modifier.parent_modifier is not None)
    check_module(workflow.modifier.path_modifier)
    if workflow.is_main_process:
        check_folders()
    PLAN = Plan.build(config, local=workflow.is_main_process and not ON_CLUSTER)
except SetupFault as fault:
    raise WorkflowError(str(fault)) from None


wildcard_constraints:
    **layout.constraints(),


# --- what the rules ask ---------------------------------------------------------------------------

targets = Targets(PLAN)
simulate = SimulateJobs(PLAN)
preprocess = PreprocessJobs(PLAN)
split = SplitJobs(PLAN)
train = TrainJobs(PLAN)
relevance = RelevanceJobs(PLAN)
compare = CompareJobs(PLAN)
localise = LocaliseJobs(PLAN)
faithfulness = FaithfulnessJobs(PLAN)
pages = ReportJobs(PLAN)
new_scans = ApplyJobs(PLAN)

code_of = PLAN.codes.of_script
SETTINGS = PLAN.settings
voxels_times = partial(of_grid, SETTINGS["resolution_mm"])
SIMULATED = "|".join(PLAN.simulated) or "none"
DEVICE = SETTINGS["device"]
GPUS = 0 if DEVICE == "cpu" else 1
# A group of scans that is sent to a cluster works through them one job after another. With one unit of
# this resource for a group it asks for the cores and the memory of one job, not of all at once.
SCAN_CHAIN = {"scan_chain": 1} if ON_CLUSTER else {}
if ON_CLUSTER:
    workflow.register_resource("scan_chain", 1)


def estimate_of_run(wildcards):
    """What the run will take, as text."""
    return describe_plan(PLAN)


def intermediate(suffix):
    """A file of one scan that only stands between others: kept, or removed when all used it."""
    path = layout.scan_file(suffix)
    return path if SETTINGS["keep_intermediates"] else temp(path)


def kept_maps(path):
    """The heatmaps of single scans: kept, or removed when all that needs them is done."""
    return directory(path) if SETTINGS["heatmaps"]["keep_scans"] else temp(directory(path))


# --- around the run -------------------------------------------------------------------------------

# A DAG of thousands of jobs is millions of objects that all stay: looking through them for rubbish over
# and over takes a tenth of the time in which a run is planned (benchmarks/dag.py).
gc.set_threshold(200_000, 20, 100)
FAILURES = FailureRecorder()
PROGRESS = ProgressRecorder(partial(expected_seconds, PLAN), ON_CLUSTER)
REPORTER = Reporter(PROGRESS)
GUARD = Guard()
if workflow.is_main_process:
    say(clear_stale_lock())
    for recorder in (FAILURES, PROGRESS, GUARD):
        logging.getLogger("snakemake.logging").addHandler(recorder)
    for text in describe_missing(PLAN):
        say(text)


def begin_reports():
    """Say how far the run is every so often, unless somebody asked for quiet."""
    quiet = set(workflow.output_settings.quiet or ())
    if Quietness.RULES in quiet:
        spare_log(logging.getLogger("snakemake.logging"))
    if not quiet & {Quietness.PROGRESS, Quietness.ALL}:
        REPORTER.start()


def end_reports(since=0):
    """Say what came out of the run; of one that failed, what it made since its start."""
    REPORTER.end()
    GUARD.end()
    forget_run()
    for text in describe_results(PLAN, since):
        say(text)


def print_failures():
    """Say which jobs failed, why, and where their logs are."""
    failed = workflow.scheduler.failed if workflow.scheduler else []
    say(f"\n{describe_failures(FAILURES.failed_jobs(failed, STARTED))}")
