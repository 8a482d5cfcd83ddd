"""The environment that jobs inherit: which Python runs them, and from where it imports.

Snakemake starts a job by a command line for a shell, and hands on its own environment.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import shlex
import site
import sys
from pathlib import Path

from voxplain.faults import SetupFault

# Modules that Python imports by itself when it starts: who sets up a folder with one wants it.
_AT_START = ("sitecustomize", "usercustomize")
_OWN = Path(__file__).resolve().parents[2]


def protect_jobs(started_in: str | Path, as_module: bool) -> None:
    """Let jobs start and import their own modules, whatever the user's folders are called and hold.

    Parameters
    ----------
    started_in
        The folder where Snakemake was started.
    as_module
        Whether voxplain is a module of another workflow: its rules may need what its user has on
        PYTHONPATH.

    Raises
    ------
    SetupFault
        See :func:`name_interpreter`.
    """
    name_interpreter()
    if not as_module:
        import_own_first(started_in)


def name_interpreter() -> None:
    """Let a shell find this Python by its bare name, if its path has to be quoted.

    Snakemake writes the path into command lines as it is (9.27, ``script:`` and SLURM), so that a
    space in it ends the name of the program: every job has exit status 127. The name stands alone
    then, and its folder comes first in PATH, which jobs inherit, on SLURM too.

    Raises
    ------
    SetupFault
        The path has a colon, so that it cannot stand in PATH.
    """
    path = sys.executable
    if shlex.quote(path) == path:
        return
    folder, name = os.path.split(path)
    if os.pathsep in folder:
        raise SetupFault(
            f"jobs cannot be started by the Python of {folder}: its path has a space or a sign "
            f"that shells read, and {os.pathsep!r}; move the environment (.venv) elsewhere"
        )
    multiprocessing.set_executable(path)  # processes of Python itself need the whole path
    os.environ["PATH"] = os.pathsep.join([folder, os.environ.get("PATH", os.defpath)])
    sys.executable = name


def import_own_first(started_in: str | Path) -> None:
    """Let jobs import what is installed with Snakemake before all that a user has elsewhere.

    A ``random.py`` or another ``voxplain`` in the working folder, on PYTHONPATH or in the user's
    site-packages would come before the standard library or before the workflow's packages. These
    folders go to the end: of this process's ``sys.path``, and with it of the jobs', to which
    Snakemake appends it. A folder of PYTHONPATH stays if Snakemake itself, or a ``sitecustomize``,
    is in it.

    Parameters
    ----------
    started_in
        The folder where Snakemake was started: ``python -m`` puts it first.
    """
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [entry for entry in entries if entry and _is_needed(entry)]
    behind = {_resolved(entry) for entry in entries if entry not in kept}
    if not _is_needed(started_in):
        behind |= {_resolved(started_in), _resolved("")}
        os.environ["PYTHONSAFEPATH"] = "1"
    users = site.getusersitepackages()
    if site.ENABLE_USER_SITE and not _is_needed(users):
        behind.add(_resolved(users))
        os.environ["PYTHONNOUSERSITE"] = "1"
    os.environ.pop("PYTHONPATH", None)
    if kept:
        os.environ["PYTHONPATH"] = os.pathsep.join(kept)
    behind.discard(_resolved(_OWN))
    sys.path.sort(key=lambda entry: _resolved(entry) in behind)  # keeps the order otherwise


def _resolved(folder: str | Path) -> str:
    return os.path.realpath(folder or os.curdir)


def _is_needed(folder: str | Path) -> bool:
    """Whether Python, or Snakemake in a job, has to find this folder on its own."""
    spec = importlib.util.find_spec("snakemake")
    if spec is not None and spec.origin is not None:
        packages = Path(spec.origin).parent.parent
        if _resolved(packages) == _resolved(folder):
            return True
    return any(
        (Path(folder) / name).exists()
        for module in _AT_START
        for name in (f"{module}.py", f"{module}/__init__.py")
    )
