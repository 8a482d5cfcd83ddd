"""Checks of the files of a configuration that are lost once YAML has read them.

Snakemake reads these files. It takes the last of two equal keys, and reads any file that it is
given. What is checked here is seen in the text alone; the values are checked in
:mod:`voxplain_workflow.planning.settings`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from voxplain.faults import SetupFault, shortened

MOST_VALUES = 100_000  # of a configuration, with those that YAML aliases repeat
DEEPEST = 40
_MOST_BYTES = 4 * 2**20
_LONGEST_VALUE = 4000  # Python reads no whole numbers of more than 4300 digits


@dataclass
class _Open:
    """A mapping or list whose end was not reached."""

    keyed: bool
    anchor: str | None
    size: int = 1
    line_of: dict[str, int] = field(default_factory=dict)
    key: str | None = None  # whose value is next
    at_key: bool = True
    items: int = 0


def check_config_files(paths: Iterable[str | Path]) -> None:
    """Refuse files of a configuration that are not what they seem.

    Raises
    ------
    SetupFault
        A file is no regular file, is far too long, is not UTF-8 or not YAML, has a key twice, or
        its aliases repeat values without end.
    """
    for path in map(Path, paths):
        if path.exists():  # else Snakemake says so
            _check_events(_text_of(path), path)


def _text_of(path: Path) -> str:
    if not path.is_file():
        raise SetupFault(f"config file {path} is a folder, a pipe or a device; give a YAML file")
    if path.stat().st_size > _MOST_BYTES:
        raise SetupFault(f"config file {path} has more than {_MOST_BYTES} bytes: it is none")
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SetupFault(
            f"config file {path} is not UTF-8 (byte {raw[error.start]:#04x} in line {line}); save "
            "it as UTF-8"
        ) from None


def _check_events(text: str, path: Path) -> None:
    """Walk through the parser's events, which neither expand aliases nor nest calls."""
    # Not every build of PyYAML has the fast parser of libyaml.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    waiting: list[_Open] = []
    sizes: dict[str, int] = {}
    try:
        for event in yaml.parse(text, Loader=loader):
            line = event.start_mark.line + 1
            if isinstance(event, yaml.CollectionStartEvent):
                waiting.append(_Open(isinstance(event, yaml.MappingStartEvent), event.anchor))
                if len(waiting) > DEEPEST:
                    raise SetupFault(
                        f"config file {path}: line {line} is nested in more than {DEEPEST} keys"
                    )
                continue
            if isinstance(event, yaml.CollectionEndEvent):
                ended = waiting.pop()
                size, text_of_key, anchor = ended.size, None, ended.anchor
            elif isinstance(event, yaml.ScalarEvent):
                size, text_of_key, anchor = 1, event.value, event.anchor
                if len(event.value) > _LONGEST_VALUE:
                    raise SetupFault(
                        f"config file {path}: line {line} has a value of {len(event.value)} "
                        f"characters; allowed: at most {_LONGEST_VALUE}"
                    )
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor in {each.anchor for each in waiting}:
                    raise SetupFault(
                        f"config file {path}: line {line} refers by *{event.anchor} to a value "
                        "that holds it; write the value out"
                    )
                size, text_of_key, anchor = sizes.get(event.anchor, 1), None, None
            else:
                continue  # begin and end of the file and of documents
            if anchor:
                sizes[anchor] = size
            if waiting:
                _add(waiting, size, text_of_key, line, path)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        problem = " ".join((getattr(error, "problem", None) or str(error)).split())
        raise SetupFault(f"config file {path} is no YAML{where}: {problem}") from None


def _add(waiting: list[_Open], size: int, text: str | None, line: int, path: Path) -> None:
    """Add a key or value to the innermost mapping or list."""
    within = waiting[-1]
    within.size += size
    if within.size > MOST_VALUES:
        raise SetupFault(
            f"config file {path}: up to line {line} it holds more than {MOST_VALUES} values with "
            "those that aliases (*name) repeat; write them out"
        )
    if not within.keyed:
        within.items += 1
        return
    if within.at_key:
        within.key = text
        if text is not None:
            if text in within.line_of and text != "<<":
                raise SetupFault(
                    f"config file {path}: key {_place(waiting)} stands in lines "
                    f"{within.line_of[text]} and {line}; keep one"
                )
            within.line_of[text] = line
    within.at_key = not within.at_key


def _place(waiting: list[_Open]) -> str:
    """The key that is read, with those of all mappings around it."""
    keys = (each.key if each.keyed else str(each.items) for each in waiting)
    return shortened(".".join(key or "?" for key in keys))
