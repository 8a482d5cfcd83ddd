"""Which jobs of a run failed, why, and where their logs are: the last thing a failed run prints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxplain_workflow.jobs.frame import DONE, ERROR
from voxplain_workflow.running.recorder import EventRecorder

# How the SLURM plugin tells of a job.
SLURM_STATE = re.compile(r"SLURM status is: '([^']+)'")
# Whole logs are at hand; the end of a run shows the end of a few.
LOGS_SHOWN = 3
LINES_SHOWN = 8
# A verdict may be followed by the list of those it is of.
MOST_LINES_SHOWN = 40


@dataclass(frozen=True)
class FailedJob:
    """A job that failed, as Snakemake tells of it.

    Attributes
    ----------
    rule
        Its rule, or ``group scan`` for jobs that were sent to a cluster as one.
    log
        The rule's own log; a group has none.
    cluster_logs
        What the cluster wrote of it.
    reason
        What the executor says of it; empty where it says nothing.
    since
        Of its log, only what was written after this counts.
    """

    rule: str
    log: str | None
    cluster_logs: tuple[str, ...] = ()
    reason: str = ""
    since: float = 0


class FailureRecorder(EventRecorder):
    """Keeps what Snakemake's log says of jobs that fail: the executor's reason and logs."""

    def __init__(self) -> None:
        super().__init__()
        self._cluster_logs: dict[object, tuple[str, ...]] = {}
        self._reasons: dict[object, str] = {}

    def note(self, event: str, told: Mapping[str, Any]) -> None:
        """See :class:`EventRecorder`."""
        if event == "group_error":
            for job in told["job_error_info"]:
                self._cluster_logs[job["jobid"]] = tuple(map(str, told["aux_logs"]))
        elif event == "job_error":
            self._reasons[told["jobid"]] = str(told["rule_msg"] or "")
            self._cluster_logs.setdefault(told["jobid"], tuple(map(str, told["log"])))

    def tell_of(self, jobs: Iterable[Any], since: float) -> list[FailedJob]:
        """The jobs to blame; of a group those that began and did not end well, or the group.

        Parameters
        ----------
        jobs
            Snakemake's own, of those that failed for good (``workflow.scheduler.failed``).
        since
            When the run began: what a log says that is older, an earlier run said.
        """
        found = []
        for job in jobs:
            if not job.is_group():
                found.append(self._tell_of_one(job, since))
                continue
            members = [self._tell_of_one(member, since) for member in job.jobs]
            broken = [member for member in members if _broke_off(member)]
            group = FailedJob(f"group {job.groupid}", None, members[0].cluster_logs)
            found += broken or [group]
        return sorted(found, key=lambda job: (job.rule, job.log or ""))

    def _tell_of_one(self, job: Any, since: float) -> FailedJob:
        own = next(iter(map(str, job.log)), None)
        cluster_logs = self._cluster_logs.get(job.jobid, ())
        return FailedJob(
            rule=job.rule.name,
            log=own,
            cluster_logs=tuple(path for path in cluster_logs if path != own),
            reason=self._reasons.get(job.jobid, ""),
            since=since,
        )


def _read(path: str | None, since: float = 0) -> list[str]:
    try:
        place = Path(path or "")
        # The clocks of a cluster differ, if not by a minute.
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
    """Why a job failed, in one line: its own last word, the executor's, the cluster's."""
    own = _read(job.log, job.since)
    told = [line.removeprefix(ERROR) for line in own if line.startswith(ERROR)][-1:]
    state = SLURM_STATE.search(job.reason)
    # Its plugin says much more around it; and that it FAILED says less than the job itself did.
    if state is None:
        told += job.reason.strip().splitlines()[:1]
    elif not told or state[1] != "FAILED":
        told.append(f"SLURM says {state[1]}")
    told += [
        line.split("error: ", 1)[1]
        for path in job.cluster_logs
        for line in _read(path)
        if line.startswith("slurmstepd: error: ")
    ][:1]
    if told:
        return "; ".join(told)
    if job.rule.startswith("group "):
        return "none of its jobs says why; what the cluster said stands above"
    if own and own[-1].startswith(DONE):
        return "it ended well, but Snakemake did not see its files: a slow file system, as a rule"
    return "it ended without a word: killed, as a rule for want of memory"


def _end_of(lines: Sequence[str]) -> Sequence[str]:
    """The last lines of a log, and all that its error says, in reason."""
    errors = [number for number, line in enumerate(lines) if line.startswith(ERROR)]
    first = min([*errors[-1:], len(lines) - LINES_SHOWN])
    return lines[max(first, 0) :][:MOST_LINES_SHOWN]


def describe_failures(failed: Sequence[FailedJob]) -> str:
    """The jobs that failed, why, and their logs, some with their end; empty if none did."""
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
