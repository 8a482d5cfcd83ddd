"""The plan of a run, made from settings, tables and the names of folders alone.

This module imports neither Snakemake nor torch nor pandas: every cluster job builds the plan
again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from voxplain.cohort.splits import Split
from voxplain.faults import SetupFault
from voxplain_workflow.naming import naming, naming_files
from voxplain_workflow.planning import checks
from voxplain_workflow.planning.code import Codes
from voxplain_workflow.planning.cohorts import Cohort, read_cohort
from voxplain_workflow.planning.faulty import Faulty
from voxplain_workflow.planning.methods import Methods
from voxplain_workflow.planning.networks import Network, plan_networks
from voxplain_workflow.planning.runs import Runs
from voxplain_workflow.planning.settings import complete_settings, read_schema, trains
from voxplain_workflow.planning.splits import chunk_numbers, chunked, split_cohort

SCRIPTS = Path(__file__).resolve().parents[2]
SCHEMA = SCRIPTS.parent / "schemas/config.schema.yaml"
# Voxels of the template at 1 mm, along x, y, z.
TEMPLATE_SHAPE = (193, 229, 193)


@dataclass(frozen=True)
class Plan:
    """Everything that a run will make.

    Attributes
    ----------
    settings
        The configuration, completed.
    cohorts
        Name to cohort.
    tasks
        Name (``AD-NC``) to classes, the disease first.
    networks
        Name to network; empty if nothing is trained.
    splits
        Cohort, task and name to split; without splits if nothing is trained.
    fault
        Error in networks, splits or the device: scans can be preprocessed, but nothing can be
        trained. ``networks`` and ``splits`` then raise it.
    local
        Whether jobs run on this machine, which then needs the configured device.
    """

    settings: Mapping[str, Any]
    cohorts: Mapping[str, Cohort]
    tasks: Mapping[str, Sequence[str]]
    networks: Mapping[str, Network]
    splits: Mapping[str, Mapping[str, Mapping[str, Split]]]
    fault: SystemExit | None
    local: bool

    @classmethod
    def build(cls, config: Mapping[str, Any], local: bool = True) -> Plan:
        """Plan a run.

        Parameters
        ----------
        config
            Configuration as the user wrote it, without defaults.
        local
            Whether jobs run on this machine. (On a cluster each job checks its node.)

        Raises
        ------
        SetupFault
            The settings are wrong, or a cohort cannot be read.
        """
        settings = complete_settings(config, read_schema(SCHEMA))
        checks.check_names(settings)
        tasks = {"-".join(classes): classes for classes in settings["tasks"]}
        cohorts = {name: _read_cohort(name, settings) for name in settings["cohorts"]}
        checks.check_kept(settings["quality"]["keep"], cohorts.values())
        networks: Mapping[str, Network]
        splits: Mapping[str, Mapping[str, Mapping[str, Split]]]
        try:
            networks = _plan_networks(settings, tasks)
            splits = _plan_splits(settings, cohorts, tasks)
            if local:
                checks.check_device(settings["device"])
        except SetupFault as error:
            # Snakemake prints any other error of an input function with a traceback.
            fault = SystemExit(str(error))
            networks = splits = Faulty(fault)
        else:
            fault = None
        return cls(settings, cohorts, tasks, networks, splits, fault, local)

    @cached_property
    def methods(self) -> Methods:
        """The explanation methods."""
        return Methods(self.settings)

    @cached_property
    def codes(self) -> Codes:
        """Fingerprints of the code of jobs."""
        return Codes(SCRIPTS)

    @cached_property
    def runs(self) -> Runs:
        """All trainings, explanations and comparisons; raises ``fault``."""
        return Runs(self)

    @property
    def simulated(self) -> list[str]:
        """The names of the cohorts that are simulated."""
        return [name for name, cohort in self.cohorts.items() if cohort.simulated]

    def models_of(self, cohort: str) -> list[str]:
        """The networks that are trained on a cohort."""
        chosen = self.settings["cohorts"][cohort]["models"]
        return [name for name in self.settings["models"] if chosen == "all" or name in chosen]

    def chunk(self, images: Sequence[str], number: int) -> list[str]:
        """Scans of one chunk, which one job explains; numbers begin at 1."""
        return chunked(images, self.settings["heatmaps"]["chunk_size"])[number - 1]

    def chunk_numbers(
        self, images: Sequence[str], holding: Sequence[str] | None = None
    ) -> list[int]:
        """Numbers of the chunks of scans, or only of those with scans of ``holding``."""
        return chunk_numbers(images, self.settings["heatmaps"]["chunk_size"], holding)

    def tested_cohort(self, cohort: str, split: Split) -> Cohort:
        """The cohort of a split's test scans: another cohort in an external test."""
        return self.cohorts[split.test_cohort or cohort]


def _takes_part(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether networks are trained or tested on a cohort."""
    tested = {pair["test"] for pair in settings["splits"]["external"]}
    return settings["cohorts"][name]["train"] or name in tested


def _read_cohort(name: str, settings: Mapping[str, Any]) -> Cohort:
    """Read a cohort; errors name the keys of its section."""
    section = f"cohorts.{name}"
    keys = {
        "table": f"{section}.table",
        "root": f"{section}.images",
        "roots": f"{section}.images",
        "select": f"{section}.select",
        "horizon_months": "progression.horizon_months",
        "visit": "progression.visit",
    }
    with naming(keys, {"pattern": f"{section}.files is the pattern"}), naming_files():
        return read_cohort(
            name,
            settings["cohorts"][name],
            settings["tasks"] if _takes_part(name, settings) else None,
            settings["progression"],
        )


def _plan_networks(
    settings: Mapping[str, Any], tasks: Mapping[str, Sequence[str]]
) -> dict[str, Network]:
    if not trains(settings):
        return {}
    resolution = settings["resolution_mm"]
    shape = [-(-n // resolution) for n in TEMPLATE_SHAPE]
    with naming({"grid_shape": f"resolution_mm is {resolution}, so that the grid"}):
        networks = plan_networks(settings["models"], shape)
    checks.check_networks(networks.values(), Methods(settings), settings["tasks"])
    for task, classes in tasks.items():
        if len(classes) > 1:
            checks.check_target(settings["heatmaps"]["target"], task, classes)
    return networks


def _plan_splits(
    settings: Mapping[str, Any],
    cohorts: Mapping[str, Cohort],
    tasks: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, dict[str, Split]]]:
    splits: dict[str, dict[str, dict[str, Split]]] = {}
    for name, cohort in cohorts.items():
        splits[name] = {}
        for task, classes in tasks.items():
            splits[name][task] = {}
            if len(classes) == 1 or not cohort.settings["train"]:
                continue  # such a cohort is only preprocessed
            try:
                splits[name][task] = split_cohort(cohort, cohorts, classes, settings["splits"])
            except SetupFault as fault:
                raise SetupFault(f"{fault} (cohort {name}, task {task})") from None
    return splits
