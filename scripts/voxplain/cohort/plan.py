"""The plan of a simulated cohort: patients, visits, heads, and severity of the disease.

Only the standard library is needed, since the plan is drawn while the workflow is parsed. Every
value depends on the cohort's seed and the patient's number only: adding a patient, a visit, or a
group at the end does not change the other scans.
"""

from __future__ import annotations

import datetime
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from voxplain.cohort.visits import visit_month
from voxplain.faults import SetupFault

DESCRIPTION = "MP-RAGE"
_VISIT_LABELS = {"sc": "ADNI Screening", "bl": "ADNI Baseline"}
_CONVERTED = "AD"
_CONVERSION_MONTHS = 36  # converters are diagnosed within this time
_LARGEST_NUMBER = 9999  # the archive's subjects have four digits
_SITES = (2, 3, 5, 6, 7, 10, 11, 13, 14, 16, 18, 20, 21, 22, 23, 27, 29, 31, 33, 35, 36, 41, 52, 57)

# Columns of the archive's search export, in its order.
EXPORT_COLUMNS = (
    "Image Data ID",
    "Subject",
    "Group",
    "Sex",
    "Age",
    "Visit",
    "Modality",
    "Description",
    "Type",
    "Acq Date",
    "Format",
    "Downloaded",
)


@dataclass(frozen=True)
class PlannedScan:
    """All parameters of one scan to simulate.

    Attributes
    ----------
    image, subject, group, sex, age, visit
        Values of the archive's table.
    acquired
        Date and time of the acquisition, ISO 8601.
    head
        Name of the head to deform.
    severity
        0 (healthy) to 1 (the full ``max_loss`` of tissue in the diseased areas).
    ageing
        Fraction of brain tissue lost to age.
    shortcut
        Whether the scan has the cohort's shortcut, a change that is not caused by the disease.
    anatomy_seed, scan_seed
        Seed of the patient's properties, and seed of the properties of this scan.
    """

    image: str
    subject: str
    group: str
    sex: str
    age: float
    visit: str
    acquired: str
    head: str
    severity: float
    ageing: float
    shortcut: bool
    anatomy_seed: int
    scan_seed: int

    @property
    def folder(self) -> str:
        """The series' folder in the archive's tree, below ``ADNI``."""
        moment = datetime.datetime.fromisoformat(self.acquired)
        return f"{self.subject}/{DESCRIPTION}/{moment:%Y-%m-%d_%H_%M_%S}.0/{self.image}"

    def as_dict(self) -> dict[str, Any]:
        """The scan as a plain dict, sorted by key."""
        return dict(sorted(asdict(self).items()))

    def table_row(self) -> dict[str, str]:
        """The scan's row in the archive's search export."""
        moment = datetime.datetime.fromisoformat(self.acquired)
        values = (
            self.image,
            self.subject,
            self.group,
            self.sex,
            str(int(self.age)),
            self.visit,
            "MRI",
            DESCRIPTION,
            "Original",
            f"{moment.month}/{moment.day}/{moment.year}",
            "DCM",
            f"{moment.month}/{moment.day}/{moment.year + 1}",
        )
        return dict(zip(EXPORT_COLUMNS, values, strict=True))


