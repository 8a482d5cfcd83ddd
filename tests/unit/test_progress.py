"""What a run says of how far it is, from the events that Snakemake logs."""

import io
import logging
import os
import time

import pytest
from snakemake.logging import DefaultFilter
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent

from voxplain_workflow.running.progress import (
    ProgressRecorder,
    Reporter,
    in_words,
    last_line,
    spare_log,
)


class Told:
    """A run whose events and time are given."""

    def __init__(self, stats, expected=None, on_cluster=False):
        self.now = 0.0
        self.asked = 0
        self.expected = expected or {}
        self.recorder = ProgressRecorder(self.ask, on_cluster, lambda: self.now)
        self.event("run_info", stats={**stats, "total": sum(stats.values())})

    def ask(self):
        self.asked += 1
        return self.expected

    def event(self, name, **told):
        record = logging.makeLogRecord({"event": name, **told})
        self.recorder.emit(record)

    def begin(self, jobid, rule, log=""):
        self.event("job_info", jobid=jobid, rule_name=rule, log=[log] if log else [])

    def end(self, jobid):
        self.event("job_finished", job_id=jobid)

    @property
    def line(self):
        return self.recorder.describe()[0]


def test_before_the_run_begins_there_is_nothing_to_say():
    assert ProgressRecorder(dict).describe() == []


def test_jobs_done_and_at_work_are_counted():
    run = Told({"strip": 3, "train": 2})
    assert run.line == "0 of 5 jobs done, 0 at work"
    run.begin(1, "strip")
    run.begin(2, "strip")
    run.now = 10
    run.end(1)
    assert run.line.startswith("1 of 5 jobs done, 1 at work")


def test_a_failed_job_is_no_longer_at_work_and_not_done():
    run = Told({"strip": 3})
    run.begin(1, "strip")
    run.event("job_error", jobid=1)
    assert run.line == "0 of 3 jobs done, 0 at work"
    run.begin(1, "strip")  # tried again
    assert run.line == "0 of 3 jobs done, 1 at work"


def test_the_time_left_is_that_of_the_jobs_left_by_what_their_rule_took():
    run = Told({"strip": 11}, {"strip": 1.0})
    run.begin(1, "strip")
    run.now = 60
    run.end(1)
    assert run.line.endswith("about 10 min left")  # ten of a minute each, one at a time


def test_jobs_that_ran_at_once_will_do_so_again():
    run = Told({"strip": 22}, {"strip": 1.0})
    run.begin(1, "strip")
    run.begin(2, "strip")
    run.now = 60
    run.end(1)
    run.end(2)
    assert run.line.endswith("about 10 min left")


def test_a_rule_without_a_finished_job_takes_what_was_reckoned_on_a_machine_as_slow_as_this():
    run = Told({"strip": 1, "train": 1}, {"strip": 10.0, "train": 100.0})
    run.begin(1, "strip")
    run.now = 60
    run.end(1)  # six times as long as reckoned
    assert run.line.endswith("about 10 min left")
    run.begin(2, "train")
    run.now = 360
    assert run.line.endswith("about 5 min left")
    run.now = 3600  # longer than anybody thought: never below nothing
    assert run.line.endswith("about 10 s left")
    assert run.asked == 1


def test_nothing_is_said_of_the_time_before_a_job_of_a_known_rule_is_done():
    run = Told({"strip": 2, "all": 1}, {"strip": 10.0})
    run.begin(1, "all")
    run.now = 5
    run.end(1)
    assert "left" not in run.line


