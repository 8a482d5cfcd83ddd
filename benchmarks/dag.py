"""Cost of planning a run: parse time, DAG time and memory, for file trees like the archive's.

Makes trees of about 1,000 and 10,000 scans (folders, table, empty files), plans a full run by a dry
run with the settings of Rieke et al. 2018, and compares it with a bare Snakefile with jobs of the
same shape and no other content. Both are planned again with all outputs in place, as after a
completed run (with provenance up to 1,000 scans). Times are CPU seconds of the process, which other
work on the machine disturbs less than wall time: medians over repetitions, minus the time in which
Snakemake plans a single job. Prints one JSON line last.

    python benchmarks/dag.py [--scans 1000 10000] [--repeat 3] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
# Snakemake takes an hour to record the provenance of the files of 10,000 scans.
PROVENANCE_UP_TO = 1000
SCANS_PER_PATIENT = 2.8  # 969 of 344 in the paper

# Six rules for each scan, six splits, twelve methods: the jobs of a scan as voxplain has them, with
# its file names and nothing else in the rules.
BARE = """
SCANS = [line.strip() for line in open("scans.txt")]
SPLITS, METHODS = range(6), range(12)
NAME = "results/adni/derivatives/sub-{scan}/ses-M00/anat/sub-{scan}_ses-M00_acq-I1"

rule all:
    input: "results/adni/scans.tsv", expand("results/adni/{split}/distances.tsv", split=SPLITS)

rule convert:
    input: "ADNI/{scan}"
    output: NAME + "_T1w.nii.gz", NAME + "_T1w.json"
    shell: "touch {output}"

rule strip:
    input: rules.convert.output
    output: NAME + "_desc-brain_mask.nii.gz", NAME + "_desc-brain_mask.json"
    shell: "touch {output}"

rule correct:
    input: rules.strip.output, rules.convert.output
    output: NAME + "_desc-brain_T1w.nii.gz", NAME + "_desc-brain_T1w.json"
    shell: "touch {output}"

rule register:
    input: rules.correct.output
    output: NAME + "_desc-preproc_T1w.nii.gz", NAME + "_desc-preproc_T1w.json"
    shell: "touch {output}"

rule assess:
    input: rules.register.output
    output: NAME + "_desc-quality_T1w.json"
    shell: "touch {output}"

rule draw:
    input: rules.assess.output, rules.register.output, rules.strip.output, rules.convert.output
    output: NAME + "_desc-brain_mask.png", NAME + "_desc-preproc_T1w.png"
    shell: "touch {output}"

rule collect:
    input: expand(rules.assess.output + rules.draw.output, scan=SCANS)
    output: "results/adni/scans.tsv"
    shell: "touch {output}"

rule train:
    input: expand(rules.register.output + rules.assess.output, scan=SCANS)
    output: "results/adni/{split}/model.pt"
    shell: "touch {output}"

rule explain:
    input: "results/adni/{split}/model.pt"
    output: "results/adni/{split}/{method}/mean.nii.gz"
    shell: "touch {output}"

rule compare:
    input: expand("results/adni/{{split}}/{method}/mean.nii.gz", method=METHODS)
    output: "results/adni/{split}/distances.tsv"
    shell: "touch {output}"
"""
SINGLE = 'rule all:\n    output: "x"\n    shell: "touch x"\n'


@dataclass(frozen=True)
class Planned:
    """One dry run.

    Attributes
    ----------
    seconds
        CPU time.
    peak_mb
        Peak resident memory.
    output
        Standard output and standard error.
    """

    seconds: float
    peak_mb: float
    output: str


def call(folder: Path, snakefile: Path, *arguments: str) -> Planned:
    """Measurements and output of a call of Snakemake in a folder."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile)]
    command += ["--directory", str(folder), "--cores", "1", *arguments]
    with tempfile.TemporaryFile("w+") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        stream.seek(0)
        output = stream.read()
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{output[-3000:]}")
    return Planned(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6, output)


