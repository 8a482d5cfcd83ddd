"""Records of single scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class SimulatedScan:
    """A simulated scan.

    Attributes
    ----------
    image, patient, group
        Image id, patient and class.
    head
        Name of the head from which it is simulated.
    measures
        JSON file with the volume of each area, and the intended and achieved loss.
    """

    image: str
    patient: str
    group: str
    head: str
    measures: str


@dataclass(frozen=True)
class ConvertedScan:
    """A scan that was converted earlier.

    Attributes
    ----------
    image
        Image id.
    place, companions
        Folder or file of its images, and the files that belong to it.
    digests
        File with the digests of these files at the time of the conversion.
    volume
        The converted volume.
    """

    image: str
    place: str
    companions: Sequence[str]
    digests: str
    volume: str


@dataclass(frozen=True)
class NewScan:
    """A scan that a trained network is applied to.

    Attributes
    ----------
    image, patient
        Image id and patient.
    group
        Class in the cohort's table, if it is known.
    volume
        The preprocessed volume.
    quality
        JSON file of quality control, with the fate of the scan.
    """

    image: str
    patient: str
    group: str
    volume: str
    quality: str


@dataclass(frozen=True)
class TaskScan:
    """A scan in the splits of a task.

    Attributes
    ----------
    cohort, image
        Name of its cohort, and image id.
    volume
        The preprocessed volume.
    """

    cohort: str
    image: str
    volume: str


@dataclass(frozen=True)
class TrueScan:
    """A test scan with ground truth.

    Attributes
    ----------
    image
        Image id.
    truth
        Volume of the true change, in template space.
    residual
        Volume of the true change that is left after registration; None if it is not measured.
    """

    image: str
    truth: str
    residual: str | None
