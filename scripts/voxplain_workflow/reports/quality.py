"""Content of the page on quality control of a cohort."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from voxplain.cohort.fates import MEASURES
from voxplain.cohort.outliers import FAR, FEWEST, Flag, find_outliers
from voxplain.pages import Page, Thumbnail, Words
from voxplain.tables import MISSING

# Worst first.
_ORDER = ("failed", "excluded", "usable", "unused", "duplicate")
_HEADS = {
    "brain_volume_ml": "Brain, ml",
    "largest_part": "Largest part",
    "border_share": "On the border",
    "overlap": "Overlap",
    "similarity": "Similarity",
}
_DIGITS = {"brain_volume_ml": 0}


def table_of_flags(flags: Sequence[Flag]) -> pd.DataFrame:
    """Table with one row for each flag, the largest distance first."""
    columns = ["image", "measure", "value", "median", "distance_sd"]
    rows = [(f.image, f.measure, f.value, f.median, f.distance) for f in flags]
    table = pd.DataFrame(rows, columns=columns)
    return table.iloc[table["distance_sd"].abs().sort_values(ascending=False).index]


def page_of_quality(
    cohort: str,
    table: Sequence[Mapping[str, str]],
    pictures: Mapping[str, Mapping[str, str]],
    folder: str | Path,
    version: str,
) -> Page:
    """Page with one row a scan: verdict, measures and pictures, the worst first.

    Parameters
    ----------
    table
        Rows of ``scans.tsv``.
    pictures
        Image id to ``mask`` and ``registration``, paths of the pictures of a scan that was
        processed.
    folder
        Where the page will lie.
    """
    flags: dict[str, list[Flag]] = {}
    for flag in find_outliers(table):
        flags.setdefault(flag.image, []).append(flag)
    counts = Counter(row["fate"] for row in table)
    flagged = sum(row["fate"] == "usable" and row["image"] in flags for row in table)
    fates = ", ".join(f"{counts[fate]} {fate}" for fate in _ORDER if counts[fate])
    page = Page(
        f"Quality control of cohort {cohort}",
        lead=[
            f"{len(table)} scans: {fates}; {flagged} of the usable ones flagged.",
            "A scan is excluded by absolute thresholds only (quality in the configuration). A flag "
            f"says that a measure lies more than {FAR:g} robust SD from the cohort's median: look "
            "at the scan; nothing else follows from it, since a rule that is fitted on all scans "
            "leaks into every split. To keep an excluded scan, name it in quality.keep.",
        ],
        footer=f"voxplain {version}",
        wide=True,
    )
    page.add_section("Scans")
    if counts["usable"] < FEWEST:
        page.add_text(f"Fewer than {FEWEST} usable scans have no distribution: none is flagged.")
    rows = [_row(row, flags.get(row["image"], []), pictures, folder) for row in table]
    order = sorted(range(len(rows)), key=lambda n: rows[n]["Verdict"][0])
    page.add_table(
        pd.DataFrame([rows[place] for place in order]),
        "Every scan of the table. A click on a column's head sorts by it, one on a picture opens "
        "it. Overlap: Dice coefficient of the registered mask with the template's brain; "
        "similarity: correlation with the template; rung: what skull removal took beyond the tool "
        "as it is (skull.ladder).",
        link="scans.tsv",
        digits=3,
        find="failed, flagged, I32237, AD ...",
    )
    return page


def _row(
    row: Mapping[str, str],
    flags: Sequence[Flag],
    pictures: Mapping[str, Mapping[str, str]],
    folder: str | Path,
) -> dict[str, object]:
    fate = row["fate"]
    flagged = bool(flags) and fate == "usable"
    worst = max((abs(flag.distance) for flag in flags), default=0.0)
    # Sort key with the worst scans first: by fate, then by distance from the median.
    place = _ORDER.index(fate) + (-0.5 if flagged else 0) - min(worst, 1e4) / 1e5
    why = [row[key] for key in ("reason", "remedy", "conversion") if row[key] != MISSING]
    why += [
        f"{_HEADS[flag.measure]} {flag.value:.{_DIGITS.get(flag.measure, 3)}f} lies "
        f"{abs(flag.distance):.1f} SD {'above' if flag.distance > 0 else 'below'} the median "
        f"{flag.median:.{_DIGITS.get(flag.measure, 3)}f}"
        for flag in flags
    ]
    stage = f" in {row['stage']}" if fate in ("failed", "excluded") else ""
    cells: dict[str, object] = {
        "Image": row["image"],
        "Verdict": (place, f"flagged ({fate})" if flagged else f"{fate}{stage}"),
    }
    shown = pictures.get(row["image"], {}) if fate != "duplicate" else {}
    for name, what in (("mask", "Brain mask"), ("registration", "In template space")):
        path = shown.get(name)
        alt = f"{what} of {row['image']}"
        cells[what] = Thumbnail(os.path.relpath(path, folder), alt) if path else "n/a"
    cells["Why"] = Words("; ".join(why))
    cells["Rung"] = row["skull_rung"]
    for measure in MEASURES:
        text = row[measure]
        number = "n/a" if text == MISSING else f"{float(text):.{_DIGITS.get(measure, 3)}f}"
        cells[_HEADS[measure]] = (float("nan") if text == MISSING else float(text), number)
    keys = ("subject", "session", "group", "sex", "age")
    return cells | {key.capitalize(): row[key] for key in keys}
