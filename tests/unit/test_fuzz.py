"""Some of the bad inputs of tests/fuzz.py, which can make any number."""

import pytest

import fuzz

pytestmark = pytest.mark.slow

# Inputs that once showed a bug are kept here.
FOUND = {"table": [100], "dicom": [95, 133, 157], "volume": [16, 527], "config": []}


@pytest.mark.parametrize(
    ("kind", "seed"),
    [
        *(("table", seed) for seed in [*range(30), *FOUND["table"]]),
        *(("dicom", seed) for seed in [*range(8), *FOUND["dicom"]]),
        *(("volume", seed) for seed in [*range(30), *FOUND["volume"]]),
        *(("config", seed) for seed in [*range(6), *FOUND["config"]]),
    ],
)
def test_a_bad_input_is_a_clean_error_or_a_correct_result(kind, seed):
    fuzz.try_one(kind, seed)
