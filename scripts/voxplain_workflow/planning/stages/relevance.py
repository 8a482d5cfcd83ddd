"""Jobs of heatmaps of test scans, and of their averages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from voxplain_workflow.planning import layout
from voxplain_workflow.planning.stages.stage import Stage


class RelevanceJobs(Stage):
    """The jobs of ``rules/relevance.smk``."""

    @property
    def target(self) -> str:
        """The class that scans are explained for."""
        return self.plan.settings["heatmaps"]["target"]

    def settings(self, wildcards: Any) -> dict[str, Any]:
        """Settings of a method's heatmaps, beside the network."""
        options = self.plan.methods.options(wildcards.method, wildcards.model)
        return {"options": options, "target": self.target}

    def code_of_relevance(self, wildcards: Any) -> str:
        """Fingerprint of the code that explains this network by this method."""
        return self.plan.codes.of_explaining(wildcards.model, wildcards.method)

    def images(self, wildcards: Any) -> list[str]:
        """Image ids of a chunk of test scans, which one job explains."""
        return self.plan.chunk(self.split_of(wildcards).test, int(wildcards.chunk))

    def volumes(self, wildcards: Any) -> list[str]:
        """Volumes of a chunk of test scans."""
        return self.tested_cohort(wildcards).files(layout.STORED, self.images(wildcards))

    def areas(self, wildcards: Any) -> list[str]:
        """Path of the areas that area occlusion sets to 0; empty for other methods."""
        return [f"{layout.ATLAS}.nii.gz"] * (wildcards.method == "area_occlusion")

    def maps(self, wildcards: Any) -> list[str]:
        """A method's heatmaps of all test scans of a split."""
        return self.maps_of(wildcards, [wildcards.method])

    def maps_of(
        self, wildcards: Any, methods: Sequence[str], holding: Sequence[str] | None = None
    ) -> list[str]:
        """Heatmaps of a split by these methods, or only of chunks with scans of ``holding``."""
        chunks = self.plan.runs.chunks(self.split_of(wildcards), holding)
        return layout.each(layout.CHUNK, wildcards, method=methods, chunk=chunks)

    def summarised(self, wildcards: Any) -> list[str]:
        """Names of the methods that the summary combines; all of them for applied networks."""
        return self.plan.methods.summarised(getattr(wildcards, "model", None))

    def maps_to_summarise(self, wildcards: Any) -> list[str]:
        """Heatmaps of a chunk by the methods that the summary combines."""
        return layout.each(layout.CHUNK, wildcards, method=self.summarised(wildcards))

    def of_methods(self, pattern: str) -> Callable[[Any], list[str]]:
        """Input function: a file of every method that applies to the network."""

        def paths(wildcards: Any) -> list[str]:
            return list(files_by_method(pattern, wildcards, self.methods(wildcards)).values())

        return paths

    def by_method(self, pattern: str) -> Callable[[Any], dict[str, str]]:
        """Function: method to its file, for every method that applies to the network."""

        def paths(wildcards: Any) -> dict[str, str]:
            return files_by_method(pattern, wildcards, self.methods(wildcards))

        return paths


def files_by_method(pattern: str, wildcards: Any, methods: Sequence[str]) -> dict[str, str]:
    """Method to its file, in the order of the methods."""
    return {method: layout.fill(pattern, wildcards, method=method) for method in methods}
