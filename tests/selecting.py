"""The fingerprints of all jobs that select networks and methods, of any checkout's scripts."""

import json
import os
import subprocess
import sys
from pathlib import Path


def codes_of(scripts: Path) -> dict[tuple[str, ...], str]:
    """Rule and what its job selects (``any``: one that is not known) -> fingerprint."""
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
    # What PYTHONPATH says: the registries of these scripts.
    from pipeline.selected import code_of_script
    from voxplain.models import MODELS
    from voxplain.relevance import METHODS

    def code(script, models, methods=(), **told):
        return code_of_script(scripts / f"{script}.py", scripts, models, methods, **told)

    looking = [name for name in METHODS if name != "summary"]
    codes = {
        ("combine_heatmaps",): code("combine_heatmaps", []),
        ("apply_network", "any"): code("apply_network", MODELS),
    }
    for model in MODELS:
        for script in ("train_network", "change_areas"):
            codes[script, model] = code(script, [model])
        for script in ("explain_scans", "randomise_layers"):
            codes |= {(script, model, name): code(script, [model], [name]) for name in looking}
        codes["report_results", model] = code("report_results", [model], cites=True)
    for name in looking:
        codes["explain_scans", "any", name] = code("explain_scans", MODELS, [name])
        codes["report_results", name] = code("report_results", [], [name], cites=True)
    print(json.dumps([[job, told] for job, told in codes.items()]))


if __name__ == "__main__":
    _print_codes(Path(sys.argv[1]))
