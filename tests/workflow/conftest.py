"""Real tiny runs, each made once, for the tests of the workflow to read and copy.

The quick tests use the first run; the full run continues it with all methods.
"""

import csv
import dataclasses
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from shared import made_once

ROOT = Path(__file__).resolve().parents[2]
# Its sitecustomize.py records the files that a job reads but its rule does not declare.
TRACING = ROOT / "tests/tracing"

TINY = {
    "cohorts": {
        "tiny": {
            "source": "simulated",
            "simulation": {
                "seed": 3,
                "groups": {
                    "AD": {"patients": 3, "severity": [0.8, 1.0]},
                    "CN": {"patients": 3, "severity": [0, 0]},
                    "MCI": {"patients": 3, "severity": [0.3, 0.4]},
                },
                "visits": {"sc": 1.0},
                "scanner": {"voxel_size_mm": [3.0, 3.2]},
            },
        }
    },
    "resolution_mm": 4,
    # The ladder registers each brain once more, and N4 takes as long as both.
    "skull": {"tool": "deepbet", "ladder": []},
    "bias_correction": "never",
    "splits": {"folds": 2, "fixed_test_patients": 1},
    "models": {"rieke": {"epochs": 2}},
    # The others, and the other networks: test_all_methods.py.
    "heatmaps": {
        "methods": [
            "sensitivity",
            "guided_backprop",
            "occlusion",
            "area_occlusion",
            "voxel_occlusion",
            "sa_ucm",
            "grad_cam",
            "smoothgrad",
            "integrated_gradients",
            "summary",
        ]
    },
    "occlusion": {"stride_mm": 40},
    "voxel_occlusion": {"size_voxels": 5},
    "sa_ucm": {"levels": 3, "most_segments": 10},
    "smoothgrad": {"samples": 2},
    "integrated_gradients": {"steps": 3},
    "faithfulness": {
        "scans": 2,
        "steps": 4,
        "random_orders": 2,
        "randomised_scans": 1,
        "randomise": ["sensitivity", "occlusion"],
    },
    "device": "cpu",
    "threads": 2,
}
# For the quick tests: the same scans and networks, two of the methods, and no measures of
# faithfulness.
FIRST = {
    **TINY,
    "heatmaps": {"methods": ["sensitivity", "occlusion"]},
    "faithfulness": {"scans": 0, "randomised_scans": 0},
}
# It checks finished scans: as declared inputs, they would be made again before the check.
CHECKING = {"verify_inputs", "verify_results"}
# Targets, and the pages of a run, whose inputs come from nearly every rule.
TARGETS = {"all", "simulated", "converted", "preprocessed"}
COLLECTING = {*TARGETS, "report_results", "show_heatmaps"}


@dataclasses.dataclass
class Run:
    """The exit status and output of a call of Snakemake."""

    status: int
    said: str

    @property
    def jobs(self) -> dict[str, int]:
        """Rule -> number of jobs, from the last table of job statistics."""
        tables = re.findall(r"^job\s+count\n-[- ]+\n(.*?)^total", self.said, re.M | re.S)
        rows = [line.split() for line in tables[-1].splitlines()] if tables else []
        return {name: int(count) for name, count in rows}

    @property
    def rules(self) -> set[str]:
        """The rules that run, without those that only collect."""
        return set(self.jobs) - COLLECTING


def command(
    directory: Path, *arguments: str, root: Path = ROOT, config: dict | None = None
) -> list[str]:
    """The command line that runs the workflow of ``root``, its results below ``directory``."""
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(root / "Snakefile")]
    words += ["--workflow-profile", str(root / "profiles/default")]
    if config is not None:
        # A unique name: tests in two processes use the same finished run.
        handle, path = tempfile.mkstemp(".yaml", "config-", directory)
        with os.fdopen(handle, "w") as stream:
            yaml.safe_dump(config, stream, sort_keys=False)
        words += ["--configfile", path]
    # Last, since --configfile takes all words up to the next option.
    return [*words, "--directory", str(directory), "--cores", "2", *arguments]


