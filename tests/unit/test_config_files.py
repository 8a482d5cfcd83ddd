"""What is wrong with a configuration's file, though its values may be right."""

import json
import os
import time
from itertools import pairwise

import pytest
import yaml

from voxplain.faults import SetupFault
from voxplain_workflow.planning.config_files import check_config_files


def refused(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    begun = time.monotonic()
    with pytest.raises(SetupFault) as fault:
        check_config_files([path])
    assert time.monotonic() - begun < 2
    message = str(fault.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 700
    return message


@pytest.fixture
def path(tmp_path):
    return tmp_path / "config.yaml"


def test_the_packaged_configurations_are_right(repository):
    paths = [repository / "config.yaml", *(repository / "config").glob("*.yaml")]
    assert len(paths) > 2
    check_config_files(paths)
    for profile in (repository / "profiles").rglob("*.yaml"):
        check_config_files([profile])


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("tasks: 1\nseed: 2\ntasks: 3\n", "tasks", "1 and 3"),
        ("cohorts:\n  a:\n    table: x\n    table: y\n", "cohorts.a.table", "3 and 4"),
        ("cohorts: {a: {table: x, 'table': y}}", "cohorts.a.table", "1 and 1"),
        ("list:\n- a: 1\n- b: 1\n  b: 2\n", "list.1.b", "3 and 4"),
        (json.dumps({"a": 1}).replace("}", ', "a": 2}'), "a", "1 and 1"),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_its_lines(path, text, key, lines):
    assert f"key {key} stands in lines {lines}; keep one" in refused(path, text)


@pytest.mark.parametrize(
    "text",
    [
        "a: {x: 1}\nb: {x: 1}\n",
        "base: &b {x: 1}\nmine: {<<: *b, y: 2}\n",
        "- x\n- x\n",
        "? [1, 2]\n: a\n? {a: 1}\n: b\n",
        "a: a\nb: [a, a]\n",
        "",
    ],
)
def test_equal_keys_of_different_mappings_are_right(path, text):
    path.write_text(text)
    check_config_files([path])


def test_another_encoding_is_refused_with_its_line(path):
    message = refused(path, "# a\nname: M\xfcller\n".encode("latin-1"))
    assert "is not UTF-8 (byte 0xfc in line 2); save it as UTF-8" in message


def test_a_mark_of_utf_8_is_none_of_its_keys(path):
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    check_config_files([path])


def test_what_is_no_yaml_is_refused_with_its_line(path):
    assert "is no YAML in line" in refused(path, "a: 1\nb: [1\n")
    assert "is no YAML" in refused(path, "a: \0")


def test_a_bomb_of_aliases_is_refused_before_anything_expands_it(path):
    names = [f"a{number}" for number in range(40)]
    lists = ["a0: &a0 [x, x]"]
    lists += [f"{n}: &{n} [{', '.join(['*' + m] * 9)}]" for m, n in pairwise(names)]
    assert "that aliases (*name) repeat" in refused(path, "\n".join(lists))
    mappings = ["a0: &a0 {x: 1}"]
    mappings += [f"{n}: &{n} {{b: *{m}, c: *{m}, d: *{m}}}" for m, n in pairwise(names)]
    assert "that aliases (*name) repeat" in refused(path, "\n".join(mappings))


def test_a_value_within_itself_is_refused(path):
    assert "line 2 refers by *a to a value that holds it" in refused(path, "a: &a\n  b: *a\n")


@pytest.mark.parametrize("text", ["[" * 100_000, "a: " + "{a: " * 5000])
def test_endless_nesting_is_refused(path, text):
    assert "nested in more than" in refused(path, text)


def test_endless_values_and_files_are_refused(path, monkeypatch):
    assert "has a value of 5000 characters" in refused(path, f"seed: {'9' * 5000}")
    monkeypatch.setattr("voxplain_workflow.planning.config_files._MOST_BYTES", 3)
    assert "more than 3 bytes" in refused(path, "a: 1")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_refused_and_not_opened(path, make):
    make(path)
    with pytest.raises(SetupFault, match="is a folder, a pipe or a device"):
        check_config_files([path])


def test_a_file_that_does_not_exist_is_left_to_snakemake(path):
    check_config_files([path])


def test_the_slow_parser_serves_too(path, monkeypatch):
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert "key a stands in lines 1 and 2" in refused(path, "a: 1\na: 2\n")
