"""Jobs of splits: their audit, and the statistics of their training scans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from voxplain.cohort.scan import class_in
from voxplain_workflow.planning import layout
from voxplain_workflow.planning.cohorts import Cohort
from voxplain_workflow.planning.stages.stage import Stage


class SplitJobs(Stage):
    """The jobs of ``rules/split.smk``."""

    def _sides(self, wildcards: Any) -> dict[str, Cohort]:
        """The cohort on each side of a split, training side first."""
        return {"train": self.cohort_of(wildcards), "test": self.tested_cohort(wildcards)}

    def files(self, pattern: str, *sides: str) -> Callable[[Any], list[str]]:
        """Input function: a file of every scan on the given sides of a split."""

        def paths(wildcards: Any) -> list[str]:
            split, cohorts = self.split_of(wildcards), self._sides(wildcards)
            return [
                path
                for side in sides
                for path in cohorts[side].files(pattern, getattr(split, side))
            ]

        return paths

    def members(self, wildcards: Any) -> list[list[str]]:
        """Image, patient, class, side, volume, other cohort and head of every scan of a split."""
        split, classes = self.split_of(wildcards), self.classes(wildcards)
        rows = []
        for side, cohort in self._sides(wildcards).items():
            # Two cohorts may use the same image ids.
            other = "" if cohort.name == wildcards.cohort else cohort.name
            for image in getattr(split, side):
                scan = cohort.scans[image]
                volume = layout.STORED.format(**cohort.entities(scan))
                row = [image, scan.patient, class_in(scan, classes), side, volume, other]
                rows.append([*row, cohort.heads_of_patients.get(scan.patient, "")])
        return rows

    def failures_left(self, wildcards: Any) -> str:
        """Number of scans that may still fail under ``max_failed``; text, as it may be negative."""
        left, allowed = 0, self.plan.settings["max_failed"]
        cohort = self.cohort_of(wildcards)
        for name in {cohort.name, self.tested_cohort(wildcards).name}:
            lost, processed = len(self.plan.cohorts[name].lost), len(self.plan.cohorts[name].scans)
            left += int(allowed * (lost + processed) + 1e-9) - lost
        return str(left)

    def every(self, pattern: str) -> Callable[[Any], list[str]]:
        """Input function: a file of every split of a task."""

        def paths(wildcards: Any) -> list[str]:
            return layout.each(pattern, wildcards, split=self.names(wildcards))

        return paths

    def names(self, wildcards: Any) -> list[str]:
        """The names of a task's splits, in the order of the paths of `every`."""
        return list(self.plan.splits[wildcards.cohort][wildcards.task])

    def people(self, wildcards: Any) -> list[list[Any]]:
        """Cohort, image, age and sex of the scans in a task's splits."""
        return list(self.plan.runs.task(wildcards).people)

    @property
    def normalisation(self) -> dict[str, Any]:
        """Settings of the normalisation of voxels."""
        return self.section("normalisation")["normalisation"]
