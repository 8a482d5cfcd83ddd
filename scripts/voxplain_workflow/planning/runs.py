"""All tasks, trainings and heatmaps of a run, enumerated in one place.

Targets, the inputs of pages, and the counts of the estimate all derive from this enumeration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from voxplain.cohort.demographics import AGE_SEX, Person
from voxplain.cohort.splits import Split
from voxplain_workflow.planning import layout
from voxplain_workflow.planning.splits import choose_first

if TYPE_CHECKING:
    from voxplain_workflow.planning.cohorts import Cohort
    from voxplain_workflow.planning.plan import Plan

# Table of a network's heatmaps to the figures of the same job.
_COMPARED = {
    "distances": ("mean_maps", "distances", "area_distribution"),
    "localisation": ("localisation", "precision_recall"),
}


@dataclass(frozen=True)
class TaskRun:
    """A task of a cohort that has splits.

    Attributes
    ----------
    cohort, task
        Names.
    classes
        The disease first.
    splits
        All splits, in the order in which they are made.
    explained
        Splits whose test scans get heatmaps.
    models
        Names of the networks that are trained.
    baselines
        Names of the baselines, which classify without a network.
    people
        Age and sex at each scan in the splits.
    """

    cohort: Cohort
    task: str
    classes: Sequence[str]
    splits: Sequence[Split]
    explained: Sequence[Split]
    models: Sequence[str]
    baselines: Sequence[str]
    people: Sequence[Person]

    @property
    def wildcards(self) -> dict[str, str]:
        """Wildcards of the paths of its files."""
        return {"cohort": self.cohort.name, "task": self.task}

    @property
    def folder(self) -> str:
        """Folder of the results."""
        return layout.TASK.format(**self.wildcards)

    @property
    def folds(self) -> list[Split]:
        """The splits of the cross-validation."""
        return [split for split in self.splits if split.is_fold]

    @property
    def explained_folds(self) -> list[Split]:
        """The folds whose test scans get heatmaps."""
        return [split for split in self.explained if split.is_fold]


@dataclass(frozen=True)
class NetworkRun:
    """A network of a task, on all splits and with all seeds.

    Attributes
    ----------
    of_task
        The task.
    model, label
        Key in :data:`voxplain.models.MODELS`, and name in tables and figures.
    methods
        The explanation methods that apply to it.
    seeds
        Seeds of the trainings.
    """

    of_task: TaskRun
    model: str
    label: str
    methods: Sequence[str]
    seeds: Sequence[int]

    @property
    def wildcards(self) -> dict[str, str]:
        """Wildcards of the paths of its files."""
        return {**self.of_task.wildcards, "model": self.model}

    @property
    def folder(self) -> str:
        """Folder of the results."""
        return layout.NETWORK.format(**self.wildcards)

    @property
    def explained(self) -> Sequence[Split]:
        """The splits whose test scans get heatmaps of this network."""
        return self.of_task.explained if self.methods else ()

    @property
    def several(self) -> list[str]:
        """Names of splits with several seeds, and ``folds`` if there are several of them.

        The average heatmaps of the networks in each of these are compared.
        """
        names = [split.name for split in self.explained] if len(self.seeds) > 1 else []
        several_folds = self.methods and len(self.of_task.explained_folds) > 1
        return names + [layout.OF_FOLDS] * bool(several_folds)


@dataclass(frozen=True)
class Training:
    """One training of a network."""

    network: NetworkRun
    split: Split
    seed: int

    @property
    def wildcards(self) -> dict[str, Any]:
        """Wildcards of the paths of its files."""
        return {**self.network.wildcards, "split": self.split.name, "seed": self.seed}

    @property
    def folder(self) -> str:
        """Folder of the results."""
        return layout.RUN.format(**self.wildcards)


@dataclass(frozen=True)
class Explained(Training):
    """A training whose test scans get heatmaps.

    Attributes
    ----------
    with_truth
        Test scans with ground truth.
    changed, forgetting
        Test scans whose areas are deleted and inserted, and test scans that are explained again
        while the layers of the network are randomised.
    randomised
        Methods that explain the scans of ``forgetting``.
    """

    with_truth: Sequence[str]
    changed: Sequence[str]
    forgetting: Sequence[str]
    randomised: Sequence[str]

    @property
    def tables(self) -> dict[str, tuple[str, ...]]:
        """Name of each table that compares the methods, to the names of its figures."""
        tables: dict[str, tuple[str, ...]] = dict(_COMPARED)
        if self.changed:
            tables["faithfulness"] = ("faithfulness",)
        if self.forgetting:
            tables["randomisation"] = ("randomisation",)
        return tables

    def as_dict(self) -> dict[str, Any]:
        """The run as parameters for the scripts of pages."""
        task = self.network.of_task
        return {
            **task.wildcards,
            "label": self.network.label,
            "split": self.split.name,
            "seed": self.seed,
            "folder": self.folder,
            "difference": layout.fill(layout.DIFFERENCE, self.wildcards),
            "disease": task.classes[0],
            "methods": self.network.methods,
            "with_truth": bool(self.with_truth),
            "followed": bool(self.changed),
            "randomised": bool(self.forgetting),
            "retrained": self.split.name in self.network.several,
        }


class Runs:
    """All tasks, networks, trainings and heatmaps of a plan.

    Parameters
    ----------
    plan
        The plan; its ``fault``, if it has one, is raised here.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.tasks = list(self._tasks())
        self.networks = [run for task in self.tasks for run in self._networks(task)]

    def _tasks(self) -> Iterator[TaskRun]:
        for name, tasks in self._plan.splits.items():
            for task, splits in tasks.items():
                if splits:
                    yield self._task(self._plan.cohorts[name], task, list(splits.values()))

    def _task(self, cohort: Cohort, task: str, splits: Sequence[Split]) -> TaskRun:
        classes = self._plan.tasks[task]
        test_cohorts = {split.test_cohort for split in splits} - {"", cohort.name}
        people = cohort.people(classes)
        tested = [self._plan.cohorts[name].people(classes) for name in sorted(test_cohorts)]
        # The baseline of age and sex needs at least one of them in the table of the cohort.
        known = any(person.age is not None or person.male is not None for person in people)
        chosen = self._plan.settings["evaluation"]["baselines"]
        return TaskRun(
            cohort=cohort,
            task=task,
            classes=classes,
            splits=splits,
            explained=[split for split in splits if self._is_explained(cohort.name, split)],
            models=self._plan.models_of(cohort.name),
            baselines=[name for name in chosen if known or name != AGE_SEX],
            people=[person for group in (people, *tested) for person in group],
        )

    def _networks(self, task: TaskRun) -> Iterator[NetworkRun]:
        seeds = self._plan.settings["training"]["seeds"]
        for model in task.models:
            label, methods = self._plan.networks[model].label, self._plan.methods.of(model)
            yield NetworkRun(task, model, label, methods, seeds)

    def _is_explained(self, cohort: str, split: Split) -> bool:
        cohorts, wanted = (self._plan.settings["heatmaps"][key] for key in ("cohorts", "splits"))
        return (cohorts == "all" or cohort in cohorts) and wanted in ("all", split.kind)

    def task(self, wildcards: Any) -> TaskRun:
        """The task that wildcards name."""
        return self._by_name[wildcards.cohort, wildcards.task]

    @cached_property
    def _by_name(self) -> dict[tuple[str, str], TaskRun]:
        return {(task.cohort.name, task.task): task for task in self.tasks}

    @cached_property
    def trainings(self) -> list[Training]:
        """Every training of every network."""
        return [
            Training(network, split, seed)
            for network in self.networks
            for split in network.of_task.splits
            for seed in network.seeds
        ]

    @cached_property
    def explained(self) -> list[Explained]:
        """Every training whose test scans get heatmaps."""
        return [
            self._explained(network, split, seed)
            for network in self.networks
            for split in network.explained
            for seed in network.seeds
        ]

    def _explained(self, network: NetworkRun, split: Split, seed: int) -> Explained:
        cohort = network.of_task.cohort.name
        randomised = self._plan.methods.randomised(network.model)
        return Explained(
            network,
            split,
            seed,
            with_truth=self.with_truth(cohort, split),
            changed=self.first_scans(network.of_task, split, "scans"),
            forgetting=self.first_scans(network.of_task, split, "randomised_scans")
            if randomised
            else [],
            randomised=randomised,
        )

    def with_truth(self, cohort: str, split: Split) -> list[str]:
        """The test scans of a cohort's split that were simulated with a disease or a shortcut."""
        tested = self._plan.tested_cohort(cohort, split)
        return [image for image in split.test if tested.has_truth(image)]

    def first_scans(self, task: TaskRun, split: Split, key: str) -> list[str]:
        """The first test scans, from the classes in turn; ``faithfulness[key]`` is their number."""
        tested = self._plan.tested_cohort(task.cohort.name, split)
        count = self._plan.settings["faithfulness"][key]
        return choose_first(split, tested, task.classes, count)

    def chunks(self, split: Split, holding: Sequence[str] | None = None) -> list[int]:
        """Numbers of a split's chunks of test scans, or only of those with scans of ``holding``."""
        return self._plan.chunk_numbers(split.test, holding)

    @cached_property
    def twinned(self) -> dict[str, set[str]]:
        """Cohort to its explained scans with ground truth: those that need a healthy twin."""
        twinned: dict[str, set[str]] = {}
        if self._plan.settings["localisation"]["residual"]:
            for task in self.tasks:
                for split in task.explained:
                    tested = split.test_cohort or task.cohort.name
                    images = self.with_truth(task.cohort.name, split)
                    twinned.setdefault(tested, set()).update(images)
        return twinned

    @property
    def baselines(self) -> list[dict[str, str]]:
        """Cohort, task and name of every baseline."""
        return [
            {**task.wildcards, "baseline": baseline}
            for task in self.tasks
            for baseline in task.baselines
        ]

    def first_explained(self, with_truth: bool = False) -> list[Explained]:
        """The first explained training of each network, or the first with ground truth."""
        first: dict[str, Explained] = {}
        for run in self.explained:
            if run.with_truth or not with_truth:
                first.setdefault(run.network.folder, run)
        return list(first.values())


def retrained_folders(networks: Sequence[NetworkRun]) -> list[str]:
    """Folders with the comparisons of networks that were trained several times."""
    return [
        layout.fill(layout.SEVERAL, network.wildcards, several=several)
        for network in networks
        for several in network.several
    ]
