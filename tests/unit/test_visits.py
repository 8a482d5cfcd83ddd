"""The month of a visit, by a simulated visit's code and by a session's label."""

import pytest

from voxplain.cohort.visits import visit_month


@pytest.mark.parametrize(
    ("visit", "months"), [("sc", 0), ("bl", 0), ("m06", 6), ("m12", 12), ("m120", 120), ("m00", 0)]
)
def test_the_month_of_a_visit_ignores_case(visit, months):
    assert visit_month(visit) == visit_month(visit.upper()) == months


@pytest.mark.parametrize("visit", ["", "m", "12", "mm12", "M12a", "20050912", "ADNI2Year1Visit"])
def test_other_visits_have_no_month(visit):
    assert visit_month(visit) is None
