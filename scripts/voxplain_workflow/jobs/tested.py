"""The test results of a network in words."""

from __future__ import annotations

import json
from pathlib import Path


def describe_test(folder: str | Path) -> str:
    """``ROC AUC 0.95, accuracy 0.90 of 12 test patients``.

    Parameters
    ----------
    folder
        Folder of the network with its ``metrics.json``. Measures without a value are left out.
    """
    metrics = json.loads((Path(folder) / "metrics.json").read_text(encoding="utf-8"))["patient"]
    names = {"roc_auc": "ROC AUC", "accuracy": "accuracy"}
    measures = [
        f"{name} {metrics[key]:.2f}" for key, name in names.items() if metrics.get(key) is not None
    ]
    return f"{', '.join(measures) or 'nothing to measure'} of {metrics['n']} test patients"
