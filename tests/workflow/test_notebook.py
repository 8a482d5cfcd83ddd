"""The notebook of the documentation runs on a finished run."""

import os

import nbformat
import pytest
from nbclient import NotebookClient

from workflow.conftest import ROOT

NOTEBOOK = ROOT / "docs/explore.ipynb"


def outputs_of(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.slow
def test_the_notebook_runs_on_a_finished_run(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("VOXPLAIN_RESULTS", str(tiny_run / "results"))
    paths = [str(ROOT / "scripts"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    notebook = nbformat.read(NOTEBOOK, 4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, resources=resources).execute()
    kinds = [kind for output in outputs_of(notebook) for kind in output.get("data", {})]
    assert kinds.count("image/png") == 3
    assert kinds.count("text/html") == 3
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"occlusion.png", "occlusion.pdf"}


def test_the_stored_notebook_was_executed_and_names_no_machine():
    notebook = nbformat.read(NOTEBOOK, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for output in outputs_of(notebook) if output.output_type == "error"]
    assert str(ROOT) not in NOTEBOOK.read_text()
    assert "/home/" not in NOTEBOOK.read_text()
