"""Progress of a run: finished and running jobs, the time left, and last lines of job logs.

Snakemake reports the start and the end of each job. Progress within a job (epochs, scans,
positions) is in the log of the job. Regular reports of a few lines combine both.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxplain_workflow.running.recorder import EventRecorder

# Seconds between two reports: on a terminal, which users watch, and in a log file.
WATCHED_S, LOGGED_S = 60, 300
# Younger jobs are not shown: they end soon, or have not logged anything yet.
YOUNG_S = 20
JOBS_SHOWN = 4
_WIDTH = 100
# The bar that tqdm draws between the percentage and the numbers.
_BAR = re.compile(r"\|[^|]*\|")


@dataclass
class _Job:
    rule: str
    log: str
    started: float
    since: float  # the start by the clock of files


class ProgressRecorder(EventRecorder):
    """Records the waiting, running and finished jobs from Snakemake's events.

    Parameters
    ----------
    expected_s
        Returns rule to the expected seconds of one job; called once, when it is needed.
    on_cluster
        Whether jobs are submitted: Snakemake then does not know when a job starts.
    clock
        Returns the time in seconds.
    """

    def __init__(
        self,
        expected_s: Callable[[], Mapping[str, float]],
        on_cluster: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._ask, self._on_cluster, self._clock = expected_s, on_cluster, clock
        self._expected: Mapping[str, float] | None = None
        self._counts: dict[str, int] = {}
        self._jobs: dict[int, _Job] = {}
        self._took: dict[str, list[float]] = {}
        self._began: float | None = None

    def note(self, event: str, fields: Mapping[str, Any]) -> None:
        """See :class:`EventRecorder`."""
        now = self._clock()
        if event == "run_info":
            counts = fields["stats"]
            self._counts = {rule: int(n) for rule, n in counts.items() if rule != "total"}
            self._began = now
        elif event == "job_info":
            log = next(iter(map(str, fields["log"])), "")
            self._jobs[fields["jobid"]] = _Job(fields["rule_name"], log, now, time.time())
        elif event == "job_finished":
            if job := self._jobs.pop(fields["job_id"], None):
                self._took.setdefault(job.rule, []).append(now - job.started)
        elif event == "job_error":
            self._jobs.pop(fields["jobid"], None)

    def describe(self) -> list[str]:
        """Lines on the progress of the run; empty before it began.

        The time left is the expected time of the remaining jobs, divided by the mean number of
        jobs that ran at once. Jobs are expected to take as long as the finished jobs of their
        rule. A rule without finished jobs gets its estimate, scaled by the ratio of measured to
        estimated times of the other rules. On a cluster, where jobs wait in a queue, the remaining
        work is estimated, and divided by the speed so far. If a waiting rule has neither finished
        jobs nor an estimate, the time left is omitted.
        """
        if self._began is None:
            return []
        now = self._clock()
        done, total = sum(map(len, self._took.values())), sum(self._counts.values())
        # A copy, since Snakemake's thread changes the jobs meanwhile.
        at_work = sorted(list(self._jobs.values()), key=lambda job: job.started)
        state = "submitted" if self._on_cluster else "at work"
        line = f"{done} of {total} jobs done, {len(at_work)} {state}"
        left = self._seconds_left(at_work, now)
        if left is not None:
            line += f", about {in_words(left)} left"
        lines = [line]
        for job in at_work[:JOBS_SHOWN]:
            message = last_line(job.log, job.since)
            if now - job.started >= YOUNG_S and message:
                name = job.log.removeprefix("logs/").removesuffix(".log")
                lines.append(f"  {_shortened(name, _WIDTH - len(message) - 4)}: {message}")
        return lines

    def _seconds_left(self, at_work: Sequence[_Job], now: float) -> float | None:
        if self._expected is None:
            try:
                self._expected = self._ask()
            except Exception:  # only the time left is missing then
                self._expected = {}
        took = {rule: list(seconds) for rule, seconds in list(self._took.items())}
        estimated = sum(len(seconds) * self._expected.get(r, 0.0) for r, seconds in took.items())
        busy = sum(map(sum, took.values()))
        waiting = Counter(self._counts)
        waiting.subtract({rule: len(seconds) for rule, seconds in took.items()})
        waiting = {rule: count for rule, count in waiting.items() if count > 0}
        if not estimated or not busy or waiting.keys() - took.keys() - self._expected.keys():
            return None
        if self._on_cluster:
            left = sum(count * self._expected.get(rule, 0.0) for rule, count in waiting.items())
            return left / estimated * (now - self._began)
        means = {rule: sum(seconds) / len(seconds) for rule, seconds in took.items()}
        slower = busy / estimated

        def expected(rule: str) -> float:
            return means.get(rule, slower * self._expected.get(rule, 0.0))

        left = sum(count * expected(rule) for rule, count in waiting.items())
        elapsed = [now - job.started for job in at_work]
        left -= sum(min(s, expected(job.rule)) for s, job in zip(elapsed, at_work, strict=True))
        at_once = (busy + sum(elapsed)) / max(now - self._began, 1e-6)
        return left / max(at_once, 1.0)


def in_words(seconds: float) -> str:
    """A duration as text: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{max(round(seconds, -1), 10):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _shortened(name: str, room: int) -> str:
    """A name, its middle replaced by dots if it exceeds ``room`` (at least 30) characters."""
    if len(name) <= max(room, 30):
        return name
    half = (max(room, 30) - 3) // 2
    return f"{name[:half]}...{name[-half:]}"


def last_line(path: str, since: float = 0) -> str:
    """The last line of a log as a terminal would show it, cut to the width of a line.

    Empty if there is no log, or only that of an earlier run: older than ``since`` by more than a
    minute, by which the clocks of a cluster may differ.
    """
    try:
        if Path(path).stat().st_mtime < since - 60:
            return ""
        with open(path, "rb") as stream:
            stream.seek(max(Path(path).stat().st_size - 4096, 0))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
    last = next((line for line in reversed(lines) if line), "")
    return " ".join(_BAR.sub(" ", last).split())[: _WIDTH - 34]


def spare_log(logger: logging.Logger) -> None:
    """Suppress the messages on single jobs on the terminal, for runs with ``--quiet``.

    ``--quiet rules`` still prints lines of the scheduler and of the finished share, four for each
    job; the regular reports have this information. Snakemake's log file keeps everything, for
    the search for errors.
    """
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            for log_filter in handler.filters:
                if getattr(log_filter, "quiet", None):
                    log_filter.quiet = set()
        elif isinstance(handler, logging.StreamHandler):
            handler.addFilter(_is_of_the_run)


def _is_of_the_run(record: logging.LogRecord) -> bool:
    event = str(getattr(record, "event", ""))
    of_single_job = event in ("progress", "job_started", "job_finished")
    return not of_single_job and record.getMessage() != "Select jobs to execute..."


class Reporter:
    """Writes the reports of a recorder to standard error at intervals, until it is ended."""

    def __init__(self, recorder: ProgressRecorder, every_s: float | None = None) -> None:
        self._recorder = recorder
        self._every = every_s or (WATCHED_S if sys.stderr.isatty() else LOGGED_S)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the reports, in a thread that does not keep the process alive."""
        self._thread = threading.Thread(target=self._report, name="progress", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the reports; also allowed if they never started."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _report(self) -> None:
        while not self._ended.wait(self._every):
            # One print, so that no other line comes between. A display of the running jobs
            # (--logger rich) replaces stderr and stays below.
            lines = self._recorder.describe()
            if lines and not self._ended.is_set():
                print(
                    "\n".join(["", time.strftime("%H:%M ") + lines[0], *lines[1:]]), file=sys.stderr
                )
