"""Overhead of our rules over the libraries they call; threads; quality of each registration.

    python benchmarks/preprocess.py overhead [--resolution 2] [--repeat 3] [--head HEAD]
    python benchmarks/preprocess.py threads [--resolution 2] [--repeat 3] [--head HEAD]
    python benchmarks/preprocess.py transforms [--resolution 2] [--head HEAD ...]
                                               [--transform syn_quick syn_fast] [--seed 42]

``overhead``: the complete scripts of strip_skull and register_to_template, as a rule runs them
(from files to files, with all checks), against the bare library call with input and output in
memory. Both sides run in one process in alternation, so neither includes imports. The time for
imports and for the start of a Snakemake job is measured separately.
``threads``: the two scripts with one and two threads, each run in a separate process.
``transforms``: quality of the registration of a brain to the template, and its CPU seconds.

HEAD is a T1-weighted head as NIfTI; without it a head is simulated. The skull is removed by BET if
FSL is installed, else by deepbet. Prints one JSON line last; ratios are ours / bare, one thread /
two threads, and the first transform / each.
"""

from __future__ import annotations

import os

# Torch reads the first for its number of threads when it is imported, ITK the second.
for variable in ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):
    os.environ.setdefault(variable, "1")

import argparse
import hashlib
import json
import platform
import resource
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from voxplain.volumes import Grid, read_array, read_image, resample, smooth_for, write_array

SKULL = {
    "bet": {"fractional_intensity": 0.5, "robust_centre": False},
    "deepbet": {"threshold": 0.5, "dilate": 0},
    "ladder": [],  # not part of the bare call; its gate is timed in benchmarks/skull_removal.py
}
# Imports of each script, and those of its library call.
IMPORTS = {
    "strip_skull": "import numpy, voxplain.anatomy.ladder, voxplain.volumes, deepbet.bet, ants",
    "register_to_template": "import numpy, voxplain.anatomy.register, voxplain.volumes, ants",
}
# A workflow whose jobs do nothing.
IDLE = """\
rule all:
    input:
        expand("{n}.txt", n=range(config["jobs"])),
rule idle:
    output:
        "{n}.txt",
    script:
        "idle.py"
"""
DEEP_MM = 20  # distance from the surface; fluid below it is in the ventricles


class Files(list):
    """Paths by position and by name, as Snakemake passes them to a script."""

    def __init__(self, **named: Path) -> None:
        super().__init__(map(str, named.values()))
        self.__dict__.update({name: str(path) for name, path in named.items()})


def cost() -> dict[str, float]:
    """Wall and CPU seconds until now, of this process and its finished children."""
    spent = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(used.ru_utime + used.ru_stime for used in spent)
    return {"wall_s": time.perf_counter(), "cpu_s": cpu}


