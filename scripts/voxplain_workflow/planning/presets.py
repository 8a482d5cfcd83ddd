"""Presets of a simulated cohort: defaults for each purpose of a simulation."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

# AAL's cerebral cortex without the medial temporal lobe.
_CORTEX = [
    *("Precentral", "Frontal_Sup", "Frontal_Sup_Orb", "Frontal_Mid", "Frontal_Mid_Orb"),
    *("Frontal_Inf_Oper", "Frontal_Inf_Tri", "Frontal_Inf_Orb", "Rolandic_Oper"),
    *("Supp_Motor_Area", "Frontal_Sup_Medial", "Frontal_Med_Orb", "Rectus", "Insula"),
    *("Cingulum_Ant", "Cingulum_Mid", "Cingulum_Post", "Calcarine", "Cuneus", "Lingual"),
    *("Occipital_Sup", "Occipital_Mid", "Occipital_Inf", "Fusiform", "Postcentral"),
    *("Parietal_Sup", "Parietal_Inf", "SupraMarginal", "Angular", "Precuneus"),
    *("Paracentral_Lobule", "Heschl", "Temporal_Sup", "Temporal_Pole_Sup", "Temporal_Mid"),
    *("Temporal_Pole_Mid", "Temporal_Inf"),
]
_DISEASE, _NO_DISEASE = [0.7, 1.0], [0, 0]
# Differences from the defaults of the schema, which are those of temporal. The severity is that of
# the group AD; all other groups have severity 0.
_PRESETS: dict[str, dict[str, Any]] = {
    "temporal": {"severity": _DISEASE},
    "hippocampal": {"severity": _DISEASE, "atrophy": {"areas": ["Hippocampus"]}},
    "diffuse_cortex": {"severity": _DISEASE, "atrophy": {"areas": _CORTEX, "max_loss": 0.15}},
    "null": {"severity": _NO_DISEASE},
    "confound": {"severity": _NO_DISEASE, "shortcut": {"kind": "scanner"}},
}
_DEFAULT = "temporal"


def fill_preset(simulation: Any, groups: Mapping[str, Mapping[str, Any]]) -> None:
    """Fill a simulation in place with the defaults of its preset, without overwriting values.

    Values of a wrong type stay as they are; the schema refuses them later.

    Parameters
    ----------
    simulation
        A cohort's ``simulation`` as the user wrote it.
    groups
        Default groups of the schema, for simulations without groups.
    """
    if not isinstance(simulation, dict):
        return
    if "preset" in simulation and simulation["preset"] is None:
        simulation["preset"] = "null"  # YAML reads the bare word null as None
    preset = _PRESETS.get(str(simulation.get("preset", _DEFAULT)))
    if preset is None:
        return
    patients = {name: {"patients": group["patients"]} for name, group in groups.items()}
    written = simulation.setdefault("groups", patients)
    for name, group in written.items() if isinstance(written, dict) else ():
        if isinstance(group, dict):
            group.setdefault("severity", list(preset["severity"] if name == "AD" else _NO_DISEASE))
    for section in ("atrophy", "shortcut"):
        written = simulation.setdefault(section, {})
        if isinstance(written, dict):
            for key, value in preset.get(section, {}).items():
                written.setdefault(key, copy.deepcopy(value))
