"""Conventions of every rule, script and environment."""

import ast
import contextlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
import yaml

from voxplain_workflow.planning import layout
from voxplain_workflow.running.estimate import GROUP_SIZE, SCAN_CHAIN, read_costs
from workflow.conftest import ROOT, TINY, snakemake
from workflow.plans import jobs_of

RULE_FILES = [ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk"))]
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))


def rules_of(path):
    """Rule name -> its text, for rules that run a script."""
    blocks = re.split(r"^(?=rule )", path.read_text(), flags=re.M)
    named = {
        re.match(r"rule (\w+):", block).group(1): block for block in blocks if block[:5] == "rule "
    }
    return {name: text for name, text in named.items() if "script:" in text}


RULES = {name: text for path in RULE_FILES for name, text in rules_of(path).items()}
# These run whenever they are requested: a benchmark file would count as done. They report on the
# present state, so they have no fingerprint of their code either.
REPORTING = {"verify_inputs", "verify_results", "estimate"}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_has_every_needed_directive(name):
    text = RULES[name]
    needed = {"log", "benchmark", "conda", "threads", "resources", "params", "script"}
    needed -= {"benchmark"} if name in REPORTING else set()
    for directive in needed:
        assert re.search(rf"^    {directive}:", text, re.M), f"{name} has no {directive}"
    assert re.search(r"^        mem_mb=", text, re.M)
    assert re.search(r"^        runtime=", text, re.M)
    assert re.search(r'^    """.+\."""$', text, re.M), f"{name} has no docstring of one line"
    assert f'"../scripts/{name}.py"' in text, "a script is named as its rule"
    # Where a job loads modules by name, they count as well: tests/unit/test_selected.py.
    selects = re.search(r"code=\w+\.code_of_\w+,", text)
    assert name in REPORTING or selects or f'code=code_of("{name}"),' in text
    assert "lambda" not in text


@pytest.mark.parametrize("name", RULES)
def test_the_cores_of_a_run_are_no_part_of_a_result(name):
    """A rule of several threads hands their number to its job as a param, which the job uses."""
    script = (ROOT / f"scripts/{name}.py").read_text()
    assert "snakemake.threads" not in script
    several = re.search(r"^    threads: (.+)$", RULES[name], re.M).group(1) != "1"
    assert several == ('threads=SETTINGS["threads"],' in RULES[name])
    assert several == ("set_num_threads(snakemake.params.threads)" in script)


def test_what_snakemake_removes_is_known_to_verify_results():
    text = "".join(path.read_text() for path in RULE_FILES if path.stem != "common")
    named = re.findall(r"\bintermediate\((.+?)\)", text)
    suffixes = {{"layout.TRANSFORM": layout.TRANSFORM}.get(n, n.strip('"')) for n in named}
    assert set(layout.INTERMEDIATES) == {layout.scan_file(suffix) for suffix in suffixes}
    assert set(re.findall(r"\bkept_maps\((.+?)\)", text)) == {"layout.CHUNK"}
    assert "temp(" not in text


def test_the_entries_of_snakemakes_report_are_distinguishable():
    """All entries of a list have the same labels, its columns, and no two rows are equal."""
    lists, count, written = {}, 0, 0
    for path in RULE_FILES:
        text = path.read_text()
        written += len(re.findall(r"\breport\(", text))
        # Some are in lists, indented further: each ends at the indentation at which it began.
        shown = re.findall(r"^( +)(?:\w+=)?report\(\n(.*?)^\1\)", text, re.M | re.S)
        count += len(shown)
        for _, block in shown:
            fields = dict(re.findall(r'(caption|category|subcategory)="(.*)",', block))
            assert fields["category"] == "Summary" or "{cohort}" in fields["subcategory"], block
            caption = path.parent / fields["caption"]
            assert len(caption.read_text()) > 80, caption
            labels = ast.literal_eval(re.search(r"labels=(\{.*?\}),$", block, re.M | re.S).group(1))
            place = fields["category"], fields.get("subcategory", "").replace("several", "split")
            lists.setdefault(place, []).append(labels)
    assert count == written > 30
    for place, shown in lists.items():
        assert len({tuple(labels) for labels in shown}) == 1, place
        assert len({tuple(labels.values()) for labels in shown}) == len(shown), place
    assert {category for category, _ in lists} == {
        *("Cohort", "Quality control", "Cross-validation", "Heatmaps", "Summary")
    }