def timed(work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Cost of a piece of work, and its return value."""
    before = cost()
    result = work()
    after = cost()
    return {key: after[key] - before[key] for key in after}, result


def median(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median of each measure, rounded to milliseconds."""
    return {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}


# --- our side: the rules' scripts -----------------------------------------------------------------


class Scan:
    """Files of one head in a folder, and the scripts that make them.

    Attributes
    ----------
    folder
        Folder of all files, including the template at the resolution.
    resolution
        Voxel size of the template in mm.
    transform, seed
        Method and seed of the registration.
    """

    def __init__(self, folder: Path, resolution: int, transform: str, seed: int) -> None:
        self.folder, self.resolution = folder, resolution
        self.transform, self.seed = transform, seed

    def path(self, name: str) -> Path:
        """Path of a file of the scan."""
        return self.folder / name

    def prepare(self, head: Path | None) -> None:
        """Make all inputs of the two rules: head, template, mask, corrected brain."""
        if head is None:
            from voxplain.cohort.heads import build_packaged_head
            from voxplain.cohort.scanner import ScannerSettings
            from voxplain.cohort.simulate import simulate_scan

            scanner = ScannerSettings(3.0, 8, 6, 0.1, 0.02, 0, (1.0, 1.0))
            made = simulate_scan(build_packaged_head(), {}, 0.03, 1, 1, scanner)
            write_array(self.path("head.nii.gz"), made.volume, made.grid, np.int16)
        else:
            image = read_image(head)
            stored = image.get_data_dtype()
            kind = stored if stored.kind in "iu" else np.float32
            write_array(self.path("head.nii.gz"), read_array(head, kind)[0], Grid.of(image), kind)
        voxels = self.path("head.nii.gz").read_bytes()
        sidecar = {"VoxelDataSha256": hashlib.sha256(voxels).hexdigest()}
        self.path("head.json").write_text(json.dumps(sidecar), encoding="utf-8")
        self._run("choose_skull_tool", Files(), Files(tools=self.path("tools.json")), wanted="auto")
        self._run(
            "make_template",
            Files(),
            Files(brain=self.path("template.nii.gz"), mask=self.path("template_mask.nii.gz")),
            settings={"template": "packaged", "resolution_mm": self.resolution},
        )
        self.strip()
        self._run(
            "correct_intensity",
            Files(
                volume=self.path("head.nii.gz"),
                sidecar=self.path("head.json"),
                mask=self.path("mask.nii.gz"),
                mask_sidecar=self.path("mask.json"),
            ),
            Files(brain=self.path("brain.nii.gz"), sidecar=self.path("brain.json")),
            settings={
                "bias_correction": "always",
                "description": "",
                "intensity_scale": "percentile",
            },
        )

    def strip(self, threads: int = 1) -> None:
        """Run the script of strip_skull."""
        self._run(
            "strip_skull",
            Files(
                volume=self.path("head.nii.gz"),
                sidecar=self.path("head.json"),
                tools=self.path("tools.json"),
            ),
            Files(mask=self.path("mask.nii.gz"), sidecar=self.path("mask.json")),
            threads,
            settings=SKULL,
        )

    def register(self, threads: int = 1) -> None:
        """Run the script of register_to_template."""
        self._run(
            "register_to_template",
            Files(
                brain=self.path("brain.nii.gz"),
                sidecar=self.path("brain.json"),
                mask=self.path("mask.nii.gz"),
                template=self.path("template.nii.gz"),
                template_mask=self.path("template_mask.nii.gz"),
            ),
            Files(
                brain=self.path("registered.nii.gz"),
                voxels=self.path("registered.npy"),
                sidecar=self.path("registered.json"),
                mask=self.path("registered_mask.nii.gz"),
                transform=self.path("transform.h5"),
            ),
            threads,
            settings={
                "transform": self.transform,
                "seed": self.seed,
                "resolution_mm": self.resolution,
            },
        )

    def _run(
        self, rule: str, inputs: Files, outputs: Files, threads: int = 1, **params: Any
    ) -> None:
        """Run the script of a rule in this process, as Snakemake does in a separate process."""
        log = self.path(f"{rule}.log")
        snakemake = SimpleNamespace(
            input=inputs,
            output=outputs,
            log=[str(log)],
            threads=threads,
            params=SimpleNamespace(threads=threads, **params),
        )
        streams = [os.dup(stream) for stream in (1, 2)]  # a job redirects both to its log
        try:
            runpy.run_path(str(ROOT / f"scripts/{rule}.py"), {"snakemake": snakemake})
        except SystemExit:
            raise RuntimeError(f"{rule} failed:\n{log.read_text(encoding='utf-8')}") from None
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            for number, stream in zip(streams, (1, 2), strict=True):
                os.dup2(number, stream)
                os.close(number)
        if any(not Path(path).stat().st_size for path in outputs):
            raise RuntimeError(f"the scan is unfit:\n{log.read_text(encoding='utf-8')}")


# --- the other side: the bare calls ---------------------------------------------------------------


def bare_strip(scan: Scan, tool: str) -> np.ndarray:
    """Mask ``[x, y, z]`` from the bare library call."""
    head, options = scan.path("head.nii.gz"), SKULL[tool]
    if tool == "bet":
        from fsl.wrappers import bet

        os.environ["FSLOUTPUTTYPE"] = "NIFTI_GZ"
        fraction = options["fractional_intensity"]
        bet(str(head), str(scan.path("bare")), mask=True, seg=False, fracintensity=fraction)
        return read_array(scan.path("bare_mask.nii.gz"))[0] > 0
    from deepbet import bet

    tool = bet.BrainExtraction(no_gpu=True)
    _, mask, _ = tool.run(str(head), threshold=options["threshold"], n_dilate=options["dilate"])
    return np.asarray(mask.dataobj) > 0


def bare_registration(scan: Scan) -> Callable[[], np.ndarray]:
    """Function with the bare library calls: a registration, then resampling of brain and mask.

    The images are those that our rule passes to ANTs, so both sides do the same work.
    """
    import ants

    from voxplain.anatomy.itk import as_ants
    from voxplain.anatomy.register import TRANSFORMS

    template, grid = read_array(scan.path("template.nii.gz"))
    brain, brain_grid = read_array(scan.path("brain.nii.gz"))
    mask, _ = read_array(scan.path("mask.nii.gz"))
    working = brain_grid.coarsened(max(*grid.voxel_size, *brain_grid.voxel_size))
    fixed = as_ants(template, grid)
    moving = as_ants(resample(smooth_for(brain, brain_grid, working), brain_grid, working), working)
    carried = [as_ants(smooth_for(array, brain_grid, grid), brain_grid) for array in (brain, mask)]

    def work() -> np.ndarray:
        ants.config.set_ants_deterministic(on=False, seed_value=scan.seed)
        with tempfile.TemporaryDirectory() as scratch:
            result = ants.registration(
                fixed,
                moving,
                type_of_transform=TRANSFORMS[scan.transform],
                outprefix=f"{scratch}/",
            )
            brain, mask = (
                ants.apply_transforms(fixed, image, result["fwdtransforms"]) for image in carried
            )
        return np.where(mask.numpy() > 0.5, brain.numpy(), 0)

    return work


# --- the three measurements -----------------------------------------------------------------------


def measure_overhead(scan: Scan, repeat: int) -> dict[str, Any]:
    """Costs of both rules and of their bare calls, in alternation."""
    tool = json.loads(scan.path("tools.json").read_text("utf-8"))["SkullStrippingTool"]
    sides = {
        "strip_skull": (scan.strip, lambda: bare_strip(scan, tool), "mask.nii.gz"),
        "register_to_template": (scan.register, bare_registration(scan), "registered.nii.gz"),
    }
    ratios, figures, largest = {}, {}, {}
    for rule, (ours, bare, result) in sides.items():
        runs: dict[str, list] = {"ours": [], "bare": []}
        for _ in range(repeat):
            runs["ours"].append(timed(ours)[0])
            spent, expected = timed(bare)
            runs["bare"].append(spent)
        result_voxels, _ = read_array(scan.path(result))
        figures[rule] = {side: median(spent) for side, spent in runs.items()}
        largest[rule] = float(np.abs(result_voxels - expected).max())
        for key in ("wall_s", "cpu_s"):
            ratio = figures[rule]["ours"][key] / figures[rule]["bare"][key]
            ratios[f"{rule}_{key[:-2]}"] = round(ratio, 3)
        figures[rule]["imports"] = median([timed_imports(IMPORTS[rule]) for _ in range(repeat)])
    figures["job_start"] = measure_job_start(scan.folder)
    return {"ratios": ratios, "figures": figures, "largest_difference": largest}


def timed_imports(statement: str) -> dict[str, float]:
    """Cost of starting a new interpreter with some imports."""
    place = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    return timed(lambda: subprocess.run([sys.executable, "-c", statement], env=place, check=True))[
        0
    ]


def measure_job_start(folder: Path) -> dict[str, float]:
    """Cost of an additional job that does nothing: the start of Snakemake in its process."""
    (folder / "Snakefile").write_text(IDLE, encoding="utf-8")
    (folder / "idle.py").write_text("open(snakemake.output[0], 'w').close()\n", encoding="utf-8")
    few, many = (
        timed(
            lambda jobs=jobs: subprocess.run(
                [
                    *(sys.executable, "-m", "snakemake", "--cores", "1", "--forceall"),
                    *("--snakefile", "Snakefile", "--quiet", "all", "--config", f"jobs={jobs}"),
                ],
                cwd=folder,
                check=True,
            )
        )[0]
        for jobs in (1, 6)
    )
    return {key: round((many[key] - few[key]) / 5, 3) for key in few}


def measure_threads(scan: Scan, repeat: int) -> dict[str, Any]:
    """Costs of both scripts with one and two threads, each run in a separate process."""
    ratios, figures, same = {}, {}, {}
    for rule, result in (("strip", "mask"), ("register", "registered")):
        digests: dict[int, set[str]] = {1: set(), 2: set()}
        runs: dict[int, list] = {1: [], 2: []}
        for _ in range(repeat):
            for threads in (1, 2):
                command = [sys.executable, __file__, "one", "--folder", str(scan.folder)]
                command += ["--resolution", str(scan.resolution), "--rule", rule]
                command += ["--threads", str(threads), "--transform", scan.transform]
                number = {
                    "OMP_NUM_THREADS": str(threads),
                    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads),
                }
                output = subprocess.run(
                    command, env={**os.environ, **number}, check=True, stdout=subprocess.PIPE
                ).stdout
                runs[threads].append(json.loads(output))
                voxels, _ = read_array(scan.path(f"{result}.nii.gz"))
                digests[threads].add(hashlib.sha256(voxels.tobytes()).hexdigest())
        figures[rule] = {f"threads_{n}": median(taken) for n, taken in runs.items()}
        one, two = figures[rule].values()
        ratios |= {f"{rule}_{key[:-2]}": round(one[key] / two[key], 2) for key in one}
        same[rule] = {
            "repeats_alike_1": len(digests[1]) == 1,
            "repeats_alike_2": len(digests[2]) == 1,
            "1_and_2_alike": digests[1] == digests[2],
        }
    return {"ratios": ratios, "figures": figures, "bit_identical": same}


