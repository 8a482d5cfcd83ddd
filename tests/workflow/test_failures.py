"""Killed runs, failing jobs, full and read-only disks: nothing is lost, and users are told why."""

import copy
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager

import pytest

from workflow.conftest import FIRST, command, snakemake, spoil_statistics

pytestmark = pytest.mark.slow

NETWORKS = "results/tiny/AD-NC/rieke"
FIXED = f"{NETWORKS}/fixed/seed-1"
TABLES = [
    "results/tiny/scans.tsv",
    "results/tiny/AD-NC/splits.tsv",
    f"{FIXED}/predictions.tsv",
    f"{FIXED}/distances.tsv",
    f"{FIXED}/top_areas.tsv",
]
LOG = "logs/train_network/tiny/AD-NC/rieke/seed-1/fixed.log"


def unlike(folder, first_run):
    """The tables that differ from those of an undisturbed run."""
    return [n for n in TABLES if (folder / n).read_text() != (first_run / n).read_text()]


def times_of(paths):
    """When files were last written."""
    return {path: path.stat().st_mtime_ns for path in paths}


def kill_when(folder, condition, seconds=300):
    """Start the run; kill it and all its jobs without warning once a condition holds."""
    with open(folder / "said.log", "w") as stream:
        process = subprocess.Popen(
            command(folder, *TABLES, config=FIRST),
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            until = time.monotonic() + seconds
            while not condition():
                assert process.poll() is None, (folder / "said.log").read_text()
                assert time.monotonic() < until, (folder / "said.log").read_text()
                time.sleep(0.005)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_run_killed_at_any_moment_goes_on_and_ends_with_the_same_tables(finished, first_run):
    scan = sorted((finished / "results/tiny/derivatives").glob("sub-*/ses-*"))[0]
    shutil.rmtree(scan)
    shutil.rmtree(finished / "results/tiny/AD-NC")

    # In the middle of a registration: its input has just been finished.
    kill_when(finished, lambda: any(scan.glob("anat/*_desc-corrected_T1w.json")))
    kept = times_of(scan.glob("anat/*_T1w.nii.gz"))
    assert kept, "conversion"
    # In the middle of a training.
    kill_when(finished, lambda: any(finished.glob(f"{NETWORKS}/*/seed-1/.checkpoint-*.pt")))
    kept |= times_of(finished.glob("results/tiny/AD-NC/splits/*_members.tsv"))
    # In the middle of making heatmaps.
    kill_when(finished, lambda: any(finished.glob(f"{FIXED}/*/scans/chunk-1/*.nii.gz")))
    kept |= times_of([finished / f"{FIXED}/model.pt"])

    run = snakemake(finished, *TABLES, config=FIRST)
    assert run.status == 0, run.said
    assert "An earlier run here was killed" in run.said
    assert unlike(finished, first_run) == []
    # What was finished before a kill was not made again (a corrected brain was under way, perhaps).
    now = times_of(kept)
    assert [p for p in kept if kept[p] != now[p] and "desc-corrected" not in p.name] == []
    assert not list(finished.glob(f"{NETWORKS}/*/seed-1/.checkpoint-*"))


def test_a_live_runs_lock_is_respected(finished):
    """The other half of going on after a kill: nobody's run is disturbed."""
    (finished / FIXED / "distances.tsv").unlink()
    (finished / FIXED / "model.pt").unlink()
    with open(finished / "said.log", "w") as stream:
        first = subprocess.Popen(
            command(finished, config=FIRST), stdout=stream, stderr=subprocess.STDOUT
        )
        try:
            while not any((finished / ".snakemake/voxplain_runs").glob("*")) or not any(
                (finished / ".snakemake/locks").glob("*.lock")
            ):
                assert first.poll() is None, (finished / "said.log").read_text()
                time.sleep(0.01)
            first.send_signal(signal.SIGSTOP)  # else it may end before the second looks at the lock
            second = snakemake(finished, config=FIRST)
            first.send_signal(signal.SIGCONT)
            assert second.status != 0
            assert "cannot be locked" in second.said
            assert first.wait(timeout=300) == 0, (finished / "said.log").read_text()
        finally:
            first.kill()


def test_the_end_of_a_failed_run_names_the_job_the_reason_and_the_log(finished):
    spoil_statistics(finished)
    run = snakemake(finished, f"{FIXED}/model.pt", config=FIRST)
    assert run.status != 0
    end = run.said.rpartition("1 job failed:")[2]
    assert "train_network: voxel statistics were fitted on other scans" in end
    assert "delete the file and run again" in end
    assert f"log: {LOG}" in end
    assert f"| {(finished / LOG).read_text().splitlines()[-1]}" in end
    assert "run the same command again" in end
    # Tried twice, told once.
    assert run.said.count("Trying to restart job") == 1


def test_a_verdict_is_not_asked_for_twice(finished):
    """More lost scans than max_failed allows: a second attempt finds the same."""
    config = copy.deepcopy(FIRST)
    config["quality"] = {"min_brain_volume_ml": 2200}
    run = snakemake(finished, config=config)
    assert run.status != 0
    assert run.jobs["assess_quality"] == 6
    assert "Trying to restart job" not in run.said
    assert "check_scans: " in run.said.rpartition("failed:")[2]


@contextmanager
def small_disk(folder, size):
    """A file system of its own, in memory."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_is_named_and_its_half_written_files_are_not_taken_for_whole(
    first_run, tmp_path
):
    with small_disk(tmp_path / "disk", "400m") as disk:
        place = disk / "run"
        shutil.copytree(first_run, place, symlinks=True)
        # All that comes after the scans is to be made again, with room for a small part of it.
        shutil.rmtree(place / "results/tiny/AD-NC")
        free = shutil.disk_usage(disk).free
        with open(disk / "ballast", "wb") as stream:
            for _ in range((free - 2_500_000) // 65536):
                stream.write(bytes(65536))
        full = snakemake(place, *TABLES, config=FIRST)
        assert full.status != 0
        assert "no space is left on the disk of" in full.said, full.said[-3000:]
        again = snakemake(place, *TABLES, config=FIRST)
        assert again.status != 0
        assert "no space is left on the disk of" in again.said, again.said[-3000:]
        (disk / "ballast").unlink()
        run = snakemake(place, *TABLES, config=FIRST)
        assert run.status == 0, run.said[-5000:]
        assert unlike(place, first_run) == []


def test_a_results_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / "results").touch()
    run = snakemake(tmp_path, config=FIRST)
    assert run.status != 0
    assert "results is a file; a run writes its results there" in run.said
    assert "Traceback" not in run.said
    with small_disk(tmp_path / "disk", "1m") as disk:
        # Snakemake is called on the read-only folder with a config that lies elsewhere.
        words = command(tmp_path, config=FIRST)
        words[words.index("--directory") + 1] = str(disk)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode != 0
    assert f"folder {disk} cannot be written to; choose another with --directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_read_only_archive_is_read_from_a_checkout_and_a_folder_with_spaces(
    first_run, checkout, tmp_path
):
    own = {"source": "adni", "table": "", "images": ""}
    with small_disk(tmp_path / "disk", "100m") as disk:
        shutil.copytree(
            first_run / "results/tiny/source",
            disk / "my download",
            ignore=shutil.ignore_patterns(".snakemake_timestamp"),
        )
        own["table"] = str(disk / "my download/scans.csv")
        own["images"] = str(disk / "my download/ADNI")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        place = tmp_path / "a folder"
        place.mkdir()
        config = {**FIRST, "cohorts": {"own": own}}
        run = snakemake(place, "converted", root=checkout, config=config)
        assert run.status == 0, run.said
        volumes = list(place.glob("results/own/derivatives/*/*/anat/*_T1w.nii.gz"))
        assert len(volumes) == 6
        assert all(path.stat().st_size for path in volumes)
        again = snakemake(place, "converted", root=checkout, config=config)
        assert "Nothing to be done" in again.said
