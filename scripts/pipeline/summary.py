"""What a run prints when it ends: how well the networks predict, and how the methods compare."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

MISSING = "n/a"


def summarise_run(place: Path, splits: Iterable[str], since: float = 0) -> str:
    """Accuracy, distance table and area table of one network, and where the files are.

    Parameters
    ----------
    place
        ``results/<cohort>/<task>/<model>``.
    splits
        Those whose scans were explained.
    since
        Files older than this belong to an earlier run and are left out.
    """
    told = []
    table = place / "cross_validation.tsv"
    if _is_new(table, since) and (rows := _read(table)):
        told += ["", summarise_accuracy(rows), f"  table: {table}"]
        told += [f"  pictures: {place}/{{learning_curves,roc,confusion}}.png"]
    for split in splits:
        for folder in sorted(place.glob(f"{split}/seed-*")):
            if _is_new(folder / "distances.tsv", since) and _read(folder / "distances.tsv"):
                told += ["", *summarise_comparison(folder)]
            if _is_new(folder / "localisation.tsv", since):
                told += summarise_localisation(folder)
    return "\n".join(told)


def summarise_applied(place: Path, since: float = 0) -> str:
    """What a network that was trained already says of new scans: how many of each class, and where.

    Parameters
    ----------
    place
        ``results/<cohort>/applied/<network>``.
    since
        Files older than this belong to an earlier run and are left out.
    """
    path = place / "predictions.tsv"
    if not _is_new(path, since):
        return ""
    found = Counter(row["predicted"] for row in _read(path))
    counts = ", ".join(f"{count} {group}" for group, count in sorted(found.items()))
    lines = [
        "",
        f"Network {place.name} on {place.parts[-3]}: {found.total()} scans, predicted {counts}",
    ]
    return "\n".join([*lines, f"  table: {path}", f"  heatmaps: {place}/*/scans/"])


def summarise_networks(path: Path, since: float = 0) -> str:
    """All tasks, networks and cohorts side by side, where there is more than one of them."""
    rows = [row for row in _read(path) if row["level"] == "scan"] if _is_new(path, since) else []
    if len({(row["cohort"], row["tested_on"], row["task"], row["model"]) for row in rows}) < 2:
        return ""
    measures = ("accuracy", "balanced_accuracy", "roc_auc")
    header = ["cohort", "task", "network", "evaluation", *(m.replace("_", " ") for m in measures)]
    cells = []
    for row in rows:
        values = [f"{_number(row[f'{m}_mean'])} ± {_number(row[f'{m}_sd'])}" for m in measures]
        same = row["tested_on"] == row["cohort"]
        cohort = row["cohort"] if same else f"{row['cohort']}, on {row['tested_on']}"
        cells.append([cohort, row["task"], row["model"], row["evaluation"], *values])
    told = ["", "All networks, per scan (mean ± SD)", *_aligned([header, *cells])]
    return "\n".join([*told, f"  table: {path}", f"  picture: {path.with_suffix('.png')}"])


def _is_new(path: Path, since: float) -> bool:
    return path.is_file() and path.stat().st_mtime >= since


def _read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def summarise_accuracy(rows: Sequence[dict[str, str]]) -> str:
    """The table of a cross-validation in a few lines: mean and SD over folds, and pooled."""
    lines = [f"Cross-validation of {rows[0]['model']} (mean ± SD over folds; pooled over folds)"]
    measures = ("accuracy", "balanced_accuracy", "roc_auc", "sensitivity", "specificity")
    for level in ("scan", "patient"):
        of = {row["split"]: row for row in rows if row["level"] == level}
        cells = [
            f"{name.replace('_', ' ')} {_number(of['mean'][name])} ± {_number(of['sd'][name])}; "
            f"{_number(of['pooled mean'][name])}"
            for name in measures
        ]
        lines += [f"  per {level}:", *(f"    {cell}" for cell in cells)]
    return "\n".join(lines)


def summarise_comparison(folder: Path) -> list[str]:
    """The distance table and the area table of one network's heatmaps, as text."""
    distances, areas = _read(folder / "distances.tsv"), _read(folder / "top_areas.tsv")
    classes = list(dict.fromkeys(row["class"] for row in distances))
    methods = list(dict.fromkeys(row["method_a"] for row in distances))
    found = {(row["class"], row["method_a"], row["method_b"]): row["distance"] for row in distances}
    cells = [
        [a, *(" / ".join(_number(found[c, a, b], 1e4) for c in classes) for b in methods)]
        for a in methods
    ]
    split, seed = folder.parts[-2], folder.parts[-1]
    lines = [
        f"Distances of the methods' average heatmaps, {' / '.join(classes)} in 1e-4 "
        f"({distances[0]['model']}, {split}, {seed})",
        *_aligned([["", *methods], *cells]),
    ]
    for by, meaning in (
        ("sum", "share of the relevance in the brain"),
        ("density", "relevance per voxel, the brain's mean being 1"),
    ):
        rows = []
        for method in methods:
            for group in classes:
                top = [
                    row
                    for row in areas
                    if (row["method"], row["class"], row["by"]) == (method, group, by)
                ]
                shown = [
                    f"{row['area']} {float(row['share']):.1%}"
                    if by == "sum"
                    else f"{row['area']} {float(row['density']):.1f}"
                    for row in top
                ]
                rows.append([method, group, *(shown or ["(the average map is 0)"])])
        lines += ["", f"Areas with most relevance by {by} ({meaning})", *_aligned(rows)]
    names = "{distances,top_areas}.tsv, {mean_maps,distances,area_distribution}.png"
    return [*lines, f"  files: {folder}/{names}"]


def summarise_localisation(folder: Path) -> list[str]:
    """How well each method finds simulated atrophy, the best first; nothing if there is none."""
    rows = [
        row
        for row in _read(folder / "localisation.tsv")
        if (row["region"], row["measure"]) == ("truth", "average_precision")
    ]
    if not rows:
        return []
    widths = list(dict.fromkeys(row["smoothing_mm"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    found = {(row["method"], row["smoothing_mm"]): row for row in rows}

    def best_first(method: str) -> float:
        told = found[method, widths[0]]["times_chance"]
        return -1.0 if told == MISSING else float(told)

    cells = [["", *(f"smoothed {float(w):g} mm" if float(w) else "as it is" for w in widths)]]
    for method in sorted(methods, key=best_first, reverse=True):
        of_widths = [found[method, width] for width in widths]
        scores = [(_number(row["mean"]), _number(row["times_chance"], 1, 1)) for row in of_widths]
        cells.append([method, *(f"{mean} ({times} x chance)" for mean, times in scores)])
    return [
        "",
        "Finding the simulated atrophy: average precision of each scan's heatmap",
        *_aligned(cells),
        f"  files: {folder}/localisation.tsv, {folder}/{{localisation,precision_recall,truth}}.png",
    ]


def _number(text: str, factor: float = 1, digits: int = 2) -> str:
    return MISSING if text == MISSING else f"{float(text) * factor:.{digits}f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines with columns below each other."""
    most = max(map(len, rows))
    full = [[*row, *[""] * (most - len(row))] for row in rows]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    return [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in full
    ]
