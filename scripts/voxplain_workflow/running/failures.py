"""The failed jobs of a run, with reasons and logs: the last output of a failed run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxplain_workflow.jobs.frame import DONE, ERROR
from voxplain_workflow.running.recorder import EventRecorder

# State of a job in messages of the SLURM plugin.
SLURM_STATE = re.compile(r"SLURM status is: '([^']+)'")
# Only the last lines of a few logs are shown; their paths are listed for all.
LOGS_SHOWN = 3
LINES_SHOWN = 8
# More lines are shown if an error has many: a message may end with a list of scans.
MOST_LINES_SHOWN = 40


@dataclass(frozen=True)
class FailedJob:
    """A failed job, from the records of Snakemake.

    Attributes
    ----------
    rule
        Rule of the job, or ``group scan`` for jobs that were submitted together.
    log
        Path of the rule's log; None for a group.
    cluster_logs
        Paths of the logs of the cluster.
    reason
        Message of the executor; may be empty.
    since
        A log that was last written before this time is ignored.
    """

    rule: str
    log: str | None
    cluster_logs: tuple[str, ...] = ()
    reason: str = ""
    since: float = 0


class FailureRecorder(EventRecorder):
    """Records the executor's reasons and logs of failed jobs from Snakemake's events."""

    def __init__(self) -> None:
        super().__init__()
        self._cluster_logs: dict[object, tuple[str, ...]] = {}
        self._reasons: dict[object, str] = {}

    def note(self, event: str, fields: Mapping[str, Any]) -> None:
        """See :class:`EventRecorder`."""
        if event == "group_error":
            for job in fields["job_error_info"]:
                self._cluster_logs[job["jobid"]] = tuple(map(str, fields["aux_logs"]))
        elif event == "job_error":
            self._reasons[fields["jobid"]] = str(fields["rule_msg"] or "")
            self._cluster_logs.setdefault(fields["jobid"], tuple(map(str, fields["log"])))

    def tell_of(self, jobs: Iterable[Any], since: float) -> list[FailedJob]:
        """The failed jobs. A group is replaced by its jobs that started and failed, if any.

        Parameters
        ----------
        jobs
            Snakemake's jobs that failed for good (``workflow.scheduler.failed``).
        since
            Start of the run: older logs belong to an earlier run.
        """
        failed = []
        for job in jobs:
            if not job.is_group():
                failed.append(self._failed_job(job, since))
                continue
            members = [self._failed_job(member, since) for member in job.jobs]
            broken = [member for member in members if _broke_off(member)]
            group = FailedJob(f"group {job.groupid}", None, members[0].cluster_logs)
            failed += broken or [group]
        return sorted(failed, key=lambda job: (job.rule, job.log or ""))

    def _failed_job(self, job: Any, since: float) -> FailedJob:
        log = next(iter(map(str, job.log)), None)
        cluster_logs = self._cluster_logs.get(job.jobid, ())
        return FailedJob(
            rule=job.rule.name,
            log=log,
            cluster_logs=tuple(path for path in cluster_logs if path != log),
            reason=self._reasons.get(job.jobid, ""),
            since=since,
        )


def _read(path: str | None, since: float = 0) -> list[str]:
    try:
        place = Path(path or "")
        # The clocks of a cluster may differ by up to a minute.
        if place.stat().st_mtime < since - 60:
            return []
        text = place.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()]


def _broke_off(job: FailedJob) -> bool:
    lines = _read(job.log, job.since)
    return bool(lines) and not lines[-1].startswith(DONE)


def explain(job: FailedJob) -> str:
    """The reason of a failure in one line: from the job's log, the executor and the cluster."""
    lines = _read(job.log, job.since)
    reasons = [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)][-1:]
    state = SLURM_STATE.search(job.reason)
    # Of the SLURM plugin's message only the state counts; FAILED adds nothing to the job's error.
    if state is None:
        reasons += job.reason.strip().splitlines()[:1]
    elif not reasons or state[1] != "FAILED":
        reasons.append(f"SLURM says {state[1]}")
    reasons += [
        line.split("error: ", 1)[1]
        for path in job.cluster_logs
        for line in _read(path)
        if line.startswith("slurmstepd: error: ")
    ][:1]
    if reasons:
        return "; ".join(reasons)
    if job.rule.startswith("group "):
        return "none of its jobs says why; what the cluster said stands above"
    if lines and lines[-1].startswith(DONE):
        return "it ended well, but Snakemake did not see its files: a slow file system, as a rule"
    return "it ended without a word: killed, as a rule for want of memory"


def _end_of(lines: Sequence[str]) -> Sequence[str]:
    """The last lines of a log, with its whole error message up to `MOST_LINES_SHOWN` lines."""
    errors = [number for number, line in enumerate(lines) if line.startswith(ERROR)]
    first = min([*errors[-1:], len(lines) - LINES_SHOWN])
    return lines[max(first, 0) :][:MOST_LINES_SHOWN]


def describe_failures(failed: Sequence[FailedJob]) -> str:
    """Message with the failed jobs, their reasons and logs; empty if no job failed."""
    if not failed:
        return ""
    lines = [f"{len(failed)} job{'s' if len(failed) > 1 else ''} failed:"]
    for place, job in enumerate(failed):
        lines += ["", f"  {job.rule}: {explain(job)}"]
        lines += [f"    log: {path}" for path in (job.log, *job.cluster_logs) if path]
        if place < LOGS_SHOWN:
            lines += [f"    | {line}" for line in _end_of(_read(job.log, job.since))]
    lines += ["", "Mend this and run the same command again: what other jobs finished is kept."]
    return "\n".join(lines)
