"""Strict reading of the configuration: known keys, right types, every default filled in."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from voxplain.faults import SetupFault, printable, shortened
from voxplain.models import MODELS, Model
from voxplain.relevance import METHODS
from voxplain_workflow.planning.config_files import DEEPEST, MOST_VALUES
from voxplain_workflow.planning.presets import fill_preset
from voxplain_workflow.planning.sources import source_problems

_BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "above {}",
    "exclusiveMaximum": "below {}",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "minProperties": "at least {} entries",
    "pattern": "text that matches {}",
}
_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}

# Larger numbers mean nothing here, and not all of them can be computed with.
_LARGEST = 1e300


def read_schema(path: str | Path) -> dict[str, Any]:
    """Read the JSON schema of the configuration from YAML, and fill in the registries' entries.

    Names of methods and networks, and the networks' recipes, stand in
    :data:`voxplain.relevance.METHODS` and :data:`voxplain.models.MODELS` alone.
    """
    # The file is large and read at every start. The parser of libyaml is ten times faster than
    # that of PyYAML, but not every build of PyYAML has it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    schema = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=loader)
    names = {
        "method": list(METHODS),
        # The summary uses no network.
        "explaining_method": [name for name in METHODS if name != "summary"],
        "model": list(MODELS),
    }
    _fill_names(schema, names)
    networks = schema["properties"]["models"]
    networks["properties"] = {
        name: _describe_network(model, networks["properties"].get(name, {}))
        for name, model in MODELS.items()
    }
    return schema


def _fill_names(described: Any, names: Mapping[str, list[str]]) -> None:
    """Replace references to registries in the schema by the registered names, in place."""
    if isinstance(described, list):
        for child in described:
            _fill_names(child, names)
    elif isinstance(described, dict):
        referred = str(described.get("$ref", "")).removeprefix("#/$defs/")
        if referred in names:
            del described["$ref"]
            described |= {"type": "string", "enum": names[referred]}
        for child in described.values():
            _fill_names(child, names)


def _describe_network(model: Model, described: Mapping[str, Any]) -> dict[str, Any]:
    """Schema of a network's settings: its options, and its recipe with the paper's defaults."""
    recipe = {
        key: {"$ref": f"#/$defs/{key}", "default": value}
        for key, value in dataclasses.asdict(model.recipe).items()
    }
    return {
        "description": f"{model.description[0].upper()}{model.description[1:]}.",
        **described,
        "type": "object",
        "additionalProperties": False,
        "properties": {**described.get("properties", {}), **recipe},
    }


def complete_settings(config: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with every default filled in.

    Parameters
    ----------
    config
        Content of the user's file.
    schema
        Schema of the configuration, see :func:`read_schema`.

    Raises
    ------
    SetupFault
        One line for every key that is unknown, missing, or has a value that is not allowed.
    """
    _refuse_endless(config)
    settings = _unshared(config)
    _refuse_odd_values(settings)
    models = settings.get("models")
    if isinstance(models, dict):
        # YAML reads a name without options as None: the network with the defaults of its paper.
        settings["models"] = {
            name: {} if options is None else options for name, options in models.items()
        }
    _fill_presets(settings, schema)
    _fill_defaults(settings, schema, schema)
    _refuse_odd_values(settings)  # makes a default of 1.0 equal to a user's 1
    problems = list(_problems(settings, schema))
    if problems:
        raise SetupFault("\n".join(dict.fromkeys(problems)))
    return settings


def _refuse_endless(config: Mapping[str, Any]) -> None:
    """Refuse a configuration whose YAML aliases repeat values without end, or contain themselves.

    Aliases are shared values in memory, which a copy would write out.
    """
    # Content of what is shared is counted as often as it is met.
    waiting: list[tuple[Any, int]] = [(config, 0)]
    count = 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if count + len(waiting) > MOST_VALUES or depth > DEEPEST:
            raise SetupFault(
                f"config: it holds more than {MOST_VALUES} values, or values nested in more than "
                f"{DEEPEST} keys; YAML aliases (*name) repeat values: write them out"
            )
        if isinstance(value, Mapping):
            waiting += ((child, depth + 1) for child in value.values())
        elif isinstance(value, list):
            waiting += ((child, depth + 1) for child in value)


def _unshared(value: Any) -> Any:
    """A deep copy in which keys share no mappings (YAML anchors make keys share them)."""
    if isinstance(value, Mapping):
        return {key: _unshared(child) for key, child in value.items()}
    return [_unshared(child) for child in value] if isinstance(value, list) else value


