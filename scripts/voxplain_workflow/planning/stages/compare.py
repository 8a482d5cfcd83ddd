"""Jobs that compare the methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from voxplain_workflow.planning import layout
from voxplain_workflow.planning.stages.relevance import RelevanceJobs


class CompareJobs(RelevanceJobs):
    """The jobs of ``rules/compare.smk``."""

    def means(self, suffix: str) -> Callable[[Any], list[str]]:
        """Input function: average heatmaps, or their sidecars, by method and then by class."""

        def paths(wildcards: Any) -> list[str]:
            lists = {"method": self.methods(wildcards), "group": self.classes(wildcards)}
            return layout.each(layout.MEAN, wildcards, **lists, suffix=[suffix])

        return paths

    @property
    def area_settings(self) -> dict[str, Any]:
        """Settings of the tables of areas."""
        return self.section("areas")["areas"]

    def runs(self, wildcards: Any) -> list[list[Any]]:
        """Split and seed of the networks whose average heatmaps are compared."""
        splits = [wildcards.several]
        if wildcards.several == layout.OF_FOLDS:
            splits = [split.name for split in self.plan.runs.task(wildcards).explained_folds]
        return [
            [split, seed] for split in splits for seed in self.plan.settings["training"]["seeds"]
        ]

    def means_of_runs(self, wildcards: Any) -> list[str]:
        """Average heatmaps of these networks, by method and then by class."""
        lists = {"method": self.methods(wildcards), "group": self.classes(wildcards)}
        return [
            path
            for split, seed in self.runs(wildcards)
            for path in layout.each(
                layout.MEAN, wildcards, split=[split], seed=[seed], **lists, suffix=["nii.gz"]
            )
        ]