def median(folder: Path, snakefile: Path, *arguments: str, repeat: int) -> Planned:
    """The repetition with the median time."""
    runs = [call(folder, snakefile, *arguments) for _ in range(repeat)]
    return sorted(runs, key=lambda run: run.seconds)[(repeat - 1) // 2]


def scans_of_patients(scans: int) -> Iterator[tuple[int, int]]:
    """Patient and visit of each scan."""
    patient, visit, due = 0, 0, SCANS_PER_PATIENT
    for number in range(scans):
        if number >= due:
            patient, visit, due = patient + 1, 0, due + SCANS_PER_PATIENT
        yield patient, visit
        visit += 1


def make_archive(folder: Path, scans: int) -> None:
    """Make a download of the archive: a table, and folders with an empty file in each."""
    rows = []
    for number, (patient, visit) in enumerate(scans_of_patients(scans)):
        subject, image = f"{patient % 150 + 1:03d}_S_{patient:04d}", f"I{100000 + number}"
        date = f"{2005 + visit // 12}-{visit % 12 + 1:02d}-15"
        place = folder / "ADNI" / subject / "MP-RAGE" / f"{date}_10_00_00.0" / image
        place.mkdir(parents=True)
        (place / "ADNI.dcm").touch()
        rows.append(
            {
                "Image Data ID": image,
                "Subject": subject,
                "Group": ("AD", "CN")[patient % 2],
                "Sex": "MF"[patient // 2 % 2],
                "Age": 60 + patient % 30,
                "Visit": "sc" if visit == 0 else f"m{6 * visit:02d}",
                "Description": "MP-RAGE",
                "Acq Date": date,
            }
        )
    with open(folder / "scans.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    config = yaml.safe_load((ROOT / "config/adni.yaml").read_text(encoding="utf-8"))
    config["cohorts"] = {"adni": {"source": "adni", "table": "scans.csv", "images": "ADNI"}}
    config["device"] = "auto"
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def make_bare(folder: Path, scans: int) -> None:
    """Make the bare workflow for the same number of scans."""
    names = [f"{number:06d}" for number in range(scans)]
    for name in names:
        (folder / "ADNI" / name).mkdir(parents=True)
    (folder / "scans.txt").write_text("\n".join(names), encoding="utf-8")
    (folder / "Snakefile").write_text(BARE, encoding="utf-8")


def complete(folder: Path, snakefile: Path, provenance: bool, *arguments: str) -> None:
    """Create an empty file for each output of the jobs.

    With provenance, Snakemake records settings and inputs of the jobs as after a real run, which
    takes about 0.3 s per scan.
    """
    summary = call(folder, snakefile, *arguments, "--summary").output
    directories = re.compile(r"/chunk-\d+$")
    for line in summary[summary.index("output_file\t") :].splitlines()[1:]:
        path = folder / line.split("\t")[0]
        place = path if directories.search(str(path)) else path.parent
        place.mkdir(parents=True, exist_ok=True)
        if place != path:
            path.touch()
    if provenance:
        call(folder, snakefile, *arguments, "--touch")


def measure(folder: Path, scans: int, repeat: int) -> dict[str, float | int | bool]:
    """Measurements of both sides for one number of scans, before and after a completed run."""
    sides = {"ours": (ROOT / "Snakefile", []), "bare": (folder / "bare/Snakefile", [])}
    for name, make in (("ours", make_archive), ("bare", make_bare)):
        (folder / name).mkdir(parents=True)
        make(folder / name, scans)
    sides["ours"] = (ROOT / "Snakefile", ["--configfile", str(folder / "ours/config.yaml")])
    (folder / "single").mkdir()
    single = folder / "single/Snakefile"
    single.write_text(SINGLE, encoding="utf-8")
    start = median(folder / "single", single, "-n", repeat=repeat).seconds
    figures: dict[str, float | int | bool] = {"start_s": round(start, 2)}
    figures["completed_with_provenance"] = scans <= PROVENANCE_UP_TO
    for name, (snakefile, arguments) in sides.items():
        place = folder / name
        parse = median(place, snakefile, "--list-target-rules", *arguments, repeat=repeat)
        fresh = median(place, snakefile, "-n", "--quiet", "rules", *arguments, repeat=repeat)
        jobs = re.findall(r"^total\s+(\d+)", fresh.output, re.M)
        complete(place, snakefile, scans <= PROVENANCE_UP_TO, *arguments)
        done = median(place, snakefile, "-n", *arguments, repeat=repeat)
        if "Nothing to be done" not in done.output:
            raise SystemExit(f"{name}: the completed run has jobs left:\n{done.output[-2000:]}")
        figures |= {
            f"{name}_jobs": int(jobs[-1]),
            f"{name}_parse_s": round(max(parse.seconds - start, 0), 2),
            f"{name}_fresh_s": round(fresh.seconds - start, 2),
            f"{name}_fresh_mb": round(fresh.peak_mb),
            f"{name}_completed_s": round(done.seconds - start, 2),
            f"{name}_completed_mb": round(done.peak_mb),
        }
        print(json.dumps({"scans": scans, "side": name, **figures}), file=sys.stderr, flush=True)
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the trees here")
    options = parser.parse_args(arguments)
    sizes, ratios = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        for scans in options.scans:
            figures = measure((options.folder or Path(scratch)) / str(scans), scans, options.repeat)
            sizes[str(scans)] = figures
            for what in ("fresh_s", "fresh_mb", "completed_s", "completed_mb"):
                ours, bare = figures[f"ours_{what}"], figures[f"bare_{what}"]
                ratios[f"bare_to_ours_{what.replace('_s', '_time')}_{scans}"] = round(
                    bare / ours, 3
                )
    setup = {"snakemake": version("snakemake"), "cores": os.cpu_count(), "repeat": options.repeat}
    print(json.dumps({"name": "dag", "ratios": ratios, "sizes": sizes, **setup}))


if __name__ == "__main__":
    main()
