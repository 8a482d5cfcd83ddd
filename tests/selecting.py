"""The fingerprints of all jobs that select networks and methods, of any checkout's scripts."""

import json
import os
import subprocess
import sys
from pathlib import Path


def codes_of(scripts: Path) -> dict[tuple[str, ...], str]:
    """(Rule, entries that its job selects; ``any`` for an unknown one) -> fingerprint."""
    done = subprocess.run(
        [sys.executable, __file__, str(scripts)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(scripts)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {tuple(job): code for job, code in json.loads(done.stdout)}


def _print_codes(scripts: Path) -> None:
    # Found through PYTHONPATH: the registries of these scripts.
    from voxplain.models import MODELS
    from voxplain.relevance import METHODS
    from voxplain_workflow.planning.code import Codes

    of = Codes(scripts)
    looking = [name for name in METHODS if name != "summary"]
    codes = {
        ("combine_heatmaps",): of.of_script("combine_heatmaps"),
        ("apply_network", "any"): of.of_applying(),
    }
    for model in MODELS:
        codes["train_network", model] = of.of_training(model)
        codes["change_areas", model] = of.of_changing_areas(model)
        codes["report_results", model] = of.of_report([model], [])
        for name in looking:
            codes["explain_scans", model, name] = of.of_explaining(model, name)
            codes["randomise_layers", model, name] = of.of_randomising(model, name)
    for name in looking:
        codes["explain_scans", "any", name] = of.of_explaining(None, name)
        codes["report_results", name] = of.of_report([], [name])
    print(json.dumps([[job, code] for job, code in codes.items()]))


if __name__ == "__main__":
    _print_codes(Path(sys.argv[1]))
