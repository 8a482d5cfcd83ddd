"""The figures, one function each, which gives back a matplotlib figure; :func:`save` writes it.

>>> from voxplain.plots import plot_distances, save
>>> save(plot_distances(table, "AD against NC"), ["distances.png", "distances.pdf"])
"""

import importlib
from typing import Any

# Function to module. A module is imported with its first function, so that one figure needs no
# other one's libraries. The workflow's scripts name the modules: what they import is what they
# run again for.
_MODULES = {
    "plot_area_distribution": "comparison",
    "plot_distances": "comparison",
    "plot_mean_maps": "comparison",
    "plot_spread": "comparison",
    "plot_faithfulness": "faithfulness",
    "plot_randomisation": "faithfulness",
    "plot_localisation": "localisation",
    "plot_precision_recall": "localisation",
    "plot_truth": "localisation",
    "plot_scorecard": "scorecard",
    "plot_simulation": "simulation",
    "plot_outline": "slices",
    "plot_text": "slices",
    "plot_confusion": "training",
    "plot_learning": "training",
    "plot_models": "training",
    "plot_roc": "training",
    "save": "figures",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
