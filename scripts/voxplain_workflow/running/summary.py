"""Text at the end of a run: performance of the networks, and comparison of the methods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from voxplain.tables import MISSING, read_rows

# With more methods a terminal is too narrow for a table of all pairs.
MOST_COLUMNS = 5
_FAITHFULNESS = ("faithfulness.tsv", "randomisation.tsv")


def summarise_run(place: Path, splits: Iterable[str], since: float = 0) -> str:
    """Accuracy, distance table and area table of one network, with the paths of the files.

    Parameters
    ----------
    place
        ``results/<cohort>/<task>/<model>``.
    splits
        Names of the splits whose scans were explained.
    since
        Files older than this belong to an earlier run and are left out.
    """
    lines = []
    table = place / "cross_validation.tsv"
    if _is_new(table, since) and (rows := read_rows(table)):
        lines += ["", summarise_accuracy(rows), f"  table: {table}"]
        lines += [f"  pictures: {place}/{{learning_curves,roc,confusion}}.png"]
    trained_once = False
    for split in splits:
        spread = place / split / "retraining.tsv"
        folders = sorted(place.glob(f"{split}/seed-*"))
        compared = [folder for folder in folders if _is_new(folder / "distances.tsv", since)]
        if several := _is_new(spread, since):
            # One table over all seeds replaces the tables of single seeds.
            lines += ["", *summarise_spread(spread)]
            if compared:
                lines += [
                    "",
                    f"Of {compared[0].name}; every seed's tables: {place}/{split}/seed-*/",
                ]
                lines += summarise_areas(compared[0])
        for folder in () if several else compared:
            lines += ["", *summarise_comparison(folder)]
        for folder in folders[:1] if several else folders:
            if _is_new(folder / "localisation.tsv", since):
                lines += summarise_localisation(folder)
            new = (_is_new(folder / name, since) for name in _FAITHFULNESS)
            if any(new):
                lines += summarise_faithfulness(folder)
        trained_once |= len(folders) == len(compared) == 1
    if trained_once:
        lines += [
            "",
            "How much of a distance is noise of retraining, one training cannot tell; several can "
            "(training.seeds: [0, 1, 2])",
        ]
    over_folds = place / "folds" / "retraining.tsv"
    if _is_new(over_folds, since):
        lines += ["", *summarise_spread(over_folds)]
    return "\n".join(lines)


def summarise_applied(place: Path, since: float = 0) -> str:
    """Counts of the classes that an applied network predicts for new scans, and file paths.

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
    predicted = Counter(row["predicted"] for row in read_rows(path))
    counts = ", ".join(f"{count} {group}" for group, count in sorted(predicted.items()))
    lines = [
        "",
        f"Network {place.name} on {place.parts[-3]}: {predicted.total()} scans, predicted {counts}",
    ]
    return "\n".join([*lines, f"  table: {path}", f"  heatmaps: {place}/*/scans/"])


def summarise_networks(path: Path, since: float = 0) -> str:
    """Table of all networks and baselines; empty if there is only one."""
    rows = (
        [row for row in read_rows(path) if row["level"] == "scan"] if _is_new(path, since) else []
    )
    if len({(row["cohort"], row["tested_on"], row["task"], row["model"]) for row in rows}) < 2:
        return ""
    measures = ("accuracy", "balanced_accuracy", "roc_auc")
    names = [measure.replace("_", " ") for measure in measures]
    cells = [["cohort", "task", "network or baseline", "evaluation", *names]]
    for row in rows:
        values = [f"{_number(row[f'{m}_mean'])} ± {_number(row[f'{m}_sd'])}" for m in measures]
        values[-1] += f" {_interval(row['roc_auc_low'], row['roc_auc_high'])}"
        cells.append([_cohort(row), row["task"], row["model"], row["evaluation"], *values])
    lines = [
        "",
        "All networks and baselines, per scan (mean ± SD; [95 % interval over patients])",
        *_aligned(cells),
        f"  table: {path}",
        f"  picture: {path.with_suffix('.png')}",
    ]
    return "\n".join([*lines, *summarise_against(path.with_name("against_baselines.tsv"))])