def snakemake(
    directory: Path, *arguments: str, root: Path = ROOT, config: dict | None = None, **environment
) -> Run:
    """Call Snakemake on the workflow of ``root``, its results below ``directory``."""
    if "-n" in arguments and not environment:
        return plan(directory, *arguments, root=root, config=config)
    words = command(directory, *arguments, root=root, config=config)
    trace = directory / ".snakemake/trace.jsonl"
    tracing = {"PYTHONPATH": str(TRACING), "VOXPLAIN_TRACE": str(trace)}
    done = subprocess.run(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2400,
        env={**os.environ, **tracing, **environment},
        check=False,
    )
    assert undeclared_in(trace) == set(), done.stdout
    return Run(done.returncode, done.stdout)


def traced_jobs(trace: Path) -> list[dict]:
    """Rule and undeclared files of each job that ran, from the trace file."""
    return [json.loads(line) for line in trace.read_text().splitlines()] if trace.exists() else []


def undeclared_in(trace: Path) -> set[tuple[str, str]]:
    """(Rule, file) of every file that a job read but its rule does not declare."""
    jobs = [job for job in traced_jobs(trace) if job["rule"] not in CHECKING]
    return {(job["rule"], path) for job in jobs for path in job["undeclared"]}


def plan(
    directory: Path, *arguments: str, root: Path = ROOT, config: dict | None = None, **more
) -> Run:
    """A dry run, in a fork of a process that has imported Snakemake and read this checkout.

    See planner.py for the keys of ``more``.
    """
    words = command(directory, *arguments, root=root, config=config)
    arguments = words[words.index("snakemake") + 1 :]
    handle, output = tempfile.mkstemp(".log", "said-", directory)
    os.close(handle)
    request = {"arguments": arguments, "output": output, **more}
    process = planner(warm=root == ROOT)
    try:
        process.stdin.write(f"{json.dumps(request)}\n")
        process.stdin.flush()
        status = int(process.stdout.readline())
    except BaseException:  # timeout: the answer would be read as that of the next call
        process.kill()
        planner.cache_clear()
        raise
    return Run(status, Path(output).read_text())


@functools.cache
def planner(warm: bool) -> subprocess.Popen:
    """The process ends with its standard input, that is with the tests."""
    return subprocess.Popen(
        [sys.executable, "-m", "workflow.planner", *["--warm"] * warm],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
    )


def read_scans(directory: Path, cohort: str = "tiny") -> dict[str, dict[str, str]]:
    """Image -> row of a cohort's scans.tsv; the last row for images that occur twice."""
    with open(directory / f"results/{cohort}/scans.tsv", newline="") as stream:
        return {row["image"]: row for row in csv.DictReader(stream, delimiter="\t")}


def spoil_statistics(directory: Path) -> None:
    """Make the training of the fixed split fail: its voxel statistics list one more scan."""
    path = directory / "results/tiny/AD-NC/splits/fixed_statistics.json"
    statistics = json.loads(path.read_text())
    path.write_text(json.dumps({**statistics, "FittedOn": [*statistics["FittedOn"], "I0"]}))


@pytest.fixture(scope="session")
def first_run(tmp_path_factory, worker_id):
    """A finished run of the tiny cohort: 9 scans, three of them in an unused group."""
    with made_once(tmp_path_factory, worker_id, "first") as (directory, empty):
        if empty:
            directory.mkdir()
            run = snakemake(directory, config=FIRST)
            assert run.status == 0, run.said
    return directory


@pytest.fixture(scope="session")
def tiny_run(first_run, tmp_path_factory, worker_id):
    """The first run, continued with all methods of `TINY`."""
    with made_once(tmp_path_factory, worker_id, "tiny") as (directory, empty):
        if empty:
            shutil.copytree(first_run, directory, symlinks=True)
            run = snakemake(directory, config=TINY)
            assert run.status == 0, run.said
            assert "train_network" not in run.jobs
    return directory


@pytest.fixture
def finished(first_run, tmp_path):
    """A copy of the first run, with the times of its files, for tests that change files."""
    copy = tmp_path / "finished"
    shutil.copytree(first_run, copy, symlinks=True)
    return copy


@pytest.fixture
def checkout(tmp_path):
    """A copy of the checkout for tests that change code; its folder's name has a space."""
    return copy_checkout(tmp_path / "a checkout")


def copy_checkout(copy: Path, *further: str) -> Path:
    """Copy the workflow's code, and further files and folders of the checkout."""
    copy.mkdir()
    for name in (
        "Snakefile",
        "config.yaml",
        "rules",
        "scripts",
        "schemas",
        "envs",
        "profiles",
        "report",
        *further,
    ):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, copy / name)
    return copy
