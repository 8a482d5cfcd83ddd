"""The steps of docs/extending.md, done in a copy of the checkout, work as the page says."""

import os
import re
import subprocess
import sys
import textwrap

import pytest
import yaml

from documented import blocks_of
from selecting import codes_of
from workflow.conftest import ROOT, TINY, copy_checkout, snakemake

PAGE = ROOT / "docs/extending.md"
BLOCKS = blocks_of(PAGE)
FURTHER = ("config", "dev", "docs", "tests", "benchmarks", "pyproject.toml", "requirements.lock")
METHOD, MODEL = "input_x_gradient", "conv5_fc3"


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the checkout with the code that the page adds; its folder's name has a space."""
    copy = copy_checkout(tmp_path_factory.mktemp("extended") / "a checkout", *FURTHER)
    for block in BLOCKS:
        if block.path is not None:
            block.write(copy)
    done(copy, "dev/render_config.py")  # make generate
    return copy


def done(copy, *words, **environment):
    """The output of a call of Python in the copy, with the copy's code."""
    paths = os.pathsep.join([str(copy / "scripts"), str(copy / "tests")])
    process = subprocess.run(
        [sys.executable, *words],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout
    return process.stdout


def of(language, placed=False):
    """Blocks of the page, of one language, that belong to no file, or that do."""
    return [b for b in BLOCKS if b.language == language and (b.path is not None) == placed]


def test_every_block_is_written_to_a_file_or_used_by_a_test_here():
    assert {block.language for block in BLOCKS} == {
        "python",
        "yaml",
        "markdown",
        "bash",
        "math",
        "bibtex",
    }
    assert not of("markdown") and not of("python") and not of("bash", placed=True)
    assert [block.path is not None for block in BLOCKS].count(True) == 16
    # The files of the table at the top of the page, besides documentation and test rows.
    code = {b.path for b in BLOCKS if b.path and b.path.startswith(("scripts", "schemas"))}
    assert code == {
        f"scripts/voxplain/relevance/{METHOD}.py",
        "scripts/voxplain/relevance/__init__.py",
        f"scripts/voxplain/models/{MODEL}.py",
        f"scripts/voxplain/models/{MODEL}_shapes.py",
        "scripts/voxplain/models/__init__.py",
        "scripts/voxplain_workflow/reports/references.bib",
        "schemas/config.schema.yaml",
    }


@pytest.mark.slow
def test_a_run_with_the_new_method_and_network_is_planned(extended, tmp_path):
    """With the settings of the page, on the tests' cohort."""
    config = {key: value for key, value in TINY.items() if key != "models"}
    for block in of("yaml"):
        config |= yaml.safe_load(block.text)
    assert config["models"].keys() == {MODEL}
    assert METHOD in config["heatmaps"]["methods"]
    config["faithfulness"] = {**TINY["faithfulness"], "randomise": [METHOD]}
    run = snakemake(tmp_path, "-n", root=extended, config=config)
    assert run.status == 0, run.said
    assert run.jobs["train_network"] == 3
    assert run.jobs["explain_scans"] == 2
    assert f"{MODEL}/fixed/seed-1/{METHOD}/mean_AD.nii.gz" in run.said
    refused = snakemake(
        tmp_path, "-n", root=extended, config={**config, METHOD: {"part": "negative"}}
    )
    assert f"{METHOD}.part is 'negative'; allowed: absolute, positive" in refused.said


@pytest.mark.slow
def test_results_made_before_are_kept(extended):
    """Other jobs keep their fingerprints, except those that may use any network."""
    before, after = codes_of(ROOT / "scripts"), codes_of(extended / "scripts")
    assert all({METHOD, MODEL} & set(job) for job in after.keys() - before.keys())
    # The report's citations have one more paper, and its file counts as their code.
    again = {job for job in before if before[job] != after[job] and job[0] != "report_results"}
    assert again == {job for job in before if "any" in job}
    assert ("apply_network", "any") in again
    assert ("explain_scans", "rieke", "lrp") in before


@pytest.mark.slow
def test_the_new_network_is_trained_and_explained(extended):
    """One epoch with the training loop, and a heatmap by every method of the copy."""
    code = """
    import numpy as np, torch
    from pathlib import Path
    from tempfile import TemporaryDirectory
    from unit.test_loop import noisy, trained, written
    from voxplain.models import MODELS, build_model
    from voxplain.relevance import METHODS, explain
    from unit.test_methods_on_models import options_for

    torch.manual_seed(0)
    model = build_model("conv5_fc3", (18, 18, 18), 2)
    before = [weights.detach().clone() for weights in model.parameters()]
    recipe = MODELS["conv5_fc3"].recipe
    with TemporaryDirectory() as folder:
        scans = written(Path(folder), *noisy(6, 5, edge=18))
        trained(scans, scans, model, epochs=1, batch_size=recipe.batch_size)
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert sum(moved) > len(moved) - 6, moved  # biases before batch norms may stay
    model.eval()
    scan = np.random.default_rng(0).normal(size=(18, 18, 18)).astype("f4")
    applies = [name for name, method in METHODS.items() if not method.models]
    assert "input_x_gradient" in applies and "cam" not in applies
    for name in applies:
        found = explain(name, model, scan, 0, **options_for(name, scan))
        assert found.shape == scan.shape and found.min() >= 0 and np.isfinite(found).all(), name
    batch = torch.from_numpy(scan)[None, None].requires_grad_()
    model(batch)[0, 1].backward()
    product = (batch * batch.grad).detach()[0, 0].numpy()
    found = explain("input_x_gradient", model, scan, 1)
    np.testing.assert_allclose(found, abs(product), rtol=1e-3, atol=1e-6)
    found = explain("input_x_gradient", model, scan, 1, part="positive")
    np.testing.assert_allclose(found, product.clip(min=0), rtol=1e-3, atol=1e-6)
    assert (product < 0).any() and (product > 1e-4).any()
    """
    done(extended, "-c", textwrap.dedent(code))


@pytest.mark.slow
def test_the_tests_that_the_page_names_pass(extended):
    """Tests of all methods and networks that use the new ones, and those of the registries."""
    commands = [
        line for block in of("bash") for line in block.text.splitlines() if "pytest" in line
    ]
    files = re.findall(r"tests/\S+\.py", " ".join(commands))
    of_page = [path for path in files if METHOD in path or MODEL in path]
    assert len(of_page) == 2
    further = sorted({*files} - {*of_page})
    further += [f"tests/unit/test_{name}.py" for name in ("networks", "faithfulness", "docs")]
    new = f"{METHOD} or {MODEL} or registr or citation or cost or describes or formula"
    rows = [
        "tests/workflow/test_rerun.py::test_every_key_of_the_schema_has_a_row",
        "tests/workflow/test_all_methods.py"
        "::test_the_tour_plans_every_network_with_every_method_that_applies",
    ]
    done(extended, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *of_page, *rows)
    output = done(
        extended, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *further, "-k", new
    )
    assert int(re.search(r"(\d+) passed", output)[1]) > 50, output


@pytest.mark.slow
def test_the_code_of_the_page_is_formatted_and_linted_as_the_rest(extended):
    done(extended, "-m", "ruff", "check", ".")
    done(extended, "-m", "ruff", "format", "--check", ".")
    done(extended, "dev/render_config.py", "--check")
    rendered = (extended / "config/README.md").read_text()
    assert f'| `{METHOD}.part` | `"absolute"` |' in rendered
    assert f"| `models.{MODEL}.dropout` | `0.5` |" in rendered
    assert f"| `models.{MODEL}.learning_rate` | `0.0001` |" in rendered
