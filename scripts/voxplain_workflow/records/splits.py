"""Records of splits and of the scans in them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SplitScan:
    """A scan of a split.

    Attributes
    ----------
    image, patient, group
        Image id, patient and class.
    side
        ``train`` or ``test``.
    cohort
        Name of another cohort than that of the training scans, else empty.
    head
        The head from which the patient is simulated, else empty.
    volume
        The preprocessed volume.
    quality
        JSON file of quality control, with the fate of the scan.
    """

    image: str
    patient: str
    group: str
    side: str
    cohort: str
    head: str
    volume: str
    quality: str


@dataclass(frozen=True)
class SplitFiles:
    """The files of a split.

    Attributes
    ----------
    split
        Name of the split.
    members
        Table of its usable scans.
    audit
        JSON file of the leakage audit.
    """

    split: str
    members: str
    audit: str
