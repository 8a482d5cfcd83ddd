"""The choice of the only T1-weighted series among the DICOM series of a scan's folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from voxplain.cohort.dicom_images import DicomImage
from voxplain.cohort.words import plain
from voxplain.faults import DataFault

FEWEST_SLICES = 20
_SCOUT = re.compile(r"locali[sz]er|scout|survey|aahead|3[- ]?pl(ane)?\b", re.IGNORECASE)
# A T1-weighted gradient echo has an echo time of a few ms; T2 and FLAIR have ten times as much.
_LONGEST_ECHO_MS = 30.0


def choose_series(
    images: Sequence[DicomImage], place: str | Path, description: str = ""
) -> list[DicomImage]:
    """The images of the only T1-weighted series among several series.

    Other series are left out first: other modalities and screen shots, localizers, series of fewer
    than 20 slices, mosaics, echo-planar images and long echo times. If several are left, the series
    with the table's description is chosen, if there is one; then acquired series take precedence
    over reformatted ones. If several are still left, none is chosen.

    Parameters
    ----------
    images, place
        As in :func:`read_images`.
    description
        The table's description of the scan.

    Raises
    ------
    DataFault
        No series or several could be meant; each candidate is listed.
    """
    series: dict[str, list[DicomImage]] = {}
    for image in images:
        series.setdefault(image.series, []).append(image)
    reasons = {name: _why_not(members) for name, members in series.items()}
    left = {name: members for name, members in series.items() if not reasons[name]}
    if not left:
        listed = "; ".join(f"{_called(series[name])}: {why}" for name, why in reasons.items())
        raise DataFault(
            f"{place} holds no T1-weighted series of a whole head: {listed}",
            "download the whole T1-weighted series",
        )
    rules = (
        lambda members: bool(description) and plain(members[0].description) == plain(description),
        lambda members: "DERIVED" not in members[0].kind,
    )
    for rule in rules:
        if len(left) > 1:
            left = {name: members for name, members in left.items() if rule(members)} or left
    if len(left) > 1:
        listed = "; ".join(map(_called, left.values()))
        raise DataFault(
            f"{place} holds {len(left)} series that could be meant: {listed}",
            "leave the right one in the folder, or give its description in the table",
        )
    ((name, chosen),) = left.items()
    for other, why in reasons.items():
        if other != name:
            _check_no_piece(chosen, series[other], place)
            print(f"left out {_called(series[other])}: {why or 'another series is meant'}")
    return chosen


def _check_no_piece(
    chosen: Sequence[DicomImage], other: Sequence[DicomImage], place: str | Path
) -> None:
    """Raise if a few slices that are left out have but another identifier than the series."""
    keys = [
        (image.modality, image.number, plain(image.description), image.kind, image.orientation)
        for image in (chosen[0], other[0])
    ]
    if keys[0] == keys[1] and sum(image.frames for image in other) < FEWEST_SLICES:
        raise DataFault(
            f"{place} holds {_called(chosen)} and, under another SeriesInstanceUID, "
            f"{_called(other)}, such as {other[0].path.name}: parts of one or of two scans",
            "leave the images of one scan in the folder, or download it again",
        )


def _why_not(members: Sequence[DicomImage]) -> str:
    """Why a series is not a T1-weighted scan of a head; empty if it may be one."""
    first = members[0]
    slices = sum(image.frames for image in members)
    if first.modality not in ("", "MR"):
        return f"its modality is {first.modality}"
    if "LOCALIZER" in first.kind or _SCOUT.search(first.description):
        return "a localizer"
    if "MOSAIC" in first.kind:
        return "a mosaic, as functional series are stored"
    if all(image.component in ("phase", "imaginary") for image in members):
        return f"{first.component} images"
    if slices < FEWEST_SLICES:
        return f"{slices} slices"
    if "EP" in first.sequence:
        return "echo-planar"
    echo_ms = first.settings["EchoTime"]
    if echo_ms is not None and echo_ms > _LONGEST_ECHO_MS:
        return f"an echo time of {echo_ms:g} ms"
    return ""


def _called(members: Sequence[DicomImage]) -> str:
    """Number, description, slices and kind of a series, for messages."""
    first = members[0]
    slices = sum(image.frames for image in members)
    number = f"series {first.number}" if first.number else "a series"
    kind = "/".join(first.kind)
    return f"{number} {first.description!r} ({slices} slices{', ' + kind if kind else ''})"
