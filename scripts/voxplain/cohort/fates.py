"""The fate of every scan: the cohort's table, and checks of how many scans are usable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from voxplain.faults import SetupFault
from voxplain.tables import MISSING, read_rows, write_rows

MEASURES = ("brain_volume_ml", "largest_part", "border_share", "overlap", "similarity")
COLUMNS = (
    "image",
    "subject",
    "session",
    "visit",
    "date",
    "diagnosis",
    "group",
    "progression",
    "sex",
    "age",
    "description",
    "phase",
    "field_strength",
    "fate",
    "stage",
    "reason",
    "remedy",
    *MEASURES,
    "conversion",
    "skull_tool",
    "skull_tool_version",
    "skull_rung",
    "bias_correction",
    "preprocessed",
)


def collect_fates(
    rows: Sequence[Mapping[str, Any]], qualities: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, str]]:
    """Rows of the cohort's table, in the columns of :data:`COLUMNS`.

    Parameters
    ----------
    rows
        One for each row of the user's table, in its order: the columns up to ``field_strength``,
        those of the fate if it was decided without processing, and ``preprocessed``.
    qualities
        Image id to the record of quality control, for the scans that were processed.
    """
    table = []
    for row in rows:
        record = dict(row)
        # A row that repeats the image of another row already has a fate.
        if not record.get("fate"):
            quality = qualities[record["image"]]
            fate = quality["Fate"]
            processing = quality.get("Processing", {})
            record |= {key: fate[key] for key in ("stage", "reason", "remedy")}
            record |= {"fate": fate["status"], **quality.get("Quality", {})}
            record |= {
                "conversion": processing.get("ConversionNote"),
                "skull_tool": processing.get("SkullStrippingTool"),
                "skull_tool_version": processing.get("SkullStrippingToolVersion"),
                "skull_rung": processing.get("SkullStrippingRung"),
                "bias_correction": processing.get("BiasFieldCorrection"),
            }
            if fate["status"] == "failed":
                record.pop("preprocessed")
        table.append({column: _cell(record.get(column)) for column in COLUMNS})
    return table


def _cell(value: Any) -> str:
    text = "" if value is None else " ".join(str(value).split())
    return text or MISSING


def write_fates(path: str | Path, table: Sequence[Mapping[str, str]]) -> None:
    """Write the cohort's table as TSV."""
    write_rows(table, path, COLUMNS)


def read_fates(path: str | Path) -> list[dict[str, str]]:
    """Read the cohort's table."""
    return read_rows(path)


def lost_scans(table: Sequence[Mapping[str, str]]) -> list[str]:
    """Lines that describe every scan that failed or was excluded."""
    return [
        f"{row['image']} ({row['subject']}) {row['fate']} in {row['stage']}: {row['reason']}"
        + (f" -> {row['remedy']}" if row["remedy"] != MISSING else "")
        for row in table
        if row["fate"] in ("failed", "excluded")
    ]


def count_lost(
    table: Sequence[Mapping[str, str]], max_failed: float, name: str | Path
) -> dict[str, Any]:
    """Numbers of scans by fate.

    Parameters
    ----------
    max_failed
        The largest allowed share of lost scans among those selected for processing.
    name
        Name of the table, for the message.

    Raises
    ------
    SetupFault
        More scans were lost; the message lists them.
    """
    counts = Counter(row["fate"] for row in table)
    lost = counts["failed"] + counts["excluded"]
    wanted = lost + counts["usable"]
    if wanted == 0 or lost > max_failed * wanted + 1e-9 or not counts["usable"]:
        raise SetupFault(
            f"{lost} of {wanted} scans were lost, more than max_failed = {max_failed:g} allows "
            f"(see {name}):\n" + "\n".join(lost_scans(table))
        )
    return {"scans": len(table), **dict(sorted(counts.items())), "max_failed": max_failed}


def check_tools_of_cohort(
    qualities: Iterable[Mapping[str, Any]],
    cohort: str,
    remedy: str = "strip all scans by one of them",
) -> None:
    """Raise if a cohort was stripped by several tools, or by several versions of one tool.

    Parameters
    ----------
    qualities
        The records of quality control of the scans that were processed.
    cohort
        Name of the cohort, for the message.
    remedy
        What to do, for the message.

    Raises
    ------
    SetupFault
        There are several tools or versions.
    """
    processed = [quality["Processing"] for quality in qualities if quality.get("Processing")]
    tools = {
        (entry["SkullStrippingTool"], entry["SkullStrippingToolVersion"]) for entry in processed
    }
    if len(tools) > 1:
        names = ", ".join(" ".join(tool) for tool in sorted(tools))
        raise SetupFault(
            f"cohort {cohort} was stripped by several tools ({names}), whose "
            f"masks differ as much as groups do; {remedy}, or, where only the version differs, run "
            "again with --forcerun strip_skull"
        )


def summarise(table: Sequence[Mapping[str, str]], most: int = 20) -> str:
    """The summary printed at the end of a run: scans by fate, and the lost scans."""
    counts = Counter(row["fate"] for row in table)
    by_fate = ", ".join(f"{count} {fate}" for fate, count in counts.most_common())
    lost = lost_scans(table)
    more = [f"... and {len(lost) - most} more"] if len(lost) > most else []
    return "\n".join(
        [f"{len(table)} scans: {by_fate}", *(f"  {line}" for line in lost[:most] + more)]
    )
