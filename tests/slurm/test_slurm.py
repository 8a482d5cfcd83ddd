"""The tiny cohort on a real SLURM of two nodes, through profiles/slurm."""

import contextlib
import copy
import dataclasses
import itertools
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from workflow.conftest import ROOT, TINY, spoil_statistics

CLUSTER = Path(__file__).with_name("cluster")
GPU_NODE = "n1"
# Long enough to be interrupted.
EPOCHS = 80
# Seconds until a step counts as stuck: CI runs the other tests at the same time, on two cores.
PATIENCE = 1800
NETWORKS = "results/tiny/AD-NC/rieke"
# From the scans to the comparison. (Further tables would be similar jobs, and each takes time.)
TARGETS = (
    "results/tiny/quality_gate.json",
    f"{NETWORKS}/fixed/seed-1/distances.tsv",
    f"{NETWORKS}/cross_validation.tsv",
)
LOG = "logs/train_network/tiny/AD-NC/rieke/seed-1/{split}.log"
FIELDS = "jobid,comment,state,nodelist,reqmem,reqcpus,timelimitraw,alloctres,start,end"


@dataclasses.dataclass
class Job:
    """One attempt of one job, from SLURM's accounting."""

    jobid: str
    comment: str
    state: str
    nodelist: str
    reqmem: str
    reqcpus: str
    timelimitraw: str
    alloctres: str
    start: str
    end: str

    @property
    def memory_mb(self):
        return int(self.reqmem.removesuffix("M"))

    @property
    def on_gpu(self):
        return "gres/gpu=1" in self.alloctres


