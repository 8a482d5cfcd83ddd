"""The ways to have the software: environments, the driver's, the image, and use as a module."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, version

import pytest
import yaml

from voxplain.models import MODELS
from voxplain.relevance import METHODS
from workflow.conftest import ROOT, TINY, command, snakemake
from workflow.test_rules import RULE_FILES, RULES, third_party

PYTHON = "3.11"
LOCK = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), flags=re.M))
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
DRIVER = ROOT / "environment.yaml"
CONTAINERFILE = (ROOT / "Containerfile").read_text()


def plain(name):
    """A package name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins_of(path):
    """Package to version, of the `pip:` section of an environment."""
    entries = yaml.safe_load(path.read_text())["dependencies"]
    (section,) = [entry["pip"] for entry in entries if isinstance(entry, dict)]
    assert len(section) == len(set(section))
    return dict(pin.split("==") for pin in section)


def assert_pinned(environment, script):
    """An environment holds whatever a script imports, through the library as well."""
    pinned, owners = pins_of(environment), packages_distributions()
    for module in third_party(script):
        found = {plain(owner) for owner in owners[module]} & pinned.keys()
        assert found, f"{script} imports {module}, which {environment} lacks"


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """The jobs of a whole run, rule to number."""
    jobs = snakemake(tmp_path_factory.mktemp("planned"), "-n", config=TINY).jobs
    assert jobs["train_network"] == 3
    return jobs


# --- environments ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*ENVIRONMENTS, DRIVER], ids=lambda path: path.stem)
def test_an_environment_is_one_that_conda_reads(path):
    told = yaml.safe_load(path.read_text())
    assert told.keys() - {"name"} == {"channels", "dependencies"}
    # FSL's channel stands before conda-forge, and nothing comes from channels of a user's own.
    assert told["channels"][-2:] == ["conda-forge", "nodefaults"]
    conda = [entry for entry in told["dependencies"] if isinstance(entry, str)]
    # conda installs pip's section with the pip of the environment, and warns where it has none.
    assert conda[:2] == [f"python={PYTHON}", "pip"]
    assert all(re.fullmatch(r"[a-z0-9-]+=[\w.*]+", entry) for entry in conda[2:])


@pytest.mark.parametrize("path", [*ENVIRONMENTS, DRIVER], ids=lambda path: path.stem)
def test_an_environment_has_the_versions_of_the_lock(path):
    locked = {plain(name): number for name, number in LOCK.items()}
    pins = pins_of(path)
    assert pins.items() <= locked.items(), pins.items() - locked.items()


def test_every_environment_is_some_rules():
    used = {name for text in RULES.values() for name in re.findall(r"envs/(\w+)\.yaml", text)}
    assert used == {path.stem for path in ENVIRONMENTS}


@pytest.mark.parametrize(
    "module", sorted({entry.module for entry in [*METHODS.values(), *MODELS.values()]})
)
def test_what_is_loaded_by_name_has_its_packages_too(module):
    """Imports lead nowhere to these modules, so that the test of a rule's imports misses them."""
    assert_pinned(ROOT / "envs/torch.yaml", ROOT / f"scripts/{module.replace('.', '/')}.py")


def test_the_pip_environment_is_the_locks_and_free_of_conflicts():
    """It holds antspyx and the SLURM plugin, whose newest versions want different numpys."""
    assert {"antspyx", "snakemake", "snakemake-executor-plugin-slurm"} <= LOCK.keys()
    for name, number in LOCK.items():
        assert version(name).split("+")[0] == number, f"{name} is not the lock's: run make"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


# --- the driver -----------------------------------------------------------------------------------

