"""Jobs of networks and baselines, and of their evaluation."""

from __future__ import annotations

from typing import Any

from voxplain.cohort.demographics import AGE_SEX, AREAS, BASELINES
from voxplain.cohort.split_names import SplitName
from voxplain_workflow.planning import layout
from voxplain_workflow.planning.resources import of_grid
from voxplain_workflow.planning.settings import skull_settings, sort_keys
from voxplain_workflow.planning.stages.split import SplitJobs
from voxplain_workflow.records import as_params
from voxplain_workflow.records.networks import EvaluatedBaseline, EvaluatedNetwork, FoldFiles
from voxplain_workflow.records.scans import TaskScan

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

    def _folds(self, wildcards: Any) -> list[FoldFiles]:
        """The networks of a cross-validation, one for each fold and seed."""
        files = {name: f"{layout.RUN}/{name}.tsv" for name in ("predictions", "history")}
        folds = []
        for split in self.plan.runs.task(wildcards).folds:
            name = SplitName.parse(split.name)
            for seed in self.plan.settings["training"]["seeds"]:
                run = {"split": split.name, "seed": seed}
                paths = {key: layout.fill(path, wildcards, **run) for key, path in files.items()}
                folds.append(FoldFiles(name.repeat, name.fold, seed, **paths))
        return folds

    def folds(self, wildcards: Any) -> list[dict[str, Any]]:
        """Records of the networks of a cross-validation, see :class:`FoldFiles`."""
        return as_params(self._folds(wildcards))

    def fold_files(self, wildcards: Any) -> list[str]:
        """Predictions and histories of the networks of a cross-validation."""
        return [
            path for fold in self._folds(wildcards) for path in (fold.predictions, fold.history)
        ]

    def _scans(self, wildcards: Any) -> list[TaskScan]:
        """The scans in a task's splits."""
        return [
            TaskScan(
                cohort=person.cohort,
                image=person.image,
                volume=self.plan.cohorts[person.cohort].file(layout.STORED, person.image),
            )
            for person in self.plan.runs.task(wildcards).people
        ]

    def scans(self, wildcards: Any) -> list[dict[str, Any]]:
        """Records of the scans in a task's splits, see :class:`TaskScan`."""
        return as_params(self._scans(wildcards))

    def volumes(self, wildcards: Any) -> list[str]:
        """Volumes of the scans in a task's splits."""
        return [scan.volume for scan in self._scans(wildcards)]

    def areas(self, wildcards: Any) -> list[str]:
        """Path of the mean intensities of areas, for the baseline that needs them."""
        return [layout.fill(layout.AREA_MEANS, wildcards)] * (wildcards.baseline == AREAS)

    def ages_and_sexes(self, wildcards: Any) -> list[dict[str, Any]]:
        """Age and sex at each scan in a task's splits, for the baseline that needs them."""
        return self.people(wildcards) if wildcards.baseline == AGE_SEX else []

    def baseline_label(self, wildcards: Any) -> str:
        """Name of a baseline in tables and figures."""
        return BASELINES[wildcards.baseline]

    @property
    def _networks(self) -> list[EvaluatedNetwork]:
        """All trained networks of the run."""
        return [
            EvaluatedNetwork(
                **run.network.of_task.wildcards,
                classes=list(run.network.of_task.classes),
                model=run.network.label,
                split=run.split.name,
                seed=run.seed,
                tested_on=run.split.test_cohort or run.network.of_task.cohort.name,
                predictions=f"{run.folder}/predictions.tsv",
            )
            for run in self.plan.runs.trainings
        ]

    @property
    def _baselines(self) -> list[EvaluatedBaseline]:
        """All baselines of the run."""
        pattern = f"{layout.BASELINE}/predictions.tsv"
        return [
            EvaluatedBaseline(
                **task.wildcards,
                classes=list(task.classes),
                model=BASELINES[baseline],
                tested_on={
                    split.name: split.test_cohort or task.cohort.name
                    for split in sorted(task.splits, key=lambda split: split.name)
                },
                predictions=layout.fill(pattern, task.wildcards, baseline=baseline),
            )
            for task in self.plan.runs.tasks
            for baseline in task.baselines
        ]

    def tested_networks(self, wildcards: Any) -> list[dict[str, Any]]:
        """Records of all trained networks of the run, see :class:`EvaluatedNetwork`."""
        return as_params(self._networks)

    def tested_baselines(self, wildcards: Any) -> list[dict[str, Any]]:
        """Records of all baselines of the run, see :class:`EvaluatedBaseline`."""
        return as_params(self._baselines)

    def all_predictions(self, wildcards: Any) -> list[str]:
        """The predictions of all networks and baselines of the run."""
        return [tested.predictions for tested in (*self._networks, *self._baselines)]
