"""New scans, by networks that are trained already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from voxplain_workflow.planning import layout
from voxplain_workflow.planning.splits import chunk_numbers, chunked
from voxplain_workflow.planning.stages.relevance import RelevanceJobs
from voxplain_workflow.planning.stages.train import TrainJobs


class ApplyJobs(RelevanceJobs, TrainJobs):
    """The jobs of ``rules/apply.smk``."""

    def network(self, wildcards: Any) -> str:
        """A trained network's file.

        Its path is absolute: it is there, or it is not; no rule here makes it.
        """
        return str(Path(self.plan.settings["apply"]["networks"][wildcards.network]).absolute())

    def new_scans(self, wildcards: Any) -> list[str]:
        """The scans of a chunk, which one job explains."""
        size = self.plan.settings["heatmaps"]["chunk_size"]
        return chunked(list(self.cohort_of(wildcards).scans), size)[int(wildcards.chunk) - 1]

    def new_volumes(self, wildcards: Any) -> list[str]:
        """Their volumes."""
        return self.cohort_of(wildcards).files(layout.STORED, self.new_scans(wildcards))

    def new_settings(self, wildcards: Any) -> dict[str, Any]:
        """What the heatmaps of new scans depend on; the network's file says which network it is."""
        return {"options": self.plan.methods.options(wildcards.method), "target": self.target}

    def code_of_new_scans(self, wildcards: Any) -> str:
        """The code that explains new scans by a method, whatever the network."""
        return self.plan.codes.of_explaining(None, wildcards.method)

    def new_maps(self, wildcards: Any) -> list[str]:
        """The heatmaps of all chunks of new scans."""
        scans = list(self.cohort_of(wildcards).scans)
        numbers = chunk_numbers(scans, self.plan.settings["heatmaps"]["chunk_size"])
        return layout.each(layout.APPLIED_CHUNK, wildcards, chunk=numbers)

    def new_maps_to_summarise(self, wildcards: Any) -> list[str]:
        """A chunk's heatmaps by every method of the summary."""
        return layout.each(layout.APPLIED_CHUNK, wildcards, method=self.summarised(wildcards))

    def cohort_volumes(self, wildcards: Any) -> list[str]:
        """The volumes of every processed scan."""
        return self.cohort_of(wildcards).files(layout.STORED)

    def qualities(self, wildcards: Any) -> list[str]:
        """The quality of every processed scan."""
        return self.cohort_of(wildcards).files(layout.QUALITY)

    def rows(self, wildcards: Any) -> list[list[str]]:
        """Image, patient, the table's group and volume of every processed scan."""
        cohort = self.cohort_of(wildcards)
        return [
            [scan.image, scan.patient, scan.group, layout.STORED.format(**cohort.entities(scan))]
            for scan in cohort.scans.values()
        ]

    @property
    def code_of_applying(self) -> str:
        """The code that applies any network."""
        return self.plan.codes.of_applying()
