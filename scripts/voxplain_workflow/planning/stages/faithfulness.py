"""How well heatmaps follow their network."""

from __future__ import annotations

from typing import Any

from voxplain_workflow.planning import layout
from voxplain_workflow.planning.stages.relevance import RelevanceJobs


class FaithfulnessJobs(RelevanceJobs):
    """The jobs of ``rules/faithfulness.smk``."""

    def _first(self, wildcards: Any, key: str) -> list[str]:
        task = self.plan.runs.task(wildcards)
        return self.plan.runs.first_scans(task, self.split_of(wildcards), key)

    def changed(self, wildcards: Any) -> list[str]:
        """The test scans whose areas are deleted and inserted."""
        return self._first(wildcards, "scans")

    def changed_volumes(self, wildcards: Any) -> list[str]:
        """Their volumes."""
        return self.tested_cohort(wildcards).files(layout.STORED, self.changed(wildcards))

    def changed_maps(self, wildcards: Any) -> list[str]:
        """Every method's heatmaps in the chunks that hold them."""
        return self.maps_of(wildcards, self.methods(wildcards), self.changed(wildcards))

    @property
    def changing(self) -> dict[str, Any]:
        """What deletion and insertion depend on, beside the network and the heatmaps."""
        keys = ("random_orders", "seed", "steps")
        section = self.plan.settings["faithfulness"]
        return {**{key: section[key] for key in keys}, "target": self.target}

    def code_of_changing(self, wildcards: Any) -> str:
        """The code that changes areas for this network, and no other network's."""
        return self.plan.codes.of_changing_areas(wildcards.model)

    def randomised(self, wildcards: Any) -> list[str]:
        """The test scans that are explained again while the network's layers are randomised."""
        return self._first(wildcards, "randomised_scans")

    def randomised_volumes(self, wildcards: Any) -> list[str]:
        """Their volumes."""
        return self.tested_cohort(wildcards).files(layout.STORED, self.randomised(wildcards))

    def randomised_maps(self, wildcards: Any) -> list[str]:
        """A method's heatmaps, by the network as it was trained, in the chunks that hold them."""
        return self.maps_of(wildcards, [wildcards.method], self.randomised(wildcards))

    def randomising(self, wildcards: Any) -> dict[str, Any]:
        """What the heatmaps of a randomised network depend on, beside the network."""
        return {**self.settings(wildcards), "seed": self.plan.settings["faithfulness"]["seed"]}

    def code_of_randomising(self, wildcards: Any) -> str:
        """The code that explains by this method, and no other method's."""
        return self.plan.codes.of_randomising(wildcards.model, wildcards.method)

    def randomised_methods(self, wildcards: Any) -> list[str]:
        """The methods that explain these scans."""
        return self.plan.methods.randomised(wildcards.model)

    def correlations(self, wildcards: Any) -> list[str]:
        """The rank correlations of each of these methods."""
        methods = self.randomised_methods(wildcards)
        return layout.each(f"{layout.METHOD}/randomisation.tsv", wildcards, method=methods)
