"""How a job ends, each in a process of its own, since a job redirects its output for good."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent, indent
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.image import imread

from voxplain.faults import DataFault, Fate, failed
from voxplain.volumes import read_array
from voxplain_workflow.jobs.digests import find_damage, record_outputs
from voxplain_workflow.jobs.frame import LOST_SCAN

OUTPUTS = ("sidecar.json", "brain.nii.gz", "transform.h5")


@pytest.fixture
def run(tmp_path, repository):
    """Run a body inside ``scan_job`` or ``job``, as Snakemake would run a script."""

    def run_job(
        body,
        context='scan_job(snakemake, "strip")',
        threads=3,
        outputs=OUTPUTS,
        log=None,
        params="",
        inputs=(),
    ):
        lines = f"""\
            from types import SimpleNamespace
            from voxplain_workflow.jobs.fates import scan_job
            from voxplain_workflow.jobs.frame import job
            from voxplain_workflow.jobs.sidecars import read_sidecar, write_sidecar
            class Inputs(list):
                sidecar = {str(tmp_path / "before.json")!r}
            snakemake = SimpleNamespace(
                input=Inputs({list(inputs)!r}),
                output={[str(tmp_path / name) for name in outputs]!r},
                log=[{str(log or tmp_path / "job.log")!r}],
                threads={threads},
                params=SimpleNamespace({params}),
            )
            with {context}:
            """
        done = subprocess.run(
            [sys.executable, "-c", dedent(lines) + indent(dedent(body), "    ")],
            cwd=repository / "scripts",
            capture_output=True,
            text=True,
        )
        log = tmp_path / "job.log"
        return SimpleNamespace(
            status=done.returncode,
            printed=done.stdout + done.stderr,
            log=log.read_text() if log.exists() else "",
            outputs={name: tmp_path / name for name in outputs if (tmp_path / name).exists()},
        )

    return run_job


FAULT = """
    from voxplain.faults import DataFault
    raise DataFault("file a.dcm is truncated", "download the image again")
    """
FATE = Fate("failed", "strip", "file a.dcm is truncated", "download the image again")


def test_a_fault_of_the_data_ends_the_job_well_with_every_output_written(run):
    done = run(FAULT)
    assert done.status == 0
    assert set(done.outputs) == set(OUTPUTS)
    assert json.loads(done.outputs["sidecar.json"].read_text()) == {"Fate": FATE.as_dict()}
    assert done.outputs["transform.h5"].stat().st_size == 0
    assert "failed in strip: file a.dcm is truncated; download the image again" in done.log
    assert "Traceback" not in done.log


def test_the_empty_volume_of_a_lost_scan_is_refused_by_every_reader(run):
    volume = run(FAULT).outputs["brain.nii.gz"]
    with pytest.raises(DataFault, match="failed in an earlier stage"):
        read_array(volume)


def test_the_picture_of_a_lost_scan_says_that_it_was_lost(run):
    picture = run(FAULT, outputs=("picture.png",)).outputs["picture.png"]
    assert picture.read_bytes() == LOST_SCAN.read_bytes()
    assert np.unique(imread(picture)[..., 0]).size > 10  # letters with smooth edges on one ground


@pytest.mark.parametrize("damage", ["emptied", "flipped", "deleted"])
def test_a_scan_is_not_charged_with_a_volume_that_was_damaged_after_it_was_made(
    run, tmp_path, monkeypatch, damage
):
    monkeypatch.chdir(tmp_path)
    volume = Path("results/c/T1w.nii.gz")
    volume.parent.mkdir(parents=True)
    volume.write_bytes(b"a volume")
    record_outputs([str(volume)])
    body = f"import os\nos.chdir({str(tmp_path)!r})\n{dedent(FAULT)}"
    assert run(body, inputs=[str(volume)]).status == 0, "as it was made, it is the scan's fault"
    if damage == "deleted":
        volume.unlink()
    else:
        volume.write_bytes(b"" if damage == "emptied" else b"b volume")
    done = run(body, inputs=[str(volume)])
    assert done.status == 1
    last = done.log.splitlines()[-1]
    assert last.startswith(f"ERROR: {volume} is not as its job wrote it; delete it and run again")
    assert "file a.dcm is truncated" in last


def test_a_job_that_ends_well_leaves_the_digests_of_its_outputs(run, tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    body = f"""
        import os
        os.chdir({str(tmp_path)!r})
        snakemake.output = ["results/table.tsv"]
        open("results/table.tsv", "w").write("a table")
        """
    assert run(body, context="job(snakemake)").status == 0
    monkeypatch.chdir(tmp_path)
    assert find_damage() == ([], 1)
    (tmp_path / "results/table.tsv").write_text("a tab")
    assert [damage.problem for damage in find_damage()[0]] == ["changed"]


def test_outputs_that_were_written_before_the_fault_do_not_survive_it(run, tmp_path):
    body = f"open({str(tmp_path / 'brain.nii.gz')!r}, 'w').write('half a brain')\n" + dedent(FAULT)
    done = run(body)
    assert done.status == 0
    assert done.outputs["brain.nii.gz"].stat().st_size == 0


def test_the_digests_of_a_faulty_series_stay_on_record(run, tmp_path):
    body = f"open({str(tmp_path / 'a.sha256')!r}, 'w').write('0f  a.dcm')\n" + dedent(FAULT)
    done = run(body, outputs=("a.sha256", "b.sha256"))
    assert done.status == 0
    assert done.outputs["a.sha256"].read_text() == "0f  a.dcm"
    assert done.outputs["b.sha256"].read_text() == ""


def test_a_fault_of_the_setup_ends_the_job_with_one_line_and_no_traceback(run):
    done = run(
        """
        from voxplain.faults import SetupFault
        print("it begins")
        raise SetupFault("FSL is not installed: set FSLDIR")
        """
    )
    assert done.status == 1
    assert done.log.splitlines() == ["it begins", "ERROR: FSL is not installed: set FSLDIR"]
    assert not done.outputs


def test_whatever_the_data_raises_is_the_scans_fate_and_its_traceback_is_in_the_log(run):
    done = run("print('it begins')\n{}['no such key \\udcff']")
    assert done.status == 0
    assert set(done.outputs) == set(OUTPUTS)
    fate = Fate(**json.loads(done.outputs["sidecar.json"].read_text())["Fate"])
    assert (fate.status, fate.stage) == ("failed", "strip")
    assert fate.reason.startswith("KeyError: 'no such key")
    assert "job.log" in fate.remedy
    assert "Traceback (most recent call last)" in done.log
    assert "failed in strip: KeyError" in done.log


@pytest.mark.parametrize(
    "error",
    ["MemoryError()", "OSError(28, 'No space left on device')", "ModuleNotFoundError('ants')"],
)
def test_the_machine_is_no_scans_fate(run, error):
    done = run(f"raise {error}")
    assert done.status == 1
    assert not done.outputs


def test_an_error_that_nobody_foresaw_ends_the_job_with_its_traceback(run):
    done = run("print('it begins')\n{}['no such key']", context="job(snakemake)")
    assert done.status == 1
    assert "Traceback (most recent call last)" in done.log
    assert done.log.splitlines()[-1] == "ERROR: KeyError: 'no such key'"
    assert not done.outputs


def test_a_fault_of_the_data_where_no_scan_is_at_stake_ends_the_job_as_an_error(run):
    done = run(FAULT, context="job(snakemake)")
    assert done.status == 1
    assert "file a.dcm is truncated" in done.log.splitlines()[-1]
    assert not done.outputs


@pytest.mark.parametrize(
    "fate",
    [
        failed("convert", DataFault("folder x is empty", "download the image again")),
        Fate("excluded", "quality", "overlap 0.5 is below 0.9", "look at the picture"),
    ],
    ids=["failed", "excluded"],
)
def test_the_fate_of_an_earlier_stage_is_handed_on_unchanged(run, tmp_path, fate):
    (tmp_path / "before.json").write_text(json.dumps({"Fate": fate.as_dict()}))
    done = run("read_sidecar(snakemake.input.sidecar)\nraise RuntimeError('went on')")
    assert done.status == 0
    assert json.loads(done.outputs["sidecar.json"].read_text()) == {"Fate": fate.as_dict()}
    assert set(done.outputs) == set(OUTPUTS)
    assert f"{fate.status} in {fate.stage}: {fate.reason}" in done.log


def test_the_sidecar_of_a_usable_scan_is_read_and_the_job_goes_on(run, tmp_path):
    before = {"EchoTime": 0.0035, "Fate": Fate("usable", "quality").as_dict()}
    (tmp_path / "before.json").write_text(json.dumps(before))
    done = run(
        """
        told = read_sidecar(snakemake.input.sidecar)
        write_sidecar(snakemake.output[0], {**told, "Name": "Größe"})
        """
    )
    assert done.status == 0
    assert list(done.outputs) == ["sidecar.json"]
    text = done.outputs["sidecar.json"].read_text(encoding="utf-8")
    assert json.loads(text) == {**before, "Name": "Größe"}
    assert "Größe" in text
    assert text.endswith("}\n")


def test_what_the_job_and_its_child_processes_say_goes_to_the_log_alone(run):
    done = run(
        """
        import os, subprocess, sys
        print("from the script")
        print("from its errors", file=sys.stderr)
        sys.stdout.flush()
        command = "import sys; print('from a child'); print('from its errors too', file=sys.stderr)"
        subprocess.run([sys.executable, "-c", command], check=True)
        os.write(1, b"from a library in C\\n")
        """
    )
    assert done.status == 0
    assert done.printed == ""
    for line in ("the script", "its errors", "a child", "its errors too", "a library in C"):
        assert f"from {line}\n" in done.log


def test_a_log_starts_anew_with_every_run(run):
    run("print('the first run, which says a good deal more')")
    first, *others = run("print('the second')").log.splitlines()
    assert first == "the second"
    assert len(others) == 1


def test_a_log_ends_with_the_peak_of_memory(run):
    done = run("held = bytearray(300_000_000)\nheld[::4096] = b'x' * len(held[::4096])")
    seconds, peak = re.fullmatch(r"done in (.*) s; peak memory (\d+) MB, .*\n", done.log).groups()
    assert 0 <= float(seconds) < 60
    assert 300 < int(peak) < 600


def test_a_job_that_is_stopped_says_so_in_its_log(run):
    done = run("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\nprint('went on')")
    assert done.status == 128 + 15
    assert done.log.startswith("ERROR: stopped by SIGTERM")
    assert "went on" not in done.log


@pytest.mark.usefixtures("in_terminal")
def test_a_job_whose_terminal_is_closed_says_so_and_removes_its_temporary_files(run, tmp_path):
    body = f"""
        import os, signal, tempfile
        with tempfile.TemporaryDirectory(dir={str(tmp_path)!r}, prefix="scratch"):
            os.kill(os.getpid(), signal.SIGHUP)
        """
    done = run(body)
    assert done.status == 128 + 1
    assert done.log == "ERROR: stopped by SIGHUP: its terminal was closed\n"
    assert not list(tmp_path.glob("scratch*"))


def test_a_job_of_a_run_that_shall_outlive_its_terminal_goes_on(run):
    """As `nohup` has it: children inherit that the signal is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        done = run("import os, signal\nos.kill(os.getpid(), signal.SIGHUP)\nprint('went on')")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert done.status == 0
    assert done.log.startswith("went on")