def measure_transforms(scan: Scan, transforms: Sequence[str]) -> dict[str, dict[str, float]]:
    """Quality and cost of each transform for one brain."""
    figures = {}
    for scan.transform in transforms:
        taken, _ = timed(scan.register)
        megabytes = scan.path("transform.h5").stat().st_size / 1e6
        measures = {"cpu_s": taken["cpu_s"], "transform_mb": megabytes, **measure_overlay(scan)}
        figures[scan.transform] = {name: round(value, 4) for name, value in measures.items()}
    return figures


def measure_overlay(scan: Scan) -> dict[str, float]:
    """Agreement of the registered brain with the template, and smoothness of the transform.

    Dice coefficients of the masks, of the three tissues (by k-means of the intensities of each
    brain), and of the fluid deep in the brain, which lies in the ventricles; Pearson's correlation
    inside the template; and for the Jacobian determinant inside the template its smallest value,
    the share of folded voxels (0 or less), and the SD of its logarithm.
    """
    from voxplain.anatomy.quality import correlation, dice

    template, grid = read_array(scan.path("template.nii.gz"))
    inside = read_array(scan.path("template_mask.nii.gz"))[0] > 0
    brain, _ = read_array(scan.path("registered.nii.gz"))
    mask = read_array(scan.path("registered_mask.nii.gz"))[0] > 0
    ours, theirs = np.where(inside, find_tissues(brain, mask), 0), find_tissues(template, inside)
    deep = ndimage.distance_transform_edt(inside, sampling=grid.voxel_size) > DEEP_MM
    jacobian = find_jacobian(scan, template, grid)[inside]
    return {
        "overlap": dice(mask, inside),
        "similarity": correlation(brain[inside], template[inside]),
        "fluid": dice(ours == 1, theirs == 1),
        "grey": dice(ours == 2, theirs == 2),
        "white": dice(ours == 3, theirs == 3),
        "ventricles": dice((ours == 1) & deep, (theirs == 1) & deep),
        "jacobian_least": float(jacobian.min()),
        "jacobian_folded": float((jacobian <= 0).mean()),
        "jacobian_log_sd": float(np.log(np.maximum(jacobian, 1e-3)).std()),
    }


