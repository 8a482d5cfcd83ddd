"""How well heatmaps find what was simulated."""

from __future__ import annotations

from typing import Any

from voxplain.cohort.twins import twin_image
from voxplain_workflow.planning import layout
from voxplain_workflow.planning.stages.relevance import RelevanceJobs


class LocaliseJobs(RelevanceJobs):
    """The jobs of ``rules/localise.smk``."""

    def truth_of_scan(self, wildcards: Any) -> str:
        """By what fraction each place of a simulated scan was changed, in scanner space."""
        folder = self.cohort_of(wildcards).planned[wildcards.image].folder
        return f"{layout.fill(layout.SOURCE, wildcards)}/truth/{folder}_truth.nii.gz"

    def twin(self, wildcards: Any) -> str:
        """The image id of a scan's healthy twin."""
        return twin_image(wildcards.image)

    def with_truth(self, wildcards: Any) -> list[str]:
        """The test scans of which it is known what was changed."""
        return self.plan.runs.with_truth(wildcards.cohort, self.split_of(wildcards))

    def truths(self, wildcards: Any) -> list[str]:
        """What was changed in them, in template space, in the same order."""
        return self.tested_cohort(wildcards).files(layout.TRUTH, self.with_truth(wildcards))

    def residuals(self, wildcards: Any) -> list[str]:
        """What is left of it after registration, where that is asked for."""
        if not self.plan.settings["localisation"]["residual"]:
            return []
        return self.tested_cohort(wildcards).files(layout.RESIDUAL, self.with_truth(wildcards))

    def maps_with_truth(self, wildcards: Any) -> list[str]:
        """Every method's heatmaps in the chunks that hold these scans."""
        return self.maps_of(wildcards, self.methods(wildcards), self.with_truth(wildcards))

    @property
    def _settings(self) -> dict[str, Any]:
        """Those of localisation, without what the inputs show and what nothing depends on."""
        settings = self.section("localisation")["localisation"]
        unused = [] if settings.pop("residual") else ["residual_threshold"]
        return {key: value for key, value in settings.items() if key not in unused}

    @property
    def scoring(self) -> dict[str, Any]:
        """What the score of one heatmap depends on; not how scores are averaged."""
        return {key: value for key, value in self._settings.items() if key != "draws"}

    @property
    def thresholds(self) -> dict[str, Any]:
        """From which value on a voxel belongs to a scan's own regions."""
        found = self._settings.items()
        return {key: value for key, value in found if key.endswith("_threshold")}
