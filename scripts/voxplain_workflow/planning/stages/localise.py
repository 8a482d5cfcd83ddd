"""Jobs that measure how well heatmaps find the simulated changes."""

from __future__ import annotations

from typing import Any

from voxplain.cohort.twins import twin_image
from voxplain_workflow.planning import layout
from voxplain_workflow.planning.stages.relevance import RelevanceJobs


class LocaliseJobs(RelevanceJobs):
    """The jobs of ``rules/localise.smk``."""

    def truth_of_scan(self, wildcards: Any) -> str:
        """Path of a scan's ground truth: the fraction of change per voxel, in scanner space."""
        folder = self.cohort_of(wildcards).planned[wildcards.image].folder
        return f"{layout.fill(layout.SOURCE, wildcards)}/truth/{folder}_truth.nii.gz"

    def twin(self, wildcards: Any) -> str:
        """The image id of a scan's healthy twin."""
        return twin_image(wildcards.image)

    def with_truth(self, wildcards: Any) -> list[str]:
        """Image ids of the test scans with ground truth."""
        return self.plan.runs.with_truth(wildcards.cohort, self.split_of(wildcards))

    def truths(self, wildcards: Any) -> list[str]:
        """Paths of their ground truth in template space, in the order of `with_truth`."""
        return self.tested_cohort(wildcards).files(layout.TRUTH, self.with_truth(wildcards))

    def residuals(self, wildcards: Any) -> list[str]:
        """Paths of their residuals in the order of `with_truth`; empty without ``residual``."""
        if not self.plan.settings["localisation"]["residual"]:
            return []
        return self.tested_cohort(wildcards).files(layout.RESIDUAL, self.with_truth(wildcards))

    def maps_with_truth(self, wildcards: Any) -> list[str]:
        """Heatmaps by every method, for the chunks with these scans."""
        return self.maps_of(wildcards, self.methods(wildcards), self.with_truth(wildcards))

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
