"""Jobs that measure how well heatmaps find the simulated changes."""

from __future__ import annotations

from typing import Any

from voxplain.cohort.twins import twin_image
from voxplain_workflow.planning import layout
from voxplain_workflow.planning.stages.relevance import RelevanceJobs
from voxplain_workflow.records import as_params
from voxplain_workflow.records.scans import TrueScan


class LocaliseJobs(RelevanceJobs):
    """The jobs of ``rules/localise.smk``."""

    def truth_of_scan(self, wildcards: Any) -> str:
        """Path of a scan's ground truth: the fraction of change per voxel, in scanner space."""
        folder = self.cohort_of(wildcards).planned[wildcards.image].folder
        return f"{layout.fill(layout.SOURCE, wildcards)}/truth/{folder}_truth.nii.gz"

    def twin(self, wildcards: Any) -> str:
        """The image id of a scan's healthy twin."""
        return twin_image(wildcards.image)

    def _with_truth(self, wildcards: Any) -> list[TrueScan]:
        """The test scans with ground truth; with residuals only if they are measured."""
        cohort = self.tested_cohort(wildcards)
        measured = self.plan.settings["localisation"]["residual"]
        return [
            TrueScan(
                image=image,
                truth=cohort.file(layout.TRUTH, image),
                residual=cohort.file(layout.RESIDUAL, image) if measured else None,
            )
            for image in self.plan.runs.with_truth(wildcards.cohort, self.split_of(wildcards))
        ]

    def with_truth(self, wildcards: Any) -> list[dict[str, Any]]:
        """Records of the test scans with ground truth, see :class:`TrueScan`."""
        return as_params(self._with_truth(wildcards))

    def truths(self, wildcards: Any) -> list[str]:
        """Their ground truth in template space, and their residuals."""
        scans = self._with_truth(wildcards)
        return [path for scan in scans for path in (scan.truth, scan.residual) if path]

    def maps_with_truth(self, wildcards: Any) -> list[str]:
        """Heatmaps by every method, for the chunks with these scans."""
        images = [scan.image for scan in self._with_truth(wildcards)]
        return self.maps_of(wildcards, self.methods(wildcards), images)

    @property
    def _settings(self) -> dict[str, Any]:
        """Settings of localisation, without unused keys and ``residual`` (see the inputs)."""
        settings = self.section("localisation")["localisation"]
        unused = [] if settings.pop("residual") else ["residual_threshold"]
        return {key: value for key, value in settings.items() if key not in unused}

    @property
    def scoring(self) -> dict[str, Any]:
        """Settings of the score of one heatmap, without those of the averages."""
        return {key: value for key, value in self._settings.items() if key != "draws"}

    @property
    def thresholds(self) -> dict[str, Any]:
        """Thresholds above which a voxel belongs to the truth or the residual of a scan."""
        items = self._settings.items()
        return {key: value for key, value in items if key.endswith("_threshold")}
