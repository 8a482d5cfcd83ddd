"""Presets of a simulated cohort: the defaults that belong to what the simulation is for."""

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
_ILL, _WELL = [0.7, 1.0], [0, 0]
# What differs from the schema's own defaults, which are those of temporal. The severity is that of
# the group AD; of all others it is 0.
_PRESETS: dict[str, dict[str, Any]] = {
    "temporal": {"severity": _ILL},
    "hippocampal": {"severity": _ILL, "atrophy": {"areas": ["Hippocampus"]}},
    "diffuse_cortex": {"severity": _ILL, "atrophy": {"areas": _CORTEX, "max_loss": 0.15}},
    "null": {"severity": _WELL},
    "confound": {"severity": _WELL, "shortcut": {"kind": "scanner"}},
}
_DEFAULT = "temporal"


def fill_preset(simulation: Any, groups: Mapping[str, Mapping[str, Any]]) -> None:
    """Fill a simulation in place with its preset's defaults; what is written there stays.

    What has another form than it should is left for the schema to refuse.

    Parameters
    ----------
    simulation
        A cohort's ``simulation`` as the user wrote it.
    groups
        The schema's default groups, for who names none.
    """
    if not isinstance(simulation, dict):
        return
    if "preset" in simulation and simulation["preset"] is None:
        simulation["preset"] = "null"  # as YAML reads the bare word
    preset = _PRESETS.get(str(simulation.get("preset", _DEFAULT)))
    if preset is None:
        return
    patients = {name: {"patients": told["patients"]} for name, told in groups.items()}
    written = simulation.setdefault("groups", patients)
    for name, told in written.items() if isinstance(written, dict) else ():
        if isinstance(told, dict):
            told.setdefault("severity", list(preset["severity"] if name == "AD" else _WELL))
    for section in ("atrophy", "shortcut"):
        written = simulation.setdefault(section, {})
        if isinstance(written, dict):
            for key, value in preset.get(section, {}).items():
                written.setdefault(key, copy.deepcopy(value))
