"""How Snakemake reports the end of a job: the exit status reaches the last message of a run."""

import subprocess
import sys

import pytest

from workflow.conftest import ROOT

pytestmark = pytest.mark.slow

# A tiny workflow instead of voxplain's: none of its jobs ends so.
SNAKEFILE = f"""
import logging, sys

sys.path.insert(0, {str(ROOT / "scripts")!r})

from voxplain_workflow.running.failures import FailureRecorder, describe_failures

RECORDER = FailureRecorder()
if workflow.is_main_process:
    logging.getLogger("snakemake.logging").addHandler(RECORDER)


rule all:
    input:
        "killed.txt",
        "broken.txt",
        "absent.txt",


rule killed:
    output:
        "killed.txt",
    script:
        "killed.py"


rule broken:
    output:
        "broken.txt",
    script:
        "broken.py"


rule absent:
    output:
        "absent.txt",
    shell:
        "no_such_program"


onerror:
    print(describe_failures(RECORDER.failed_jobs(workflow.scheduler.failed, 0)), file=sys.stderr)
"""


def test_the_last_message_says_how_each_job_ended(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "killed.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    words = [sys.executable, "-m", "snakemake", "--cores", "3", "--keep-going"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    told = done.stderr.partition("3 jobs failed:")[2]
    assert "killed: it was ended by SIGKILL, as a rule for want of memory\n" in told, done.stderr
    assert "broken: it ended with exit status 1 and without an error in its log; look" in told
    assert "absent: it did not start: the shell says that its program was not found" in told
