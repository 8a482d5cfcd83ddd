import copy
import dataclasses
import json
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from voxplain.faults import SetupFault
from voxplain.models import MODELS
from voxplain.relevance import METHODS
from voxplain_workflow.planning.settings import complete_settings, name_repeats, read_schema

SIMULATED = {"source": "simulated"}
ADNI = {"source": "adni", "table": "t.csv", "images": "ADNI"}


@pytest.fixture(scope="module")
def schema(repository):
    return read_schema(repository / "schemas/config.schema.yaml")


def config(cohort=None, **more):
    return {"cohorts": {"demo": copy.deepcopy(SIMULATED if cohort is None else cohort)}, **more}


def simulated(**simulation):
    return config({"source": "simulated", "simulation": simulation})


def keys_of(schema, place=""):
    """Every key of a schema with its description, through mappings of free names."""
    for key, described in schema.get("properties", {}).items():
        yield f"{place}{key}", described
        yield from keys_of(described, f"{place}{key}.")
    others = schema.get("additionalProperties")
    if isinstance(others, dict):
        yield from keys_of(others, f"{place}*.")


def resolved(schema):
    """The schema with every reference replaced by what it stands for."""

    def resolve(part):
        if isinstance(part, dict):
            if "$ref" in part:
                name = part["$ref"].removeprefix("#/$defs/")
                part = {**schema["$defs"][name], **{k: v for k, v in part.items() if k != "$ref"}}
            return {key: resolve(value) for key, value in part.items()}
        return [resolve(value) for value in part] if isinstance(part, list) else part

    return resolve({key: value for key, value in schema.items() if key != "$defs"})


# --- the schema -----------------------------------------------------------------------------------


def test_every_key_has_a_description_that_is_a_sentence(schema):
    keys = dict(keys_of(resolved(schema)))
    assert len(keys) > 40
    for key, described in keys.items():
        assert described.get("description", "").rstrip().endswith("."), key


def test_every_leaf_has_a_default_or_must_be_given(schema):
    free = {"cohorts.*.source", "cohorts.*.table", "cohorts.*.images"}
    for key, described in keys_of(resolved(schema)):
        is_leaf = "properties" not in described and not isinstance(
            described.get("additionalProperties"), dict
        )
        if is_leaf and not key.startswith("cohorts.*.columns."):
            assert ("default" in described) != (key in free), key


def test_no_mapping_takes_keys_that_it_does_not_describe(schema):
    for key, described in keys_of(resolved(schema)):
        if described.get("type") == "object":
            assert "additionalProperties" in described, key
            assert described["additionalProperties"] is not True, key


def test_every_default_is_allowed_by_its_own_key(schema):
    settings = complete_settings(config(), schema)
    again = complete_settings(settings, schema)
    # Also as text: Snakemake takes 3.0 for a change of 3.
    assert json.dumps(again, sort_keys=True) == json.dumps(settings, sort_keys=True)


@pytest.mark.parametrize("name", ["config.yaml", "config/adni.yaml"])
def test_the_configs_that_come_with_it_are_complete_without_a_problem(repository, schema, name):
    given_settings = yaml.safe_load((repository / name).read_text())
    settings = complete_settings(given_settings, schema)
    assert settings["max_failed"] == 0.05
    assert settings["registration"] == {"transform": "syn_quick", "seed": 42}
    assert settings["resolution_mm"] == given_settings["resolution_mm"]


# --- defaults -------------------------------------------------------------------------------------


def test_defaults_are_filled_in_at_every_depth(schema):
    settings = complete_settings(config(skull={"bet": {"robust_centre": True}}), schema)
    assert settings["tasks"] == [["AD", "NC"]]
    assert settings["template"] == "packaged"
    assert settings["skull"]["tool"] == "auto"
    assert settings["skull"]["bet"] == {"fractional_intensity": 0.5, "robust_centre": True}
    assert settings["skull"]["deepbet"] == {"threshold": 0.5, "dilate": 0}
    assert settings["skull"]["gate"]["min_overlap"] == 0.9
    assert settings["quality"]["min_overlap"] == 0.9


