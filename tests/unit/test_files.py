import errno
import hashlib
import os
import shutil
import subprocess
import zipfile

import numpy as np
import pytest

from unit.test_series import digest_series, read_series, refused
from voxplain.cohort.files import find_changes, open_source
from voxplain.faults import DataFault
from voxplain.volumes import write_array


def packed(path, *folders):
    """A zip file of folders, each below ADNI."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder in folders:
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    archive.write(file, f"ADNI/{file.relative_to(folder.parent)}")
    return path


# --- zip files ------------------------------------------------------------------------------------


def test_a_series_is_read_from_within_a_zip_file(series, tmp_path):
    path = packed(tmp_path / "one.zip", series.folder)
    np.testing.assert_array_equal(
        read_series(f"{path}/ADNI/{series.folder.name}").voxels, series.volume
    )


@pytest.mark.parametrize("name", ["a_I7.nii", "a_I7.nii.gz"])
def test_a_volume_is_read_from_within_a_zip_file(tmp_path, phantom, name):
    folder = tmp_path / "old"
    folder.mkdir()
    write_array(folder / name, *phantom, np.uint16)
    write_array(folder / "b_I8.nii", *phantom, np.uint16)
    path = packed(tmp_path / "one.zip", folder)
    np.testing.assert_array_equal(read_series(f"{path}/ADNI/old/{name}").voxels, phantom[0])


def test_unpacked_files_are_deleted_afterwards(series, tmp_path):
    path = packed(tmp_path / "one.zip", series.folder)
    with open_source(f"{path}/ADNI/{series.folder.name}") as files:
        assert [file.name for file in files] == sorted(file.name for file in series.files)
    assert not files[0].exists()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["I32237", "one.zip"]


@pytest.mark.parametrize("name", ["../../../evil.dcm", "/tmp/evil.dcm", "ADNI/I1/../../evil.dcm"])
def test_a_name_in_a_zip_file_cannot_escape_the_folder(tmp_path, name):
    path = tmp_path / "one.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, "x")
        archive.writestr("ADNI/I1/a.dcm", "y")
    for place in ("ADNI/I1", name, name.rpartition("/")[0]):
        with open_source(f"{path}/{place}") as files:
            assert all(file.parent == files[0].parent for file in files)
    assert not list(tmp_path.rglob("evil.dcm"))


def test_a_damaged_entry_of_a_zip_file_fails_its_scan_only(series, tmp_path):
    path = packed(tmp_path / "one.zip", series.folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    place = f"{path}/ADNI/{series.folder.name}"
    assert "cannot be unpacked" in refused(lambda: read_series(place), path)


def test_a_folder_missing_from_its_zip_file_is_refused(series, tmp_path):
    path = packed(tmp_path / "one.zip", series.folder)
    assert "is empty" in refused(lambda: read_series(f"{path}/ADNI/I5"), path)


# --- companions -----------------------------------------------------------------------------------


def test_companions_belong_to_the_scan(series, tmp_path):
    xml = tmp_path / "a_I32237.xml"
    xml.write_text("<idaxs/>")
    with open_source(series.folder, "I32237", [xml]) as files:
        assert xml in files
        assert len(files) == 25


def test_an_analyze_header_is_read_with_its_voxel_file(tmp_path):
    for name in ("a_I1.hdr", "a_I1.img", "b_I2.img"):
        (tmp_path / name).write_bytes(b"x")
    with open_source(tmp_path / "a_I1.hdr") as files:
        assert [file.name for file in files] == ["a_I1.hdr", "a_I1.img"]


@pytest.fixture
def recorded(series, tmp_path):
    """Digests of the series in the format of sha256sum, as the workflow writes them."""
    path = tmp_path / "series.sha256"
    lines = [f"{digest}  {name}\n" for name, digest in digest_series(series.folder).items()]
    path.write_text("".join(lines))
    return path


def test_digests_are_sha256_by_file_name(series):
    digests = digest_series(series.folder)
    assert list(digests) == sorted(path.name for path in series.files)
    for path in series.files:
        assert digests[path.name] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum of the coreutils")
def test_sha256sum_can_check_the_digests(series, recorded):
    command = ["sha256sum", "--check", "--strict", "--quiet", str(recorded)]
    assert subprocess.run(command, cwd=series.folder).returncode == 0


def test_an_unchanged_series_has_no_changes(series, recorded):
    (series.folder / ".snakemake_timestamp").touch()
    assert find_changes(series.folder, recorded) == []


def test_every_file_replaced_removed_or_added_is_reported(series, recorded):
    replaced, removed = series.files[3], series.files[7]
    content = bytearray(replaced.read_bytes())
    content[-1] ^= 1
    replaced.write_bytes(bytes(content))
    removed.unlink()
    (series.folder / "new.dcm").write_bytes(b"new")
    assert find_changes(series.folder, recorded) == [
        f"{replaced} was replaced",
        f"{removed} was removed",
        f"{series.folder / 'new.dcm'} was added",
    ]


def test_a_missing_folder_lists_every_file_as_removed(series, recorded):
    shutil.rmtree(series.folder)
    changes = find_changes(series.folder, recorded)
    assert len(changes) == len(series.files)
    assert all(change.endswith("was removed") for change in changes)


@pytest.mark.parametrize("seed", range(8))
def test_any_flipped_bit_of_a_zip_file_fails_its_scan_or_changes_nothing(series, tmp_path, seed):
    path = packed(tmp_path / "one.zip", series.folder)
    content = bytearray(path.read_bytes())
    draw = np.random.default_rng(seed)
    # (After its entries comes the directory, whose faults are found in an earlier step.)
    place = int(draw.integers(0, len(content) // 2))
    content[place] ^= 1 << int(draw.integers(8))
    path.write_bytes(content)
    try:
        read = read_series(f"{path}/ADNI/{series.folder.name}")
    except DataFault as fault:
        assert str(path) in fault.reason
    else:
        np.testing.assert_array_equal(read.voxels, series.volume)


def test_faults_of_unpacked_files_name_their_zip_file(series, tmp_path):
    cut = series.files[3]
    cut.write_bytes(cut.read_bytes()[:-300])
    path = packed(tmp_path / "one.zip", series.folder)
    place = f"{path}/ADNI/{series.folder.name}"
    assert f"{place}/{cut.name}" in refused(lambda: read_series(place), "truncated")


def test_two_entries_of_one_name_are_one_file(tmp_path, phantom):
    write_array(tmp_path / "a.nii", *phantom, np.uint16)
    path = tmp_path / "one.zip"
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        for _ in range(2):
            archive.write(tmp_path / "a.nii", "I1/a.nii")
    np.testing.assert_array_equal(read_series(f"{path}/I1").voxels, phantom[0])


# --- hostile zip files ----------------------------------------------------------------------------


def test_a_zip_file_that_would_fill_the_disk_is_not_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "one.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("I1/a.dcm", bytes(10_000))
        archive.writestr("I1/b.dcm", bytes(10_000))
        archive.writestr("I2/a.dcm", bytes(15_000))
    monkeypatch.setattr("voxplain.cohort.files._MOST_UNPACKED", 15_000)
    reason = refused(lambda: read_series(f"{path}/I1"), path)
    assert "2 files of 20000 bytes together" in reason
    with open_source(f"{path}/I2") as files:
        assert [file.stat().st_size for file in files] == [15_000]


def test_a_zip_file_of_endless_entries_is_not_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "one.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(4):
            archive.writestr(f"I1/{number}.dcm", "")
    monkeypatch.setattr("voxplain.cohort.files._MOST_ENTRIES", 3)
    assert "unpacks to 4 files" in refused(lambda: read_series(f"{path}/I1"), path)


def test_names_that_no_file_system_can_hold_are_shortened_and_stay_apart(series, tmp_path):
    path = tmp_path / "one.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in series.files:
            archive.write(file, f"I1/{'ä' * 200}{file.name}")
    with open_source(f"{path}/I1") as files:
        assert len(files) == len(series.files)
        assert all(file.name.endswith("_I32237.dcm") for file in files)
    np.testing.assert_array_equal(read_series(f"{path}/I1").voxels, series.volume)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(series):
    series.files[2].chmod(0)
    assert "cannot be read (Permission denied)" in refused(
        lambda: read_series(series.folder), series.files[2]
    )


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP])
def test_an_error_of_the_system_about_a_scans_file_is_its_fault(series, code):
    def read():
        with open_source(series.folder):
            raise OSError(code, os.strerror(code), str(series.files[1]))

    assert os.strerror(code) in refused(read, series.files[1])


def test_errors_of_the_machine_are_no_fault_of_a_scan(series):
    for error in (
        OSError(errno.ENOSPC, "No space left on device", str(series.files[1])),
        PermissionError(errno.EACCES, "Permission denied", "/results/T1w.nii.gz"),
        MemoryError(),
    ):
        with pytest.raises(type(error)), open_source(series.folder):
            raise error


def test_damaged_records_of_digests_name_what_changed(series, tmp_path):
    (tmp_path / "a.sha256").write_text("half a line\n\n")
    lines = find_changes(series.folder, tmp_path / "a.sha256")
    assert f"{series.files[0]} was added" in lines


def test_a_zip_file_that_names_a_place_before_its_begin_is_refused(tmp_path):
    path = tmp_path / "one.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("I1/a.dcm", "x")
    content = bytearray(path.read_bytes())
    end = content.rindex(b"PK\5\6")
    # Where the list of files begins: later than it does, so that all places move to the front.
    start = int.from_bytes(content[end + 16 : end + 20], "little") + 20
    content[end + 16 : end + 20] = start.to_bytes(4, "little")
    path.write_bytes(content)
    assert "cannot be unpacked" in refused(lambda: read_series(f"{path}/I1"), path)
