"""Fingerprints of scripts, with the networks and methods that they load by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from voxplain.models import MODELS, Model
from voxplain.relevance import EXPLAINING, METHODS, Method
from voxplain_workflow.planning.fingerprint import fingerprint

# Fields of registry entries that do not affect the results of a job: descriptions, papers, costs
# for the estimate, and the recipe, which is in the job's settings. Every other field, also a new
# one, is part of the fingerprint.
_WITHOUT_EFFECT = {"description", "layers", "passes", "per", "recipe", "sources"}


class Codes:
    """Fingerprints of jobs, depending on the networks and methods that each job selects.

    Parameters
    ----------
    scripts
        The folder with the scripts of the rules and the packages of the library.
    """

    def __init__(self, scripts: str | Path) -> None:
        self._scripts = Path(scripts)
        # Thousands of jobs ask for the same few fingerprints while a run is planned.
        self._known: dict[tuple[Any, ...], str] = {}

    def of_script(
        self,
        name: str,
        models: Collection[str] = (),
        methods: Collection[str] = (),
        cites: bool = False,
    ) -> str:
        """Fingerprint of a script, and of the registry entries that its job may select.

        Parameters
        ----------
        name
            Name of the script without its suffix.
        models, methods
            Keys of :data:`voxplain.models.MODELS` and :data:`voxplain.relevance.METHODS`. Of the
            networks that a method applies to, only those of ``models`` count.
        cites
            The job only cites the papers of these networks and methods.

        Returns
        -------
        16 hexadecimal digits, which do not depend on entries that are not named.
        """
        choice = (name, *map(tuple, (models, methods)), cites)
        if choice not in self._known:
            self._known[choice] = self._of_choice(*choice)
        return self._known[choice]

    def _of_choice(
        self, name: str, models: tuple[str, ...], methods: tuple[str, ...], cites: bool
    ) -> str:
        script = self._scripts / f"{name}.py"
        networks = {key: MODELS[key] for key in models}
        explaining = {key: METHODS[key] for key in methods}
        if cites:
            papers = [*_papers(networks), *_papers(explaining)]
            return fingerprint(script, self._scripts, entries=papers)
        modules = [network.planner.rpartition(".")[0] for network in networks.values()]
        modules += [entry.module for entry in (*networks.values(), *explaining.values())]
        modules += [EXPLAINING] if explaining else []
        for key, method in explaining.items():
            applies = [model for model in models if not method.models or model in method.models]
            explaining[key] = dataclasses.replace(method, models=tuple(applies))
        entries = [*_computing(networks), *_computing(explaining)]
        return fingerprint(script, self._scripts, modules, entries)

    def of_training(self, model: str) -> str:
        """Fingerprint of training this network."""
        return self.of_script("train_network", [model])

    def of_changing_areas(self, model: str) -> str:
        """Fingerprint of deletion and insertion of areas with this network."""
        return self.of_script("change_areas", [model])

    def of_explaining(self, model: str | None, method: str) -> str:
        """Fingerprint of a method on a network; None: a network that only the job knows."""
        return self.of_script("explain_scans", MODELS if model is None else [model], [method])

    def of_randomising(self, model: str, method: str) -> str:
        """Fingerprint of this method on this network while its layers are randomised."""
        return self.of_script("randomise_layers", [model], [method])

    def of_applying(self) -> str:
        """Fingerprint of applying a network that only the job knows."""
        return self.of_script("apply_network", MODELS)

    def of_report(self, models: Collection[str], methods: Collection[str]) -> str:
        """Fingerprint of the report, which cites the papers of these networks and methods."""
        return self.of_script("report_results", models, methods, cites=True)


def _papers(entries: Mapping[str, Model] | Mapping[str, Method]) -> Iterator[str]:
    for name, entry in entries.items():
        yield f"{type(entry).__name__} {name}: {', '.join(entry.sources)}"


def _computing(entries: Mapping[str, Model] | Mapping[str, Method]) -> Iterator[str]:
    """The fields of entries that affect results; the order of names in a field does not count."""
    for name, entry in entries.items():
        parts = [f"{type(entry).__name__} {name}"]
        for field in dataclasses.fields(entry):
            value = getattr(entry, field.name)
            if field.name not in _WITHOUT_EFFECT:
                # Options count by their names only, not by their descriptions.
                compared = sorted(value) if isinstance(value, dict | tuple) else value
                parts.append(f"{field.name}={compared!r}")
        yield "; ".join(parts)
