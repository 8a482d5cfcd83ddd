"""What the end of a failed run says, from the events that Snakemake logs."""

import logging
import os
import time
from types import SimpleNamespace

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from voxplain_workflow.running.failures import (
    FailedJob,
    FailureRecorder,
    describe_failures,
    explain,
)

# As its plugin puts it.
SLURM = "SLURM-job '31' failed, SLURM status is:"
SLOW = "a slow file system, as a rule"


class Job:
    """As much of Snakemake's as is asked."""

    def __init__(self, jobid, rule, *log):
        self.jobid, self.rule, self.log = jobid, SimpleNamespace(name=rule), log

    def is_group(self):
        return False


class Group:
    def __init__(self, *jobs):
        self.jobs, self.groupid = jobs, "scan"

    def is_group(self):
        return True


def tell(recorder, event, **told):
    recorder.handle(logging.makeLogRecord({"event": event, **told}))


def fail(recorder, job, *cluster_logs, message=None):
    """Log one failed attempt of a job as Snakemake does."""
    told = {"jobid": job.jobid, "rule_name": job.rule.name, "rule_msg": message}
    tell(recorder, LogEvent.JOB_ERROR, log=[*job.log, *cluster_logs], **told)


def fail_group(recorder, group, cluster_log):
    """Of jobs that were sent as one, each counts as failed."""
    told = [{"jobid": job.jobid} for job in group.jobs]
    tell(
        recorder,
        LogEvent.GROUP_ERROR,
        groupid="scan",
        aux_logs=[cluster_log],
        job_error_info=told,
    )
    for job in group.jobs:
        fail(recorder, job)


@pytest.fixture
def recorder():
    return FailureRecorder()


@pytest.fixture
def write(tmp_path):
    def write_log(name, text, age_s=0):
        path = tmp_path / name
        path.write_text(text)
        then = time.time() - age_s
        os.utime(path, (then, then))
        return str(path)

    return write_log


def test_a_job_is_told_of_with_its_reason_and_its_logs(recorder):
    job = Job(1, "train_network", "a.log")
    fail(recorder, job, "slurm/1.log", message="it is gone")
    found = recorder.failed_jobs([job], 5.0)
    assert found == [FailedJob("train_network", "a.log", ("slurm/1.log",), "it is gone", 5.0)]


def test_a_job_of_which_no_event_tells_is_told_of_all_the_same(recorder):
    """One whose files Snakemake did not see after it had ended, say."""
    assert recorder.failed_jobs([Job(1, "train_network", "a.log")], 0) == [
        FailedJob("train_network", "a.log")
    ]


def test_a_rule_without_a_log_harms_nobody(recorder, monkeypatch):
    """A workflow that has voxplain as a module may have such rules."""
    monkeypatch.setattr(recorder, "handleError", lambda record: pytest.fail("an error within"))
    job = Job(1, "theirs")
    fail(recorder, job)
    (found,) = recorder.failed_jobs([job], 0)
    assert (found.rule, found.log) == ("theirs", None)
    assert "theirs: it ended without an error in its log" in describe_failures([found])


def test_an_event_of_another_form_does_not_stop_snakemake(recorder, monkeypatch):
    seen = []
    monkeypatch.setattr(recorder, "handleError", seen.append)
    tell(recorder, LogEvent.JOB_ERROR)
    assert len(seen) == 1


def test_nothing_failed_nothing_said(recorder):
    tell(recorder, LogEvent.PROGRESS, done=1, total=2)
    assert describe_failures(recorder.failed_jobs([], 0)) == ""


def test_of_a_group_the_job_that_broke_off_is_blamed(recorder, write):
    """Not the ones before it, which ended well, nor those after it, which never began."""
    group = Group(
        Job(1, "convert_series", write("convert.log", "done in 2.0 s; peak memory 200 MB\n")),
        Job(2, "strip_skull", write("strip.log", "reading\nERROR: deepbet has no weights\n")),
        Job(3, "correct_intensity", "nothing.log"),
        Job(4, "convert_series", write("old.log", "ERROR: of yesterday\n", age_s=9000)),
    )
    fail_group(recorder, group, "slurm/7.log")
    (job,) = recorder.failed_jobs([group], time.time() - 600)
    assert (job.rule, job.cluster_logs) == ("strip_skull", ("slurm/7.log",))
    assert explain(job) == "deepbet has no weights"


def test_a_group_of_which_nothing_began_is_blamed_itself(recorder, write):
    slurm = write("7.log", "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 10:00 ***\n")
    group = Group(Job(1, "convert_series", "nothing.log"))
    fail_group(recorder, group, slurm)
    (job,) = recorder.failed_jobs([group], 0)
    assert (job.rule, job.log) == ("group scan", None)
    assert explain(job) == "*** JOB 7 ON n1 CANCELLED AT 10:00 ***"


