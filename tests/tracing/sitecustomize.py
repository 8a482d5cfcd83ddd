"""Record which files a job's script reads that its rule does not declare.

Python imports this module by itself if this folder is on PYTHONPATH. It sees what Python opens,
lists, or passes to another program; not what a C++ library opens by itself (ITK reads
transforms so).
"""

import atexit
import json
import os
import sys

# The file that takes a line of JSON for each job.
TRACE = os.environ.get("VOXPLAIN_TRACE")
# What no rule can declare: Snakemake's own folder, the benchmark files that it writes beside a
# rule's outputs, of which the report shows those that exist, and the digests of what jobs wrote.
NOT_DECLARED = (".snakemake", "results/benchmarks", "results/.digests")
# Checkpoints of a training, which are undeclared so that Snakemake does not delete them.
SCRATCH = ".checkpoint-"
seen = set()


def note(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        for_reading = not flags & (os.O_WRONLY | os.O_CREAT) if mode is None else "r" in mode
        paths = [path] if for_reading else []
    elif event in ("os.listdir", "os.scandir"):
        paths = arguments[:1]
    elif event == "subprocess.Popen":
        paths = [arguments[0], *arguments[1]]
    else:
        return
    seen.update(os.fsdecode(path) for path in paths if isinstance(path, (str, bytes, os.PathLike)))


def is_below(path, places):
    return any(path == place or path.startswith(f"{place}{os.sep}") for place in places)


def undeclared(job):
    """Files of the working directory that are read but are not inputs or outputs of a job."""
    here = os.path.realpath(os.getcwd())
    declared = {os.path.realpath(path) for path in (*job.input, *job.output, *job.log)}
    # In its output folders a job may look for files of an earlier attempt.
    folders = {os.path.dirname(os.path.realpath(path)) for path in job.output}
    # And Python looks through the folders that it imports from.
    folders |= {os.path.realpath(path) for path in sys.path}
    read = {os.path.realpath(path) for path in list(seen) if os.path.exists(path)}
    return sorted(
        os.path.relpath(path, here)
        for path in read
        if is_below(path, [here])
        and path not in folders
        and not is_below(path, [*declared, *(os.path.join(here, name) for name in NOT_DECLARED)])
        and not os.path.basename(path).startswith(SCRATCH)
    )


def write_trace():
    job = getattr(sys.modules.get("__main__"), "snakemake", None)
    if not hasattr(job, "rule"):
        return  # Snakemake itself, or another program
    line = json.dumps({"rule": job.rule, "undeclared": undeclared(job)})
    with open(TRACE, "a") as stream:
        stream.write(f"{line}\n")


if TRACE:
    sys.addaudithook(note)
    atexit.register(write_trace)
