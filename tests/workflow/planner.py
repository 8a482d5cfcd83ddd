"""Plan workflows in forks of a process that has imported Snakemake and read the first plan's files.

Reads a line of JSON for each plan and answers with the exit status. The keys of a line:

- ``arguments`` of the command line,
- ``output``: the file that takes what Snakemake prints,
- ``jobs``: the file that takes all jobs as JSON, instead of a dry run; or null,
- ``edited``: modules of this checkout, each with a file that stands for it in fingerprints of code.

What does not change between plans of this checkout is kept from the first (``--warm``): rule files
as Snakemake translated them, and the syntax trees behind fingerprints.
"""

import importlib
import json
import os
import pickle
import re
import sys
import tempfile
import traceback
from pathlib import Path

from snakemake.cli import get_argument_parser, main

ROOT = Path(__file__).resolve().parents[2]
# (Rule file, number of rules before it) -> Snakemake's translation.
TRANSLATED = {}
# (Imported alone, it would import itself in a cycle.)
reading = sys.modules["snakemake.workflow"]
parse = reading.parse


def warm_up():
    """Import and read what every plan of this checkout imports and reads."""
    get_argument_parser()
    sys.path.insert(0, str(ROOT / "scripts"))
    text = (ROOT / "rules/common.smk").read_text()
    for module in re.findall(r"^from (voxplain[\w.]*) import", text, re.M):
        importlib.import_module(module)
    from voxplain.models import MODELS
    from voxplain.relevance import METHODS
    from voxplain_workflow.planning.code import Codes

    for script in (ROOT / "scripts").glob("*.py"):
        Codes(ROOT / "scripts").of_script(script.stem, MODELS, METHODS)
    reading.parse = translate


def translate(snakefile, workflow, linemap, rulecount=0):
    """Snakemake's translation of a rule file, made once."""
    path = snakefile.get_path_or_uri(secret_free=True)
    if (path, rulecount) not in TRANSLATED:
        lines = {}
        translation = parse(snakefile, workflow, linemap=lines, rulecount=rulecount)
        TRANSLATED[path, rulecount] = translation, lines
    translation, lines = TRANSLATED[path, rulecount]
    linemap |= lines
    return translation


def write_jobs_instead_of_running(path):
    """Make Snakemake end with the list of all jobs of its DAG."""
    build = reading.Workflow._build_dag

    def build_and_end(workflow):
        build(workflow)
        jobs = [
            {
                "rule": job.rule.name,
                "wildcards": dict(job.wildcards_dict),
                "input": sorted(job.input),
                "output": sorted(job.output),
                "log": sorted(job.log),
                # As Snakemake compares them: by value, not by name.
                "params": {name: repr(value) for name, value in job.params.items()},
                "resources": {name: repr(value) for name, value in job.resources.items()},
            }
            for job in workflow.dag.jobs
        ]
        Path(path).write_text(json.dumps(jobs))
        raise SystemExit(0)

    reading.Workflow._build_dag = build_and_end


def edit_modules(edited):
    """Make fingerprints of code read other modules than those of this checkout."""
    from voxplain_workflow.planning import fingerprint

    parse_module = fingerprint._parse

    def parse_edited(path, changed):
        return parse_module(edited.get(path, path), changed)

    fingerprint._parse = parse_edited


def plan(arguments, output, translated, jobs=None, edited=None):
    """Run one `snakemake` command in this process, and end it."""
    status, known = 1, len(TRANSLATED)
    try:
        stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for standard in (1, 2):
            os.dup2(stream, standard)
        if jobs:
            write_jobs_instead_of_running(jobs)
        if edited:
            edit_modules(edited)
        sys.argv = ["snakemake", *arguments]
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        if len(TRANSLATED) > known:
            translated.write_bytes(pickle.dumps(TRANSLATED))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def serve():
    """Answer the requests, one after the other."""
    if "--warm" in sys.argv:
        warm_up()
    with tempfile.TemporaryDirectory() as folder:
        translated = Path(folder) / "translated"
        for line in sys.stdin:
            request = json.loads(line)
            child = os.fork()
            if child == 0:
                plan(**request, translated=translated)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            if translated.exists():
                TRANSLATED.update(pickle.loads(translated.read_bytes()))
                translated.unlink()


if __name__ == "__main__":
    serve()