def test_networks_are_trained_as_in_their_papers_by_default(schema):
    for name, model in MODELS.items():
        settings = complete_settings(config(models={name: {}}), schema)["models"][name]
        recipe = dataclasses.asdict(model.recipe)
        assert {key: settings[key] for key in recipe} == recipe
        assert settings.keys() - recipe.keys() == set(model.options)


def test_the_schema_describes_no_network_that_there_is_not(repository):
    written = yaml.safe_load((repository / "schemas/config.schema.yaml").read_text())
    assert written["properties"]["models"]["properties"].keys() <= MODELS.keys()


def test_names_of_methods_and_networks_are_those_of_the_registries(schema):
    for name in METHODS:
        complete_settings(config(heatmaps={"methods": [name]}), schema)
        told = config(faithfulness={"randomise": [name]})
        if name == "summary":
            with pytest.raises(SetupFault, match="randomise"):
                complete_settings(told, schema)
        else:
            complete_settings(told, schema)
    for name in MODELS:
        complete_settings(config(cam={"layer": {name: "conv1"}}), schema)
    with pytest.raises(SetupFault, match=r"heatmaps\.methods\.0 is 'cams'; allowed: cam"):
        complete_settings(config(heatmaps={"methods": ["cams"]}), schema)
    with pytest.raises(SetupFault, match="alexnet"):
        complete_settings(config(cam={"layer": {"alexnet": "conv1"}}), schema)


@pytest.mark.parametrize("name", MODELS)
def test_a_network_without_settings_of_its_own_needs_no_braces(schema, name):
    written = yaml.safe_load(f"models:\n  {name}:\n")
    assert written == {"models": {name: None}}
    settings = complete_settings(config(**written), schema)
    assert settings["models"] == complete_settings(config(models={name: {}}), schema)["models"]


def test_a_simulated_cohort_gets_a_simulation_and_an_adni_cohort_none(schema):
    settings = complete_settings({"cohorts": {"a": SIMULATED, "b": ADNI}}, schema)
    simulation = settings["cohorts"]["a"]["simulation"]
    assert simulation["groups"]["AD"] == {"patients": 10, "severity": [0.7, 1.0], "converts": 0}
    assert simulation["scanner"]["voxel_size_mm"] == [0.94, 0.94]
    assert simulation["atrophy"]["max_loss"] == 0.3
    assert "simulation" not in settings["cohorts"]["b"]
    assert settings["cohorts"]["b"]["columns"] == {}


def test_a_group_that_the_user_names_gets_its_own_defaults_and_no_group_beside(schema):
    settings = complete_settings(simulated(groups={"MCI": {"patients": 3}}), schema)
    groups = settings["cohorts"]["demo"]["simulation"]["groups"]
    assert groups == {"MCI": {"patients": 3, "severity": [0, 0], "converts": 0}}


# --- presets --------------------------------------------------------------------------------------


def simulation_of(schema, **simulation):
    return complete_settings(simulated(**simulation), schema)["cohorts"]["demo"]["simulation"]


def test_temporal_is_what_a_cohort_without_a_preset_is(schema):
    assert simulation_of(schema, preset="temporal") == simulation_of(schema)
    told = simulation_of(schema)
    assert told["atrophy"] == {
        "areas": ["Hippocampus", "ParaHippocampal", "Amygdala", "Temporal_Mid", "Temporal_Inf"],
        "max_loss": 0.3,
        "extent": 1,
        "asymmetry": 0,
        "spread": 0,
    }
    assert told["shortcut"]["kind"] == "none"
    assert told["scanner"]["motion"]["share"] == 0