def jobs_of(rule):
    """Every attempt of a rule's jobs, by time of end; a requeued one may have no start."""
    command = ["sacct", "--allocations", "--duplicates", "--parsable2", "--noheader"]
    # By default, sacct starts at midnight.
    command += ["--starttime=now-1days"]
    command += ["--units=M", f"--format={FIELDS}"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    jobs = [Job(*line.split("|")) for line in output.splitlines()]
    matching = [job for job in jobs if re.match(rf"rule_{rule}(_|$)", job.comment)]
    return sorted(matching, key=lambda job: (job.end, int(job.jobid)))


def running(comment):
    """The id of the running job whose comment ends with ``comment``; None without one."""
    command = ["squeue", "--noheader", "--states=RUNNING", "--format=%i %k"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ids = [line.split()[0] for line in output.splitlines() if line.rstrip().endswith(comment)]
    return ids[0] if ids else None


def wait_for(condition, process=None):
    """The first true value of a condition; an error if the process ends before."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if result := condition():
            return result
        if process is not None and process.poll() is not None:
            raise ChildProcessError(f"ended with {process.returncode} before {condition}")
        time.sleep(0.1)
    raise TimeoutError(f"{condition} did not come true in {PATIENCE} s")


def trained_an_epoch(folder, *splits):
    """A function that returns a split and its training's SLURM job, after its first epoch."""

    def split_and_job():
        for split in splits:
            checkpoints = (folder / NETWORKS / split / "seed-1").glob(".checkpoint-*.pt")
            if any(checkpoints) and (job := running(f"_rieke_{split}_1")):
                return split, job
        return None

    return split_and_job


@dataclasses.dataclass
class Finished:
    """A finished run, and the splits whose trainings were interrupted."""

    folder: Path
    said: str
    preempted: str
    cancelled: str


@pytest.fixture(scope="session", autouse=True)
def cluster(tmp_path_factory):
    """Two nodes, n1 with two GPUs, as long as the tests last."""
    folder = tmp_path_factory.mktemp("cluster")
    try:
        subprocess.run([CLUSTER, "up", folder], check=True, timeout=120)
        yield
    finally:
        subprocess.run([CLUSTER, "down", folder], check=True, timeout=120)


def config(**training):
    settings = copy.deepcopy(TINY)
    # A GPU job takes a GPU where torch finds one; these are only names.
    settings["device"] = "auto"
    settings["heatmaps"]["methods"] = ["sensitivity", "occlusion", "area_occlusion"]
    settings["models"]["rieke"] |= training
    return settings


@contextlib.contextmanager
def submitted(folder, settings, *arguments):
    """Snakemake running in a folder, with its output in ``said.log`` there."""
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    command = [sys.executable, "-m", "snakemake", *arguments]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += ["--profile", str(ROOT / "profiles/slurm")]
    command += ["--configfile", str(folder / "config.yaml")]
    # Jobs here are short, so their states are checked often.
    command += ["--seconds-between-status-checks", "3"]
    command += ["--slurm-init-seconds-before-status-checks", "3"]
    with open(folder / "said.log", "w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, cwd=ROOT)
        try:
            yield process
            process.wait(timeout=PATIENCE)
        finally:
            process.kill()


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A whole run, with one training preempted and one cancelled while they ran."""
    # A space in the path, as in many home folders.
    folder = tmp_path_factory.mktemp("a run")
    arguments = ("--group-components", "scan=3", "--resources", "gpu=1")
    splits = ["fixed", "repeat-1_fold-1", "repeat-1_fold-2"]
    with submitted(folder, config(epochs=EPOCHS), *TARGETS, *arguments) as process:
        preempted, job = wait_for(trained_an_epoch(folder, *splits), process)
        subprocess.run(["scontrol", "requeue", job], check=True)
        splits.remove(preempted)
        cancelled, other = wait_for(trained_an_epoch(folder, *splits), process)
        subprocess.run(["scancel", other], check=True)
        # By default, SLURM starts a requeued job only after two minutes.
        command = ["scontrol", "update", f"jobid={job}", "StartTime=now"]
        wait_for(lambda: subprocess.run(command, capture_output=True).returncode == 0)
    output = (folder / "said.log").read_text()
    assert process.returncode == 0, output[-5000:]
    return Finished(folder, output, preempted, cancelled)


def test_the_run_finishes_despite_the_disturbances(finished):
    folder = finished.folder
    assert all((folder / target).is_file() for target in TARGETS)
    # A run on this machine has no jobs left, and repaired failures are not reported.
    local = [
        sys.executable,
        "-m",
        "snakemake",
        *TARGETS,
        "-n",
        "--cores",
        "2",
        "--directory",
        str(folder),
    ]
    local += ["--snakefile", str(ROOT / "Snakefile"), "--configfile", str(folder / "config.yaml")]
    again = subprocess.run(local, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "Nothing to be done" in again.stdout + again.stderr
    assert "failed:" not in finished.said


def test_gpu_rules_land_on_the_gpu_node_and_others_take_no_gpu(finished):
    networks, heatmaps = jobs_of("train_network"), jobs_of("explain_scans")
    assert len(networks) >= 3
    assert len(heatmaps) == 3
    for job in networks + heatmaps:
        assert job.on_gpu
        assert job.nodelist == GPU_NODE
    for rule in ("scan", "audit_split", "fit_statistics", "compare_methods"):
        assert jobs_of(rule)
        assert not any(job.on_gpu for job in jobs_of(rule))


def test_several_gpu_jobs_run_at_once_with_one_gpu_in_the_settings(finished):
    jobs = jobs_of("train_network") + jobs_of("explain_scans")
    assert any(a.start < b.end and b.start < a.end for a, b in itertools.combinations(jobs, 2)), (
        jobs
    )


def test_the_chain_of_a_scan_is_one_job_for_three_scans_and_asks_for_one_core(finished):
    groups = jobs_of("scan")
    assert len(groups) == 2, "six scans"
    for job in groups:
        assert (job.state, job.reqcpus) == ("COMPLETED", "1")
        assert job.memory_mb == 4000, "that of its largest job"
        assert int(job.timelimitraw) == 3 * (5 + 3 + 10 + 5 + 20 + 5 + 5)
    assert not jobs_of("convert_series")


def test_memory_and_time_are_requested_by_rule(finished):
    requested = {
        rule: {(job.memory_mb, int(job.timelimitraw)) for job in jobs_of(rule)}
        for rule in ("check_scans", "fit_statistics", "explain_scans")
    }
    assert requested == {
        "check_scans": {(500, 5)},
        "fit_statistics": {(1000, 60)},
        "explain_scans": {(3000, 360)},
    }


def test_a_cancelled_training_is_resubmitted_with_more_and_continues(finished):
    split = finished.cancelled
    first, second = (job for job in jobs_of("train_network") if split in job.comment)
    assert first.state.startswith("CANCELLED")
    assert second.state == "COMPLETED"
    assert second.memory_mb == 2 * first.memory_mb
    assert int(second.timelimitraw) == 2 * int(first.timelimitraw)
    log = (finished.folder / LOG.format(split=split)).read_text()
    assert re.search(rf"going on after epoch \d+ of {EPOCHS}", log)


def test_a_preempted_training_continues_in_the_same_job(finished):
    split = finished.preempted
    first, second = (job for job in jobs_of("train_network") if split in job.comment)
    assert first.jobid == second.jobid
    assert (first.state, second.state) == ("REQUEUED", "COMPLETED")
    log = (finished.folder / LOG.format(split=split)).read_text()
    assert re.search(rf"going on after epoch \d+ of {EPOCHS}", log)


@pytest.fixture
def started(finished, tmp_path):
    """A copy of the finished run, to train other networks in."""
    folder = tmp_path / "a copy"
    shutil.copytree(finished.folder, folder, symlinks=True)
    return folder


MODEL = f"{NETWORKS}/fixed/seed-1/model.pt"


def test_the_end_of_the_output_names_the_log_of_a_failed_job(started):
    spoil_statistics(started)
    with submitted(started, config(epochs=EPOCHS), MODEL, "--retries", "0") as run:
        pass
    assert run.returncode != 0
    end = (started / "said.log").read_text().rpartition("failed:")[2]
    assert "train_network: voxel statistics were fitted on other scans" in end
    assert LOG.format(split="fixed") in end
    (slurm_log,) = re.findall(r"log: (.*slurm_logs.*\.log)", end)
    assert Path(slurm_log).is_file()


def test_cancelling_all_jobs_and_running_again_finishes_the_work(started):
    settings = config(epochs=EPOCHS, learning_rate=0.002)
    with submitted(started, settings, MODEL, "--retries", "0") as run:
        wait_for(trained_an_epoch(started, "fixed"), run)
        subprocess.run(["scancel", "--user=root"], check=True)
    assert run.returncode != 0
    end = (started / "said.log").read_text().rpartition("failed:")[2]
    assert "train_network: stopped by SIGTERM" in end
    with submitted(started, settings, MODEL) as run:
        pass
    assert run.returncode == 0, (started / "said.log").read_text()[-5000:]
    log = (started / LOG.format(split="fixed")).read_text()
    assert re.search(rf"going on after epoch \d+ of {EPOCHS}", log)


def test_a_job_over_its_memory_is_killed_and_resubmitted_with_more(started):
    before = len(jobs_of("train_network"))
    little_at_first = "train_network:mem_mb=250 * 16 ** (attempt - 1)"
    settings = config(epochs=25, learning_rate=0.003)
    with submitted(started, settings, MODEL, "--set-resources", little_at_first) as run:
        pass
    assert run.returncode == 0, (started / "said.log").read_text()[-5000:]
    first, second = jobs_of("train_network")[before:]
    assert first.state in ("FAILED", "OUT_OF_MEMORY", "CANCELLED by 0")
    assert (first.memory_mb, second.memory_mb) == (250, 4000)
    assert second.state == "COMPLETED"


def test_a_training_out_of_time_is_resubmitted_with_more_and_continues(started):
    before = len(jobs_of("train_network"))
    little_at_first = "train_network:runtime=1 if attempt == 1 else 20"
    # More epochs than any machine can do in a minute: it is enough to see the second job begin.
    settings = config(epochs=10_000, learning_rate=0.004)
    log = started / LOG.format(split="fixed")
    log.unlink()
    with submitted(started, settings, MODEL, "--set-resources", little_at_first) as run:
        wait_for(lambda: log.exists() and "going on after epoch" in log.read_text(), run)
        # (A process in the background of a shell, as in CI, ignores interrupts.)
        subprocess.run(["scancel", "--user=root"], check=True)
    first, second = jobs_of("train_network")[before:]
    assert first.state == "TIMEOUT"
    assert (first.timelimitraw, second.timelimitraw) == ("1", "20")
    assert re.search(r"going on after epoch \d+ of 10000", log.read_text())
