"""How far a run is: jobs done and at work, the time that is left, and what the longest jobs say.

Snakemake tells of every job as it begins and ends, and not of what goes on inside: epochs, scans,
positions stand in each job's own log. Every now and then a line or two bring both together.
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

# Seconds between two reports: somebody watches a terminal, a log file is read afterwards.
WATCHED_S, LOGGED_S = 60, 300
# Jobs that are younger are about to end, or have nothing to say yet.
YOUNG_S = 20
JOBS_SHOWN = 4
_WIDTH = 100
# What tqdm draws between the share and the numbers says nothing in a line of text.
_BAR = re.compile(r"\|[^|]*\|")


@dataclass
class _Job:
    rule: str
    log: str
    started: float
    since: float  # the same by the clock of files


class ProgressRecorder(EventRecorder):
    """Keeps what Snakemake's log says of jobs that wait, begin and end.

    Parameters
    ----------
    expected_s
        Rule to the seconds that a job of it is expected to take; asked once, when it is needed.
    on_cluster
        Whether jobs are submitted: Snakemake is not told when one of them begins.
    clock
        Seconds that pass.
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

    def note(self, event: str, told: Mapping[str, Any]) -> None:
        """See :class:`EventRecorder`."""
        now = self._clock()
        if event == "run_info":
            counts = told["stats"]
            self._counts = {rule: int(n) for rule, n in counts.items() if rule != "total"}
            self._began = now
        elif event == "job_info":
            log = next(iter(map(str, told["log"])), "")
            self._jobs[told["jobid"]] = _Job(told["rule_name"], log, now, time.time())
        elif event == "job_finished":
            if job := self._jobs.pop(told["job_id"], None):
                self._took.setdefault(job.rule, []).append(now - job.started)
        elif event == "job_error":
            self._jobs.pop(told["jobid"], None)

    def describe(self) -> list[str]:
        """Lines on how far the run is; none before it began.

        The time left is that of the jobs left, divided by how many were at work at once so far. A
        rule's jobs are expected to take what its finished ones took; before there is one, what
        was reckoned for it, as far as this machine kept to that in other rules. On a cluster, where
        jobs wait in a queue, it is that of the work left as it was reckoned, as fast as the work
        that is done. Where nothing was reckoned for a rule whose jobs wait, nothing is said.
        """
        if self._began is None:
            return []
        now = self._clock()
        done, total = sum(map(len, self._took.values())), sum(self._counts.values())
        # Snakemake's thread goes on while this one reads.
        at_work = sorted(list(self._jobs.values()), key=lambda job: job.started)
        now_at_it = "submitted" if self._on_cluster else "at work"
        line = f"{done} of {total} jobs done, {len(at_work)} {now_at_it}"
        left = self._seconds_left(at_work, now)
        if left is not None:
            line += f", about {in_words(left)} left"
        lines = [line]
        for job in at_work[:JOBS_SHOWN]:
            said = last_line(job.log, job.since)
            if now - job.started >= YOUNG_S and said:
                name = job.log.removeprefix("logs/").removesuffix(".log")
                lines.append(f"  {_shortened(name, _WIDTH - len(said) - 4)}: {said}")
        return lines

    def _seconds_left(self, at_work: Sequence[_Job], now: float) -> float | None:
        if self._expected is None:
            try:
                self._expected = self._ask()
            except Exception:  # it is only about the time left
                self._expected = {}
        took = {rule: list(seconds) for rule, seconds in list(self._took.items())}
        reckoned = sum(len(seconds) * self._expected.get(r, 0.0) for r, seconds in took.items())
        busy = sum(map(sum, took.values()))
        waiting = Counter(self._counts)
        waiting.subtract({rule: len(seconds) for rule, seconds in took.items()})
        waiting = {rule: count for rule, count in waiting.items() if count > 0}
        if not reckoned or not busy or waiting.keys() - took.keys() - self._expected.keys():
            return None
        if self._on_cluster:
            left = sum(count * self._expected.get(rule, 0.0) for rule, count in waiting.items())
            return left / reckoned * (now - self._began)
        means = {rule: sum(seconds) / len(seconds) for rule, seconds in took.items()}
        slower = busy / reckoned

        def expected(rule: str) -> float:
            return means.get(rule, slower * self._expected.get(rule, 0.0))

        left = sum(count * expected(rule) for rule, count in waiting.items())
        elapsed = [now - job.started for job in at_work]
        left -= sum(min(s, expected(job.rule)) for s, job in zip(elapsed, at_work, strict=True))
        at_once = (busy + sum(elapsed)) / max(now - self._began, 1e-6)
        return left / max(at_once, 1.0)


def in_words(seconds: float) -> str:
    """A time as people say it: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{max(round(seconds, -1), 10):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _shortened(name: str, room: int) -> str:
    """A name without its middle where it is longer than there is room; its ends tell most."""
    if len(name) <= max(room, 30):
        return name
    half = (max(room, 30) - 3) // 2
    return f"{name[:half]}...{name[-half:]}"


def last_line(path: str, since: float = 0) -> str:
    """What a log said last, as a terminal would show it, and no more than fits into a line.

    Empty where there is no log, or one that an earlier run left: older than ``since``, by more than
    the minute that clocks of a cluster may differ.
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
    told = next((line for line in reversed(lines) if line), "")
    return " ".join(_BAR.sub(" ", told).split())[: _WIDTH - 34]


def spare_log(logger: logging.Logger) -> None:
    """Leave out what a logger would write of every single job, where somebody asked for quiet.

    ``--quiet rules`` leaves lines of the scheduler and of the share that is done, four for a job;
    a report every few minutes says the same. Snakemake's own log file, which would be as quiet,
    keeps everything: there one looks when something went wrong.
    """
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            for its in handler.filters:
                if getattr(its, "quiet", None):
                    its.quiet = set()
        elif isinstance(handler, logging.StreamHandler):
            handler.addFilter(_is_of_the_run)


def _is_of_the_run(record: logging.LogRecord) -> bool:
    event = str(getattr(record, "event", ""))
    told = event in ("progress", "job_started", "job_finished")
    return not told and record.getMessage() != "Select jobs to execute..."


class Reporter:
    """Writes what a recorder tells to standard error, every so often, until it is ended."""

    def __init__(self, recorder: ProgressRecorder, every_s: float | None = None) -> None:
        self._recorder = recorder
        self._every = every_s or (WATCHED_S if sys.stderr.isatty() else LOGGED_S)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, in a thread that does not keep the process alive."""
        self._thread = threading.Thread(target=self._report, name="progress", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Say no more, also if it was never begun."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _report(self) -> None:
        while not self._ended.wait(self._every):
            # In one piece, so that no other line comes between; a display of the running jobs
            # (--logger rich) puts itself in the place of stderr and stays below.
            lines = self._recorder.describe()
            if lines and not self._ended.is_set():
                print(
                    "\n".join(["", time.strftime("%H:%M ") + lines[0], *lines[1:]]), file=sys.stderr
                )