def _refuse_odd_values(value: Any, path: str = "") -> None:
    """Refuse keys that are not text and numbers that are not finite; replace 2.0 by 2."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in list(items):
        where = f"{path}{shortened(str(key))}"
        if isinstance(value, dict) and not isinstance(key, str):
            raise SetupFault(
                f"config: key {where} is read as {type(key).__name__}; put it in quotes"
            )
        if isinstance(child, float) and not math.isfinite(child):
            raise SetupFault(f"config: {where} is {child}; allowed: a finite number")
        if isinstance(child, int | float) and abs(child) > _LARGEST:
            raise SetupFault(f"config: {where} has too many digits; allowed: up to {_LARGEST:.0e}")
        if isinstance(child, str) and printable(child) != child:
            raise SetupFault(
                f"config: {where} is {_quoted(child)}; allowed: text without control characters"
            )
        if isinstance(child, float) and child.is_integer():
            value[key] = int(child)
        if isinstance(child, dict | list):
            _refuse_odd_values(child, f"{where}.")


def _fill_presets(settings: dict[str, Any], schema: Mapping[str, Any]) -> None:
    """Fill simulated cohorts with the defaults of their presets, before those of the schema."""
    simulation = schema["$defs"]["cohort"]["properties"]["simulation"]["properties"]
    cohorts = settings.get("cohorts")
    for cohort in cohorts.values() if isinstance(cohorts, dict) else ():
        if isinstance(cohort, dict) and cohort.get("source") == "simulated":
            written = cohort.setdefault("simulation", {})
            fill_preset(written, simulation["groups"]["default"])


def _fill_defaults(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> None:
    """Add missing defaults to a mapping in place, also in nested mappings and references."""
    schema = _resolved(schema, root)
    if not isinstance(value, dict):
        return
    for key, described in schema.get("properties", {}).items():
        described = _resolved(described, root)
        if key not in value and "default" in described:
            value[key] = _unshared(described["default"])
        if key in value:
            _fill_defaults(value[key], described, root)
    additional = schema.get("additionalProperties")
    if isinstance(additional, Mapping):
        for key in value.keys() - schema.get("properties", {}).keys():
            _fill_defaults(value[key], additional, root)


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema that ``$ref: "#/$defs/name"`` refers to, merged with the keys beside it."""
    if "$ref" not in schema:
        return schema
    name = schema["$ref"].rsplit("/", 1)[1]
    beside = {key: value for key, value in schema.items() if key != "$ref"}
    return {**root["$defs"][name], **beside}


def _match_all(
    validator: Any, pattern: str, text: Any, schema: Mapping[str, Any]
) -> Iterator[jsonschema.ValidationError]:
    """The keyword ``pattern``, whose final $ is the end: Python's lets a line break follow."""
    strict = re.sub(r"(?<!\\)\$$", r"\\Z", pattern)
    if isinstance(text, str) and not re.search(strict, text):
        yield jsonschema.ValidationError(f"{text!r} does not match {pattern!r}")


_Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _match_all})


def _problems(settings: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    validator = _Validator(schema)
    for error in sorted(validator.iter_errors(settings), key=lambda e: list(map(str, e.path))):
        yield from _in_words(error)
    yield from _reversed_limits(settings)
    cohorts = settings.get("cohorts")
    for name, cohort in cohorts.items() if isinstance(cohorts, Mapping) else ():
        if isinstance(cohort, Mapping):
            yield from source_problems(name, cohort)


def _reversed_limits(value: Any, path: str = "") -> Iterator[str]:
    """Messages on keys ``min_x`` above the keys ``max_x`` beside them, which nothing meets."""
    if isinstance(value, list):
        value = {str(place): child for place, child in enumerate(value)}
    for key, child in value.items() if isinstance(value, dict) else ():
        largest = f"max_{key.removeprefix('min_')}"
        limits = child, value.get(largest)
        numbers = all(isinstance(limit, int | float) for limit in limits)
        if key.startswith("min_") and numbers and limits[0] > limits[1]:
            yield (
                f"config: {path}{key} is {child}, above {path}{largest}, which is {limits[1]}; "
                "allowed: the lower number as the minimum"
            )
        yield from _reversed_limits(child, f"{path}{key}.")


def _in_words(error: jsonschema.ValidationError) -> Iterator[str]:
    """One line naming the key, the value and what is allowed."""
    where = ".".join(shortened(str(key)) for key in error.absolute_path)
    value = _quoted(error.instance)
    if error.validator == "additionalProperties":
        allowed = list(error.schema.get("properties", {}))
        for key in error.instance.keys() - set(allowed):
            key = shortened(str(key))
            near = difflib.get_close_matches(key, allowed, 1)
            hint = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(allowed)}"
            yield f"config: unknown key {f'{where}.' if where else ''}{key}; {hint}"
    elif error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        for key in missing:
            described = error.schema.get("properties", {}).get(key, {}).get("description", "")
            hint = f" ({described.split('. ')[0].strip()})" if described else ""
            yield f"config: {f'{where}.' if where else ''}{key} is missing{hint}"
    elif "propertyNames" in error.schema_path:
        yield f"config: {value} cannot be a key of {where}; {_allowed_name(error)}"
    else:
        yield f"config: {where or 'the file'} is {value}; allowed: {_allowed(error)}"


def _quoted(value: Any) -> str:
    """A value as Python writes it, shortened."""
    return shortened(repr(value))


