"""Settings of Snakemake's scheduler."""

from __future__ import annotations

from typing import Any

# Snakemake's default of --max-jobs-per-timespan: jobs, seconds.
DEFAULT_RATE = 100, 1


def lift_default_rate_limit(scheduler: Any) -> None:
    """Remove the default limit of jobs per second; a limit that the user chose stays.

    With a limit every pass of Snakemake's scheduler starts a timer for another pass, which starts
    one more. While jobs wait for cores, each finished job adds one pass per second, and after some
    hundred jobs the scheduler takes a third of a core (Snakemake 9.27, its pull request 3744;
    ``benchmarks/scheduling.py``). ``--cores`` and ``--jobs`` set the load of a machine or cluster.

    Parameters
    ----------
    scheduler
        The workflow's ``snakemake.scheduling.job_scheduler.JobScheduler``, before its first pass.
    """
    # Not part of Snakemake's interface: other versions may not have it.
    limit = getattr(scheduler, "job_rate_limiter", None)
    if limit is not None and (limit.max_jobs, limit.timespan) == DEFAULT_RATE:
        scheduler.job_rate_limiter = None
