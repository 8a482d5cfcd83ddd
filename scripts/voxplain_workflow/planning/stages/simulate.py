"""Jobs of simulated cohorts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from voxplain_workflow.planning import layout
from voxplain_workflow.planning.settings import skull_settings, sort_keys
from voxplain_workflow.planning.stages.stage import Stage
from voxplain_workflow.records import as_params
from voxplain_workflow.records.scans import SimulatedScan

# Settings without effect at severity 0, set to fixed values there: changing them reruns nothing.
_NO_DISEASE = {"max_loss": 0, "extent": 1, "asymmetry": 0, "spread": 0}
# The options of each kind of shortcut.
_OF_SHORTCUT = {"none": (), "mark": ("strength",), "scanner": ("area", "strength", "sd_mm")}


class SimulateJobs(Stage):
    """The jobs of ``rules/simulate.smk``."""

    def users_head(self, wildcards: Any) -> str:
        """Path of the volume of a user's head."""
        return self.cohort_of(wildcards).head_volumes[wildcards.head]

    @property
    def skull(self) -> dict[str, Any]:
        """Settings of the brain mask of a user's head."""
        return skull_settings(self.plan.settings)

    def head(self, part: str) -> Callable[[Any], str]:
        """Input function: a file of the head from which a scan is simulated."""

        def path(wildcards: Any) -> str:
            head = self.cohort_of(wildcards).plan_of(wildcards.image).head
            return layout.fill(layout.head_file(part), wildcards, head=head)

        return path

    def planned(self, wildcards: Any) -> dict[str, Any]:
        """The plan of one simulated scan."""
        return self.cohort_of(wildcards).plan_of(wildcards.image).as_dict()

    def settings(self, wildcards: Any) -> dict[str, Any]:
        """Settings of the simulation of a scan beside its plan, without unused options."""
        cohort = self.cohort_of(wildcards)
        planned, simulation = cohort.plan_of(wildcards.image), cohort.settings["simulation"]
        settings = {key: dict(simulation[key]) for key in ("atrophy", "scanner", "shortcut")}
        if planned.severity == 0:
            # The areas stay: they are measured in healthy scans as well.
            settings["atrophy"] |= _NO_DISEASE
        if settings["scanner"]["motion"]["share"] == 0:
            settings["scanner"]["motion"] = {"share": 0}
        # The area stays: it is measured in scans without the shortcut as well.
        shortcut = settings["shortcut"]
        options = [
            key for key in _OF_SHORTCUT[shortcut["kind"]] if planned.shortcut or key == "area"
        ]
        settings["shortcut"] = {key: shortcut[key] for key in ("kind", *options)}
        return sort_keys(settings)

    def rows(self, wildcards: Any) -> list[dict[str, str]]:
        """Rows of the table of a simulated cohort."""
        return [scan.table_row() for scan in self.cohort_of(wildcards).planned.values()]

    def _scans(self, wildcards: Any) -> list[SimulatedScan]:
        """The scans that are simulated."""
        cohort, place = self.cohort_of(wildcards), f"{layout.fill(layout.SOURCE, wildcards)}/truth"
        planned = [cohort.planned[image] for image in cohort.scans]
        return [
            SimulatedScan(
                image=scan.image,
                patient=scan.subject,
                group=scan.group,
                head=scan.head,
                measures=f"{place}/{scan.folder}_truth.json",
            )
            for scan in planned
        ]

    def scans(self, wildcards: Any) -> list[dict[str, Any]]:
        """Records of the scans that are simulated, see :class:`SimulatedScan`."""
        return as_params(self._scans(wildcards))

    def measures(self, wildcards: Any) -> list[str]:
        """The files with the measured volumes of each scan's areas."""
        return [scan.measures for scan in self._scans(wildcards)]

    def reference(self, wildcards: Any) -> str:
        """The reference group of comparisons: the last healthy one, or else the last one."""
        groups = self.cohort_of(wildcards).settings["simulation"]["groups"]
        simulated = {scan.group for scan in self._scans(wildcards)}
        present = [group for group in groups if group in simulated]
        healthy = [group for group in present if not any(groups[group]["severity"])]
        return (healthy or present)[-1]
