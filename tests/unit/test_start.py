"""What a run looks at before it begins: its folders, and the lock of a run that was killed."""

import json
import os
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from voxplain.faults import SetupFault
from voxplain_workflow.running import start
from voxplain_workflow.running.orphans import MARK
from voxplain_workflow.running.start import (
    LOCKS,
    RECORDS,
    check_folders,
    clear_stale_lock,
    forget_run,
    note_run,
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    LOCKS.mkdir(parents=True)
    return tmp_path


def record():
    (path,) = RECORDS.glob("*.json")
    return path


def change_record(**change):
    record().write_text(json.dumps({**json.loads(record().read_text()), **change}))


def take_lock(written=None):
    for name in ("0.input.lock", "0.output.lock"):
        (LOCKS / name).touch()
        if written is not None:
            os.utime(LOCKS / name, (written, written))


@pytest.fixture
def dead(place, repository):
    """A run that took its lock, noted itself and was killed."""
    take_lock(1_000_000_000)

    def run(on_cluster=False):
        code = f"from voxplain_workflow.running.start import note_run; note_run({on_cluster})"
        environment = {**os.environ, "PYTHONPATH": str(repository / "scripts")}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)

    return run


def test_the_lock_of_a_run_that_is_gone_is_removed(dead):
    dead()
    assert "its lock is removed" in clear_stale_lock()
    assert not LOCKS.exists()
    assert clear_stale_lock() == ""


@pytest.mark.parametrize("locked", [True, False])
def test_jobs_of_a_run_that_is_gone_end_before_the_next_one_begins(dead, monkeypatch, locked):
    """If its guard was killed with it; also if a user has removed the lock."""
    dead()
    change_record(jobs="5f2e")
    if not locked:
        start.shutil.rmtree(LOCKS)
    words = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    left, other = (
        subprocess.Popen(words, **pipes, env={**os.environ, MARK: name}) for name in ("5f2e", "7a")
    )
    try:
        for process in (left, other):
            process.stdout.readline()
        told = clear_stale_lock()
        assert left.poll() == -signal.SIGTERM
        assert other.poll() is None
        assert told.startswith("An earlier run here was killed")
        assert told.endswith("Processes of its jobs that were still at work are ended: 1.")
        assert ("its lock is removed" in told) == locked
        assert clear_stale_lock() == ""
    finally:
        for process in (left, other):
            process.kill()
            process.communicate()


def test_jobs_of_a_run_at_work_go_on(place):
    take_lock(1_000_000_000)
    note_run(False, "5f2e")
    with subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: "5f2e"}) as job:
        assert clear_stale_lock() == ""
        assert job.poll() is None
        job.kill()


def test_the_lock_stays_while_jobs_of_a_run_that_is_gone_cannot_be_ended(dead, monkeypatch):
    dead()
    change_record(jobs="5f2e")
    monkeypatch.setattr(start, "end_jobs", lambda run: 1)
    monkeypatch.setattr(start, "find_jobs", lambda run: [start.psutil.Process()])
    assert f"cannot be ended; they wait for a disk, as a rule: {os.getpid()}." in clear_stale_lock()
    assert list(LOCKS.glob("*.lock"))
    assert record().exists()


def test_the_lock_of_a_run_at_work_stays(place):
    take_lock(1_000_000_000)
    note_run(False)
    assert clear_stale_lock() == ""
    assert list(LOCKS.glob("*.lock"))


@pytest.mark.parametrize("change", [{"started": "1"}, {"boot": "before"}], ids=str)
def test_a_process_that_has_the_dead_runs_number_is_not_that_run(place, change):
    """Begun at another time, or after the machine was started anew."""
    take_lock(1_000_000_000)
    note_run(False)
    change_record(**change)
    assert "its lock is removed" in clear_stale_lock()


@pytest.mark.parametrize(
    "change", [{"host": "another"}, {"user": -1}, {"pid_namespace": "pid:[1]"}], ids=str
)
def test_a_lock_of_a_run_that_cannot_be_looked_for_stays(dead, change):
    """On another host, of another user, in another container."""
    dead()
    change_record(**change)
    assert clear_stale_lock() == ""
    assert list(LOCKS.glob("*.lock"))


