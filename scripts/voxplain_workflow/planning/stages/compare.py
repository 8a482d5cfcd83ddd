"""Jobs that compare the methods."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from voxplain_workflow.planning import layout
from voxplain_workflow.planning.stages.relevance import RelevanceJobs
from voxplain_workflow.records import as_params
from voxplain_workflow.records.heatmaps import MeanHeatmap


class CompareJobs(RelevanceJobs):
    """The jobs of ``rules/compare.smk``."""

    def _means(self, wildcards: Any, split: str, seed: int) -> list[MeanHeatmap]:
        """The average heatmaps of a network, by method and then by class."""
        means = []
        for method in self.methods(wildcards):
            for group in self.classes(wildcards):
                fields = {"split": split, "seed": seed, "method": method, "group": group}
                heatmap, sidecar = (
                    layout.fill(layout.MEAN, wildcards, **fields, suffix=suffix)
                    for suffix in ("nii.gz", "json")
                )
                means.append(MeanHeatmap(**fields, heatmap=heatmap, sidecar=sidecar))
        return means

    def means(self, wildcards: Any) -> list[dict[str, Any]]:
        """Records of the average heatmaps of a network, see :class:`MeanHeatmap`."""
        return as_params(self._means(wildcards, wildcards.split, int(wildcards.seed)))

    def mean_files(self, wildcards: Any) -> list[str]:
        """The average heatmaps of a network, and their sidecars."""
        return _files(self._means(wildcards, wildcards.split, int(wildcards.seed)))

    @property
    def area_settings(self) -> dict[str, Any]:
        """Settings of the tables of areas."""
        return self.section("areas")["areas"]

    def _means_of_runs(self, wildcards: Any) -> list[MeanHeatmap]:
        """The average heatmaps of the networks of several folds or seeds."""
        splits = [wildcards.several]
        if wildcards.several == layout.OF_FOLDS:
            splits = [split.name for split in self.plan.runs.task(wildcards).explained_folds]
        return [
            mean
            for split in splits
            for seed in self.plan.settings["training"]["seeds"]
            for mean in self._means(wildcards, split, seed)
        ]

    def means_of_runs(self, wildcards: Any) -> list[dict[str, Any]]:
        """Records of the average heatmaps that are compared, see :class:`MeanHeatmap`."""
        return as_params(self._means_of_runs(wildcards))

    def mean_files_of_runs(self, wildcards: Any) -> list[str]:
        """The average heatmaps that are compared, and their sidecars."""
        return _files(self._means_of_runs(wildcards))


def _files(means: Iterable[MeanHeatmap]) -> list[str]:
    return [path for mean in means for path in (mean.heatmap, mean.sidecar)]
