import random

import pytest

from unit.test_pages import Reader
from voxplain.cohort.fates import COLUMNS
from voxplain.cohort.outliers import find_outliers
from voxplain_workflow.reports.quality import page_of_quality, table_of_flags


def scan(number, fate="usable", **measures):
    quality = {
        "brain_volume_ml": 1400 + 10 * (number % 5),
        "largest_part": 1.0,
        "border_share": 0.0,
        "overlap": 0.98,
        "similarity": 0.85,
    }
    if fate == "failed":
        quality = dict.fromkeys(quality, "n/a")
    row = dict.fromkeys(COLUMNS, "n/a") | {"image": f"I{number}", "fate": fate, "subject": "s"}
    return {key: str(value) for key, value in (row | quality | measures).items()}


@pytest.fixture
def cohort():
    """Ten scans with a median volume of 1420 ml and a median deviation of 10 ml."""
    return [scan(number) for number in range(10)]


@pytest.mark.parametrize(
    ("measure", "value", "distance"),
    [
        # 20 ml is the smallest SD that is used, and more than 1.4826 * 10.
        ("brain_volume_ml", 1491, 3.55),
        ("brain_volume_ml", 1349, -3.55),
        ("similarity", 0.80, -5),
        ("overlap", 0.97, -5),
        ("largest_part", 0.99, -5),
        ("border_share", 0.02, 4),
    ],
)
def test_a_measure_far_from_the_median_is_flagged(cohort, measure, value, distance):
    (flag,) = find_outliers([*cohort, scan(10, **{measure: value})])
    assert (flag.image, flag.measure, flag.value) == ("I10", measure, value)
    assert flag.distance == pytest.approx(distance)


def test_the_spread_is_the_median_absolute_deviation():
    volumes = [1000, 1100, 1200, 1300, 1400, 1500, 1600, 1700, 1800]
    # Median 1400, absolute deviations 0 100 100 200 200 300 300 400 400, their median 200.
    table = [scan(n, brain_volume_ml=v) for n, v in enumerate(volumes)]
    far = 1400 + 3.5 * 1.4826 * 200
    for volume, flags in ((far - 1, 0), (far + 1, 1)):
        excluded = scan(9, fate="excluded", brain_volume_ml=volume)
        assert len(find_outliers([*table, excluded])) == flags, "the median does not change"


@pytest.mark.parametrize(
    "better", [{"similarity": 0.95}, {"overlap": 1.0}, {"brain_volume_ml": 1489}]
)
def test_better_or_similar_values_are_not_flagged(cohort, better):
    assert find_outliers([*cohort, scan(10, **better)]) == []


def test_few_scans_are_not_flagged(cohort):
    assert find_outliers([*cohort[:6], scan(10, similarity=0.1)]) == []
    assert find_outliers([*cohort[:7], scan(10, similarity=0.1)])


def test_scans_without_measures_are_ignored(cohort):
    failed = [scan(20 + n, fate="failed") for n in range(30)]
    (flag,) = find_outliers([*cohort, *failed, scan(10, similarity=0.5)])
    assert flag.image == "I10"


def test_the_page_has_the_worst_first_and_shows_each_scans_pictures(cohort, tmp_path):
    table = [
        *cohort,
        scan(10, similarity=0.5),
        scan(11, similarity=0.3, conversion="the qform was trusted"),
        scan(12, fate="excluded", stage="quality", reason="too large", brain_volume_ml=2400),
        scan(13, fate="failed", stage="convert", reason="truncated", remedy="again"),
        scan(14, fate="unused"),
    ]
    random.Random(1).shuffle(table)
    pictures = {
        row["image"]: {"mask": tmp_path / f"figures/{row['image']}.png", "registration": "x.png"}
        for row in table
        if row["fate"] != "unused"
    }
    page_of_quality("own", table, pictures, tmp_path, "1").write(tmp_path / "quality.html")
    text = (tmp_path / "quality.html").read_text()
    read = Reader(text)
    assert (
        "15 scans: 1 failed, 1 excluded, 12 usable, 1 unused; 2 of the usable ones flagged." in text
    )
    width = text.count("<th scope")
    rows = [read.cells[n : n + width] for n in range(0, len(read.cells), width)]
    order = [(row[0], row[1]) for row in rows]
    assert order[:4] == [
        ("I13", "failed in convert"),
        ("I12", "excluded in quality"),
        ("I11", "flagged (usable)"),
        ("I10", "flagged (usable)"),
    ]
    assert order[-1] == ("I14", "unused")
    assert rows[0][4] == "truncated; again"
    assert rows[0][5] == "n/a", "an unstripped scan has no rung"
    assert (
        rows[2][4] == "the qform was trusted; Similarity 0.300 lies 55.0 SD below the median 0.850"
    )
    assert "too large; Brain, ml 2400 lies 44.3 SD above the median 1415" in rows[1][4]
    sources = [picture["src"] for picture in read.pictures]
    assert len(sources) == 2 * 14
    assert sources[0] == "figures/I13.png"


def test_the_table_of_flags_is_sorted_by_distance(cohort):
    table = [*cohort, scan(10, similarity=0.7), scan(11, overlap=0.94)]
    flags = table_of_flags(find_outliers(table))
    assert list(flags["image"]) == ["I11", "I10"]
    assert list(flags["distance_sd"]) == [pytest.approx(-20), pytest.approx(-15)]
    assert table_of_flags([]).empty
