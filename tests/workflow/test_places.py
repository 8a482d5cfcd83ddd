"""Runs in a folder whose path a shell reads as several words, and beside modules of users."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from workflow.conftest import TINY, copy_checkout

pytestmark = pytest.mark.slow

TARGET = "results/tiny/tools.json"
ARGUMENTS = f"--configfile my.yaml -- {TARGET}"
# A program of pip, for an environment whose path is no word of a first line (#!).
LAUNCHER = """\
#!/bin/sh
'''exec' "{python}" "$0" "$@"
' '''
import sys
from snakemake.cli import main
sys.exit(main())
"""


def make_environment(folder):
    """An environment with what this one has, and with Snakemake's program, at another path."""
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin/python"
    python.symlink_to(Path(sys.executable).resolve())
    (folder / "lib").symlink_to(Path(sys.prefix) / "lib")
    (folder / "pyvenv.cfg").write_text((Path(sys.prefix) / "pyvenv.cfg").read_text())
    (folder / "bin/snakemake").write_text(LAUNCHER.format(python=python))
    (folder / "bin/snakemake").chmod(0o755)


def make_modules(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name}.py").write_text("raise SystemExit('a module of a user: ' + __file__)\n")


@pytest.mark.parametrize("by", ["make", "snakemake"])
def test_jobs_run_in_a_path_with_spaces_and_beside_modules_that_have_our_names(tmp_path, by):
    copy = tmp_path / "One Drive (it's mine) & more"
    copy_checkout(copy, "Makefile", "requirements.lock")
    make_environment(copy / ".venv")
    (copy / "my.yaml").write_text(yaml.safe_dump(TINY))
    names = ["voxplain", "voxplain_workflow"]
    if by == "make":  # else Snakemake itself imports them, before the workflow can do anything
        names += ["random", "statistics", "numpy", "snakemake"]
    foreign = tmp_path / "my modules"
    make_modules(foreign, *names)
    make_modules(copy, *names)
    environment = {**os.environ, "PYTHONPATH": f":{foreign}"}
    if by == "make":
        # The Snakemake report is newer than every result: it is not made.
        (copy / "report.zip").touch()
        os.utime(copy / "report.zip", (time.time() + 9999,) * 2)
        words = ["make", "-o", ".venv/.ready", "run", "CORES=1", "REPORT=report.zip"]
        words.append(f"ARGS={ARGUMENTS}")
    else:
        words = [str(copy / ".venv/bin/snakemake"), "--cores", "1", *ARGUMENTS.split()]
    done = subprocess.run(
        words,
        cwd=copy,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert (copy / TARGET).is_file()
