"""Base class of the stages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from voxplain.cohort.splits import Split
from voxplain_workflow.planning.settings import sort_keys

if TYPE_CHECKING:
    from voxplain_workflow.planning.cohorts import Cohort
    from voxplain_workflow.planning.plan import Plan


class Stage:
    """The jobs of one file of rules.

    Parameters
    ----------
    plan
        Plan of the run.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def section(self, *keys: str) -> dict[str, Any]:
        """Sections of the settings, sorted by key, as params of a job."""
        return sort_keys({key: self.plan.settings[key] for key in keys})

    def code(self, script: str) -> str:
        """The fingerprint of a script that selects no network and no method by name."""
        return self.plan.codes.of_script(script)

    def cohort_of(self, wildcards: Any) -> Cohort:
        """The cohort of a job."""
        return self.plan.cohorts[wildcards.cohort]

    def split_of(self, wildcards: Any) -> Split:
        """The split of a job."""
        return self.plan.splits[wildcards.cohort][wildcards.task][wildcards.split]

    def tested_cohort(self, wildcards: Any) -> Cohort:
        """The cohort on a split's test side: another cohort in an external test."""
        return self.plan.tested_cohort(wildcards.cohort, self.split_of(wildcards))

    def classes(self, wildcards: Any) -> list[str]:
        """The classes of a task, the disease first."""
        return list(self.plan.tasks[wildcards.task])

    def label(self, wildcards: Any) -> str:
        """Name of a network in tables and figures."""
        return self.plan.networks[wildcards.model].label

    def methods(self, wildcards: Any) -> list[str]:
        """The explanation methods that apply to a network."""
        return self.plan.methods.of(wildcards.model)
