"""CPU time of Snakemake's scheduler, with its default rate limit and without the limit.

Runs a workflow of jobs that only sleep for a second, with Snakemake's default
``--max-jobs-per-timespan`` and with that limit removed as in voxplain
(`voxplain_workflow.running.scheduling`). CPU time includes Snakemake and the shells of the jobs.
Results are medians over repetitions, with the two sides in alternation. Prints one JSON line last.

    python benchmarks/scheduling.py [--jobs 500] [--cores 8] [--repeat 3]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
SNAKEFILE = """
import sys
sys.path.insert(0, {scripts!r})
from voxplain_workflow.running.scheduling import lift_default_rate_limit

onstart:
    if {lifted}:
        lift_default_rate_limit(workflow.scheduler)

rule all:
    input: expand("{{job}}.txt", job=range({jobs}))

rule sleep:
    output: "{{job}}.txt"
    shell: "sleep 1; touch {{output}}"
"""


def measure(jobs: int, cores: int, lifted: bool) -> float:
    """Total CPU time in seconds of the workflow in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        text = SNAKEFILE.format(scripts=str(SCRIPTS), lifted=lifted, jobs=jobs)
        (Path(folder) / "Snakefile").write_text(text)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "snakemake", "--cores", str(cores), "--scheduler", "greedy"],
            cwd=folder,
            check=True,
            capture_output=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(getattr(after, key) - getattr(before, key) for key in ("ru_utime", "ru_stime"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--cores", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    taken = {"default limit": [], "lifted": []}
    for _ in tqdm(range(options.repeat), unit="pair"):
        for lifted, seconds in zip((False, True), taken.values(), strict=True):
            seconds.append(measure(options.jobs, options.cores, lifted))
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    for name, seconds in medians.items():
        print(f"{name}: {seconds:.1f} s of CPU for {options.jobs} jobs on {options.cores} cores")
    ratio = medians["default limit"] / medians["lifted"]
    print(f"ratio: {ratio:.1f}")
    record = {**vars(options), "snakemake": version("snakemake"), "cpu_s": medians, "ratio": ratio}
    print(json.dumps(record))


if __name__ == "__main__":
    main()
