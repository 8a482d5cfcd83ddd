"""The examples of the documentation run without changes."""

import argparse
import re
import shlex

import pytest
from snakemake.cli import get_argument_parser

from documented import blocks_of
from voxplain.relevance import METHODS


def pages(repository):
    return sorted((repository / "docs").glob("*.md"))


def examples(repository):
    """Blocks of Python. Those of extending.md: tests/workflow/test_extending.py."""
    for path in pages(repository):
        for block in blocks_of(path):
            if block.language == "python" and path.name != "extending.md":
                yield block


def test_there_are_examples(repository):
    assert any(block.name.startswith("own_network.md") for block in examples(repository))


def test_only_one_page_names_the_files_of_its_blocks(repository):
    names = {path.name for path in pages(repository) if any(b.path for b in blocks_of(path))}
    assert names == {"extending.md"}


def test_every_method_has_its_formula_and_its_traps(repository):
    text = (repository / "docs/methods.md").read_text().split("## Published variants")[0]
    documented = set()
    for part in re.split(r"^###? ", text, flags=re.M)[1:]:
        named = {name for name in part.splitlines()[0].lower().split(", ") if name in METHODS}
        if named:
            for needed in ("```math", "*Trust it*", "*Traps:*"):
                assert needed in part, (named, needed)
        documented |= named
    assert documented == METHODS.keys()


def test_no_example_is_indented_in_a_list(repository):
    """These tests do not find indented fences."""
    for path in pages(repository):
        begun = path.read_text().count("```python")
        assert begun == sum(block.language == "python" for block in blocks_of(path)), path.name


def test_every_example_runs(repository):
    for block in examples(repository):
        try:
            exec(compile(block.text, block.name, "exec"), {})
        except Exception as error:
            pytest.fail(f"{block.name}: {type(error).__name__}: {error}")


def commands(repository):
    """Every call of Snakemake that the documentation and the configurations show, as words."""
    places = [repository / "README.md", *pages(repository), *(repository / "config").iterdir()]
    for path in places:
        for line in path.read_text().splitlines():
            for call in re.findall(r"(?:^|`|\s)(snakemake [^`|]*)", line.lstrip("# ")):
                words = shlex.split(call.replace("...", ""), comments=True)
                # In running text, the rest of a sentence follows the command.
                if "`" in line or line.lstrip("# ").startswith("snakemake "):
                    yield f"{path.name}: {call}", words[1:]


def test_every_documented_snakemake_call_can_be_parsed(repository):
    """A target after --configfile or --quiet would be read as the value of that option."""
    count = 0
    for name, words in commands(repository):
        parser = get_argument_parser()
        parser.exit_on_error = False
        try:
            arguments = parser.parse_args(
                [word.rstrip(",;").replace("$batch", "1") for word in words]
            )
        except (SystemExit, argparse.ArgumentError):
            pytest.fail(name)
        for file in arguments.configfile or ():
            assert str(file).endswith(".yaml"), name
        count += 1
    assert count > 20
