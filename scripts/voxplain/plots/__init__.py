"""Functions that draw the figures; each returns a matplotlib figure, :func:`save` writes it.

>>> from voxplain.plots import plot_distances, save
>>> save(plot_distances(table, "AD against NC"), ["distances.png", "distances.pdf"])
"""

import importlib
from typing import Any

# Function to module. A module is imported when one of its functions is first used, so a figure does
# not need the libraries of the other figures. The workflow's scripts import the modules directly: a
# job runs again if a module that it imports changes.
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
