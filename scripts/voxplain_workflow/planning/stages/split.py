"""Jobs of splits: their audit, and the statistics of their training scans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from voxplain.cohort.scan import class_in
from voxplain_workflow.planning import layout
from voxplain_workflow.planning.cohorts import Cohort
from voxplain_workflow.planning.stages.stage import Stage
from voxplain_workflow.records import as_params
from voxplain_workflow.records.splits import SplitFiles, SplitScan


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

    def members(self, wildcards: Any) -> list[dict[str, Any]]:
        """Records of the scans of a split, training side first, see :class:`SplitScan`."""
        split, classes = self.split_of(wildcards), self.classes(wildcards)
        return as_params(
            SplitScan(
                image=image,
                patient=scan.patient,
                group=class_in(scan, classes),
                side=side,
                # Two cohorts may use the same image ids.
                cohort="" if cohort.name == wildcards.cohort else cohort.name,
                head=cohort.heads_of_patients.get(scan.patient, ""),
                volume=cohort.file(layout.STORED, image),
                quality=cohort.file(layout.QUALITY, image),
            )
            for side, cohort in self._sides(wildcards).items()
            for image in getattr(split, side)
            for scan in [cohort.scans[image]]
        )

    def failures_left(self, wildcards: Any) -> str:
        """Number of scans that may still fail under ``max_failed``; text, as it may be negative."""
        left, allowed = 0, self.plan.settings["max_failed"]
        cohort = self.cohort_of(wildcards)
        for name in {cohort.name, self.tested_cohort(wildcards).name}:
            lost, processed = len(self.plan.cohorts[name].lost), len(self.plan.cohorts[name].scans)
            left += int(allowed * (lost + processed) + 1e-9) - lost
        return str(left)

    def _splits(self, wildcards: Any) -> list[SplitFiles]:
        """The files of every split of a task."""
        return [
            SplitFiles(
                split=split,
                members=layout.fill(f"{layout.SPLIT}_members.tsv", wildcards, split=split),
                audit=layout.fill(f"{layout.SPLIT}_audit.json", wildcards, split=split),
            )
            for split in self.plan.splits[wildcards.cohort][wildcards.task]
        ]

    def splits(self, wildcards: Any) -> list[dict[str, Any]]:
        """Records of a task's splits, see :class:`SplitFiles`."""
        return as_params(self._splits(wildcards))

    def split_files(self, wildcards: Any) -> list[str]:
        """The tables and audits of a task's splits."""
        return [path for split in self._splits(wildcards) for path in (split.members, split.audit)]

    def members_by_split(self, wildcards: Any) -> dict[str, str]:
        """Split of a task to the table of its usable scans."""
        return {split.split: split.members for split in self._splits(wildcards)}

    def member_files(self, wildcards: Any) -> list[str]:
        """The tables of the usable scans of a task's splits."""
        return list(self.members_by_split(wildcards).values())

    def people(self, wildcards: Any) -> list[dict[str, Any]]:
        """Age and sex at each scan in a task's splits, see :class:`Person`."""
        return as_params(self.plan.runs.task(wildcards).people)

    @property
    def normalisation(self) -> dict[str, Any]:
        """Settings of the normalisation of voxels."""
        return self.section("normalisation")["normalisation"]
