"""The input files of the target rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from voxplain.faults import SetupFault
from voxplain_workflow.planning import layout
from voxplain_workflow.planning.checks import check_apply, check_device
from voxplain_workflow.planning.runs import Explained, TaskRun, retrained_folders
from voxplain_workflow.planning.stages.stage import Stage


class Targets(Stage):
    """The inputs of the target rules in the ``Snakefile``."""

    @property
    def temporary(self) -> list[str]:
        """Patterns of the outputs that Snakemake removes when all jobs that need them are done."""
        settings = self.plan.settings
        files = [] if settings["keep_intermediates"] else list(layout.INTERMEDIATES)
        return files + [layout.CHUNK] * (not settings["heatmaps"]["keep_scans"])

    def simulated(self, wildcards: Any) -> list[str]:
        """The simulated cohorts' tables, and the DICOM of the classes that take part."""
        cohorts = [self.plan.cohorts[name] for name in self.plan.simulated]
        trees = [scan.place for cohort in cohorts for scan in cohort.scans.values()]
        return trees + _each(self.plan.simulated, layout.SIMULATED_TABLE)

    def converted(self, wildcards: Any) -> list[str]:
        """The volume of every scan."""
        return [path for cohort in self.plan.cohorts.values() for path in cohort.files(layout.T1W)]

    def preprocessed(self, wildcards: Any) -> list[str]:
        """The table of every cohort, and the page of its quality control."""
        return _each(self.plan.cohorts, layout.SCANS, layout.QUALITY_PAGE)

    def all(self, wildcards: Any) -> list[str]:
        """The results of a whole run; raises the plan's fault of splits, networks or device."""
        runs = self.plan.runs
        # The table of a simulated cohort is a result, as the table of real scans is an input.
        paths = _each(self.plan.simulated, layout.SIMULATED_TABLE, layout.SIMULATION)
        paths += _each(self.plan.cohorts, layout.QUALITY_GATE, layout.QUALITY_PAGE)
        paths += [path for task in runs.tasks for path in self._of_task(task)]
        paths += [f"{network.folder}/cross_validation.tsv" for network in runs.networks]
        paths += [f"{run.folder}/metrics.json" for run in runs.trainings]
        paths += [path for run in runs.explained for path in self._of_heatmaps(run)]
        paths += [f"{folder}/retraining.tsv" for folder in retrained_folders(runs.networks)]
        if self.plan.settings["training"]["tensorboard"]:
            paths += [layout.EVENTS.format(**run.wildcards) for run in runs.trainings]
        paths += [layout.SUMMARY] * bool(runs.trainings)
        paths += [layout.TRUST, layout.VIEWER] * bool(runs.explained)
        return [*paths, layout.REPORT]

    def _of_task(self, task: TaskRun) -> list[str]:
        pattern = f"{layout.BASELINE}/cross_validation.tsv"
        tables = layout.each(pattern, task.wildcards, baseline=task.baselines)
        return [f"{task.folder}/splits.tsv", *tables]

    def _of_heatmaps(self, run: Explained) -> list[str]:
        """The comparison of methods for one training, and the heatmaps that are kept."""
        paths = [f"{run.folder}/{table}.tsv" for table in run.tables]
        paths += [f"{run.folder}/truth.png"] * bool(run.with_truth)
        if self.plan.settings["heatmaps"]["keep_scans"]:
            lists = {"method": run.network.methods, "chunk": self.plan.runs.chunks(run.split)}
            paths += layout.each(layout.CHUNK, run.wildcards, **lists)
        return paths

    def applied(self, wildcards: Any) -> list[str]:
        """Predictions, heatmaps and areas of new scans by trained networks."""
        settings = self.plan.settings
        try:
            if self.plan.local:
                check_device(settings["device"])
            check_apply(settings, self.plan.cohorts)
        except SetupFault as fault:
            raise SystemExit(str(fault)) from None
        cohorts = settings["apply"]["cohorts"]
        paths = layout.each(layout.SCANS, cohort=cohorts)
        lists = {"network": list(settings["apply"]["networks"]), "method": self.plan.methods.of()}
        for cohort in cohorts:
            wildcards = {"cohort": cohort}
            chunks = self.plan.chunk_numbers(list(self.plan.cohorts[cohort].scans))
            paths += layout.each(f"{layout.APPLIED}/predictions.tsv", wildcards, **lists)
            paths += layout.each(f"{layout.APPLIED}/{{method}}/areas.tsv", wildcards, **lists)
            paths += layout.each(layout.APPLIED_CHUNK, wildcards, **lists, chunk=chunks)
        return paths


def _each(cohorts: Iterable[str], *patterns: str) -> list[str]:
    """A file of every cohort, pattern by pattern."""
    return [path for pattern in patterns for path in layout.each(pattern, cohort=cohorts)]