@pytest.mark.parametrize(
    ("log", "reason", "told"),
    [
        ("epoch 1\nERROR: the loss is nan\n\n", "", "the loss is nan"),
        ("ERROR: stopped", f"{SLURM} 'TIMEOUT'. More.", "stopped; SLURM says TIMEOUT"),
        ("ERROR: the loss is nan", f"{SLURM} 'FAILED'. More.", "the loss is nan"),
        ("epoch 1\n", f"{SLURM} 'FAILED'. More.", "SLURM says FAILED"),
        ("ERROR: stopped", "its node is gone\nmore", "stopped; its node is gone"),
        ("Traceback (most recent call last):\n  ...\nKeyError: 3\n", "", "KeyError: 3"),
        ("done in 3 s", "", "it ended well, but Snakemake did not see its files: " + SLOW),
    ],
)
def test_the_reason_is_the_jobs_own_last_word_then_the_clusters(write, log, reason, told):
    job = FailedJob("train_network", log and write("job.log", log), (), reason)
    assert explain(job) == told


NO_ERROR = "without an error in its log"


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        ("died with <Signals.SIGKILL: 9>.", "ended by SIGKILL, as a rule for want of memory"),
        ("returned non-zero exit status 137.", "ended by SIGKILL, as a rule for want of memory"),
        ("died with <Signals.SIGSEGV: 11>.", "ended by SIGSEGV: a fault in a compiled library"),
        ("returned non-zero exit status 143.", "it was ended by SIGTERM"),
        (
            "returned non-zero exit status 127.",
            "it did not start: the shell says that its program was not found (exit status 127); "
            "see its message in the output above",
        ),
        ("returned non-zero exit status 126.", "its program cannot be run (exit status 126)"),
        ("returned non-zero exit status 1.", f"it ended with exit status 1 and {NO_ERROR}; look"),
        ("returned non-zero exit status 255.", f"it ended with exit status 255 and {NO_ERROR}"),
    ],
)
def test_the_end_of_a_job_without_a_word_is_told_by_its_exit_status(recorder, ended, told):
    """Memory is suspected only where a signal ended the job."""
    job = Job(1, "train_network", "nothing.log")
    command = "Command 'set -euo pipefail;  python '/x/.snakemake/scripts/a.py''"
    recorder_tells(recorder, f"RuleException:\nCalledProcessError in file x:\n{command} {ended}")
    fail(recorder, job)
    (found,) = recorder.failed_jobs([job], 0)
    assert told in explain(found)
    assert "\n" not in explain(found)
    assert ("memory" in explain(found)) == ("SIGKILL" in explain(found))


def recorder_tells(recorder, error):
    """Log an error as Snakemake does: before the job's, without its number, in its thread."""
    tell(recorder, LogEvent.ERROR, msg=error, exception="RuleException")


def test_an_error_counts_for_the_next_job_of_its_thread_and_attempt_only(recorder):
    killed = "died with <Signals.SIGKILL: 9>."
    first, second = Job(1, "train_network"), Job(2, "explain_scans")
    tell(recorder, LogEvent.ERROR, msg=killed, thread=7)
    tell(recorder, LogEvent.JOB_ERROR, jobid=2, rule_msg=None, log=[], thread=8)
    tell(recorder, LogEvent.JOB_ERROR, jobid=1, rule_msg=None, log=[], thread=7)
    found = {job.rule: job.status for job in recorder.failed_jobs([first, second], 0)}
    assert found == {"train_network": 128 + 9, "explain_scans": None}
    fail(recorder, first)  # another attempt, of which only this is known
    assert recorder.failed_jobs([first], 0)[0].status is None


def test_an_error_of_snakemake_itself_is_the_reason(recorder):
    job = Job(1, "train_network", "nothing.log")
    recorder_tells(recorder, "WorkflowError:\nFailed to open source file train.py")
    fail(recorder, job)
    (found,) = recorder.failed_jobs([job], 0)
    assert explain(found) == "WorkflowError: Failed to open source file train.py"


def test_the_clusters_log_tells_the_exit_status_of_a_job_without_a_word(write):
    text = "CalledProcessError in file x:\nCommand 'python x' died with <Signals.SIGKILL: 9>.\n"
    slurm = write("7.log", text)
    for rule in ("train_network", "group scan"):
        job = FailedJob(rule, None, (slurm,))
        assert explain(job) == "it was ended by SIGKILL, as a rule for want of memory"
    told = explain(FailedJob("train_network", None, (write("8.log", "python: no such file\n"),)))
    assert told == (
        "it ended without an error in its log, and its exit status is not known; look for an error "
        "in the logs of the cluster"
    )


def test_an_error_of_many_lines_is_told_by_its_first_and_shown_whole(write):
    scans = [f"I{number} (patient {number}): is empty" for number in range(12)]
    job = FailedJob("check_scans", write("job.log", "\n".join(["ERROR: 12 scans lost:", *scans])))
    told = describe_failures([job])
    assert "check_scans: 12 scans lost:\n" in told
    assert all(f"    | {scan}\n" in told for scan in scans)


def test_the_description_names_every_job_and_shows_the_end_of_a_few_logs(write):
    jobs = [
        FailedJob("explain_scans", write(f"{n}.log", f"first line\nERROR: fault {n}\n"), ())
        for n in range(5)
    ]
    told = describe_failures(jobs)
    assert told.startswith("5 jobs failed:\n")
    for number, job in enumerate(jobs):
        assert f"  explain_scans: fault {number}\n    log: {job.log}\n" in told
        assert (f"    | ERROR: fault {number}\n" in told) == (number < 3)
    assert "run the same command again" in told
