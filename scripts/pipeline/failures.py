"""Which jobs of a run failed, why, and where their logs are: the last thing a failed run prints."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

# The last line of a job that ended well (pipeline.job).
DONE = "done in "
# How the SLURM plugin tells of a job.
SLURM_STATE = re.compile(r"SLURM status is: '([^']+)'")
# Whole logs are at hand; the end of a run shows the end of a few.
LOGS_SHOWN = 3
LINES_SHOWN = 8


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
    """

    rule: str
    log: str | None
    cluster_logs: tuple[str, ...] = ()
    reason: str = ""


class FailureRecorder(logging.Handler):
    """Listens to Snakemake's log for failed jobs; what succeeds at a later attempt is forgotten."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._failed: dict[object, FailedJob] = {}
        self._groups: dict[frozenset[object], FailedJob] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of one event (``snakemake_interface_logger_plugins.common.LogEvent``)."""
        event, told = str(getattr(record, "event", "")), vars(record)
        if event == "group_error":
            members = frozenset(job["jobid"] for job in told["job_error_info"])
            cluster = tuple(map(str, told["aux_logs"]))
            self._groups[members] = FailedJob(f"group {told['groupid']}", None, cluster)
        elif event == "job_error":
            # An executor's own log stands behind the rule's.
            own, *cluster = map(str, told["log"])
            reason = str(told["rule_msg"] or "")
            self._failed[told["jobid"]] = FailedJob(told["rule_name"], own, tuple(cluster), reason)
        elif event == "job_finished":
            self._failed.pop(told["job_id"], None)

    @property
    def failed(self) -> list[FailedJob]:
        """The jobs that are to blame, in the order in which they failed.

        Of a group these are the jobs that began and did not end well; if none did, the group.
        """
        blamed, of_groups = [], set()
        for members, group in self._groups.items():
            left = [self._failed[member] for member in members if member in self._failed]
            logs = group.cluster_logs
            broken = [replace(job, cluster_logs=logs) for job in left if _broke_off(job)]
            blamed += broken or ([group] if left else [])
            of_groups |= members
        return blamed + [job for key, job in self._failed.items() if key not in of_groups]


def _read(path: str | None) -> list[str]:
    try:
        text = Path(path or "").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()]


def _broke_off(job: FailedJob) -> bool:
    lines = _read(job.log)
    return bool(lines) and not lines[-1].startswith(DONE)


def explain(job: FailedJob) -> str:
    """Why a job failed, in one line: its own last word, the executor's, the cluster's."""
    own = _read(job.log)
    told = [own[-1].removeprefix("ERROR: ")] if own and own[-1].startswith("ERROR: ") else []
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
    if job.log is None:
        return "none of its jobs began; what the cluster said stands above"
    return "it ended without a word: killed, as a rule for want of memory"


def describe_failures(failed: Sequence[FailedJob]) -> str:
    """The jobs that failed, why, and their logs, some with their end; empty if none did."""
    if not failed:
        return ""
    lines = [f"{len(failed)} job{'s' if len(failed) > 1 else ''} failed:"]
    for place, job in enumerate(failed):
        lines += ["", f"  {job.rule}: {explain(job)}"]
        lines += [f"    log: {path}" for path in (job.log, *job.cluster_logs) if path]
        if place < LOGS_SHOWN:
            lines += [f"    | {line}" for line in _read(job.log)[-LINES_SHOWN:]]
    lines += ["", "What is finished is kept: mend this and run the same command again."]
    return "\n".join(lines)