def test_what_the_longest_jobs_say_stands_below(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs/train").mkdir(parents=True)
    (tmp_path / "logs/train/fold-1.log").write_text("a network\nepoch 3 of 20: loss 0.7\n")
    (tmp_path / "logs/train/fold-2.log").write_text("")
    run = Told({"train": 8})
    run.begin(1, "train", "logs/train/fold-1.log")
    run.begin(2, "train", "logs/train/fold-2.log")
    assert len(run.recorder.describe()) == 1  # they have just begun
    run.now = 30
    assert run.recorder.describe()[1:] == ["  train/fold-1: epoch 3 of 20: loss 0.7"]


def test_of_many_jobs_the_oldest_few_are_told_of(tmp_path):
    run = Told({"train": 9})
    for job in range(9):
        (tmp_path / f"{job}.log").write_text("epoch 1 of 2\n" * 30)
        run.now = job
        run.begin(job, "train", str(tmp_path / f"{job}.log"))
    run.now = 100
    lines = run.recorder.describe()
    assert len(lines) == 1 + 4
    assert all(f"{job}:" in line for job, line in enumerate(lines[1:]))


def test_jobs_that_wait_in_a_clusters_queue_do_not_count_as_work_that_is_done():
    """400 jobs of a minute, four at a time: 100 are done after 25 minutes, 75 are left."""
    run = Told({"strip": 400}, {"strip": 7.0}, on_cluster=True)
    for job in range(400):
        run.begin(job, "strip")
    run.now = 25 * 60
    for job in range(100):
        run.end(job)
    assert run.line == "100 of 400 jobs done, 300 submitted, about 75 min left"


def test_while_jobs_wait_of_which_nothing_was_reckoned_nothing_is_said_of_the_time():
    run = Told({"strip": 2, "apply_network": 2}, {"strip": 10.0})
    run.begin(1, "strip")
    run.now = 10
    run.end(1)
    assert "left" not in run.line
    for job in (2, 3):
        run.begin(job, "apply_network")
    run.now = 20
    run.end(2)
    assert run.line.endswith("left"), "one of each is done now"


def test_a_cost_that_cannot_be_reckoned_costs_no_report():
    def ask():
        raise KeyError("no such rule")

    recorder = ProgressRecorder(ask)
    recorder.emit(logging.makeLogRecord({"event": "run_info", "stats": {"strip": 1}}))
    assert recorder.describe() == ["0 of 1 jobs done, 0 at work"]


def test_what_an_earlier_run_left_in_a_log_is_not_told(tmp_path):
    log = tmp_path / "a.log"
    log.write_text("done in 3 s")
    os.utime(log, (1e9, 1e9))
    assert last_line(str(log)) == "done in 3 s"
    assert last_line(str(log), since=1e9 + 3600) == ""


def test_a_long_name_loses_its_middle_and_never_what_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = (
        "explain_scans/demo/AD-NC/voxresnet_shallow_gap/seed-1/guided_grad_cam_pp/chunk-12/fold-5"
    )
    log = tmp_path / f"logs/{name}.log"
    log.parent.mkdir(parents=True)
    log.write_text("cubes: 43% 210/486 [00:31<00:41, 6.7region/s]")
    run = Told({"explain_scans": 1})
    run.begin(1, "explain_scans", f"logs/{name}.log")
    run.now = 60
    (line,) = run.recorder.describe()[1:]
    assert line.startswith("  explain_scans/demo")
    assert line.endswith("chunk-12/fold-5: cubes: 43% 210/486 [00:31<00:41, 6.7region/s]")
    assert len(line) <= 100


def test_a_progress_bar_in_a_log_is_its_last_state_without_the_drawing(tmp_path):
    log = tmp_path / "a.log"
    log.write_text("cubes:   0%|    | 0/9 [00:00<?]\rcubes:  67%|██▋ | 6/9 [00:02<00:01, 2.9it/s]")
    assert last_line(str(log)) == "cubes: 67% 6/9 [00:02<00:01, 2.9it/s]"
    assert last_line(str(tmp_path / "none.log")) == ""
    log.write_bytes(b"\xff" * 9000 + b"\nhalf a letter \xe4")
    assert last_line(str(log)).startswith("half a letter")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3, "10 s"), (44, "40 s"), (100, "2 min"), (5000, "83 min"), (6000, "1 h 40 min")],
)
def test_times_are_said_as_people_say_them(seconds, words):
    assert in_words(seconds) == words


def test_an_event_of_another_form_does_not_stop_the_run(capsys):
    run = Told({"strip": 1})
    run.event("job_info", jobid=1)
    assert run.line.startswith("0 of 1 jobs")


def test_reports_come_until_the_run_ends(monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr("sys.stderr", said)
    reporter = Reporter(Told({"strip": 1}).recorder, every_s=0.01)
    reporter.start()
    until = time.monotonic() + 20
    while said.getvalue().count("0 of 1 jobs") < 3:
        assert time.monotonic() < until
        time.sleep(0.01)
    reporter.end()
    time.sleep(0.1)
    ended = said.getvalue()
    time.sleep(0.1)
    assert said.getvalue() == ended


def test_a_spared_log_has_no_line_for_every_job_and_the_log_file_has_all(tmp_path):
    stream, file = io.StringIO(), tmp_path / "whole.log"
    logger = logging.Logger("snakemake")
    for handler in (logging.StreamHandler(stream), logging.FileHandler(file)):
        # As Snakemake filters both under --quiet rules.
        handler.addFilter(DefaultFilter({Quietness.RULES}, False, False, False, False))
        logger.addHandler(handler)
    spare_log(logger)
    logger.info("Building DAG of jobs...")
    logger.info("Job stats", extra={"event": "run_info"})
    logger.info("Select jobs to execute...")
    logger.info("Execute 1 jobs...", extra={"event": "job_started"})
    logger.info("Rule: strip", extra={"event": LogEvent.JOB_INFO})
    logger.info("1 of 9 steps (11%) done", extra={"event": "progress"})
    logger.error("no space is left")
    assert stream.getvalue().splitlines() == [
        *("Building DAG of jobs...", "Job stats", "no space is left")
    ]
    assert len(file.read_text().splitlines()) == 7
