import os
from pathlib import Path

import pytest
import torch

from voxplain.faults import SetupFault
from voxplain.training.checkpoints import (
    checkpoint_path,
    load_whole,
    remove_checkpoints,
    save_whole,
)

SETTINGS = [{"training": {"epochs": 20, "batch_size": 5}, "classes": ["AD", "NC"]}, 3, "I1\ttrain"]


@pytest.fixture
def volumes(tmp_path):
    paths = [tmp_path / "mean.nii.gz", tmp_path / "sd.nii.gz"]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number] * 50))
    return paths


def test_the_same_settings_and_volumes_have_the_same_name_in_any_order_of_keys(tmp_path, volumes):
    reordered = [dict(reversed(SETTINGS[0].items())), *SETTINGS[1:]]
    path = checkpoint_path(tmp_path, SETTINGS, volumes)
    assert path == checkpoint_path(str(tmp_path), reordered, map(str, volumes))
    assert path.parent == tmp_path
    assert path.name.startswith(".checkpoint-")
    assert path.suffix == ".pt"
    assert not path.exists()


@pytest.mark.parametrize(
    "changed",
    [
        [{**SETTINGS[0], "training": {"epochs": 21, "batch_size": 5}}, *SETTINGS[1:]],
        [{**SETTINGS[0], "classes": ["NC", "AD"]}, *SETTINGS[1:]],
        [SETTINGS[0], 4, SETTINGS[2]],
        [SETTINGS[0], 3, "I2\ttrain"],
        [SETTINGS[0], "3", SETTINGS[2]],
        SETTINGS[:2],
    ],
)
def test_changed_settings_change_the_name(tmp_path, volumes, changed):
    before = checkpoint_path(tmp_path, SETTINGS, volumes)
    assert checkpoint_path(tmp_path, changed, volumes) != before


def test_a_volumes_content_changes_the_name_and_its_own_name_does_not(tmp_path, volumes):
    before = checkpoint_path(tmp_path, SETTINGS, volumes)
    moved = volumes[1].rename(tmp_path / "other.nii.gz")
    assert checkpoint_path(tmp_path, SETTINGS, [volumes[0], moved]) == before
    content = bytearray(moved.read_bytes())
    content[-1] ^= 1
    moved.write_bytes(bytes(content))
    assert checkpoint_path(tmp_path, SETTINGS, [volumes[0], moved]) != before


def test_volumes_that_are_exchanged_or_left_out_change_the_name(tmp_path, volumes):
    names = {
        checkpoint_path(tmp_path, SETTINGS, chosen)
        for chosen in (volumes, volumes[::-1], volumes[:1], [])
    }
    assert len(names) == 4


def test_bytes_that_move_from_one_volume_to_the_next_change_the_name(tmp_path, volumes):
    before = checkpoint_path(tmp_path, SETTINGS, volumes)
    first, second = (path.read_bytes() for path in volumes)
    volumes[0].write_bytes(first + second[:10])
    volumes[1].write_bytes(second[10:])
    assert checkpoint_path(tmp_path, SETTINGS, volumes) != before


def test_checkpoints_are_removed_and_nothing_else(tmp_path, volumes):
    for made_by in ([1], [2]):
        checkpoint_path(tmp_path, made_by, []).touch()
    checkpoint_path(tmp_path, [3], []).with_suffix(".partial").touch()
    (tmp_path / "model.pt").touch()
    inner = tmp_path / "seed-2"
    inner.mkdir()
    kept = checkpoint_path(inner, [1], [])
    kept.touch()
    remove_checkpoints(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "mean.nii.gz",
        "sd.nii.gz",
        "model.pt",
        "seed-2",
    }
    assert kept.exists()
    remove_checkpoints(Path(tmp_path))  # again, with none left


def test_a_file_has_its_name_only_once_its_bytes_are_on_the_disk(tmp_path, monkeypatch):
    calls, sync, replace = [], os.fsync, os.replace

    def note_sync(descriptor):
        calls.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    def note_rename(source, target):
        calls.append(("rename", str(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_rename)
    path = tmp_path / "model.pt"
    save_whole({"weights": torch.arange(3)}, path)
    assert calls == [
        ("sync", str(tmp_path / "model.partial")),
        ("rename", str(path)),
        ("sync", str(tmp_path)),
    ]
    assert load_whole(path)["weights"].tolist() == [0, 1, 2]
    assert os.listdir(tmp_path) == ["model.pt"]


def test_a_changed_byte_is_noticed_by_its_checksum(tmp_path):
    path = tmp_path / "model.pt"
    save_whole({"weights": torch.full((1000,), 7, dtype=torch.uint8)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(bytes([7] * 1000)) + 500] ^= 1
    path.write_bytes(content)
    with pytest.raises(SetupFault, match=r"its part .*data/0 does not match its checksum"):
        load_whole(path)