def summarise_against(path: Path) -> list[str]:
    """ROC AUC of each network minus that of each baseline; empty without baselines.

    The fixed split is left out: it has few patients, and its networks are for heatmaps.
    """
    rows = [row for row in read_rows(path) if row["level"] == "scan"] if path.is_file() else []
    cells = [
        [
            _cohort(row),
            row["task"],
            row["model"],
            f"- {row['baseline']}",
            f"{float(row['roc_auc']):+.2f} {_interval(row['low'], row['high'])}"
            if row["roc_auc"] != MISSING
            else MISSING,
        ]
        for row in rows
        if row["evaluation"] != "fixed split"
    ]
    if not cells:
        return []
    return [
        "",
        "ROC AUC of the networks minus the baselines'",
        *_aligned(cells),
        f"  table: {path}",
    ]


def _cohort(row: dict[str, str]) -> str:
    same = row["tested_on"] == row["cohort"]
    return row["cohort"] if same else f"{row['cohort']}, on {row['tested_on']}"


def _interval(low: str, high: str) -> str:
    return f"[{_number(low)}, {_number(high)}]" if MISSING not in (low, high) else ""


def _is_new(path: Path, since: float) -> bool:
    return path.is_file() and path.stat().st_mtime >= since


def summarise_accuracy(rows: Sequence[dict[str, str]]) -> str:
    """The table of a cross-validation as text: mean and SD over folds, and pooled."""
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


def summarise_spread(path: Path) -> list[str]:
    """The distances between methods over several networks, marked if within the noise."""
    rows = read_rows(path)
    classes = list(dict.fromkeys(row["class"] for row in rows))
    methods = list(dict.fromkeys(row["method_a"] for row in rows))
    rows_by_key = {(row["class"], row["method_a"], row["method_b"]): row for row in rows}

    def cell(row: dict[str, str]) -> str:
        mean, sd = (_number(row[f"distance_{what}"], 1e4) for what in ("mean", "sd"))
        if row["method_a"] == row["method_b"]:
            return mean
        return f"{'~' * (row['within_noise'] == 'True')}{mean} ± {sd}"

    folds = path.parent.name == "folds"
    lines = [
        "Distances of the methods' average heatmaps in 1e-4, mean ± SD over "
        f"{'folds' if folds else 'seeds'} ({rows[0]['model']}, {path.parent.name})"
    ]
    for group in classes:
        cells = [
            [a, *(cell(rows_by_key[group, a, b]) for b in methods[: place + 1])]
            for place, a in enumerate(methods)
        ]
        lines += _aligned([[group, *methods], *cells])
    again = "on other folds" if folds else "with another seed"
    return [
        *lines,
        f"  at the end of a line: how far a method's map moves when trained again {again}",
        "  ~ not above the larger of these of the two methods: within the noise of retraining",
        f"  files: {path}, {path.with_suffix('.png')}",
    ]


def summarise_comparison(folder: Path) -> list[str]:
    """The distance table and the area table of one network's heatmaps, as text."""
    distances = read_rows(folder / "distances.tsv")
    classes = list(dict.fromkeys(row["class"] for row in distances))
    methods = list(dict.fromkeys(row["method_a"] for row in distances))
    distance_of = {
        (row["class"], row["method_a"], row["method_b"]): row["distance"] for row in distances
    }

    def cell(a: str, b: str) -> str:
        return " / ".join(_number(distance_of[c, a, b], 1e4) for c in classes)

    if len(methods) <= MOST_COLUMNS:
        cells = [["", *methods], *([a, *(cell(a, b) for b in methods)] for a in methods)]
    else:
        cells = [["", "the nearest", "", "the farthest", ""]]
        for a in methods:
            apart = {
                b: [float(distance_of[c, a, b]) for c in classes if distance_of[c, a, b] != MISSING]
                for b in methods
                if b != a
            }
            order = sorted((b for b in apart if apart[b]), key=lambda b: sum(apart[b]))
            ends = (order[0], order[-1]) if order else ()
            cells.append([a, *(part for b in ends for part in (b, cell(a, b)))])
    split, seed = folder.parts[-2], folder.parts[-1]
    lines = [
        f"Distances of the methods' average heatmaps, {' / '.join(classes)} in 1e-4 "
        f"({distances[0]['model']}, {split}, {seed})",
        *_aligned(cells),
        *summarise_areas(folder),
    ]
    names = "{distances,top_areas}.tsv, {mean_maps,distances,area_distribution}.png"
    return [*lines, f"  files: {folder}/{names}"]


