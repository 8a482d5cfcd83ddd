"""All jobs of a configuration, without running any; and the jobs that a change runs again.

The second follows Snakemake's triggers `params` and `input`. Whether Snakemake agrees is
tested in test_rerun.py, on a finished run.
"""

import functools
import json
import tempfile
from pathlib import Path

from workflow.conftest import COLLECTING, ROOT, plan


def jobs_of(config, *targets, root=ROOT, edited=()):
    """The jobs that a configuration plans in an empty folder.

    Parameters
    ----------
    config
        The configuration.
    targets
        What to make; by default, all.
    root
        The checkout.
    edited
        Pairs of a module of this checkout, below ``scripts``, and text that is added to it.

    Returns
    -------
    Dicts: ``rule``, ``wildcards``, ``input``, ``output``, ``params``, ``resources``; values of the
    last two as text.
    """
    return _jobs_of(json.dumps(config), targets, root, tuple(edited))


@functools.cache
def _jobs_of(config, targets, root, edited):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "head.nii.gz").touch()  # a user's own head must exist
        replaced = {}
        for module, added in edited:
            path = root / "scripts" / module
            replaced[str(path)] = str(folder / f"edited{len(replaced)}.py")
            Path(replaced[str(path)]).write_text(path.read_text() + added)
        jobs = folder / "jobs.json"
        options = {"root": root, "config": json.loads(config)}
        run = plan(folder, *targets, "-n", **options, jobs=str(jobs), edited=replaced)
        assert run.status == 0, run.said
        return json.loads(jobs.read_text())


def reruns(before, after):
    """The jobs of one plan that run after another plan's jobs have been run."""
    job_of = {path: job for job in before for path in job["output"]}
    makers = {path: job for job in after for path in job["output"]}
    changed = {}

    def is_changed(job):
        key = id(job)
        if key not in changed:
            old_jobs = [job_of.get(path) for path in job["output"]]
            changed[key] = any(old is None or differs(old, job) for old in old_jobs) or any(
                is_changed(makers[path]) for path in job["input"] if path in makers
            )
        return changed[key]

    return [job for job in after if is_changed(job)]


def differs(old, new):
    """Whether Snakemake takes two jobs with the same output for different jobs."""
    by_value = set(old["params"].values()) != set(new["params"].values())
    return by_value or old["input"] != new["input"]


def rules_of(jobs):
    """The rules of jobs, without those that only collect."""
    return {job["rule"] for job in jobs} - COLLECTING
