"""What holds for every rule, script and environment."""

import ast
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from workflow.conftest import ROOT, TINY, snakemake

RULE_FILES = [ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk"))]
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))


def rules_of(path):
    """Rule name to its text, for rules that run something."""
    blocks = re.split(r"^(?=rule )", path.read_text(), flags=re.M)
    named = {
        re.match(r"rule (\w+):", block).group(1): block for block in blocks if block[:5] == "rule "
    }
    return {name: text for name, text in named.items() if "script:" in text}


RULES = {name: text for path in RULE_FILES for name, text in rules_of(path).items()}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_has_all_that_a_rule_needs(name):
    text = RULES[name]
    needed = {"log", "benchmark", "conda", "threads", "resources", "params", "script"}
    # This one has to run whenever it is asked for, and a benchmark file would count as done.
    needed -= {"benchmark"} if name == "verify_inputs" else set()
    for directive in needed:
        assert re.search(rf"^    {directive}:", text, re.M), f"{name} has no {directive}"
    assert re.search(r"^        mem_mb=", text, re.M)
    assert re.search(r"^        runtime=", text, re.M)
    assert re.search(r'^    """.+\."""$', text, re.M), f"{name} has no docstring of one line"
    assert f'"../scripts/{name}.py"' in text, "a script is named as its rule"
    # Where a job loads modules by name, a function of common.smk adds them.
    own = re.search(r"code=(code_of_\w+),", text)
    text_of_code = (ROOT / "rules/common.smk").read_text() if own else text
    assert name == "verify_inputs" or f'code_of("{name}"' in text_of_code
    assert "lambda" not in text


def test_every_script_belongs_to_a_rule():
    assert {path.stem for path in SCRIPTS} == RULES.keys()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_reads_its_settings_from_params(path):
    assert "snakemake.config" not in path.read_text()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "scripts/voxplain").rglob("*.py")), ids=lambda p: p.name
)
def test_the_library_knows_no_snakemake(path):
    names = {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
    assert "snakemake" not in names


def test_parsing_the_workflow_imports_nothing_heavy(tmp_path):
    """Every job of a cluster parses the workflow again, where only Snakemake is installed."""
    heavy = ("numpy", "torch", "ants", "nibabel", "pandas", "sklearn", "pydicom", "matplotlib")
    code = (
        "import sys; sys.argv = ['x']\n"
        f"sys.path.insert(0, {str(ROOT / 'scripts')!r})\n"
        "import pipeline.fingerprint, pipeline.settings, voxplain.faults\n"
        "import voxplain.cohort.fates, voxplain.cohort.plan, voxplain.cohort.scans\n"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    imported = set()
    for node in ast.walk(ast.parse(_python_of_common())):
        if isinstance(node, ast.ImportFrom):
            imported.add(node.module)
        elif isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
    assert not {m for m in imported if m.split(".")[0] in heavy}


def _python_of_common():
    text = (ROOT / "rules/common.smk").read_text()
    return re.sub(r"^wildcard_constraints:\n(    .*\n)+", "", text, flags=re.M)


@pytest.mark.parametrize(
    "name", sorted({re.search(r"envs/(\w+)", t).group(1) for t in RULES.values()})
)
def test_an_environment_holds_what_its_scripts_import(name):
    """Every third-party import, through the library and at the top of functions too, is pinned."""
    from importlib.metadata import packages_distributions

    environment = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
    pins = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    pinned = {re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins}
    distributions = packages_distributions()
    for rule, text in RULES.items():
        if f"envs/{name}.yaml" not in text:
            continue
        for module in _third_party(ROOT / f"scripts/{rule}.py"):
            if module == "templateflow":
                continue  # only where template: templateflow asks for it, with a message of its own
            owners = {re.sub(r"[-_.]+", "-", d).lower() for d in distributions[module]}
            assert owners & pinned, f"{rule} imports {module}, which envs/{name}.yaml lacks"


def _third_party(script):
    seen, waiting, found = set(), [script], set()
    library = ROOT / "scripts"
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                top = name.split(".")[0]
                if top in ("voxplain", "pipeline"):
                    place = library.joinpath(*name.split("."))
                    waiting += [
                        p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()
                    ]
                elif top not in sys.stdlib_module_names:
                    found.add(top)
    return found


def test_the_slurm_profile_adds_to_the_default_one(tiny_run):
    command = ["-n", "--profile", str(ROOT / "profiles/slurm")]
    run = snakemake(tiny_run, *command, config=TINY)
    assert run.status == 0, run.said
    assert "Nothing to be done" in run.said


def test_lint_is_clean():
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--lint", "--snakefile", str(ROOT / "Snakefile")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", ["render_config.py", "render_envs.py"])
def test_generated_files_are_up_to_date(script):
    command = [sys.executable, str(ROOT / "dev" / script), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_library_installs_on_its_own(checkout, tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    subprocess.run(
        [sys.executable, "-m", "pip", *build, str(checkout)], capture_output=True, check=True
    )
    (wheel,) = tmp_path.glob("voxplain-*.whl")
    code = "import voxplain, voxplain.cohort.scans; print(voxplain.__file__, voxplain.__version__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(wheel)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(wheel) in done.stdout
    assert wheel.name.split("-")[1] in done.stdout
