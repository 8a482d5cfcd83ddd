"""The pages of a run."""

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
        """How well each method, and the classes' difference, finds what was simulated."""
        runs = self.plan.runs.explained
        paths = [f"{run.folder}/{m}/localisation.tsv" for run in runs for m in run.network.methods]
        return paths + sorted({layout.fill(layout.DIFFERENCE, run.wildcards) for run in runs})

    def tables(self, wildcards: Any) -> list[str]:
        """Faithfulness of each network's heatmaps, and how much of them retraining changes."""
        paths: dict[str, None] = {}
        for run in self.plan.runs.explained:
            tables = ["area_changes", "faithfulness"] * bool(run.changed)
            tables += ["randomisation"] * bool(run.forgetting)
            paths |= dict.fromkeys(f"{run.folder}/{name}.tsv" for name in tables)
            if run.split.name in run.network.several:
                paths[f"{run.network.folder}/{run.split.name}/retraining.tsv"] = None
        return list(paths)

    def truth_pictures(self, wildcards: Any) -> list[str]:
        """Truth and heatmaps side by side, of each network's first training that has a truth."""
        runs = self.plan.runs
        return [f"{run.folder}/truth.png" for run in runs.first_explained(with_truth=True)]

    def simulations(self, wildcards: Any) -> list[str]:
        """What was done to each simulated cohort that is explained."""
        cohorts = [run.network.of_task.cohort for run in self.plan.runs.explained]
        names = dict.fromkeys(cohort.name for cohort in cohorts if cohort.simulated)
        return layout.each(f"{layout.COHORT}/simulation.png", cohort=names)

    def runs(self, wildcards: Any) -> list[dict[str, Any]]:
        """Every network whose test scans get heatmaps."""
        return [run.as_dict() for run in self.plan.runs.explained]

    def effects(self, wildcards: Any) -> dict[str, dict[str, Any]]:
        """What sets each cohort's classes apart, and the name that it shares with its repeats."""
        names = name_repeats(self.plan.settings["cohorts"])
        found: dict[str, dict[str, Any]] = {}
        for name, cohort in self.plan.cohorts.items():
            scans = cohort.planned.values()
            there = {
                "disease": any(scan.severity > 0 for scan in scans),
                "shortcut": any(scan.shortcut for scan in scans),
            }
            # Nobody knows of real scans.
            effects = [what for what, is_there in there.items() if is_there] if scans else None
            found[name] = {"name": names[name], "effects": effects}
        return found

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
        """Where networks that were trained several times are compared."""
        return retrained_folders(self.plan.runs.networks)

    @property
    def config(self) -> dict[str, Any]:
        """The completed configuration, from which the report says how the run is made again."""
        config = self.plan.settings
        found = sort_keys(config)
        # The order of rows in tables, and of their jobs.
        for key in ("cohorts", "models"):
            found[key] = {name: found[key][name] for name in config[key]}
        found["apply"]["networks"] = dict(config["apply"]["networks"])
        for name in self.plan.simulated:
            # Their order is that of the patients' numbers and of the visits.
            for key in ("groups", "visits"):
                written = config["cohorts"][name]["simulation"][key]
                found["cohorts"][name]["simulation"][key] = written
        return found

    def code_of_report(self, wildcards: Any) -> str:
        """The code that puts the report together, and the papers that it cites."""
        runs = self.plan.runs
        methods = {method for run in runs.explained for method in run.network.methods}
        return self.plan.codes.of_report({run.model for run in runs.networks}, methods)

    def cohort_files(self, wildcards: Any) -> list[str]:
        """What is known of the scans of each cohort, and of what was done to simulated ones."""
        pattern = f"{layout.COHORT}/{{name}}"
        paths = layout.each(pattern, cohort=self.plan.cohorts, name=_TABLES_OF_COHORT)
        names = layout.figures("simulation")
        return paths + layout.each(pattern, cohort=self.plan.simulated, name=names)

    def task_files(self, wildcards: Any) -> list[str]:
        """The splits of each task, and their audit."""
        tasks = self.plan.runs.tasks
        return [f"{task.folder}/{name}" for task in tasks for name in _TABLES_OF_TASK]

    def network_files(self, wildcards: Any) -> list[str]:
        """How each network was trained, and how well it does."""
        names = ["cross_validation.tsv", *layout.figures("learning_curves", "roc", "confusion")]
        networks = self.plan.runs.networks
        paths = [f"{network.folder}/{name}" for network in networks for name in names]
        if networks:
            summary = [layout.SUMMARY, *layout.figures(f"{layout.RESULTS}/summary")]
            paths += [*summary, f"{layout.RESULTS}/against_baselines.tsv"]
        return paths

    def heatmap_files(self, wildcards: Any) -> list[str]:
        """The heatmaps of each explained network side by side, and what they are worth."""
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
        """The first explained training of every network, and the scans that are looked at."""
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
        """Average heatmaps, those of the scans that are looked at, and their brains."""
        paths = []
        for run in self.plan.runs.first_explained():
            viewed = self._viewed(run)
            of = {"method": viewed["methods"], "group": viewed["classes"]}
            paths += layout.each(layout.MEAN, run.wildcards, **of, suffix=["nii.gz", "json"])
            paths += [f"{run.folder}/metrics.json", *viewed["maps"], *viewed["brains"]]
        return list(dict.fromkeys(paths))
