"""What a scan's sidecars say of its acquisition: BIDS JSON files, and the archive's XML."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from voxplain.faults import DataFault, printable

# Header fields that are copied from dcm2niix's sidecar into ours. None of them identifies a person
# or a date.
_FIELDS = (
    "Modality",
    "Manufacturer",
    "ManufacturersModelName",
    "MagneticFieldStrength",
    "MRAcquisitionType",
    "SeriesDescription",
    "ProtocolName",
    "ScanningSequence",
    "SequenceVariant",
    "ScanOptions",
    "SequenceName",
    "ImageType",
    "SliceThickness",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "FlipAngle",
    "ConversionSoftware",
    "ConversionSoftwareVersion",
)
# Fields with numbers and with lists of words; all others hold text.
_NUMBERS = (
    "MagneticFieldStrength",
    "SliceThickness",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "FlipAngle",
)
_LISTS = ("ImageType",)
_MOST_BYTES = 16 * 2**20  # of a sidecar; those of scanners have some kB


def read_sidecars(files: Sequence[Path]) -> dict[str, Any]:
    """Acquisition fields from the archive's XML and the JSON sidecar, which takes precedence.

    Raises
    ------
    DataFault
        A file is not what its name says.
    """
    metadata: dict[str, Any] = {}
    for path in files:
        if path.suffix.lower() == ".xml":
            metadata |= read_metadata(path)
    for path in files:
        if path.suffix.lower() == ".json":
            metadata |= read_fields(path)
    return acquisition_fields(metadata)


def read_fields(path: Path) -> dict[str, Any]:
    """All fields of a JSON sidecar; empty if it holds no mapping.

    Text from scanners may have control characters, and may not be valid UTF-8.

    Raises
    ------
    DataFault
        The file is no JSON, is nested without end, or is far too long.
    """
    check_length(path)
    try:
        fields = json.loads(path.read_bytes().decode("utf-8-sig", "replace"), strict=False)
    except (ValueError, RecursionError) as error:
        raise DataFault(
            f"sidecar {path.name} is no JSON ({error})", "mend it, or take it away"
        ) from error
    return fields if isinstance(fields, dict) else {}


def check_length(path: str | Path) -> None:
    """Raise if a sidecar is too long to be read into memory."""
    size = Path(path).stat().st_size
    if size > _MOST_BYTES:
        raise DataFault(
            f"sidecar {path} has {size} bytes, expected at most {_MOST_BYTES}",
            "take the file away, or replace it by the right one",
        )


def acquisition_fields(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are copied into our sidecar, each in the type that BIDS gives it.

    Values that cannot have this type, as a mapping for a text, are left out, with a line in the
    log: no result depends on them.
    """
    fields = {}
    for key in _FIELDS:
        value = metadata.get(key)
        if value is None:
            continue
        read = _number if key in _NUMBERS else _words if key in _LISTS else _text
        typed = read(value)
        if typed is None:
            print(printable(f"left out {key} of the sidecar: {str(value)[:60]!r}"), flush=True)
        else:
            fields[key] = typed
    return fields


def _number(value: Any) -> Any:
    """A finite number, or a text as it is (scanners write some numbers with units); else None."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= sys.float_info.max else None  # and not NaN, which is never less


def _text(value: Any) -> str | None:
    if isinstance(value, list):  # a header field with several values
        words = _words(value)
        return None if words is None else "\\".join(words)
    if isinstance(value, str | int | float):
        return printable(str(value))
    return None


def _words(value: Any) -> list[str] | None:
    if isinstance(value, str):
        value = value.split("\\")
    if not isinstance(value, list) or not all(
        isinstance(word, str | int | float) for word in value
    ):
        return None
    return [printable(str(word)) for word in value]


# Term of an acquisition in the archive's XML files to BIDS field.
_METADATA_FIELDS = {
    "Manufacturer": "Manufacturer",
    "Mfg Model": "ManufacturersModelName",
    "Field Strength": "MagneticFieldStrength",
    "Acquisition Type": "MRAcquisitionType",
    "Slice Thickness": "SliceThickness",
    "TE": "EchoTime",
    "TR": "RepetitionTime",
    "TI": "InversionTime",
    "Flip Angle": "FlipAngle",
    "Pulse Sequence": "ScanningSequence",
}
_SECONDS = ("EchoTime", "RepetitionTime", "InversionTime")


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Acquisition fields of an image from the archive's XML file, under their BIDS names.

    Raises
    ------
    DataFault
        The file is not XML.
    """
    check_length(path)
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, UnicodeDecodeError, LookupError, ValueError) as error:
        raise DataFault(
            f"metadata file {path} is no XML ({error})", "download it again, or take it away"
        ) from error
    metadata: dict[str, Any] = {}
    for term in root.iter():
        name = _METADATA_FIELDS.get(term.get("term", ""))
        text = (term.text or "").strip()
        if not name or not text:
            continue
        try:
            value: Any = float(text)
        except ValueError:
            value = text
        # BIDS uses seconds, the archive milliseconds.
        metadata[name] = value / 1000 if name in _SECONDS and isinstance(value, float) else value
    return metadata
