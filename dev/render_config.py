"""Write config/README.md from the schema of the configuration; --check only compares."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from voxplain_workflow.planning.settings import read_schema  # noqa: E402

SCHEMA = ROOT / "schemas/config.schema.yaml"
TARGET = ROOT / "config/README.md"

HEADER = """# Configuration

<!-- Made by `make generate` from schemas/config.schema.yaml, networks and methods. -->

`config.yaml` is what a run uses unless you give your own file:

```bash
snakemake --cores 8 --resources gpu=1 --configfile config/adni.yaml
```

A file given so replaces `config.yaml`; whatever it does not name has the default below. Single
values can be set on the command line, as `--config resolution_mm=2`. An unknown key or a value that
is not allowed stops the run with a line that says which.

| file | what it is |
|---|---|
| [`config.yaml`](../config.yaml) | the embedded default: a small simulated cohort at 4 mm |
| [`config/adni.yaml`](adni.yaml) | Rieke et al. 2018 on your own download of ADNI at 1 mm |
| [`config/all_methods.yaml`](all_methods.yaml) | every network and method, at 4 mm |

## Every key

| key | default | what it means |
|---|---|---|
"""


def rows(schema: Mapping[str, Any], root: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Table rows of the keys of a schema, nested keys after their parent."""
    for key, described in schema.get("properties", {}).items():
        yield from _row(f"{path}{key}", described, root)
    additional = schema.get("additionalProperties")
    if isinstance(additional, Mapping) and path:
        yield from _row(f"{path}`*name*`".replace("`", ""), additional, root, named=False)


def _row(
    path: str, described: Mapping[str, Any], root: Mapping[str, Any], named: bool = True
) -> Iterator[str]:
    described = _resolve(described, root)
    nested = "properties" in described or isinstance(described.get("additionalProperties"), dict)
    default = described.get("default")
    if "default" not in described or (nested and default == {}):
        shown = ""
    else:
        shown = f"`{json.dumps(default)}`"
    text = " ".join(described.get("description", "").split()).replace("|", "\\|")
    allowed = described.get("enum") or _resolve(described.get("items", {}), root).get("enum")
    if allowed and len(allowed) <= 12:
        text += f" One of: {', '.join(f'`{value}`' for value in allowed)}."
    if text or shown:
        yield f"| `{path}` | {shown} | {text.replace('<', '&lt;')} |"
    yield from rows(described, root, f"{path}.")


def _resolve(described: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" not in described:
        return dict(described)
    target = root["$defs"][described["$ref"].rsplit("/", 1)[1]]
    return {**target, **{key: value for key, value in described.items() if key != "$ref"}}


def render() -> str:
    """The text of config/README.md."""
    schema = read_schema(SCHEMA)
    areas = ", ".join(f"`{area}`" for area in schema["$defs"]["area"]["enum"])
    return (
        HEADER
        + "\n".join(rows(schema, schema))
        + "\n\n## Areas of AAL\n\nWithout `_L` or `_R` a name means both sides.\n\n"
        + areas
        + "\n"
    )


if __name__ == "__main__":
    if "--check" in sys.argv:
        if TARGET.read_text() != render():
            sys.exit(f"{TARGET} is out of date: run make generate")
    else:
        TARGET.write_text(render())