def test_rule_files_are_short_and_hold_no_function_of_a_stage():
    for path in RULE_FILES:
        text = path.read_text()
        most = 150 if path.stem == "common" else 300
        assert len(text.splitlines()) <= most, path
        assert path.stem == "common" or "def " not in text, path


def test_every_script_belongs_to_a_rule():
    assert {path.stem for path in SCRIPTS} == RULES.keys()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_reads_its_settings_from_params(path):
    assert "snakemake.config" not in path.read_text()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "scripts/voxplain").rglob("*.py")), ids=lambda p: p.name
)
def test_the_library_does_not_import_snakemake(path):
    names = {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
    assert "snakemake" not in names


def test_parsing_the_workflow_imports_nothing_heavy(tmp_path):
    """Every job of a cluster parses the workflow again, possibly with only Snakemake installed."""
    heavy = ("numpy", "torch", "ants", "nibabel", "pandas", "sklearn", "pydicom", "matplotlib")
    code = (
        "import sys; sys.argv = ['x']\n"
        f"sys.path.insert(0, {str(ROOT / 'scripts')!r})\n"
        "from voxplain.models import MODELS\n"
        "from voxplain_workflow.planning.plan import Plan\n"
        "from voxplain_workflow.running.console import describe_results\n"
        "from voxplain_workflow.running.estimate import expected_seconds\n"
        "assert all(isinstance(model.options, tuple) for model in MODELS.values())\n"
        "cohorts = {'one': {'source': 'simulated', 'simulation': {'seed': 1}}}\n"
        "config = {'cohorts': cohorts, 'splits': {'fixed_test_patients': 2}}\n"
        "assert Plan.build(config).runs.explained\n"
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
def test_an_environment_has_all_imports_of_its_scripts(name):
    """Every third-party import, through the library and in functions too, is pinned."""
    from importlib.metadata import packages_distributions

    environment = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
    pins = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    pinned = {re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins}
    distributions = packages_distributions()
    for rule, text in RULES.items():
        if f"envs/{name}.yaml" not in text:
            continue
        for module in third_party(ROOT / f"scripts/{rule}.py"):
            if module == "templateflow":
                continue  # only for template: templateflow, with its own message
            owners = {re.sub(r"[-_.]+", "-", d).lower() for d in distributions[module]}
            assert owners & pinned, f"{rule} imports {module}, which envs/{name}.yaml lacks"


TABLES = ROOT / "scripts/voxplain/tables.py"


def third_party(script):
    seen, waiting, packages = set(), [script], set()
    library = ROOT / "scripts"
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        tree = ast.parse(path.read_text())
        for_types = {
            part
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
            for part in ast.walk(node)
        }
        # Only scripts that read tables into pandas need it, and they import this function by name.
        in_functions = {
            part
            for node in ast.walk(tree)
            if path == TABLES and isinstance(node, ast.FunctionDef)
            for part in ast.walk(node)
        }
        for node in set(ast.walk(tree)) - for_types - in_functions:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                top = name.split(".")[0]
                if name == "voxplain.tables.read_tsv":
                    packages.add("pandas")
                if top in ("voxplain", "voxplain_workflow"):
                    place = library.joinpath(*name.split("."))
                    waiting += [
                        p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()
                    ]
                elif top not in sys.stdlib_module_names:
                    packages.add(top)
    return packages


@pytest.mark.parametrize("option", ["--profile", "--workflow-profile"])
def test_a_profile_adds_to_the_default_one_and_a_workflow_profile_replaces_it(monkeypatch, option):
    from snakemake.cli import parse_args

    monkeypatch.chdir(ROOT)
    _, taken = parse_args([option, "profiles/slurm"])
    assert taken.executor == "slurm"
    assert taken.group_components == {"scan": GROUP_SIZE}
    adds = option == "--profile"
    # The settings for exact re-runs and for failed jobs are in the default profile.
    default = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())
    triggers = {str(trigger) for trigger in taken.rerun_triggers}
    assert (triggers == set(default["rerun-triggers"])) == adds
    assert (taken.retries == default["retries"]) == adds
    assert taken.keep_going == adds


def test_the_slurm_profile_groups_the_rules_that_the_estimate_counts_as_a_chain():
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    assert profile["groups"] == [f"{rule}=scan" for rule in SCAN_CHAIN]
    assert profile["group-components"] == [f"scan={GROUP_SIZE}"]
    for name, text in RULES.items():
        assert ("**SCAN_CHAIN," in text) == (name in SCAN_CHAIN), name


def test_every_rule_requests_more_memory_than_measured_at_1_mm(tmp_path):
    config = yaml.safe_load((ROOT / "benchmarks/costs.yaml").read_text())
    costs = read_costs()
    assert costs["resolution_mm"] == config["resolution_mm"] == 1
    plan = snakemake(tmp_path, "-n", config=config).said
    jobs = re.findall(r"^rule (\w+):\n(?:    .*\n)+?    resources: .*mem_mb=(\d+)", plan, re.M)
    requested = {rule: int(memory) for rule, memory in jobs}
    # The paper's methods include no summary, its cohort no own heads and no twins, its network
    # one seed; TensorBoard is not set.
    unused = {"strip_head", "register_head", "combine_heatmaps", "measure_residual", "compare_runs"}
    unused |= {"write_events"}
    assert requested.keys() == costs["rules"].keys() - unused
    for rule, memory in requested.items():
        assert costs["rules"][rule]["peak_mb"] < memory, rule
        assert costs["rules"][rule]["asked_mb"] == memory, f"measure {rule} again"


def test_a_large_cohort_can_be_preprocessed_in_batches(tmp_path):
    run = snakemake(tmp_path, "-n", "preprocessed", "--batch", "collect_scans=1/3", config=TINY)
    assert run.status == 0, run.said
    assert {run.jobs[rule] for rule in SCAN_CHAIN} == {2}, "of six scans"


@pytest.mark.slow
def test_the_library_installs_on_its_own(checkout, tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    subprocess.run(
        [sys.executable, "-m", "pip", *build, str(checkout)], capture_output=True, check=True
    )
    (wheel,) = tmp_path.glob("voxplain-*.whl")
    # Templates, and the files beside a page, are packed too.
    assets = {
        f"voxplain/assets/{path.name}" for path in (ROOT / "scripts/voxplain/assets").iterdir()
    }
    assert "voxplain/assets/page.html" in assets
    assert assets <= set(zipfile.ZipFile(wheel).namelist())
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


# Folders in which a page looks for files; linked pictures; volumes that a table lists.
NAMED_ONLY = {
    *(("report_results", name) for name in ("cohorts", "tasks", "networks", "runs", "retrained")),
    *(("report_trust", "runs"), ("show_heatmaps", "runs")),
    *(("show_quality", "pictures"), ("audit_split", "scans")),
}


def strings_in(value):
    """All strings in a nested value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [text for part in value for text in strings_in(part)]
    return [value] if isinstance(value, str) else []


def test_a_file_that_a_record_names_is_an_input_of_the_job():
    named = set()
    for job in jobs_of(TINY):
        for name, text in job["params"].items():
            with contextlib.suppress(ValueError, SyntaxError):
                paths = [s for s in strings_in(ast.literal_eval(text)) if s.startswith("results/")]
                named |= {job["rule"]} if paths else set()
                if (job["rule"], name) not in NAMED_ONLY:
                    assert set(paths) <= set(job["input"]), (job["rule"], name)
    assert {"audit_split", "evaluate_folds", "compare_methods", "localise_heatmaps"} <= named
