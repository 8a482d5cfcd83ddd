"""Jobs that apply trained networks to new scans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from voxplain_workflow.planning import layout
from voxplain_workflow.planning.stages.relevance import RelevanceJobs
from voxplain_workflow.planning.stages.train import TrainJobs
from voxplain_workflow.records import as_params
from voxplain_workflow.records.scans import NewScan


class ApplyJobs(RelevanceJobs, TrainJobs):
    """The jobs of ``rules/apply.smk``."""

    def network(self, wildcards: Any) -> str:
        """Absolute path of the file of a trained network, which no rule makes."""
        return str(Path(self.plan.settings["apply"]["networks"][wildcards.network]).absolute())

    def new_scans(self, wildcards: Any) -> list[str]:
        """Image ids of a chunk of new scans, which one job explains."""
        return self.plan.chunk(list(self.cohort_of(wildcards).scans), int(wildcards.chunk))

    def new_volumes(self, wildcards: Any) -> list[str]:
        """Volumes of a chunk of new scans."""
        return self.cohort_of(wildcards).files(layout.STORED, self.new_scans(wildcards))

    def new_settings(self, wildcards: Any) -> dict[str, Any]:
        """Settings of the heatmaps of new scans; the network is an input file."""
        return {"options": self.plan.methods.options(wildcards.method), "target": self.target}

    def code_of_new_scans(self, wildcards: Any) -> str:
        """Fingerprint of the code that explains new scans by a method, for any network."""
        return self.plan.codes.of_explaining(None, wildcards.method)

    def new_maps(self, wildcards: Any) -> list[str]:
        """The heatmaps of all chunks of new scans."""
        numbers = self.plan.chunk_numbers(list(self.cohort_of(wildcards).scans))
        return layout.each(layout.APPLIED_CHUNK, wildcards, chunk=numbers)

    def new_maps_to_summarise(self, wildcards: Any) -> list[str]:
        """Heatmaps of a chunk of new scans by the methods that the summary combines."""
        return layout.each(layout.APPLIED_CHUNK, wildcards, method=self.summarised(wildcards))

    def cohort_volumes(self, wildcards: Any) -> list[str]:
        """Volumes of all processed scans."""
        return self.cohort_of(wildcards).files(layout.STORED)

    def qualities(self, wildcards: Any) -> list[str]:
        """Quality sidecars of all processed scans."""
        return self.cohort_of(wildcards).files(layout.QUALITY)

    def predicted_scans(self, wildcards: Any) -> list[dict[str, Any]]:
        """Records of all processed scans, see :class:`NewScan`."""
        cohort = self.cohort_of(wildcards)
        return as_params(
            NewScan(
                image=scan.image,
                patient=scan.patient,
                group=scan.group,
                volume=cohort.file(layout.STORED, scan.image),
                quality=cohort.file(layout.QUALITY, scan.image),
            )
            for scan in cohort.scans.values()
        )

    @property
    def code_of_applying(self) -> str:
        """Fingerprint of the code that applies a network."""
        return self.plan.codes.of_applying()
