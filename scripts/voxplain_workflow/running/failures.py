"""The failed jobs of a run, with reasons and logs: the last output of a failed run."""

from __future__ import annotations

import re
import signal
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxplain_workflow.jobs.frame import DONE, ERROR
from voxplain_workflow.running.recorder import EventRecorder

# State of a job in messages of the SLURM plugin.
SLURM_STATE = re.compile(r"SLURM status is: '([^']+)'")
# How a job's process ended, in messages of Snakemake. A shell gives a signal as 128 + its number.
_ENDED = re.compile(r"non-zero exit status (\d+)|died with <Signals\.\w+: (\d+)>")
# Exit statuses of a shell that could not start a command (POSIX).
_NOT_STARTED = {126: "cannot be run", 127: "was not found"}
# The usual cause of a signal, for those that have one.
_CAUSES = {
    signal.SIGKILL: ", as a rule for want of memory",
    signal.SIGSEGV: ": a fault in a compiled library",
    signal.SIGABRT: ": a compiled library gave up",
    signal.SIGFPE: ": a fault in a compiled library",
    signal.SIGILL: ": a compiled library needs another processor",
    signal.SIGBUS: ": a file was cut while it was read, or a disk is full",
}
# Only the last lines of a few logs are shown; their paths are listed for all.
LOGS_SHOWN = 3
LINES_SHOWN = 8
# More lines are shown if an error has many: a message may end with a list of scans.
MOST_LINES_SHOWN = 40
MOST_CHARACTERS = 400


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
    status
        Exit status of the job's process, 128 + the number of a signal that ended it; None if
        Snakemake did not report it.
    """

    rule: str
    log: str | None
    cluster_logs: tuple[str, ...] = ()
    reason: str = ""
    since: float = 0
    status: int | None = None


class FailureRecorder(EventRecorder):
    """Records the executor's reasons and logs of failed jobs from Snakemake's events."""

    def __init__(self) -> None:
        super().__init__()
        self._cluster_logs: dict[object, tuple[str, ...]] = {}
        self._reasons: dict[object, str] = {}
        # Snakemake logs an error without its job, just before the failed job, in the same thread.
        self._last_error: dict[object, str] = {}
        self._statuses: dict[object, int | None] = {}

    def note(self, event: str, fields: Mapping[str, Any]) -> None:
        """See :class:`EventRecorder`."""
        if event == "group_error":
            for job in fields["job_error_info"]:
                self._cluster_logs[job["jobid"]] = tuple(map(str, fields["aux_logs"]))
        elif event == "error":
            self._last_error[fields.get("thread")] = str(fields.get("msg", ""))
        elif event == "job_error":
            error = self._last_error.pop(fields.get("thread"), "")
            status = exit_status(error)
            self._statuses[fields["jobid"]] = status
            message = str(fields["rule_msg"] or "")
            # An error without an exit status is one of Snakemake, before or after the process.
            if not message and status is None:
                message = textwrap.shorten(error, MOST_CHARACTERS, placeholder=" ...")
            self._reasons[fields["jobid"]] = message
            self._cluster_logs.setdefault(fields["jobid"], tuple(map(str, fields["log"])))

    def failed_jobs(self, jobs: Iterable[Any], since: float) -> list[FailedJob]:
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
            status=self._statuses.get(job.jobid),
        )


def exit_status(text: str) -> int | None:
    """The last exit status in messages of Snakemake, as `FailedJob.status`; None without any."""
    found = _ENDED.findall(text)
    if not found:
        return None
    status, number = found[-1]
    return int(status) if status else 128 + int(number)


def describe_end(status: int | None, where: str = "the output above") -> str:
    """How a job ended that wrote no error to its log, in one line.

    Parameters
    ----------
    status
        See :class:`FailedJob`.
    where
        Where the job wrote what is not in its log.
    """
    if status is None:
        return (
            "it ended without an error in its log, and its exit status is not known; look for an "
            f"error in {where}"
        )
    if status in _NOT_STARTED:
        return (
            f"it did not start: the shell says that its program {_NOT_STARTED[status]} (exit "
            f"status {status}); see its message in {where}"
        )
    with suppress(ValueError):
        number = signal.Signals(status - 128)
        return f"it was ended by {number.name}{_CAUSES.get(number, '')}"
    return (
        f"it ended with exit status {status} and without an error in its log; look for one in "
        f"{where}"
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
    cluster_lines = [line for path in job.cluster_logs for line in _read(path)]
    reasons += [
        line.split("error: ", 1)[1]
        for line in cluster_lines
        if line.startswith("slurmstepd: error: ")
    ][:1]
    if reasons:
        return "; ".join(reasons)
    if lines and lines[-1].startswith(DONE):
        return "it ended well, but Snakemake did not see its files: a slow file system, as a rule"
    if any(line.startswith("Traceback (most recent call last)") for line in lines):
        return lines[-1].strip()
    where = "the logs of the cluster" if job.cluster_logs else "the output above"
    status = exit_status("\n".join(cluster_lines)) if job.status is None else job.status
    if status is None and job.rule.startswith("group "):
        return "none of its jobs says why; what the cluster said stands above"
    return describe_end(status, where)


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