# Snakemake where only some packages can be imported: as if the others were not installed.
ONLY_DRIVER = """
import json, sys
from importlib.abc import MetaPathFinder
from importlib.metadata import packages_distributions

allowed, owners = set(json.loads(sys.argv.pop(1))), packages_distributions()

class Refuse(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        own = {owner.lower().replace("_", "-").replace(".", "-") for owner in owners.get(name, [])}
        if own and not own & allowed:
            raise ModuleNotFoundError(f"{name} is not in the driver's environment", name=name)

sys.meta_path.insert(0, Refuse())
from snakemake.cli import main
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("profile", [[], ["--profile", str(ROOT / "profiles/slurm")]])
def test_the_drivers_environment_is_enough_to_plan_a_run(profile, tmp_path):
    """With --sdm conda Snakemake reads the workflow there, and again for every job of a cluster."""
    _, _, _, *words = command(tmp_path, "-n", *profile, config=TINY)
    allowed = json.dumps(sorted(pins_of(DRIVER)))
    done = subprocess.run(
        [sys.executable, "-c", ONLY_DRIVER, allowed, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "convert_series" in done.stdout + done.stderr


# --- the image ------------------------------------------------------------------------------------


def test_the_image_has_the_python_of_the_environments():
    (base,) = re.findall(r"^ARG BASE=\S+/python:([\d.]+)-slim-\w+$", CONTAINERFILE, flags=re.M)
    assert base == PYTHON
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert required == f">={PYTHON}"


def test_the_image_does_not_run_as_root_and_has_a_home_for_any_user():
    """A user of its own at its entry point, and what Snakemake asks of a user that nobody knows."""
    lines = CONTAINERFILE.splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users and users[-1] not in ("root", "0")
    assert not any(
        line.startswith(("RUN", "COPY")) for line in lines[lines.index(f"USER {users[-1]}") :]
    )
    assert re.search(rf"^    USER={users[-1]} ", CONTAINERFILE, re.M)
    assert "HOME=/home/" in CONTAINERFILE and "chmod 1777 /home/" in CONTAINERFILE


def test_the_lock_with_hashes_has_the_pins_of_the_lock_and_those_of_cuda():
    text = (ROOT / "requirements-hashed.lock").read_text()
    # A name with its version, perhaps a marker, and its hashes.
    entries = re.findall(
        r"^([\w.-]+)==(\S+?)( ; .+?)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
        text,
        re.M,
    )
    assert len(entries) == len(re.findall(r"^\w", text, re.M)), "no pin without hashes"

    def plain(name):
        return re.sub(r"[-_.]+", "-", name).lower()

    hashed = {plain(name): version for name, version, *_ in entries}
    pins = {plain(name): version for name, version in LOCK.items()}
    assert pins.items() <= hashed.items()
    markers = {plain(name): marker for name, _, marker, _ in entries}
    assert all(markers[name] for name in hashed.keys() - pins.keys()), (
        "others for some machines only"
    )


@pytest.mark.slow
def test_what_the_image_holds_is_a_whole_workflow(planned, tmp_path):
    image = tmp_path / "image"
    image.mkdir()
    for line in re.findall(r"^COPY (.+)$", CONTAINERFILE, flags=re.M):
        *sources, target = line.split()
        for name in sources:
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, image / target, ignore=ignored)
            else:
                shutil.copy2(ROOT / name, image / target)
    rules = "".join(path.read_text() for path in RULE_FILES)
    for name in re.findall(r'"\.\./([\w/.]+)"', rules):
        assert (image / name).exists(), f"rules name {name}, which the image lacks"
    assert (image / "requirements.lock").is_file()
    run = snakemake(tmp_path, "-n", root=image, config=TINY)
    assert run.status == 0, run.said
    assert run.jobs == planned


# --- as a module ----------------------------------------------------------------------------------

OTHER_WORKFLOW = """
module voxplain:
    snakefile: "{root}/Snakefile"
    config: config["voxplain"]
    {more}


use rule * from voxplain as voxplain_*


rule all:
    default_target: True
    input:
        rules.voxplain_all.input,


onstart:
    voxplain.onstart()