def test_a_lock_of_whom_nothing_is_known_stays(dead):
    dead()
    record().unlink()
    assert clear_stale_lock() == ""
    assert list(LOCKS.glob("*.lock"))


def test_a_run_that_was_killed_beside_a_live_one_does_not_unlock_it(dead):
    note_run(False)
    dead()
    assert len(list(RECORDS.iterdir())) == 2
    assert clear_stale_lock() == ""
    assert list(LOCKS.glob("*.lock"))


def test_notes_of_runs_whose_lock_the_user_removed_are_forgotten(dead):
    dead()
    change_record(host="another")
    for path in LOCKS.iterdir():
        path.unlink()
    assert clear_stale_lock() == ""
    assert not list(RECORDS.iterdir())


def test_a_run_that_ends_takes_its_note_back(place):
    note_run(False)
    forget_run()
    assert not list(RECORDS.iterdir())
    forget_run()


def test_a_lock_taken_after_the_note_is_another_runs(dead):
    """Between a run's lock and its note, the note is that of the run before it."""
    dead()
    take_lock(record().stat().st_mtime + 1)
    assert clear_stale_lock() == ""
    assert list(LOCKS.glob("*.lock"))


def test_the_lock_of_a_run_whose_jobs_may_live_on_is_left_to_the_user(dead):
    dead(on_cluster=True)
    told = clear_stale_lock()
    assert "scancel" in told
    assert "--unlock" in told
    assert list(LOCKS.glob("*.lock"))


@pytest.mark.skipif(sys.platform != "linux", reason="another system keeps no /proc")
def test_the_start_of_a_process_is_the_kernels_whatever_the_clock_says(monkeypatch):
    stat = Path("/proc/self/stat").read_text()
    ticks = stat.rpartition(")")[2].split()[19]
    assert start._started(os.getpid()) == ticks
    # As after the clock was set an hour and a bit ahead.
    boot = start.psutil.boot_time() + 3725.0
    for module in (start.psutil, start.psutil._psplatform):
        monkeypatch.setattr(module, "boot_time", lambda: boot)
    assert start._started(os.getpid()) == ticks


def test_a_process_that_ended_is_gone_though_nobody_asked_how():
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    try:
        process.stdout.read()  # it ends here, and is a zombie until somebody waits for it
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert start._started(process.pid) is None
    finally:
        process.wait()
        process.stdout.close()
    assert start._started(process.pid) is None


def test_of_a_process_that_cannot_be_looked_at_nothing_is_decided(place, monkeypatch):
    take_lock(1_000_000_000)
    note_run(False)

    def refuse(pid):
        raise start.psutil.AccessDenied(pid)

    monkeypatch.setattr(start.psutil, "Process", refuse)
    assert clear_stale_lock() == ""
    assert list(LOCKS.glob("*.lock"))


def test_a_folder_that_can_be_written_to_is_no_matter(place):
    Path("results").mkdir()
    check_folders()


def test_a_file_in_a_folders_place_is_named(place):
    Path("results").touch()
    with pytest.raises(SetupFault, match=f"{place}/results is a file; .* move it away"):
        check_folders()


def test_a_folder_that_cannot_be_written_to_is_named(place, monkeypatch):
    Path("logs").mkdir()
    # Root may write anywhere, so that permissions alone would not fail this.
    monkeypatch.setattr(start.os, "access", lambda path, mode: path != Path("logs"))
    with pytest.raises(SetupFault, match=f"{place}/logs cannot be written to; .*--directory"):
        check_folders()


def test_a_full_disk_is_named(place, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(start.shutil, "disk_usage", lambda path: usage(999_999))
    with pytest.raises(SetupFault, match=f"no space is left on the disk of {place}; "):
        check_folders()


@pytest.mark.parametrize("name", [b"M\xfcller", b"a\x1bb"])
def test_a_working_directory_that_cannot_be_written_is_refused_with_escapes(
    tmp_path, monkeypatch, name
):
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(SetupFault, match=r"directory .*\\x(fc|1b).* --directory"):
        check_folders()
