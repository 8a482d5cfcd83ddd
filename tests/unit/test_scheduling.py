"""The limit of jobs per second: Snakemake's default is removed, one set by the user is kept."""

from types import SimpleNamespace

import pytest
from snakemake.cli import get_argument_parser
from snakemake.scheduling.job_scheduler import JobRateLimiter
from snakemake.settings.types import MaxJobsPerTimespan

from voxplain_workflow.running.scheduling import lift_default_rate_limit


def scheduler(limit):
    return SimpleNamespace(job_rate_limiter=JobRateLimiter(MaxJobsPerTimespan.parse_choice(limit)))


def test_the_default_limit_is_removed():
    default = scheduler(get_argument_parser().get_default("max_jobs_per_timespan"))
    lift_default_rate_limit(default)
    assert default.job_rate_limiter is None


@pytest.mark.parametrize("limit", ["10/1s", "100/1m", "1000/1s"])
def test_a_limit_set_by_the_user_is_kept(limit):
    chosen = scheduler(limit)
    limiter = chosen.job_rate_limiter
    lift_default_rate_limit(chosen)
    assert chosen.job_rate_limiter is limiter


def test_a_scheduler_without_limits_is_unchanged():
    for without in (SimpleNamespace(job_rate_limiter=None), SimpleNamespace()):
        before = dict(vars(without))
        lift_default_rate_limit(without)
        assert vars(without) == before
