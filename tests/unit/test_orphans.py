"""Jobs do not outlive a run that is killed, and leave nothing behind when they are killed."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from textwrap import dedent

import psutil
import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from voxplain_workflow.running.orphans import MARK, Guard, end_jobs, find_jobs

# A shell that waits for a program, as Snakemake may start a job.
SHELL = '"$0" -c "$1"; true'
PROGRAM = """
import signal, subprocess, time
{more}
subprocess.Popen(["sleep", "600"])
print("at work", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def unmarked(monkeypatch):
    monkeypatch.delenv(MARK, raising=False)


@pytest.fixture
def start(repository):
    """Start a run whose job is at work; returns its process and its name."""
    runs = []

    def start_run(more=""):
        program = PROGRAM.format(more=more)
        code = dedent(f"""\
            import subprocess, sys
            from voxplain_workflow.running.orphans import Guard
            guard = Guard()
            print(guard.start(patience_s=0.3), flush=True)
            subprocess.run(["bash", "-c", {SHELL!r}, sys.executable, {program!r}])
            """)
        run = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(repository / "scripts")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        name = run.stdout.readline().strip()
        runs.append((run, name))
        assert run.stdout.readline() == "at work\n"
        return run, name

    yield start_run
    for run, name in runs:
        run.kill()
        run.communicate()
        end_jobs(name, patience_s=0)


def wait_until(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def guards_of(name):
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if name in process.cmdline():
                found.append(process)
    return found


@pytest.mark.usefixtures("in_terminal")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP], ids=lambda number: number.name)
def test_jobs_and_their_children_end_with_a_run_that_is_killed(start, number):
    run, name = start()
    assert {job.name() for job in find_jobs(name)} >= {"bash", "sleep"}
    assert len(find_jobs(name)) == 3
    run.send_signal(number)
    _, said = run.communicate(timeout=20)  # the guard has its standard error too
    assert run.returncode == -number
    assert find_jobs(name) == []
    assert "their processes that were still at work are ended: 3" in said
    wait_until(lambda: not guards_of(name))


def test_a_job_that_does_not_end_when_it_is_asked_is_killed(start):
    run, name = start(more="signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    run.kill()
    run.communicate(timeout=20)
    assert find_jobs(name) == []


def test_a_guard_whose_run_ends_by_itself_is_gone_and_ends_nothing():
    guard = Guard()
    name = guard.start()
    assert os.environ[MARK] == name
    left = subprocess.Popen(["sleep", "600"])
    try:
        assert len(guards_of(name)) == 1
        guard.end()
        assert MARK not in os.environ
        assert guards_of(name) == []
        assert left.poll() is None
        guard.end()  # again
    finally:
        left.kill()
        left.wait()


def test_what_a_killed_job_leaves_is_ended_before_the_job_is_tried_again(monkeypatch):
    """And nothing of the other jobs."""
    guard = Guard()
    name = guard.start()
    try:
        words = ["bash", "-c", "sleep 600 & echo $!; wait"]
        jobs = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        orphan, kept = (psutil.Process(int(job.stdout.readline())) for job in jobs)
        jobs[0].kill()  # as the kernel does for want of memory
        jobs[0].wait()
        assert orphan in find_jobs(name)
        guard.handle(logging.makeLogRecord({"event": LogEvent.JOB_ERROR}))
        assert set(find_jobs(name)) == {psutil.Process(jobs[1].pid), kept}
    finally:
        guard.end()
        end_jobs(name, patience_s=0)
        for job in jobs:
            job.communicate()


def test_before_a_run_begins_nothing_is_ended(monkeypatch):
    guard = Guard()
    monkeypatch.setattr(guard, "handleError", lambda record: pytest.fail("an error within"))
    guard.handle(logging.makeLogRecord({"event": LogEvent.JOB_ERROR}))
    guard.end()
