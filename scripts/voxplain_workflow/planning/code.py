"""The fingerprint of a script with the networks and methods that it loads by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from voxplain.models import MODELS, Model
from voxplain.relevance import METHODS, Method
from voxplain_workflow.planning.fingerprint import fingerprint

# What decides nothing of what a job makes: words, papers, what the estimate asks for, and the
# recipe, which a job has among its settings. Any other field counts, and so does a new one.
_TOLD = {"description", "layers", "passes", "per", "recipe", "sources"}


class Codes:
    """Fingerprints of jobs, by the networks and methods that each selects.

    Parameters
    ----------
    scripts
        The folder of the rules' scripts, and of the library's packages.
    """

    def __init__(self, scripts: str | Path) -> None:
        self._scripts = Path(scripts)

    def of_script(
        self,
        name: str,
        models: Collection[str] = (),
        methods: Collection[str] = (),
        cites: bool = False,
    ) -> str:
        """Of the script of this name, and of the registries' entries that its job may select.

        Parameters
        ----------
        name
            The script's, without its suffix.
        models, methods
            Keys of :data:`voxplain.models.MODELS` and :data:`voxplain.relevance.METHODS`. Of the
            networks that a method applies to, only those of ``models`` count.
        cites
            The job cites the papers of these networks and methods, and computes nothing by them.

        Returns
        -------
        16 hexadecimal digits. Entries that are not named change none of them.
        """
        script = self._scripts / f"{name}.py"
        networks = {key: MODELS[key] for key in models}
        explaining = {key: METHODS[key] for key in methods}
        if cites:
            papers = [*_papers(networks), *_papers(explaining)]
            return fingerprint(script, self._scripts, entries=papers)
        modules = [network.planner.rpartition(".")[0] for network in networks.values()]
        modules += [entry.module for entry in (*networks.values(), *explaining.values())]
        for key, method in explaining.items():
            applies = [model for model in models if not method.models or model in method.models]
            explaining[key] = dataclasses.replace(method, models=tuple(applies))
        entries = [*_computing(networks), *_computing(explaining)]
        return fingerprint(script, self._scripts, modules, entries)

    def of_training(self, model: str) -> str:
        """Of training this network, and no other."""
        return self.of_script("train_network", [model])

    def of_changing_areas(self, model: str) -> str:
        """Of following this network while areas are deleted and inserted."""
        return self.of_script("change_areas", [model])

    def of_explaining(self, model: str | None, method: str) -> str:
        """Of this method on this network; None for a network that is not known before the job."""
        return self.of_script("explain_scans", MODELS if model is None else [model], [method])

    def of_randomising(self, model: str, method: str) -> str:
        """Of this method on this network, whose layers are made random."""
        return self.of_script("randomise_layers", [model], [method])

    def of_applying(self) -> str:
        """Of applying a network that is not known before the job."""
        return self.of_script("apply_network", MODELS)

    def of_report(self, models: Collection[str], methods: Collection[str]) -> str:
        """Of the report, which cites the papers of these."""
        return self.of_script("report_results", models, methods, cites=True)


def _papers(entries: Mapping[str, Model] | Mapping[str, Method]) -> Iterator[str]:
    for name, entry in entries.items():
        yield f"{type(entry).__name__} {name}: {', '.join(entry.sources)}"


def _computing(entries: Mapping[str, Model] | Mapping[str, Method]) -> Iterator[str]:
    """The fields of entries that decide what is computed, whatever the order of names in them."""
    for name, entry in entries.items():
        told = [f"{type(entry).__name__} {name}"]
        for field in dataclasses.fields(entry):
            value = getattr(entry, field.name)
            if field.name not in _TOLD:
                # Of options only the names; what they mean is for people.
                kept = sorted(value) if isinstance(value, dict | tuple) else value
                told.append(f"{field.name}={kept!r}")
        yield "; ".join(told)
