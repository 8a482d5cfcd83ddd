"""Cohorts and their scans, read from settings, tables and the names of folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from voxplain.cohort.bids import read_dataset
from voxplain.cohort.demographics import Person, read_age, read_sex
from voxplain.cohort.plan import PlannedScan, plan_cohort
from voxplain.cohort.scan import Scan, class_in
from voxplain.cohort.scans import list_scans
from voxplain.cohort.tables import read_table
from voxplain.cohort.trees import find_images
from voxplain.cohort.twins import healthy_twin, image_of_twin
from voxplain.faults import SetupFault
from voxplain_workflow.planning import layout

PACKAGED_HEAD = "packaged"
# Columns of a table of scans to their names in the listing of a BIDS dataset.
_DATASET_COLUMNS = {
    "image": "image",
    "subject": "subject",
    "visit": "session",
    "date": "date",
    "description": "description",
}
# States of the input images; each includes the states before it.
_STATES = ("heads", "brains", "registered")
# Settings of a simulation that decide how patients and visits are drawn.
_KEYS_OF_PATIENTS = (
    *("seed", "groups", "visits", "age", "ageing_per_decade", "progression_per_year"),
    *("first_number", "shortcut"),
)


@dataclass(frozen=True)
class Cohort:
    """A cohort's scans, before anything is processed.

    Attributes
    ----------
    name
        Key of the cohort in the settings.
    settings
        Section of the cohort.
    planned
        Image id to the plan of each simulated scan; empty where scans are real.
    all_scans
        One scan for every row of the table, in its order.
    unlisted
        Images of the tree that the table does not name.
    """

    name: str
    settings: Mapping[str, Any]
    planned: Mapping[str, PlannedScan]
    all_scans: Sequence[Scan]
    unlisted: Sequence[str]

    @cached_property
    def scans(self) -> dict[str, Scan]:
        """Image id to scan, for the scans that are processed."""
        return {scan.image: scan for scan in self.all_scans if scan.fate is None}

    @property
    def simulated(self) -> bool:
        """Whether the cohort's DICOM series are simulated."""
        return bool(self.planned)

    @property
    def lost(self) -> list[Scan]:
        """The scans that cannot be processed: without images, or with an incomplete table row."""
        fates = ((scan, scan.fate) for scan in self.all_scans)
        return [scan for scan, fate in fates if fate is not None and fate.status == "failed"]

    @cached_property
    def head_volumes(self) -> dict[str, str]:
        """Name to path of the heads to simulate from; the packaged head has no path."""
        return head_volumes(self.settings["simulation"])

    @cached_property
    def heads_of_patients(self) -> dict[str, str]:
        """Patient to head, with the same names in all cohorts; empty for real scans."""
        if not self.simulated:
            return {}
        # A user's head is named by its path: each cohort numbers its heads by itself.
        names = {
            name: Path(path).as_posix() if path else name
            for name, path in self.head_volumes.items()
        }
        scans = self.scans.items()
        return {scan.patient: names[self.planned[image].head] for image, scan in scans}

    def is_given(self, state: str) -> bool:
        """Whether the input images are at least ``brains`` without skull, or ``registered``."""
        return _STATES.index(self.settings["images_are"]) >= _STATES.index(state)

    def plan_of(self, image: str) -> PlannedScan:
        """The plan of a simulated scan, or of a scan's healthy twin."""
        if image in self.planned:
            return self.planned[image]
        return healthy_twin(self.planned[image_of_twin(image)])

    def scan_of(self, image: str) -> Scan:
        """A processed scan, or a scan's healthy twin, which is in no table."""
        if image in self.scans:
            return self.scans[image]
        place = f"{layout.SOURCE.format(cohort=self.name)}/ADNI/{self.plan_of(image).folder}"
        return replace(self.scans[image_of_twin(image)], image=image, place=place)

    def has_truth(self, image: str) -> bool:
        """Whether a scan was simulated with a disease, or carries a shortcut."""
        plan = self.planned.get(image)
        return plan is not None and bool(plan.severity > 0 or plan.shortcut)

    def entities(self, scan: Scan) -> dict[str, str]:
        """The wildcards of a scan's files."""
        return {
            "cohort": self.name,
            "subject": scan.subject_label,
            "session": scan.session,
            "image": scan.image,
        }

    def files(self, pattern: str, images: Sequence[str] | None = None) -> list[str]:
        """Paths of one file for each of these processed scans; by default, for all of them."""
        return [self.file(pattern, image) for image in (self.scans if images is None else images)]

    def file(self, pattern: str, image: str) -> str:
        """Path of a file of a processed scan."""
        return pattern.format(**self.entities(self.scans[image]))

    def people(self, classes: Sequence[str]) -> list[Person]:
        """Age and sex of each scan of the classes."""
        return [
            Person(self.name, scan.image, read_age(scan.age), read_sex(scan.sex))
            for scan in self.scans.values()
            if class_in(scan, classes)
        ]