FULL = """
    import shutil
    shutil.disk_usage = lambda path: SimpleNamespace(free=0)
    """


def test_on_a_full_disk_no_scan_is_blamed(run):
    done = run(dedent(FULL) + dedent(FAULT))
    assert done.status == 1
    assert not done.outputs
    last = done.log.splitlines()[-1]
    assert last.startswith("ERROR: no space is left on the disk of ")
    assert "truncated" in last


def test_where_not_even_the_log_can_be_written_the_terminal_has_the_reason(run):
    done = run("print('x', flush=True)", log="/dev/full")
    assert done.status != 0
    assert "ERROR: OSError: [Errno 28] No space left on device" in done.printed


@pytest.mark.parametrize(("params", "expected"), [("", "1"), ("threads=4", "4")])
def test_the_params_give_the_number_of_threads_whatever_the_cores(
    run, monkeypatch, params, expected
):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("OMP_THREAD_LIMIT", "1")
    done = run(
        """
        import os
        names = ("OMP", "MKL", "OPENBLAS", "ITK_GLOBAL_DEFAULT")
        for name in names:
            print(os.environ.get(f"{name}_NUMBER_OF_THREADS") or os.environ[f"{name}_NUM_THREADS"])
        print(os.environ.get("OMP_THREAD_LIMIT"), os.environ["OMP_DYNAMIC"])
        """,
        threads=2,
        params=params,
    )
    assert done.log.splitlines()[:5] == [expected] * 4 + ["None FALSE"]