def _allowed(error: jsonschema.ValidationError) -> str:
    if error.validator == "enum":
        values = [str(value) for value in error.validator_value]
        near = difflib.get_close_matches(shortened(str(error.instance)), values, 3)
        return ", ".join(values if len(values) <= 12 else near or [*values[:12], "..."])
    if error.validator == "type":
        numeric = error.validator_value in ("number", "integer")
        hint = _as_number(error.instance) if numeric and isinstance(error.instance, str) else ""
        wanted = "a mapping of keys" if error.validator_value == "object" else error.validator_value
        return f"{wanted}{hint and f'; {hint}'}"
    if error.validator == "oneOf":
        return ", or ".join(map(_in_short, error.validator_value))
    if error.validator not in _BOUNDS:
        return shortened(error.message)
    return _BOUNDS[error.validator].format(error.validator_value)


def _as_number(text: str) -> str:
    """How to write a number that YAML reads as text; empty if the text is not a number."""
    if len(text) > 40:
        return ""
    parts = re.fullmatch(r"([+-]?)(\d*)(\.?)(\d*)(?:[eE]([+-]?)(\d+))?", text.strip())
    if not parts or not (parts[2] or parts[4]):
        return ""
    sign, whole, _, fraction, of_power, power = parts.groups()
    if power is None:
        return f"write {text.strip()} without quotes"
    number = f"{sign}{whole or 0}.{fraction or 0}e{of_power or '+'}{power}"
    return f"write {number} (YAML takes {text} for text)"


def _in_short(schema: Mapping[str, Any]) -> str:
    """Values that one branch of a choice allows: ``a whole number of at least 2``."""
    if "const" in schema or "enum" in schema:
        return ", ".join(map(str, schema.get("enum", [schema.get("const")])))
    text = _TYPES[schema["type"]]
    bounds = [form.format(schema[key]) for key, form in _BOUNDS.items() if key in schema]
    if "minItems" in schema and schema["minItems"] == schema.get("maxItems"):
        bounds = [f"{schema['minItems']} items"]
    if bounds:
        text += f" of {' and '.join(bounds)}"
    if "items" in schema:
        text += f", each {_in_short(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), Mapping):
        names = schema.get("propertyNames", {"type": "string"})
        text += f" from {_in_short(names)} to {_in_short(schema['additionalProperties'])}"
    return text


def _allowed_name(error: jsonschema.ValidationError) -> str:
    if error.validator == "pattern" and error.absolute_path[-1] == "cohorts":
        return "allowed: letters and digits (benchmarks, template and report are taken)"
    return f"allowed: {_allowed(error)}"


def name_repeats(cohorts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Cohort to the name that it shares with its repeats.

    Simulated cohorts are repeats if their settings differ only in the seed and in the patients'
    numbers, and in both: the same people, or other people under the same numbers, are no repeat.
    Repeats share the name of the first one without the number at its end. All other cohorts keep
    their names, and so do repeats if another cohort has the shared name.
    """
    families: list[tuple[Mapping[str, Any], list[str]]] = []
    for name, settings in cohorts.items():
        compared = {**settings, "simulation": dict(settings.get("simulation") or {})}
        for key in ("seed", "first_number"):
            compared["simulation"].pop(key, None)
        simulated = settings["source"] == "simulated"
        repeated = [
            members
            for other, members in families
            if simulated
            and other == compared
            and all(_apart(cohorts[m], settings) for m in members)
        ]
        if repeated:
            repeated[0].append(name)
        else:
            families.append((compared, [name]))
    shared = [members[0].rstrip("0123456789") or members[0] for _, members in families]
    names = {}
    for name, (_, members) in zip(shared, families, strict=True):
        free = shared.count(name) == 1 and name not in set(cohorts) - set(members)
        names |= {member: name if len(members) > 1 and free else member for member in members}
    return names


def _apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two simulated cohorts with equal groups have different people and numbers."""
    first, second = one["simulation"], other["simulation"]
    numbers = 10 * max((group["patients"] for group in first["groups"].values()), default=0)
    distance = abs(first["first_number"] - second["first_number"])
    return first["seed"] != second["seed"] and distance >= numbers


def sort_keys(value: Any) -> Any:
    """Nested mappings as dicts sorted by key: Snakemake compares the order of keys as well."""
    if isinstance(value, Mapping):
        return {key: sort_keys(value[key]) for key in sorted(value)}
    return value


def trains(settings: Mapping[str, Any]) -> bool:
    """Whether any network is trained, rather than only applied from a file."""
    return any(cohort["train"] for cohort in settings["cohorts"].values())


def skull_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the skull-stripping tools that may run, and of the ladder's rungs for them."""
    skull = settings["skull"]
    if skull["tool"] == "deepbet":
        tools, ladder = ["deepbet"], [rung for rung in skull["ladder"] if rung in ("neck", "bias")]
    else:
        ladder = skull["ladder"]
        second = skull["tool"] == "auto" or "deepbet" in ladder
        tools = ["bet", "deepbet"] if second else ["bet"]
    used = ["gate", "neck_mm"] if "neck" in ladder else ["gate"] if ladder else []
    return {"ladder": ladder, **{key: sort_keys(skull[key]) for key in [*tools, *used]}}