def find_tissues(brain: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Labels by k-means of intensities (Lloyd): 1 fluid, 2 grey, 3 white matter, 0 outside."""
    values = brain[mask]
    counts, edges = np.histogram(values, 512, range=np.percentile(values, [0.5, 99.5]))
    levels = (edges[1:] + edges[:-1]) / 2
    centres = np.percentile(values, [5, 40, 85])
    for _ in range(100):
        nearest = np.abs(levels[:, None] - centres).argmin(axis=1)
        parts = [nearest == place for place in range(3)]
        centres = np.array([np.average(levels[p], weights=counts[p] + 1e-9) for p in parts])
    tissues = np.zeros(brain.shape, np.uint8)
    tissues[mask] = 1 + np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
    return tissues


def find_jacobian(scan: Scan, template: np.ndarray, grid: Grid) -> np.ndarray:
    """Determinant of the transform's derivative on the template's grid, ``[x, y, z]``."""
    import ants

    from voxplain.anatomy.itk import as_ants

    brain, brain_grid = read_array(scan.path("brain.nii.gz"))
    with tempfile.TemporaryDirectory() as scratch:
        field = ants.apply_transforms(
            as_ants(template, grid),
            as_ants(brain, brain_grid),
            [str(scan.path("transform.h5"))],
            compose=f"{scratch}/",
        )
        # Displacements in mm along the axes of ITK; its first two are opposite to ours.
        displaced = ants.image_read(field).numpy() * (-1, -1, 1)
    derivative = np.empty((*grid.shape, 3, 3), np.float32)
    for axis in range(3):
        slopes = np.gradient(displaced[..., axis].astype(np.float32), *grid.voxel_size)
        for other in range(3):
            derivative[..., axis, other] = slopes[other] + (axis == other)
    return np.linalg.det(derivative)


# --- the command ----------------------------------------------------------------------------------


def run_one(options: argparse.Namespace) -> None:
    """Run one script in this process and print its cost as one line."""
    scan = Scan(options.folder, options.resolution, options.transform[0], options.seed)
    script = {"strip": scan.strip, "register": scan.register}[options.rule]
    print(json.dumps(timed(lambda: script(options.threads))[0]))


def read_versions() -> dict[str, str]:
    """Versions of the measured packages that are installed."""
    versions = {"python": platform.python_version()}
    for package in ("antspyx", "deepbet", "torch", "fslpy", "snakemake"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("overhead", "threads", "transforms", "one"))
    parser.add_argument("--resolution", type=int, default=2, help="of the template in mm, 1 to 4")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each side")
    parser.add_argument("--head", type=Path, nargs="+", default=[None], help="T1w NIfTI files")
    parser.add_argument("--transform", nargs="+", default=["syn_quick", "syn_fast"])
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--folder", type=Path, help="of `one`: where a prepared scan lies")
    parser.add_argument("--rule", choices=("strip", "register"), help="of `one`")
    parser.add_argument("--threads", type=int, default=1, help="of `one`")
    options = parser.parse_args()
    if options.what == "one":
        run_one(options)
        return
    if options.what == "overhead" and options.transform[0] == "syn_fast":
        parser.error("syn_fast prepares its images itself: no bare call does the same work")
    report: dict[str, Any] = {"name": "preprocess", "what": options.what}
    scans: dict[str, Any] = {}
    shapes: dict[str, Any] = {}
    for head in options.head:
        name = "simulated" if head is None else head.name.removesuffix(".gz").removesuffix(".nii")
        with tempfile.TemporaryDirectory() as scratch:
            scan = Scan(Path(scratch), options.resolution, options.transform[0], options.seed)
            scan.prepare(head)
            grid = Grid.of(read_image(scan.path("head.nii.gz")))
            shapes[name] = {"shape": grid.shape, "mm": [round(v, 3) for v in grid.voxel_size]}
            scans[name] = {
                "overhead": lambda scan=scan: measure_overhead(scan, options.repeat),
                "threads": lambda scan=scan: measure_threads(scan, options.repeat),
                "transforms": lambda scan=scan: measure_transforms(scan, options.transform),
            }[options.what]()
            report["tool"] = json.loads(scan.path("tools.json").read_text("utf-8"))
        print(json.dumps({name: scans[name]}), file=sys.stderr, flush=True)
    if options.what == "transforms":
        first = options.transform[0]
        report["ratios"] = {
            transform: round(
                statistics.median(
                    s[first]["cpu_s"] / s[transform]["cpu_s"] for s in scans.values()
                ),
                2,
            )
            for transform in options.transform
        }
        report["figures"] = scans
        report["largest_difference"] = {
            transform: {
                measure: round(
                    max(abs(s[transform][measure] - s[first][measure]) for s in scans.values()), 4
                )
                for measure in ("overlap", "similarity", "fluid", "grey", "white", "ventricles")
            }
            for transform in options.transform
        }
    else:
        report |= scans[name]
    report |= {
        "heads": shapes,
        "resolution_mm": options.resolution,
        "transform": options.transform,
        "repeat": options.repeat,
        "cores": os.cpu_count(),
        "versions": read_versions(),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
