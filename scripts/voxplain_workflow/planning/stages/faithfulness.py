"""Jobs that measure how faithful heatmaps are to their network."""

from __future__ import annotations

from typing import Any

from voxplain_workflow.planning import layout
from voxplain_workflow.planning.stages.relevance import RelevanceJobs, files_by_method


class FaithfulnessJobs(RelevanceJobs):
    """The jobs of ``rules/faithfulness.smk``."""

    def _first(self, wildcards: Any, key: str) -> list[str]:
        task = self.plan.runs.task(wildcards)
        return self.plan.runs.first_scans(task, self.split_of(wildcards), key)

    def changed(self, wildcards: Any) -> list[str]:
        """Image ids of the test scans whose areas are deleted and inserted."""
        return self._first(wildcards, "scans")

    def changed_volumes(self, wildcards: Any) -> list[str]:
        """Volumes of the test scans whose areas are changed."""
        return self.tested_cohort(wildcards).files(layout.STORED, self.changed(wildcards))

    def changed_maps(self, wildcards: Any) -> list[str]:
        """Heatmaps by every method, for the chunks with scans whose areas are changed."""
        return self.maps_of(wildcards, self.methods(wildcards), self.changed(wildcards))

    @property
    def changing(self) -> dict[str, Any]:
        """Settings of deletion and insertion, beside the network and the heatmaps."""
        keys = ("random_orders", "seed", "steps")
        section = self.plan.settings["faithfulness"]
        return {**{key: section[key] for key in keys}, "target": self.target}

    def code_of_changing(self, wildcards: Any) -> str:
        """Fingerprint of the code that changes areas for this network."""
        return self.plan.codes.of_changing_areas(wildcards.model)

    def randomised(self, wildcards: Any) -> list[str]:
        """Image ids of the test scans that are explained by randomised networks."""
        return self._first(wildcards, "randomised_scans")

    def randomised_volumes(self, wildcards: Any) -> list[str]:
        """Volumes of the test scans that are explained by randomised networks."""
        return self.tested_cohort(wildcards).files(layout.STORED, self.randomised(wildcards))

    def randomised_maps(self, wildcards: Any) -> list[str]:
        """A method's heatmaps of the trained network, for the chunks with these scans."""
        return self.maps_of(wildcards, [wildcards.method], self.randomised(wildcards))

    def randomising(self, wildcards: Any) -> dict[str, Any]:
        """Settings of the heatmaps of a randomised network."""
        return {**self.settings(wildcards), "seed": self.plan.settings["faithfulness"]["seed"]}

    def code_of_randomising(self, wildcards: Any) -> str:
        """Fingerprint of the code that explains randomised networks by this method."""
        return self.plan.codes.of_randomising(wildcards.model, wildcards.method)

    def correlations(self, wildcards: Any) -> dict[str, str]:
        """Method to its table of rank correlations with heatmaps of randomised networks."""
        pattern = f"{layout.METHOD}/randomisation.tsv"
        methods = self.plan.methods.randomised(wildcards.model)
        return files_by_method(pattern, wildcards, methods)

    def correlation_files(self, wildcards: Any) -> list[str]:
        """These tables."""
        return list(self.correlations(wildcards).values())