def summarise_areas(folder: Path) -> list[str]:
    """The areas with most relevance of one network's heatmaps, as text."""
    distances, areas = read_rows(folder / "distances.tsv"), read_rows(folder / "top_areas.tsv")
    classes = list(dict.fromkeys(row["class"] for row in distances))
    methods = list(dict.fromkeys(row["method_a"] for row in distances))
    lines = []
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
    return lines


def summarise_localisation(folder: Path) -> list[str]:
    """Localisation scores of each method, the best first; empty without ground truth."""
    rows = [
        row
        for row in read_rows(folder / "localisation.tsv")
        if (row["region"], row["measure"]) == ("truth", "average_precision")
    ]
    if not rows:
        return []
    widths = list(dict.fromkeys(row["smoothing_mm"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    rows_by_key = {(row["method"], row["smoothing_mm"]): row for row in rows}

    def best_first(method: str) -> float:
        score = rows_by_key[method, widths[0]]["times_chance"]
        return -1.0 if score == MISSING else float(score)

    cells = [["", *(f"smoothed {float(w):g} mm" if float(w) else "as it is" for w in widths)]]
    for method in sorted(methods, key=best_first, reverse=True):
        of_widths = [rows_by_key[method, width] for width in widths]
        scores = [(_number(row["mean"]), _number(row["times_chance"], 1, 1)) for row in of_widths]
        cells.append([method, *(f"{mean} ({times} x chance)" for mean, times in scores)])
    return [
        "",
        "Finding what was simulated: average precision of each scan's heatmap",
        *_aligned(cells),
        f"  files: {folder}/localisation.tsv, {folder}/{{localisation,precision_recall,truth}}.png",
    ]


def summarise_faithfulness(folder: Path) -> list[str]:
    """Faithfulness of each method's heatmaps to the network, by class, the best first.

    The rank correlation is that with the heatmaps of a network with all layers randomised.
    """
    changes, forgotten = (
        read_rows(folder / name) if (folder / name).is_file() else [] for name in _FAITHFULNESS
    )
    rows_by_key = {(row["class"], row["method"], row["measure"]): row for row in changes}
    # The last row of a method is that of the last layer.
    similar = {row["method"]: row["mean"] for row in forgotten}
    pairs = list(dict.fromkeys((group, method) for group, method, _ in rows_by_key))
    pairs = pairs or [("", method) for method in similar]
    if not pairs:
        return []

    def best_first(pair: tuple[str, str]) -> tuple[int, float]:
        score = rows_by_key[*pair, "faithfulness"]["mean"] if rows_by_key else MISSING
        classes = list(dict.fromkeys(group for group, _ in pairs))
        return classes.index(pair[0]), float("inf") if score == MISSING else -float(score)

    header = ["", "class", "deletion", "insertion", "difference", "at random", "network at random"]
    cells = [header]
    for group, method in sorted(pairs, key=best_first):
        rows = [
            rows_by_key.get((group, method, m)) for m in ("deletion", "insertion", "faithfulness")
        ]
        numbers = [_number(row["mean"]) if row else "-" for row in rows]
        chance = f"{_number(rows[2]['chance'])}" if rows[2] else "-"
        rank = _number(similar[method]) if method in similar else "-"
        cells.append([method, group or "-", *numbers, chance, rank])
    return [
        "",
        "Faithfulness: areas under the curves of the target's probability while areas are deleted",
        "and inserted (difference: more is better), beside random orders; and rank correlation",
        "with the maps of a network whose layers are all random",
        *_aligned(cells),
        f"  files: {folder}/{{faithfulness,randomisation}}.{{tsv,png}}",
    ]


def _number(text: str, factor: float = 1, digits: int = 2) -> str:
    return MISSING if text == MISSING else f"{float(text) * factor:z.{digits}f}"


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
