"""Jobs of the pages of a run."""

from __future__ import annotations

from typing import Any

from voxplain_workflow.planning import layout
from voxplain_workflow.planning.runs import Explained, retrained_folders
from voxplain_workflow.planning.settings import name_repeats, sort_keys
from voxplain_workflow.planning.splits import choose_first
from voxplain_workflow.planning.stages.train import TrainJobs

_TABLES_OF_COHORT = ("scans.tsv", "scans_people.tsv", "scans_oddities.tsv", "scans_flagged.tsv")
_TABLES_OF_TASK = ("splits_counts.tsv", "leakage_audit.tsv")


class ReportJobs(TrainJobs):
    """The jobs of ``rules/trust.smk`` and ``rules/report.smk``."""

    # --- trust ---

    def scores(self, wildcards: Any) -> list[str]:
        """Tables of localisation scores: of each method, and of the group difference."""
        runs = self.plan.runs.explained
        paths = [f"{run.folder}/{m}/localisation.tsv" for run in runs for m in run.network.methods]
        return paths + sorted({layout.fill(layout.DIFFERENCE, run.wildcards) for run in runs})

    def tables(self, wildcards: Any) -> list[str]:
        """Tables of faithfulness and of retraining for each network's heatmaps."""
        paths: dict[str, None] = {}
        for run in self.plan.runs.explained:
            tables = ["area_changes", "faithfulness"] * bool(run.changed)
            tables += ["randomisation"] * bool(run.forgetting)
            paths |= dict.fromkeys(f"{run.folder}/{name}.tsv" for name in tables)
            if run.split.name in run.network.several:
                paths[f"{run.network.folder}/{run.split.name}/retraining.tsv"] = None
        return list(paths)

    def truth_pictures(self, wildcards: Any) -> list[str]:
        """Pictures of truth and heatmaps, of each network's first training with ground truth."""
        runs = self.plan.runs
        return [f"{run.folder}/truth.png" for run in runs.first_explained(with_truth=True)]

    def simulations(self, wildcards: Any) -> list[str]:
        """Pictures of the simulated effects, for each simulated cohort that is explained."""
        cohorts = [run.network.of_task.cohort for run in self.plan.runs.explained]
        names = dict.fromkeys(cohort.name for cohort in cohorts if cohort.simulated)
        return layout.each(f"{layout.COHORT}/simulation.png", cohort=names)

    def runs(self, wildcards: Any) -> list[dict[str, Any]]:
        """All trainings whose test scans get heatmaps, as parameters of pages."""
        return [run.as_dict() for run in self.plan.runs.explained]

    def effects(self, wildcards: Any) -> dict[str, dict[str, Any]]:
        """Cohort to the effects that distinguish its classes, and the name shared with repeats.

        The effects of real scans are unknown: None.
        """
        names = name_repeats(self.plan.settings["cohorts"])
        effects: dict[str, dict[str, Any]] = {}
        for name, cohort in self.plan.cohorts.items():
            scans = cohort.planned.values()
            simulated = {
                "disease": any(scan.severity > 0 for scan in scans),
                "shortcut": any(scan.shortcut for scan in scans),
            }
            present = [effect for effect, is_present in simulated.items() if is_present]
            effects[name] = {"name": names[name], "effects": present if scans else None}
        return effects

    # --- report ---

    def cohorts(self, wildcards: Any) -> list[dict[str, Any]]:
        """The cohorts of the report."""
        return [
            {
                "name": name,
                "folder": layout.COHORT.format(cohort=name),
                "simulated": cohort.simulated,
            }
            for name, cohort in self.plan.cohorts.items()
        ]

    def tasks(self, wildcards: Any) -> list[dict[str, Any]]:
        """The tasks of each cohort that have splits."""
        return [
            {**task.wildcards, "folder": task.folder, "simulated": task.cohort.simulated}
            for task in self.plan.runs.tasks
        ]

    def networks(self, wildcards: Any) -> list[dict[str, Any]]:
        """The networks of each task, with all their splits and seeds."""
        return [
            {
                **run.of_task.wildcards,
                "folder": run.folder,
                "simulated": run.of_task.cohort.simulated,
                "label": run.label,
            }
            for run in self.plan.runs.networks
        ]

    def retrained(self, wildcards: Any) -> list[str]:
        """Folders with the comparisons of networks that were trained several times."""
        return retrained_folders(self.plan.runs.networks)

    @property
    def config(self) -> dict[str, Any]:
        """The completed configuration, with which the report explains how to repeat the run."""
        config = self.plan.settings
        ordered = sort_keys(config)
        # Cohorts and models keep their order: it is the order of rows in tables, and of jobs.
        for key in ("cohorts", "models"):
            ordered[key] = {name: ordered[key][name] for name in config[key]}
        ordered["apply"]["networks"] = dict(config["apply"]["networks"])
        for name in self.plan.simulated:
            # Groups and visits keep their order: it decides the patients' numbers and the visits.
            for key in ("groups", "visits"):
                written = config["cohorts"][name]["simulation"][key]
                ordered["cohorts"][name]["simulation"][key] = written
        return ordered

    def code_of_report(self, wildcards: Any) -> str:
        """Fingerprint of the code of the report, and of the papers that it cites."""
        runs = self.plan.runs
        methods = {method for run in runs.explained for method in run.network.methods}
        return self.plan.codes.of_report({run.model for run in runs.networks}, methods)

    def cohort_files(self, wildcards: Any) -> list[str]:
        """Tables of the scans of each cohort, and figures of the simulations."""
        pattern = f"{layout.COHORT}/{{name}}"
        paths = layout.each(pattern, cohort=self.plan.cohorts, name=_TABLES_OF_COHORT)
        names = layout.figures("simulation")
        return paths + layout.each(pattern, cohort=self.plan.simulated, name=names)

    def task_files(self, wildcards: Any) -> list[str]:
        """Tables of the splits of each task, and of their audit."""
        tasks = self.plan.runs.tasks
        return [f"{task.folder}/{name}" for task in tasks for name in _TABLES_OF_TASK]

    def network_files(self, wildcards: Any) -> list[str]:
        """Tables and figures of the training and the performance of each network."""
        names = ["cross_validation.tsv", *layout.figures("learning_curves", "roc", "confusion")]
        networks = self.plan.runs.networks
        paths = [f"{network.folder}/{name}" for network in networks for name in names]
        if networks:
            summary = [layout.SUMMARY, *layout.figures(f"{layout.RESULTS}/summary")]
            paths += [*summary, f"{layout.RESULTS}/against_baselines.tsv"]
        return paths

    def heatmap_files(self, wildcards: Any) -> list[str]:
        """Tables and figures that compare the heatmaps of each explained network."""
        paths = []
        for run in self.plan.runs.explained:
            drawn = [name for names in run.tables.values() for name in names]
            names = layout.figures(*drawn, *["truth"] * bool(run.with_truth))
            names += [f"{table}.tsv" for table in (*run.tables, "top_areas")]
            paths += [f"{run.folder}/{name}" for name in [*names, "metrics.json"]]
        names = [*layout.figures("retraining"), "retraining.tsv"]
        paths += layout.each("{folder}/{name}", folder=self.retrained(wildcards), name=names)
        return paths + [layout.TRUST, layout.VIEWER] * bool(paths)

    # --- viewer ---

    def viewed(self, wildcards: Any) -> list[dict[str, Any]]:
        """The first explained training of every network, with the scans that the viewer shows."""
        return [self._viewed(run) for run in self.plan.runs.first_explained()]

    def _viewed(self, run: Explained) -> dict[str, Any]:
        task, section = run.network.of_task, self.plan.settings["report"]
        tested = self.plan.tested_cohort(task.cohort.name, run.split)
        count = section["viewed_scans"] if section["subjects"] else 0
        images = choose_first(run.split, tested, task.classes, count)
        methods = run.network.methods
        chunks = self.plan.runs.chunks(run.split, images)
        return {
            "folder": run.folder,
            "methods": methods,
            "name": f"{task.cohort.name}, {task.task}, {run.network.label}",
            "images": images,
            "classes": list(task.classes),
            "maps": layout.each(layout.CHUNK, run.wildcards, method=methods, chunk=chunks),
            "brains": tested.files(layout.PREPROCESSED, images),
        }

    def viewed_files(self, wildcards: Any) -> list[str]:
        """Average heatmaps, and heatmaps and brains of the scans that the viewer shows."""
        paths = []
        for run in self.plan.runs.first_explained():
            viewed = self._viewed(run)
            lists = {"method": viewed["methods"], "group": viewed["classes"]}
            paths += layout.each(layout.MEAN, run.wildcards, **lists, suffix=["nii.gz", "json"])
            paths += [f"{run.folder}/metrics.json", *viewed["maps"], *viewed["brains"]]
        return list(dict.fromkeys(paths))
