"""Jobs of networks and baselines, and of their evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from voxplain.cohort.demographics import AGE_SEX, AREAS, BASELINES
from voxplain.cohort.splits import SplitName
from voxplain_workflow.planning import layout
from voxplain_workflow.planning.resources import of_grid
from voxplain_workflow.planning.settings import skull_settings, sort_keys
from voxplain_workflow.planning.stages.split import SplitJobs

# Options of the section `training` that do not affect a training; its seed is a wildcard.
_NO_RECIPE = ("seeds", "tensorboard")
# Settings that a brain in template space depends on.
_PREPROCESSING = (
    *("template", "resolution_mm", "bias_correction", "intensity_scale", "registration"),
)


class TrainJobs(SplitJobs):
    """The jobs of ``rules/train.smk``."""

    def settings(self, wildcards: Any) -> dict[str, Any]:
        """Settings of the architecture and training of a network."""
        network = self.plan.networks[wildcards.model]
        return sort_keys(
            {
                "model": {"name": network.name, **network.options},
                "training": {**self._shared_recipe, **network.recipe},
                "classes": self.classes(wildcards),
                "preprocessing": self.preprocessing,
            }
        )

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Settings of the preprocessing, to be compared with those of scans it is applied to.

        The skull-stripping tool that was used is recorded in the scans' sidecars.
        """
        skull = skull_settings(self.plan.settings)
        return sort_keys({**self.section(*_PREPROCESSING), "skull": skull})

    @property
    def _shared_recipe(self) -> dict[str, Any]:
        """Settings of the training that all networks share."""
        section = self.plan.settings["training"]
        return {key: value for key, value in section.items() if key not in _NO_RECIPE}

    def hyperparameters(self, wildcards: Any) -> dict[str, Any]:
        """Settings of the architecture and training of a network, in one flat mapping."""
        network = self.plan.networks[wildcards.model]
        return sort_keys({**network.options, **network.recipe, **self._shared_recipe})

    def code_of_training(self, wildcards: Any) -> str:
        """Fingerprint of the code that trains this network."""
        return self.plan.codes.of_training(wildcards.model)

    def memory(self, wildcards: Any, attempt: int) -> int:
        """Memory in MB of a training on a CPU."""
        at_1_mm = self.plan.networks[wildcards.model].mb_at_1_mm
        return of_grid(self.plan.settings["resolution_mm"], at_1_mm, 3000)(wildcards, attempt)

    def folds(self, pattern: str) -> Callable[[Any], list[str]]:
        """Input function: a file of every fold and seed of a cross-validation."""

        def paths(wildcards: Any) -> list[str]:
            folds = [split.name for split in self.plan.runs.task(wildcards).folds]
            seeds = self.plan.settings["training"]["seeds"]
            return layout.each(pattern, wildcards, split=folds, seed=seeds)

        return paths

    def fold_runs(self, wildcards: Any) -> list[list[int]]:
        """Repeat, fold and seed of each file of `folds`, in the same order."""
        names = [SplitName.parse(split.name) for split in self.plan.runs.task(wildcards).folds]
        seeds = self.plan.settings["training"]["seeds"]
        return [[name.repeat, name.fold, seed] for name in names for seed in seeds]

    def scans(self, wildcards: Any) -> list[list[str]]:
        """Cohort and image of the scans in a task's splits."""
        return [[cohort, image] for cohort, image, *_ in self.people(wildcards)]

    def volumes(self, wildcards: Any) -> list[str]:
        """Volumes of the scans in a task's splits, in the order of `scans`."""
        scans = self.scans(wildcards)
        return [self.plan.cohorts[name].files(layout.STORED, [image])[0] for name, image in scans]

    def areas(self, wildcards: Any) -> list[str]:
        """Path of the mean intensities of areas, for the baseline that needs them."""
        return [layout.fill(layout.AREA_MEANS, wildcards)] * (wildcards.baseline == AREAS)

    def ages_and_sexes(self, wildcards: Any) -> list[list[Any]]:
        """Age and sex of the people in a task's splits, for the baseline that needs them."""
        return self.people(wildcards) if wildcards.baseline == AGE_SEX else []

    def baseline_label(self, wildcards: Any) -> str:
        """Name of a baseline in tables and figures."""
        return BASELINES[wildcards.baseline]

    def all_predictions(self, wildcards: Any) -> list[str]:
        """The predictions of all networks of the run."""
        return [f"{run.folder}/predictions.tsv" for run in self.plan.runs.trainings]

    def all_networks(self, wildcards: Any) -> list[dict[str, Any]]:
        """The network of each file of `all_predictions`."""
        return [
            {
                **run.wildcards,
                "classes": list(run.network.of_task.classes),
                "model": run.network.label,
                "tested_on": run.split.test_cohort or run.network.of_task.cohort.name,
            }
            for run in self.plan.runs.trainings
        ]

    def all_baseline_predictions(self, wildcards: Any) -> list[str]:
        """The predictions of all baselines of the run."""
        baselines = self.plan.runs.baselines
        return [f"{layout.BASELINE}/predictions.tsv".format(**baseline) for baseline in baselines]

    def all_baselines(self, wildcards: Any) -> list[dict[str, Any]]:
        """The baseline of each file of `all_baseline_predictions`."""
        return [
            {
                **task.wildcards,
                "classes": list(task.classes),
                "model": BASELINES[baseline],
                "tested_on": {
                    split.name: split.test_cohort or task.cohort.name
                    for split in sorted(task.splits, key=lambda split: split.name)
                },
            }
            for task in self.plan.runs.tasks
            for baseline in task.baselines
        ]
