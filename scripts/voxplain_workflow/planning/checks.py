"""Checks of settings that the schema allows one by one, but not in combination.

Each raises SetupFault with the key, its value, and what is allowed. Errors of the library name a
parameter; :func:`voxplain_workflow.naming.naming` adds its key, here and wherever the plan calls
the library.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from voxplain.cohort.progression import check_task
from voxplain.faults import SetupFault
from voxplain.relevance import METHODS, choose_target
from voxplain_workflow.naming import naming, naming_files
from voxplain_workflow.planning.cohorts import Cohort
from voxplain_workflow.planning.methods import SUMMARY, Methods
from voxplain_workflow.planning.networks import Network
from voxplain_workflow.planning.settings import trains


def check_names(settings: Mapping[str, Any]) -> None:
    """Refuse names of cohorts, networks, methods and classes that do not fit each other."""
    _check_external(settings)
    _check_cohorts(settings)
    _check_methods(settings)
    for place, classes in enumerate(settings["tasks"] if trains(settings) else ()):
        with naming({"classes": f"tasks.{place}"}):
            check_task(classes)
    layer = settings["cam"]["layer"]
    for model in layer if trains(settings) and isinstance(layer, Mapping) else ():
        if model not in settings["models"]:
            raise SetupFault(
                f"config: cam.layer names {model}, which is not among the models; allowed: "
                f"{', '.join(settings['models'])}"
            )


def _check_external(settings: Mapping[str, Any]) -> None:
    cohorts = settings["cohorts"]
    for place, pair in enumerate(settings["splits"]["external"]):
        for key, name in pair.items():
            if name not in cohorts:
                raise SetupFault(
                    f"config: splits.external.{place}.{key} is {name!r}; allowed: "
                    f"{', '.join(cohorts)}"
                )
        if pair["train"] == pair["test"] or not cohorts[pair["train"]]["train"]:
            raise SetupFault(
                f"config: splits.external.{place} is {pair}; allowed: two cohorts, the first "
                "without train: false"
            )
    if settings["heatmaps"]["splits"] == "external" and not settings["splits"]["external"]:
        raise SetupFault(
            "config: heatmaps.splits is external, but splits.external names no cohorts; allowed "
            "here: fixed, folds, all"
        )


def _check_cohorts(settings: Mapping[str, Any]) -> None:
    cohorts = settings["cohorts"]
    for name in settings["apply"]["cohorts"]:
        if name not in cohorts:
            raise SetupFault(f"config: apply.cohorts has {name!r}; allowed: {', '.join(cohorts)}")
    chosen = settings["heatmaps"]["cohorts"]
    for name in [] if chosen == "all" else chosen:
        if name not in cohorts:
            raise SetupFault(
                f"config: heatmaps.cohorts has {name!r}; allowed: all, or a list of "
                f"{', '.join(cohorts)}"
            )
        if not cohorts[name]["train"]:
            raise SetupFault(
                f"config: heatmaps.cohorts has {name}, which has train: false; name the cohorts "
                "that networks are trained on (splits.external and heatmaps.splits: external "
                "explain the scans of others)"
            )
    for name, cohort in cohorts.items():
        for model in [] if cohort["models"] == "all" else cohort["models"]:
            if model not in settings["models"]:
                raise SetupFault(
                    f"config: cohorts.{name}.models has {model!r}, which is not among the models; "
                    f"allowed: all, or a list of {', '.join(settings['models'])}"
                )


def _check_methods(settings: Mapping[str, Any]) -> None:
    names, chosen = settings["heatmaps"]["methods"], settings["summary"]["methods"]
    for method in [] if chosen == "all" else chosen:
        if method not in names or method == SUMMARY:
            raise SetupFault(
                f"config: summary.methods has {method!r}; allowed: the other heatmaps.methods: "
                f"{', '.join(name for name in names if name != SUMMARY)}"
            )
    methods = Methods(settings)
    for method in names if trains(settings) else ():
        if not any(method in methods.of(model) for model in settings["models"]):
            needs = (
                ", ".join(METHODS[method].models) or "networks with other methods to put together"
            )
            raise SetupFault(
                f"config: heatmaps.methods has {method}, which applies to {needs} only, and none "
                "of them is among the models"
            )


def check_kept(images: Iterable[str], cohorts: Iterable[Cohort]) -> None:
    """Refuse to keep scans by name (``quality.keep``) that are in no table."""
    known = {scan.image for cohort in cohorts for scan in cohort.all_scans}
    for image in images:
        if image not in known:
            raise SetupFault(
                f"config: quality.keep has {image!r}, which no cohort's table names; allowed: "
                "image ids as in scans.tsv, e.g. I32237"
            )


def check_networks(
    networks: Iterable[Network], methods: Methods, tasks: Iterable[Sequence[str]]
) -> None:
    """Refuse a layer that a network does not have, and a batch too small for every class."""
    most = max(map(len, tasks))
    for network in networks:
        name, wanted, layers = network.name, methods.layer_of(network.name), network.shapes.layers
        if wanted != "auto" and wanted not in layers:
            raise SetupFault(
                f"config: cam.layer is {wanted!r}, but model {name} has no such layer; allowed: "
                f"auto, {', '.join(layers)}; one for each network is written {{{name}: ...}}"
            )
        recipe = network.recipe
        if recipe["every_class"] and recipe["batch_size"] < most:
            raise SetupFault(
                f"config: models.{name}.batch_size is {recipe['batch_size']}, too few for a scan "
                f"of each of {most} classes; choose {most} or more, or every_class: false"
            )


def check_target(target: str, task: str, classes: Sequence[str]) -> None:
    """Refuse a class to explain (``heatmaps.target``) that is not in a task."""
    with naming({"target": "heatmaps.target"}, {"target": f"these are the classes of task {task}"}):
        choose_target(target, classes, classes[0], [0.0] * len(classes))


def check_apply(settings: Mapping[str, Any], cohorts: Mapping[str, Cohort]) -> None:
    """Refuse to apply networks without a file, or to cohorts without the needed diagnoses."""
    section = settings["apply"]
    for key in ("networks", "cohorts"):
        if not section[key]:
            raise SetupFault(f"config: apply.{key} is empty; `snakemake apply` needs it")
    for name, path in section["networks"].items():
        with naming_files():
            if not Path(path).is_file():
                raise SetupFault(f"config: apply.networks.{name} is {path}, which does not exist")
    for name in section["cohorts"]:
        if settings["heatmaps"]["target"] == "true" and not all(
            scan.group for scan in cohorts[name].scans.values()
        ):
            raise SetupFault(
                f"config: heatmaps.target is true, but cohort {name} has scans without a "
                "diagnosis; allowed here: disease, predicted, or a class by name"
            )


def check_device(device: str) -> None:
    """Refuse ``device: cuda`` on a machine without a GPU."""
    if device == "cuda" and not has_gpu():
        raise SetupFault(
            "config: device is cuda, but this machine has no NVIDIA driver or no GPU; allowed "
            "here: cpu, auto"
        )


def has_gpu() -> bool:
    """Whether this machine has an NVIDIA GPU with a working driver."""
    try:
        return ctypes.CDLL("libcuda.so.1").cuInit(0) == 0
    except OSError:
        return False
