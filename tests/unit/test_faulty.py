"""A part of the plan that could not be made raises its reason on every access."""

import pytest

from voxplain_workflow.planning.faulty import Faulty

REASON = SystemExit("config: splits.folds is 9")


@pytest.mark.parametrize(
    "look",
    [
        lambda faulty: faulty["tiny"],
        lambda faulty: faulty.get("tiny"),
        lambda faulty: "tiny" in faulty,
        lambda faulty: list(faulty),
        lambda faulty: list(faulty.items()),
        lambda faulty: list(faulty.values()),
        lambda faulty: list(faulty.keys()),
        lambda faulty: len(faulty),
        lambda faulty: bool(faulty),
        lambda faulty: {**faulty},
        lambda faulty: faulty == {},
    ],
)
def test_every_access_raises_the_reason(look):
    with pytest.raises(SystemExit, match=r"splits\.folds is 9"):
        look(Faulty(REASON))
