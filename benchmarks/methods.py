"""Cost of each method for one scan: time in forward passes and peak memory, for each model.

    python benchmarks/methods.py                       # 2 mm, every model and method
    python benchmarks/methods.py --resolution 1 --models voxresnet --methods sensitivity grad_cam
    python benchmarks/methods.py --device cuda

Each method runs in a separate process: forward passes of the network, then the method. The ratio of
the method's time to the median forward pass is shown in docs/methods.md. It uses CPU time summed
over threads, which hardly depends on other work on the machine; with CUDA it uses wall time. The
network has random weights (with as many multiplications as a trained network), and the scan is
noise in the template's brain. Prints a table and, as the last line, JSON with ``name``, ``ratios``
(passes by ``model.method``) and the sizes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import numpy as np
import torch

from voxplain.anatomy.template import make_template
from voxplain.atlas import read_aal
from voxplain.models import MODELS, build_model
from voxplain.relevance import METHODS, explain

# Timed forward passes, after a first one for warming up.
FORWARDS = 3
# A shorter call is repeated.
SHORT_S = 60


def options_of(method: str, mask: np.ndarray, labels: np.ndarray, resolution: int) -> dict:
    """Default options of a method in the workflow."""
    # Defaults of the configuration; lengths in mm become voxels.
    options = {"mask": mask} if "mask" in METHODS[method].options else {}
    if method == "occlusion":
        options |= {"size": round(40 / resolution), "stride": round(12 / resolution)}
    if method == "area_occlusion":
        options["labels"] = labels
    return options


def measure(method: str, name: str, resolution: int, device: str) -> dict[str, float]:
    """Median seconds of a forward pass, seconds of one heatmap, peak MB; in this process."""
    _, mask, grid = make_template("packaged", resolution)
    labels = read_aal().on_grid(grid).labels if method == "area_occlusion" else np.zeros(1)
    torch.manual_seed(0)
    noise = np.random.default_rng(0).normal(size=mask.shape)
    scan = np.where(mask, noise, 0).astype(np.float32)
    model = build_model(name, mask.shape, 2).to(device).eval()
    batch = torch.from_numpy(scan)[None, None].to(device)

    def now() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()

    seconds = []
    with torch.no_grad():
        for _ in range(FORWARDS + 1):
            began = now()
            model(batch)
            seconds.append(now() - began)
    del batch
    options = options_of(method, mask, labels, resolution)
    calls = []
    # The first call also imports and compiles. If it is short, a second call is timed.
    while not calls or (len(calls) == 1 and calls[0] < SHORT_S):
        began = now()
        explain(method, model, scan, 0, **options)
        calls.append(now() - began)
    whole = min(calls)
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 1e6
    else:
        status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        peak = int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1e3
    return {"forward_s": median(seconds[1:]), "seconds": whole, "peak_mb": peak}


def main() -> None:
    """Measure the requested models and methods."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resolution", type=int, default=2, choices=[1, 2, 3, 4])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--one", action="store_true", help="one model and method, here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        costs = measure(options.methods[0], options.models[0], options.resolution, options.device)
        print(json.dumps(costs))
        return
    # The summary only combines maps of other methods.
    methods = options.methods or [method for method in METHODS if method != "summary"]
    ratios, peaks = {}, {}
    print(f"{'model':<24}{'method':<24}{'forward s':>10}{'seconds':>10}{'passes':>10}{'MB':>8}")
    for name in options.models:
        for method in methods:
            if METHODS[method].models and name not in METHODS[method].models:
                continue
            command = [sys.executable, __file__, "--one", "--models", name, "--methods", method]
            command += ["--resolution", str(options.resolution), "--device", options.device]
            command += ["--threads", str(options.threads)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            costs = json.loads(done.stdout.splitlines()[-1])
            passes = costs["seconds"] / costs["forward_s"]
            ratios[f"{name}.{method}"] = round(passes, 2)
            peaks[f"{name}.{method}"] = round(costs["peak_mb"])
            print(
                f"{name:<24}{method:<24}{costs['forward_s']:>10.3f}{costs['seconds']:>10.2f}"
                f"{passes:>10.1f}{costs['peak_mb']:>8.0f}",
                flush=True,
            )
    print(
        json.dumps(
            {
                "name": "methods",
                "ratios": ratios,
                "peak_mb": peaks,
                "resolution_mm": options.resolution,
                "device": options.device,
                "threads": options.threads,
                "torch": torch.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
