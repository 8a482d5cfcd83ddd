"""What the end of a failed run says, from the events that Snakemake logs."""

import logging

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from pipeline.failures import FailedJob, FailureRecorder, describe_failures, explain

# As its plugin puts it.
SLURM = "SLURM-job '31' failed, SLURM status is:"


def tell(recorder, event, **told):
    record = logging.makeLogRecord({"event": event, **told})
    recorder.handle(record)


def fail(recorder, number, rule, log, *cluster_logs, message=None):
    """One failed attempt of a job."""
    told = {"jobid": number, "rule_name": rule, "log": [log, *cluster_logs], "rule_msg": message}
    tell(recorder, LogEvent.JOB_ERROR, **told)


def fail_group(recorder, cluster_log, members):
    """One failed attempt of jobs that were sent as one: each of them counts as failed."""
    told = [{"jobid": number} for number, _, _ in members]
    tell(
        recorder,
        LogEvent.GROUP_ERROR,
        groupid="scan",
        aux_logs=[cluster_log],
        job_error_info=told,
    )
    for number, rule, log in members:
        fail(recorder, number, rule, log)


@pytest.fixture
def recorder():
    return FailureRecorder()


@pytest.fixture
def write(tmp_path):
    def write_log(name, text):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write_log


def test_a_job_that_succeeds_at_its_second_attempt_is_not_blamed(recorder):
    fail(recorder, 1, "train_network", "a.log")
    fail(recorder, 2, "train_network", "b.log")
    tell(recorder, LogEvent.JOB_FINISHED, job_id=1)
    assert [job.log for job in recorder.failed] == ["b.log"]


def test_a_job_that_failed_twice_is_told_once_with_its_last_logs(recorder):
    fail(recorder, 1, "train_network", "a.log", "slurm/1.log")
    fail(recorder, 1, "train_network", "a.log", "slurm/2.log")
    assert recorder.failed == [FailedJob("train_network", "a.log", ("slurm/2.log",))]


def test_other_events_are_no_failures(recorder):
    tell(recorder, LogEvent.PROGRESS, done=1, total=2)
    tell(recorder, None)
    assert recorder.failed == []
    assert describe_failures(recorder.failed) == ""


def test_of_a_group_the_job_that_broke_off_is_blamed(recorder, write):
    """Not the ones before it, which ended well, nor those after it, which never began."""
    members = [
        (1, "convert_series", write("convert.log", "done in 2.0 s; peak memory 200 MB\n")),
        (2, "strip_skull", write("strip.log", "reading\nERROR: deepbet has no weights\n")),
        (3, "correct_intensity", "nothing.log"),
    ]
    fail_group(recorder, "slurm/7.log", members)
    (job,) = recorder.failed
    assert (job.rule, job.cluster_logs) == ("strip_skull", ("slurm/7.log",))
    assert explain(job) == "deepbet has no weights"


def test_a_group_of_which_nothing_began_is_blamed_itself(recorder, write):
    slurm = write("7.log", "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 10:00 ***\n")
    fail_group(recorder, slurm, [(1, "convert_series", "nothing.log")])
    (job,) = recorder.failed
    assert (job.rule, job.log) == ("group scan", None)
    assert explain(job) == "*** JOB 7 ON n1 CANCELLED AT 10:00 ***"


def test_a_group_that_succeeds_at_its_second_attempt_is_not_blamed(recorder):
    fail_group(recorder, "7.log", [(1, "convert_series", "nothing.log")])
    tell(recorder, LogEvent.JOB_FINISHED, job_id=1)
    assert recorder.failed == []


@pytest.mark.parametrize(
    ("log", "reason", "told"),
    [
        ("epoch 1\nERROR: the loss is nan\n\n", "", "the loss is nan"),
        ("ERROR: stopped", f"{SLURM} 'TIMEOUT'. More.", "stopped; SLURM says TIMEOUT"),
        ("ERROR: the loss is nan", f"{SLURM} 'FAILED'. More.", "the loss is nan"),
        ("epoch 1\n", f"{SLURM} 'FAILED'. More.", "SLURM says FAILED"),
        ("ERROR: stopped", "its node is gone\nmore", "stopped; its node is gone"),
        ("epoch 1\n", "", "it ended without a word: killed, as a rule for want of memory"),
        (None, "", "none of its jobs began; what the cluster said stands above"),
    ],
)
def test_the_reason_is_the_jobs_own_last_word_then_the_clusters(write, log, reason, told):
    job = FailedJob("train_network", log and write("job.log", log), (), reason)
    assert explain(job) == told


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
