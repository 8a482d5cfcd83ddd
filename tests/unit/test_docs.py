"""The examples of the documentation run as they stand."""

import re

import pytest


def examples(repository):
    for path in sorted((repository / "docs").glob("*.md")):
        for number, code in enumerate(
            re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S)
        ):
            yield f"{path.name}-{number}", code


def test_there_are_examples(repository):
    assert any(name.startswith("own_network.md") for name, _ in examples(repository))


def test_every_example_runs(repository):
    for name, code in examples(repository):
        try:
            exec(compile(code, name, "exec"), {})
        except Exception as error:
            pytest.fail(f"{name}: {type(error).__name__}: {error}")