def test_a_fault_tells_reason_and_remedy_in_one_line():
    fault = DataFault("file a.dcm is truncated", "download the image again")
    assert str(fault) == "file a.dcm is truncated; download the image again"
    assert failed("strip", fault) == FATE


def test_the_remedy_of_a_lost_scan_names_the_key_of_the_configuration(series, tmp_path, repository):
    """The library names its parameter; here the fate is what a user reads."""
    series.files[9].unlink()
    settings = {"place": str(series.folder), "companions": [], "subject": "", "description": ""}
    settings |= {"missing_slices": 0, "max_slice_mm": 7, "nan_outside": False}
    outputs = [str(tmp_path / name) for name in ("T1w.nii.gz", "T1w.json", "T1w.sha256")]
    body = f"""
        import runpy
        from types import SimpleNamespace

        class Outputs(list):
            volume, sidecar, digests = {outputs!r}

        snakemake = SimpleNamespace(
            input=[],
            output=Outputs({outputs!r}),
            wildcards=SimpleNamespace(image=""),
            params=SimpleNamespace(settings={settings!r}),
            threads=1,
            log=[{str(tmp_path / "job.log")!r}],
        )
        variables = {{"snakemake": snakemake}}
        runpy.run_path("convert_series.py", variables, run_name="__main__")
        """
    subprocess.run([sys.executable, "-c", dedent(body)], cwd=repository / "scripts", check=True)
    fate = json.loads((tmp_path / "T1w.json").read_text())["Fate"]
    assert fate["stage"] == "convert"
    assert fate["remedy"].endswith(
        "conversion.missing_slices: 1 fills 1 slice of 24 from the neighbours"
    )