onsuccess:
    voxplain.onsuccess()


onerror:
    voxplain.onerror()
"""


@pytest.fixture
def other(tmp_path):
    """The folder of another workflow, of which voxplain is a part."""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "Snakefile").write_text(OTHER_WORKFLOW.format(root=ROOT, more=""))
    (folder / "profiles").symlink_to(ROOT / "profiles")
    return folder


@pytest.mark.slow
def test_a_module_plans_the_same_jobs(planned, other, tmp_path):
    run = snakemake(tmp_path, "-n", root=other, config={"voxplain": TINY})
    assert run.status == 0, run.said
    renamed = {name if name == "all" else f"voxplain_{name}": n for name, n in planned.items()}
    assert run.jobs == renamed
    assert "localrules directive" not in run.said


@pytest.mark.slow
def test_a_module_runs(other, tmp_path):
    config = {**TINY, "tasks": [["AD"]]}
    run = snakemake(tmp_path, "voxplain_converted", root=other, config={"voxplain": config})
    assert run.status == 0, run.said
    assert len(list(tmp_path.glob("results/tiny/derivatives/**/*_T1w.nii.gz"))) == 3
    assert (tmp_path / ".snakemake/voxplain_runs").is_dir(), "a handler of the module ran"
    # Files, settings and code are the same to both, so either goes on where the other ended.
    run = snakemake(tmp_path, "-n", "converted", config=config)
    assert "Nothing to be done" in run.said, run.said


@pytest.mark.slow
@pytest.mark.parametrize("more", ['prefix: "mri"', 'replace_prefix: {"results/": "mri/"}'])
def test_a_module_with_a_prefix_is_refused_at_once(more, other, tmp_path):
    """Tables of scans name volumes, and those names no prefix would reach."""
    (other / "Snakefile").write_text(OTHER_WORKFLOW.format(root=ROOT, more=more))
    run = snakemake(tmp_path, "-n", root=other, config={"voxplain": TINY})
    assert run.status != 0
    assert "prefix and replace_prefix cannot be used" in run.said


# --- the catalog ----------------------------------------------------------------------------------


def test_the_catalogs_metadata_says_what_is_so():
    """The keys that github.com/snakemake/snakemake-workflow-catalog reads."""
    told = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert told.keys() == {"mandatory-flags", "software-stack-deployment", "report"}
    assert told["mandatory-flags"].keys() == {"desc", "flags"}
    assert told["mandatory-flags"]["flags"] == [], "a run without any is tested everywhere here"
    text = "".join(path.read_text() for path in RULE_FILES)
    images = "container:" in text
    assert told["software-stack-deployment"] == {
        "conda": all("conda:" in rule for rule in RULES.values()),
        "apptainer": images,
        "apptainer+conda": images,
    }
    assert told["report"] == ("report(" in text)
    # What the catalog lists at all, and where it finds the instructions and looks for rules.
    assert {"snakemake", "workflow"} <= set((ROOT / "README.md").read_text().lower().split())
    assert (ROOT / "config/README.md").is_file()
    assert list((ROOT / "rules").glob("*.smk"))


# --- FSL --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["README.md", "config/README.md", "config/adni.yaml", "envs/fsl.yaml", "docs/software.md"],
)
def test_fsls_licence_is_named_where_fsl_is_asked_for(name):
    assert "non-commercial use only" in (ROOT / name).read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("tool", "brings"), [("bet", True), ("auto", True), ("deepbet", False)])
def test_conda_brings_fsl_only_where_it_may_be_used(tool, brings, tmp_path):
    """Its licence does not let everybody."""
    config = {**TINY, "skull": {"tool": tool}}
    # It names the environments of all rules, and then fails where there is no conda.
    told = snakemake(tmp_path, "--containerize", config=config).said
    assert ("envs/fsl.yaml" in told) == brings
    assert ("envs/deepbet.yaml" in told) != brings
