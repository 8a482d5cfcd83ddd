"""What jobs inherit: the Python that runs them, and the folders that it imports from."""

import importlib.metadata
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import snakemake
import snakemake_executor_plugin_slurm_jobstep as slurm_jobstep
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.settings import SharedFSUsage

from voxplain.faults import SetupFault
from voxplain_workflow.running import environment
from voxplain_workflow.running.environment import import_own_first, name_interpreter, protect_jobs

PACKAGES = str(Path(snakemake.__file__).parent.parent)


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """Restores what the functions change."""
    monkeypatch.setattr(sys, "executable", sys.executable)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(environment.multiprocessing, "set_executable", lambda path: None)
    for key in ("PYTHONPATH", "PYTHONSAFEPATH", "PYTHONNOUSERSITE", "PATH"):
        monkeypatch.setenv(key, os.environ.get(key, ""))
    for key in ("PYTHONPATH", "PYTHONSAFEPATH", "PYTHONNOUSERSITE"):
        monkeypatch.delenv(key)


@pytest.mark.parametrize("name", ["One Drive", "it's", "a & b", "(x)", "$HOME", "5 %; #1", "Größe"])
def test_a_shell_finds_this_python_whatever_its_path(tmp_path, monkeypatch, name):
    python = tmp_path / name / "bin/python3.11"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho here $1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    name_interpreter()
    # As Snakemake writes the command of a script.
    command = f"{sys.executable} {shlex.quote('a script.py')}"
    assert subprocess.check_output(command, shell=True, text=True) == "here a script.py\n"


def test_command_lines_of_jobs_that_are_sent_to_slurm_have_that_name_too(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/One Drive/.venv/bin/python")
    name_interpreter()
    shared = SimpleNamespace(shared_fs_usage=set(SharedFSUsage))
    submitting = SimpleNamespace(workflow=SimpleNamespace(storage_settings=shared))
    assert RemoteExecutor.get_python_executable(submitting) == "python"
    assert slurm_jobstep.Executor.get_python_executable(None) == "python"


def test_a_plain_path_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/opt/voxplain/.venv/bin/python")
    before = os.environ["PATH"]
    name_interpreter()
    assert sys.executable == "/opt/voxplain/.venv/bin/python"
    assert os.environ["PATH"] == before


def test_a_path_that_cannot_stand_in_path_is_refused_before_anything_runs(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/a b:c/bin/python")
    with pytest.raises(SetupFault, match=r"the Python of /a b:c/bin: .*move the environment"):
        name_interpreter()


def test_folders_of_the_user_go_behind_those_of_the_environment(tmp_path, monkeypatch):
    mine, work, users = (str(tmp_path / name) for name in ("mine", "work", "users"))
    monkeypatch.setenv("PYTHONPATH", f"{mine}:")
    monkeypatch.setattr(environment.site, "ENABLE_USER_SITE", True)
    monkeypatch.setattr(environment.site, "getusersitepackages", lambda: users)
    monkeypatch.chdir(tmp_path)
    own = str(environment._OWN)
    monkeypatch.setattr(sys, "path", [own, work, "", mine, "/lib/python", users, PACKAGES])
    import_own_first(work)
    assert sys.path == [own, "/lib/python", PACKAGES, work, "", mine, users]
    assert "PYTHONPATH" not in os.environ
    assert os.environ["PYTHONSAFEPATH"] == os.environ["PYTHONNOUSERSITE"] == "1"


def test_what_snakemake_and_python_need_at_their_start_stays(tmp_path, monkeypatch, repository):
    """Modules of a cluster may give Snakemake by PYTHONPATH; `sitecustomize` is somebody's will."""
    tracing = str(repository / "tests/tracing")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), tracing, PACKAGES]))
    monkeypatch.setattr(environment.site, "ENABLE_USER_SITE", True)
    monkeypatch.setattr(environment.site, "getusersitepackages", lambda: PACKAGES)
    monkeypatch.setattr(sys, "path", [str(tmp_path), tracing, PACKAGES])
    import_own_first(PACKAGES)
    assert sys.path == [tracing, PACKAGES, str(tmp_path)]
    assert os.environ["PYTHONPATH"] == os.pathsep.join([tracing, PACKAGES])
    assert "PYTHONNOUSERSITE" not in os.environ


def test_the_folders_of_a_workflow_that_has_voxplain_as_a_module_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    before = list(sys.path)
    protect_jobs(tmp_path, as_module=True)
    assert os.environ["PYTHONPATH"] == str(tmp_path)
    assert sys.path == before
    protect_jobs(tmp_path, as_module=False)
    assert "PYTHONPATH" not in os.environ


def test_the_workflows_own_folder_stays_first_if_it_is_on_pythonpath(monkeypatch):
    own = str(environment._OWN)
    monkeypatch.setenv("PYTHONPATH", own)
    monkeypatch.setattr(sys, "path", [own, "/lib/python"])
    import_own_first(own)
    assert sys.path == [own, "/lib/python"]


def test_a_job_imports_voxplain_of_its_own_checkout_not_an_installed_one(tmp_path, repository):
    installed = tmp_path / "site-packages/voxplain"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("raise SystemExit('another voxplain')\n")
    # As Snakemake begins a script: the folder of scripts comes last.
    code = (
        f"import sys; sys.path.insert(0, {str(installed.parent)!r}); "
        f"sys.path.append({str(repository / 'scripts')!r})\n"
        "from voxplain_workflow.jobs.frame import job\n"
        "import voxplain; print(voxplain.__file__)"
    )
    words = [sys.executable, "-c", code]
    found = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.stdout == f"{repository / 'scripts/voxplain/__init__.py'}\n", found.stderr


def test_names_of_the_workflow_are_nobody_elses(repository):
    """Its folder of scripts comes first where jobs import."""
    names = {path.stem for path in (repository / "scripts").iterdir() if path.name[0].isalpha()}
    installed = importlib.metadata.packages_distributions()
    ours = {name for name, of in installed.items() if set(of) == {"voxplain"}}
    assert not names & (sys.stdlib_module_names | installed.keys() - ours)