def plan_cohort(
    seed: int,
    groups: Mapping[str, Mapping[str, Any]],
    visits: Mapping[str, float],
    age: Sequence[float],
    ageing_per_decade: float,
    progression_per_year: float,
    heads: Sequence[str],
    first_number: int = 0,
    shortcut: Mapping[str, Any] | None = None,
) -> list[PlannedScan]:
    """The planned scans of a simulated cohort.

    Parameters
    ----------
    seed
        Seed of the whole cohort.
    groups
        Group name (as in the archive: AD, MCI, CN, ...) to ``patients`` (number of patients),
        ``severity`` (lowest and highest at the first visit) and ``converts`` (share of the patients
        whose diagnosis becomes AD, 0 by default). For each converter a month up to 36 after the
        first visit is drawn; rows of visits from that month on have the diagnosis AD. Nothing else
        changes: the severity of converters grows as that of other patients.
    visits
        Visit code (``sc``, ``bl``, ``m06``, ``m12``, ...) to the share of patients with this visit.
        Every patient has the first visit.
    age
        Lowest and highest age at the first visit, in years.
    ageing_per_decade
        Fraction of brain tissue that every patient loses per decade after the age of 60.
    progression_per_year
        Growth of a diseased patient's severity in a year, as a fraction of the severity.
    heads
        Names of the heads. Each group uses all of them in turn, so that no head identifies a group
        and the numbers of a group's patients per head differ by at most one.
    first_number
        Added to the numbers of all patients, which subjects and image ids are made from, so that
        two cohorts do not share them: the numbers of a cohort go up to ten times its largest group.
    shortcut
        ``kind`` (``none``: no shortcut), ``group`` and ``share``: each scan with that group in its
        row has the shortcut with that probability. None for no shortcut.

    Returns
    -------
    Scans ordered by patient, then visit.

    Raises
    ------
    SetupFault
        A patient's number has more than four digits, a group has fewer patients than there are
        heads, or a visit code has no month.
    """
    _check_heads(groups, heads)
    months_of = _months_of(visits)
    scans = []
    anatomies: set[int] = set()
    for rank, (group, settings) in enumerate(groups.items()):
        for index in range(settings["patients"]):
            number = first_number + index * 10 + rank + 1
            if number > _LARGEST_NUMBER:
                raise SetupFault(
                    f"a simulated cohort with {settings['patients']} patients of group {group} "
                    f"numbers them beyond {_LARGEST_NUMBER} (its numbers start at {first_number}); "
                    "ask for fewer patients or fewer cohorts"
                )
            draw = random.Random(f"{seed}/{group}/{index}")
            subject = f"{draw.choice(_SITES):03d}_S_{number:04d}"
            sex = draw.choice("FM")
            first_age = draw.uniform(*age)
            first_severity = draw.uniform(*settings["severity"])
            anatomy_seed = draw.getrandbits(32)
            # With a thousand patients, about one cohort in ten thousand draws a number twice.
            redraw = random.Random(f"{seed}/{group}/{index}/anatomy")
            while anatomy_seed in anatomies:
                anatomy_seed = redraw.getrandbits(32)
            anatomies.add(anatomy_seed)
            first_day = datetime.date(2005, 9, 1) + datetime.timedelta(days=draw.randrange(700))
            conversion = _conversion_month(
                random.Random(f"{seed}/{group}/{index}/converts"), settings.get("converts", 0)
            )
            for position, (visit, share) in enumerate(visits.items()):
                # Each visit has its own generator, so that a further visit changes no other.
                draw = random.Random(f"{seed}/{group}/{index}/{visit}")
                if position > 0 and draw.random() >= share:
                    continue
                scan_seed = draw.getrandbits(32)
                second = draw.randrange(8 * 3600)
                months = months_of[visit]
                moment = datetime.datetime.combine(
                    first_day, datetime.time(9)
                ) + datetime.timedelta(days=round(months * 30.44), seconds=second)
                years = months / 12
                years_of_ageing = max(first_age + years - 60, 0)
                severity = min(first_severity * (1 + progression_per_year * years), 1.0)
                diagnosis = _CONVERTED if months >= conversion else group
                chance = random.Random(f"{seed}/{group}/{index}/{visit}/shortcut").random()
                scans.append(
                    PlannedScan(
                        image=f"I{1000000 + number * 1000 + months}",
                        subject=subject,
                        group=diagnosis,
                        sex=sex,
                        age=round(first_age + years, 2),
                        visit=_VISIT_LABELS.get(visit, f"ADNI1/GO Month {months}"),
                        acquired=moment.isoformat(),
                        head=heads[index % len(heads)],
                        severity=round(severity, 6),
                        ageing=round(ageing_per_decade * years_of_ageing / 10, 6),
                        shortcut=_carries(shortcut, diagnosis, chance),
                        anatomy_seed=anatomy_seed,
                        scan_seed=scan_seed,
                    )
                )
    return scans


def _check_heads(groups: Mapping[str, Mapping[str, Any]], heads: Sequence[str]) -> None:
    """Raise if some group has fewer patients than heads: a head would identify the class."""
    for group, settings in groups.items():
        if 0 < settings["patients"] < len(heads):
            raise SetupFault(
                f"a simulated cohort has {settings['patients']} patients of group {group} for "
                f"{len(heads)} heads: some heads would serve other groups only and give the class "
                f"away; ask for at least {len(heads)} patients of each group, or give fewer heads"
            )


def _months_of(visits: Iterable[str]) -> dict[str, int]:
    """Visit code to month."""
    months_of = {}
    for visit in visits:
        months = visit_month(visit)
        if months is None:
            raise SetupFault(f"a simulated cohort has a visit {visit!r}; allowed: sc, bl, m06, ...")
        months_of[visit] = months
    return months_of


def _carries(shortcut: Mapping[str, Any] | None, diagnosis: str, chance: float) -> bool:
    """Whether a scan has the shortcut, by a random number from 0 to 1."""
    if shortcut is None or shortcut["kind"] == "none" or shortcut["group"] != diagnosis:
        return False
    return chance < shortcut["share"]


def _conversion_month(draw: random.Random, share: float) -> float:
    """The month in which a patient is diagnosed with AD; infinite without conversion."""
    if draw.random() >= share:
        return math.inf
    return draw.uniform(0, _CONVERSION_MONTHS)
