"""What Snakemake's scheduler does between jobs."""

from __future__ import annotations

from typing import Any

# Snakemake's default of --max-jobs-per-timespan: jobs, seconds.
DEFAULT_RATE = 100, 1


def lift_default_rate_limit(scheduler: Any) -> None:
    """Take away the limit of jobs a second that nobody asked for; one that was chosen stays.

    Under a limit every pass of Snakemake's scheduler starts a timer for another pass, which starts
    one more: while jobs wait for cores, each job that ends leaves a pass a second behind, and after
    some hundred jobs the scheduler takes a third of a core from them (Snakemake 9.27, its pull
    request 3744; ``benchmarks/scheduling.py``). What a machine or a cluster can take is said by
    ``--cores`` and ``--jobs``.

    Parameters
    ----------
    scheduler
        The workflow's ``snakemake.scheduling.job_scheduler.JobScheduler``, before its first pass.
    """
    # No part of Snakemake's interface: another version may have none.
    limit = getattr(scheduler, "job_rate_limiter", None)
    if limit is not None and (limit.max_jobs, limit.timespan) == DEFAULT_RATE:
        scheduler.job_rate_limiter = None