PRESETS = {
    "hippocampal": ([0.7, 1.0], 1, 0.3, "none"),
    "diffuse_cortex": ([0.7, 1.0], 37, 0.15, "none"),
    "null": ([0, 0], 5, 0.3, "none"),
    "confound": ([0, 0], 5, 0.3, "scanner"),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_sets_the_defaults(schema, preset):
    severity, areas, max_loss, kind = PRESETS[preset]
    told = simulation_of(schema, preset=preset)
    assert told["groups"]["AD"] == {"patients": 10, "severity": severity, "converts": 0}
    assert told["groups"]["CN"]["severity"] == [0, 0]
    assert len(told["atrophy"]["areas"]) == areas
    assert told["atrophy"]["max_loss"] == max_loss
    assert told["shortcut"]["kind"] == kind
    again = simulation_of(schema, groups={"AD": {"patients": 3}, "MCI": {}}, preset=preset)
    assert again["groups"]["AD"] == {"patients": 3, "severity": severity, "converts": 0}
    assert again["groups"]["MCI"]["severity"] == [0, 0]


@pytest.mark.parametrize("preset", ["temporal", "hippocampal", "diffuse_cortex", "confound"])
def test_what_is_written_wins_over_the_preset_key_by_key(schema, preset):
    plain = simulation_of(schema, preset=preset)
    groups = {"AD": {"patients": 5, "severity": [0.1, 0.2]}, "CN": {"patients": 5}}
    told = simulation_of(
        schema,
        preset=preset,
        groups=groups,
        atrophy={"max_loss": 0.41},
        shortcut={"kind": "mark"},
    )
    assert told["groups"]["AD"]["severity"] == [0.1, 0.2]
    assert told["atrophy"] == {**plain["atrophy"], "max_loss": 0.41}
    assert told["shortcut"] == {**plain["shortcut"], "kind": "mark"}


@pytest.mark.parametrize("word", ["null", '"null"', "~", ""])
def test_the_preset_null_may_stand_without_quotes(schema, word):
    written = yaml.safe_load(f"preset: {word}\n")
    assert simulation_of(schema, **written) == simulation_of(schema, preset="null")


def test_cohorts_that_share_a_mapping_by_an_anchor_keep_presets_of_their_own(schema):
    text = """
    a: {source: simulated, simulation: &a {preset: hippocampal, atrophy: {max_loss: 0.4}}}
    b: {source: simulated, simulation: {<<: *a, preset: diffuse_cortex}}
    """
    cohorts = complete_settings({"cohorts": yaml.safe_load(text)}, schema)["cohorts"]
    areas = [cohorts[name]["simulation"]["atrophy"]["areas"] for name in "ab"]
    assert areas[0] == ["Hippocampus"]
    assert len(areas[1]) == 37
    assert cohorts["b"]["simulation"]["atrophy"]["max_loss"] == 0.4


def test_defaults_are_not_shared_between_calls_nor_with_the_schema(schema):
    before = copy.deepcopy(schema)
    first = complete_settings(config(), schema)
    first["tasks"][0].append("MCI")
    first["skull"]["bet"]["fractional_intensity"] = 0.1
    first["cohorts"]["demo"]["simulation"]["groups"]["AD"]["severity"][0] = 0.0
    first["cohorts"]["demo"]["diagnosis_words"]["AD"] = ["x"]
    second = complete_settings(config(), schema)
    assert second["tasks"] == [["AD", "NC"]]
    assert second["skull"]["bet"]["fractional_intensity"] == 0.5
    assert second["cohorts"]["demo"]["simulation"]["groups"]["AD"]["severity"] == [0.7, 1.0]
    assert second["cohorts"]["demo"]["diagnosis_words"] == {}
    assert schema == before


def test_the_users_own_mapping_is_left_as_it_was(schema):
    mine = config(skull={"bet": {}})
    before = copy.deepcopy(mine)
    complete_settings(mine, schema)
    assert mine == before


@given(
    resolution=st.sampled_from([1, 2, 3, 4]),
    fraction=st.floats(0.01, 0.99),
    patients=st.integers(0, 1000),
    severity=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
)
def test_what_is_allowed_is_taken_as_it_is(schema, resolution, fraction, patients, severity):
    settings = complete_settings(
        simulated(groups={"AD": {"patients": patients, "severity": severity}})
        | {"resolution_mm": resolution, "skull": {"bet": {"fractional_intensity": fraction}}},
        schema,
    )
    group = settings["cohorts"]["demo"]["simulation"]["groups"]["AD"]
    assert group == {"patients": patients, "severity": severity, "converts": 0}
    assert settings["resolution_mm"] == resolution
    assert settings["skull"]["bet"]["fractional_intensity"] == fraction


# --- refusals: one line each, with the key, the value and what is allowed -------------------------

REFUSED = {
    "unknown key with a suggestion": (
        config(resolution=2),
        ("unknown key resolution;", "did you mean resolution_mm?"),
    ),
    "unknown key that resembles none": (
        config(xyzzy=2),
        ("unknown key xyzzy;", "allowed: cohorts, tasks, progression"),
    ),
    "unknown key deep inside": (
        config(skull={"bet": {"fractional_intensty": 0.4}}),
        ("skull.bet.fractional_intensty", "did you mean fractional_intensity?"),
    ),
    "unknown key of a cohort": (
        config({**SIMULATED, "simulaton": {}}),
        ("cohorts.demo.simulaton", "did you mean simulation?"),
    ),
    "wrong type": (config(max_failed="many"), ("max_failed is 'many'", "number")),
    "text for a whole number": (
        simulated(seed="one"),
        ("cohorts.demo.simulation.seed is 'one'", "integer"),
    ),
    "truth value for a number": (config(max_failed=True), ("max_failed is True", "number")),
    "fraction for a whole number": (
        config(registration={"seed": 1.5}),
        ("registration.seed is 1.5", "integer"),
    ),
    "nobody ill under a disease": (
        {
            "cohorts": {
                "demo": {
                    **SIMULATED,
                    "simulation": {"preset": "hippocampal", "groups": {"LMCI": {}, "CN": {}}},
                }
            }
        },
        ("preset is hippocampal, but nobody is ill", "severity above 0"),
    ),
    "shortcut on both sides": (
        {
            "cohorts": {
                "demo": {
                    **SIMULATED,
                    "simulation": {"preset": "confound", "shortcut": {"area": "Frontal_Mid"}},
                }
            }
        },
        ("shortcut.area is Frontal_Mid, on both sides", "Frontal_Mid_L"),
    ),
    "key without value": (config(skull=None), ("skull is None", "a mapping of keys")),
    "models without value": (config(models=None), ("models is None", "a mapping of keys")),
    "unknown network without value": (
        config(models={"riecke": None}),
        ("unknown key models.riecke", "did you mean rieke?"),
    ),
    "neither word nor whole number": (
        config(normalisation={"fit_on": "some"}),
        ("normalisation.fit_on is 'some'; allowed: all, or a whole number of at least 2",),
    ),
    "too small for a word or a whole number": (
        config(models={"voxresnet": {"pool": 0}}),
        ("pool is 0; allowed: auto, or a whole number of at least 1 and at most 16",),
    ),
    "neither word nor list": (
        config(models={"rieke": {"pools": [2, 2]}}),
        (
            "models.rieke.pools is [2, 2]; allowed: auto, or a list of 4 items, each a whole "
            "number of at least 1 and at most 8",
        ),
    ),
    "neither word nor list of words": (
        config(summary={"methods": []}),
        ("summary.methods is []; allowed: all, or a list of at least 1 items, each text",),
    ),
    "neither text nor mapping": (
        config(cam={"layer": {"resnet": "bn4"}}),
        ("allowed: text, or a mapping from rieke, voxcnn, voxresnet, ", " to text"),
    ),
    "number that YAML takes for text": (
        config(models={"rieke": yaml.safe_load("learning_rate: 1e-9")}),
        ("is '1e-9'; allowed: number; write 1.0e-9 (YAML takes 1e-9 for text)",),
    ),
    "number in quotes": (
        config(max_failed="0.5"),
        ("max_failed is '0.5'", "write 0.5 without quotes"),
    ),
    "above the maximum": (config(max_failed=1.5), ("max_failed is 1.5", "at most 1")),
    "below the minimum": (
        config(registration={"seed": 0}),
        ("registration.seed is 0", "at least 1"),
    ),
    "on an open upper bound": (
        config(skull={"bet": {"fractional_intensity": 1}}),
        ("skull.bet.fractional_intensity is 1", "below 1"),
    ),
    "on an open lower bound": (
        config(skull={"deepbet": {"threshold": 0}}),
        ("skull.deepbet.threshold is 0", "above 0"),
    ),
    "not in the list": (
        config(resolution_mm=5),
        ("resolution_mm is 5", "1, 2, 3, 4"),
    ),
    "not in the list of words": (
        config(registration={"transform": "rigid"}),
        ("registration.transform is 'rigid'", "syn_quick, syn_fast, syn, affine"),
    ),
    "unknown class": (config(tasks=[["AD", "XX"]]), ("tasks.0.1 is 'XX'", "AD, NC, MCI")),
    "no task": (config(tasks=[]), ("tasks is []", "at least 1 items")),
    "no class": (config(tasks=[[]]), ("tasks.0 is []", "at least 1 items")),
    "class twice": (config(tasks=[["AD", "AD"]]), ("tasks.0 is ['AD', 'AD']", "non-unique")),
    "unknown preset": (
        simulated(preset="temporall"),
        ("simulation.preset is 'temporall'", "temporal, hippocampal, diffuse_cortex, null"),
    ),
    "a severity under the preset that has none": (
        simulated(preset="null", groups={"AD": {"severity": [0, 0.5]}}),
        ("simulation.groups.AD.severity is [0, 0.5], but the preset null has no effect", "remove"),
    ),
    "a shortcut under the preset that has none": (
        simulated(preset=None, shortcut={"kind": "mark"}),
        ("simulation.shortcut.kind is 'mark', but the preset null has no effect", "another preset"),
    ),
    "a shortcut of a group that is not there": (
        simulated(shortcut={"kind": "mark", "group": "MCI"}),
        ("simulation.shortcut.group is 'MCI', which no scan of the cohort is; allowed: AD, CN",),
    ),
    "shortcut of nobody": (
        simulated(shortcut={"kind": "mark", "share": 0}),
        ("simulation.shortcut.share is 0", "above 0"),
    ),
    "misspelt area": (
        simulated(atrophy={"areas": ["Hipocampus"]}),
        ("simulation.atrophy.areas.0 is 'Hipocampus'", "Hippocampus, Hippocampus_"),
    ),
    "range of three": (
        simulated(age=[60, 70, 80]),
        ("simulation.age is [60, 70, 80]", "at most 2 items"),
    ),
    "range beyond its bounds": (
        simulated(groups={"AD": {"severity": [0, 2]}}),
        ("simulation.groups.AD.severity.1 is 2", "at most 1"),
    ),
    "group in other words": (
        simulated(groups={"NC": {}}),
        ("'NC' cannot be a key of cohorts.demo.simulation.groups", "AD, CN, MCI"),
    ),
    "visit of no known form": (
        simulated(visits={"week3": 1}),
        (
            "'week3' cannot be a key of cohorts.demo.simulation.visits",
            "text that matches ^(sc|bl|m",
        ),
    ),
    "no visit": (simulated(visits={}), ("simulation.visits is {}", "at least 1 entries")),
    "cohort name with a hyphen": (
        {"cohorts": {"my-cohort": SIMULATED}},
        ("'my-cohort' cannot be a key of cohorts", "letters and digits"),
    ),
    "cohort name of a folder of ours": (
        {"cohorts": {"template": SIMULATED}},
        ("'template' cannot be a key of cohorts", "benchmarks, template and report"),
    ),
    "cohort without settings": (
        {"cohorts": {"demo": None}},
        ("cohorts.demo is None", "a mapping of keys"),
    ),
    "no cohort": ({"cohorts": {}}, ("cohorts is {}", "at least 1 entries")),
    "nothing at all": ({}, ("cohorts is missing", "The cohorts of a run")),
    "cohort without source": (config({}), ("cohorts.demo.source is missing", "adni reads")),
    "unknown source": (
        config({"source": "oasis"}),
        ("cohorts.demo.source is 'oasis'", "adni, bids, simulated"),
    ),
    "same head twice": (
        simulated(heads=["a.nii", "a.nii"]),
        ("simulation.heads is ['a.nii', 'a.nii']", "non-unique"),
    ),
    "adni without table": (
        config({"source": "adni", "images": "x"}),
        ("cohorts.demo.table is missing", "source adni needs it"),
    ),
    "adni without images": (
        config({"source": "adni", "table": "x"}),
        ("cohorts.demo.images is missing", "source adni needs it"),
    ),
    "adni with a simulation": (
        config({**ADNI, "simulation": {"seed": 3}}),
        ("cohorts.demo.simulation is for source simulated, not adni", "remove it"),
    ),
    "simulated with a table": (
        config({**SIMULATED, "table": "t.csv"}),
        ("cohorts.demo.table is for source adni or bids, not simulated", "remove it"),
    ),
    "simulated with columns": (
        config({**SIMULATED, "columns": {"image": "Scan"}}),
        ("cohorts.demo.columns is for source adni or bids, not simulated", "remove it"),
    ),
    "unknown column": (
        config({**ADNI, "columns": {"imag": "Scan"}}),
        ("cohorts.demo.columns.imag", "did you mean image?"),
    ),
    "cohort name that YAML reads as a number": (
        {"cohorts": {2024: SIMULATED}},
        ("key cohorts.2024 is read as int", "quotes"),
    ),
    "no number": (
        config(SIMULATED) | {"max_failed": float("nan")},
        ("max_failed is nan", "finite"),
    ),
    "backward range": (simulated(age=[80, 60]), ("simulation.age is [80, 60]", "lower number")),
    "visits out of order": (
        simulated(visits={"m12": 1, "sc": 1}),
        ("simulation.visits is m12, sc", "in their order"),
    ),
    "words for an unknown group": (
        config({**ADNI, "diagnosis_words": {"XX": ["x"]}}),
        ("'XX' cannot be a key of cohorts.demo.diagnosis_words", "AD, NC, MCI"),
    ),
}


@pytest.mark.parametrize(("settings", "told"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_allowed_is_told_in_one_line(schema, settings, told):
    with pytest.raises(SetupFault) as fault:
        complete_settings(settings, schema)
    message = str(fault.value)
    assert "\n" not in message
    assert message.startswith("config: ")
    assert all(part in message for part in told), message


@given(
    sign=st.sampled_from(["", "-", "+"]),
    mantissa=st.sampled_from(["1", "12", "0.5", "3.", ".5"]),
    power=st.sampled_from(["e3", "E3", "e+3", "e-3", "E-12"]),
)
def test_a_number_is_told_in_a_way_that_yaml_reads_as_that_number(schema, sign, mantissa, power):
    text = f"{sign}{mantissa}{power}"
    with pytest.raises(SetupFault) as fault:
        complete_settings(config(max_failed=text), schema)
    told = re.search(r"write (\S+) \(YAML", str(fault.value))
    assert yaml.safe_load(told[1]) == float(text)


def test_several_problems_are_told_in_a_line_each(schema):
    settings = config({"source": "adni"}, resolution_mm=5, max_faild=1)
    with pytest.raises(SetupFault) as fault:
        complete_settings(settings, schema)
    lines = str(fault.value).splitlines()
    assert len(lines) == 4
    for key in ("resolution_mm", "max_faild", "cohorts.demo.table", "cohorts.demo.images"):
        assert sum(key in line for line in lines) == 1


def test_a_whole_number_written_with_a_point_is_taken_for_one(schema):
    told = complete_settings({"cohorts": {"demo": SIMULATED}, "resolution_mm": 2.0}, schema)
    assert told["resolution_mm"] == 2
    assert isinstance(told["resolution_mm"], int)


# --- cohorts that repeat each other ---------------------------------------------------------------


def repeat(seed, first_number, **more):
    groups = {"AD": {"patients": 24}, "CN": {"patients": 20}}
    told = {"seed": seed, "first_number": first_number, "groups": groups, **more}
    return {"source": "simulated", "simulation": told}


@pytest.mark.parametrize(
    ("cohorts", "names"),
    [
        ({"null1": repeat(1, 0), "null2": repeat(2, 240)}, ["null", "null"]),
        ({"3": repeat(1, 0), "4": repeat(2, 300)}, ["3", "3"]),
        # The same people twice; others of the same numbers.
        ({"a1": repeat(1, 0), "a2": repeat(1, 240)}, ["a1", "a2"]),
        ({"a1": repeat(1, 0), "a2": repeat(2, 239)}, ["a1", "a2"]),
        # Another cohort has the name, or other repeats would have it too.
        (
            {"a": repeat(1, 0, preset="null"), "a1": repeat(2, 300), "a2": repeat(3, 600)},
            ["a", "a1", "a2"],
        ),
        (
            {
                **{"a1": repeat(1, 0), "a2": repeat(2, 300)},
                **{"a3": repeat(3, 600, age=1), "a4": repeat(4, 900, age=1)},
            },
            ["a1", "a2", "a3", "a4"],
        ),
        ({"own1": {"source": "adni"}, "own2": {"source": "adni"}}, ["own1", "own2"]),
    ],
)
def test_cohorts_repeat_each_other_that_differ_in_seed_and_numbers_only(cohorts, names):
    assert list(name_repeats(cohorts).values()) == names


# --- hostile values -------------------------------------------------------------------------------


def refused(schema, written):
    with pytest.raises(SetupFault) as fault:
        complete_settings(written, schema)
    lines = str(fault.value).splitlines()
    assert all(line.startswith("config: ") and len(line) < 700 for line in lines)
    return str(fault.value)


@pytest.mark.parametrize("section", ["quality", "skull.gate"])
def test_a_minimum_above_its_maximum_is_refused(schema, section):
    limits = {"min_brain_volume_ml": 900, "max_brain_volume_ml": 800}
    outer, _, inner = section.partition(".")
    message = refused(schema, config(**{outer: {inner: limits} if inner else limits}))
    assert f"{section}.min_brain_volume_ml is 900, above {section}.max_brain_volume_ml" in message
    limits["min_brain_volume_ml"] = 800
    complete_settings(config(**{outer: {inner: limits} if inner else limits}), schema)


def test_a_minimum_above_the_default_of_its_maximum_is_refused(schema):
    assert "which is 2300" in refused(schema, config(quality={"min_brain_volume_ml": 2400}))


def seeds_of(schema, place=""):
    for key, described in keys_of(resolved(schema)):
        if key.rsplit(".", 1)[-1] in ("seed", "seeds"):
            yield key, described.get("items", described)


def test_every_seed_fits_into_what_computes_with_it(schema):
    seeds = dict(seeds_of(schema))
    assert len(seeds) >= 6
    assert all(described["maximum"] <= 2**32 - 1 for described in seeds.values())
    message = refused(schema, config(training={"seeds": [2**64]}, splits={"seed": 2**64}))
    assert message.count("allowed: at most 4294967295") == 2


def test_a_number_of_endless_digits_is_refused(schema):
    assert "has too many digits" in refused(schema, config(report={"viewed_scans": 10**5000}))


@pytest.mark.parametrize(
    "written",
    [
        {"cohorts": {"demo\n": SIMULATED}},
        {**config(), "conversion": {"unoriented": "LAS\n"}},
        {**config(), "apply": {"networks": {"mine\n": "model.pt"}}},
        simulated(visits={"sc\n": 1.0}),
    ],
)
def test_no_line_break_follows_a_name(schema, written):
    assert "\\n'" in refused(schema, written)


@pytest.mark.parametrize("text", ["a\x1b[31m", "half \ud800", "\0"])
def test_control_characters_are_refused(schema, text):
    message = refused(schema, config({**ADNI, "table": text}))
    assert "cohorts.demo.table" in message
    assert message.isprintable()


@pytest.mark.parametrize("group", [["AD"], {"AD": 1}, 7, None])
def test_a_group_of_a_shortcut_that_is_no_text_is_refused(schema, group):
    shortcut = {"kind": "mark", "group": group}
    assert "simulation.shortcut.group is" in refused(schema, simulated(shortcut=shortcut))


@pytest.mark.parametrize(
    "written",
    [
        {"cohorts": {"x" * 10_000 + "-": SIMULATED}},
        {**config(), "k" * 10_000: 1},
        {**config(), "resolution_mm": "9" * 10_000},
        {**config(), "bias_correction": "a" * 10_000},
        {**config(), "tasks": [["AD"] * 10_000]},
        {**config(), "device": {"a" * 10_000: ["b" * 10_000]}},
        {"cohorts": {"demo": {**SIMULATED, "x" * 10_000: 1}}},
        {1: 2, "y" * 10_000: 3},
        {"y" * 10_000: {1: 2}},
    ],
)
def test_messages_do_not_echo_long_values(schema, written):
    refused(schema, written)


def test_a_bomb_of_aliases_is_refused_at_once(schema):
    bomb = ["x"]
    for _ in range(60):
        bomb = [bomb] * 9
    assert "YAML aliases" in refused(schema, config(tasks=bomb))
    mapping = {"a": 1}
    for _ in range(60):
        mapping = dict.fromkeys("abcdefghi", mapping)
    assert "YAML aliases" in refused(schema, config(cam=mapping))
    circle = []
    circle.append(circle)
    assert "YAML aliases" in refused(schema, config(tasks=circle))
