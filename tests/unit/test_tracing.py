"""A job that reads a file which its rule does not declare is noticed."""

import json
import os
import subprocess
import sys

# As Snakemake passes the job to a script.
JOB = """
from types import SimpleNamespace
from pathlib import Path
snakemake = SimpleNamespace(rule="measure", input=["in.tsv"], output=["made/out.tsv"], log=["log"])
Path("made").mkdir(exist_ok=True)
text = Path("in.tsv").read_text()
{more}
Path("made/out.tsv").write_text(text)
list(Path("made").iterdir())
"""


def traced(repository, tmp_path, more=""):
    """The line that the job writes; its script is elsewhere, as with Snakemake."""
    place, script = tmp_path / "run", tmp_path / "script.py"
    place.mkdir(exist_ok=True)
    (place / "in.tsv").write_text("declared")
    (place / "other.tsv").write_text("not declared")
    script.write_text(JOB.format(more=more))
    trace = tmp_path / "trace.jsonl"
    tracing = {"PYTHONPATH": str(repository / "tests/tracing"), "VOXPLAIN_TRACE": str(trace)}
    subprocess.run([sys.executable, script], cwd=place, env={**os.environ, **tracing}, check=True)
    (line,) = trace.read_text().splitlines()
    return json.loads(line)


def test_declared_files_are_not_reported(repository, tmp_path):
    assert traced(repository, tmp_path) == {"rule": "measure", "undeclared": []}


def test_every_way_to_read_a_file_is_noticed(repository, tmp_path):
    for more in (
        "open('other.tsv').read()",
        "Path('other.tsv').read_bytes()",
        "import subprocess; subprocess.run(['cat', 'other.tsv'], stdout=subprocess.DEVNULL)",
    ):
        (tmp_path / "trace.jsonl").unlink(missing_ok=True)
        assert "other.tsv" in traced(repository, tmp_path, more)["undeclared"], more