def head_volumes(simulation: Mapping[str, Any]) -> dict[str, str]:
    """Name to path of the heads that a cohort is simulated from.

    Raises
    ------
    SetupFault
        A volume does not exist.
    """
    names = {}
    for place, path in enumerate(simulation["heads"], start=1):
        if not Path(path).is_file():
            raise SetupFault(f"config: head volume {path} does not exist")
        names[f"head{place}"] = path
    return names or {PACKAGED_HEAD: ""}


def read_cohort(
    name: str,
    settings: Mapping[str, Any],
    tasks: Sequence[Sequence[str]] | None,
    progression: Mapping[str, Any],
) -> Cohort:
    """Read a cohort's table and find its images, or plan a simulated one.

    Parameters
    ----------
    name, settings
        Key of the cohort, and its section of the completed settings.
    tasks
        The classes of every task; None for new scans, whose diagnosis is unknown.
    progression
        When a patient counts as a converter.

    Raises
    ------
    SetupFault
        The table or a head volume cannot be read, or a class of a task has no scan.
    """
    planned: list[PlannedScan] = []
    companions: Mapping[str, Sequence[str]] = {}
    columns = settings["columns"]
    places: Mapping[str, Sequence[str]]
    if settings["source"] == "simulated":
        planned = _simulated(name, settings["simulation"])
        rows = [scan.table_row() for scan in planned]
        table = layout.SIMULATED_TABLE.format(cohort=name)
        tree = f"{layout.SOURCE.format(cohort=name)}/ADNI"
        places = {scan.image: [f"{tree}/{scan.folder}"] for scan in planned}
    elif settings["source"] == "bids":
        (root,) = _folders(settings)
        table = settings.get("table") or str(
            Path(root) / "participants.tsv (or the cohort's `table`)"
        )
        rows, places, companions = read_dataset(
            root, settings["images_are"], settings["files"], settings.get("table")
        )
        columns = {**_DATASET_COLUMNS, **columns}
    else:
        table = settings["table"]
        rows = read_table(table)
        listing = find_images(_folders(settings))
        places = listing.images
        companions = {image: [path] for image, path in listing.metadata.items()}
    scans = list_scans(
        rows,
        places,
        tasks,
        table,
        columns,
        settings["diagnosis_words"],
        **progression,
        select=settings["select"],
        companions=companions,
        image_ids="labels" if settings["source"] == "bids" else "archive",
    )
    _check_classes(name, table, scans, tasks or ())
    unlisted = sorted(set(places) - {scan.image for scan in scans})
    return Cohort(name, settings, {scan.image: scan for scan in planned}, scans, unlisted)


def _simulated(name: str, simulation: Mapping[str, Any]) -> list[PlannedScan]:
    """The scans of a simulated cohort."""
    people = {key: simulation[key] for key in _KEYS_OF_PATIENTS}
    planned = plan_cohort(**people, heads=list(head_volumes(simulation)))
    if not planned:
        raise SetupFault(f"config: cohorts.{name}.simulation.groups has no patients")
    return planned


def _folders(settings: Mapping[str, Any]) -> list[str]:
    """The folders and zip files of a cohort."""
    images = settings["images"]
    return images if isinstance(images, list) else [images]


def _check_classes(
    name: str, table: str, scans: Sequence[Scan], tasks: Sequence[Sequence[str]]
) -> None:
    """Refuse a task with a class that has no scan to process."""
    usable = [scan for scan in scans if scan.fate is None]
    for classes in tasks:
        for group in classes:
            if not any(class_in(scan, classes) == group for scan in usable):
                counts = Counter(str(scan.diagnosis) for scan in scans).most_common(12)
                diagnoses = ", ".join(f"{word!r} ({count})" for word, count in counts)
                raise SetupFault(
                    f"cohort {name} has no scan of class {group} to process (table {table}); its "
                    f"diagnoses are {diagnoses}: say what they mean in `diagnosis_words` of the "
                    "cohort, correct the table, or leave the class out of `tasks`"
                )
