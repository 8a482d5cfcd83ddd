"""The cells of the table: what a method makes of a network, compared with the reference."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from catalogue.entries import CATALOGUE, NEEDS, Entry
from catalogue.lrp_reference import NoRuleError
from catalogue.references import OPTIONS, NoReferenceError, Reference
from voxplain.faults import SetupFault
from voxplain.relevance import explain

# What there is of a kind, and why cells of it are refused.
KINDS = {
    "convolutions": (
        "convolutions: strided, dilated, grouped, transposed, padded in other ways",
        "`lrp` has no rule for some; `cam` wants a global average",
    ),
    "norms": (
        "norms of batches, instances, groups, layers, channels",
        "`lrp` has rules for batch norms only; all methods where a batch norm has no statistics",
    ),
    "poolings": (
        "poolings and subsampling",
        "as for convolutions; all methods where places are drawn at random",
    ),
    "activations": (
        "activations, as modules and as functions",
        "guided backpropagation and `lrp` are of ReLUs",
    ),
    "bodies": (
        "residual, dense and branching bodies, attention, transformers, 2D slices, GRU",
        "no rule for `lrp`, no feature map for the CAM family, activations other than ReLU",
    ),
    "heads": (
        "outputs: one, probabilities, tuples, other shapes; further arguments",
        "not one tensor of logits; methods of the logit where there are probabilities only",
    ),
    "scan statistics": (
        "normalisation of the scan inside",
        "`lrp`; guided backpropagation where values are clipped",
    ),
    "batch": ("answers that depend on the rest of a batch", "there is no answer to one scan"),
    "random": ("random answers", "there is no single answer"),
    "gradients": (
        "gradients that are cut or changed inside",
        "finite differences contradict the gradient; occlusions are right",
    ),
    "states": (
        "memories, several calls, choices among voxels, pruned, tied and compiled weights",
        "answers that depend on earlier ones; layers that are called twice have no single map",
    ),
    "in place": (
        "changes in place",
        "no gradient, where PyTorch refuses it too; parts of a tensor may hide a ReLU",
    ),
    "hooks": (
        "hooks and replaced functions",
        "`lrp` cannot see into them; hooks that need or change gradients",
    ),
    "types": (
        "half precision inside and outside, tensor subclasses, scripts, odd scans and numbers",
        "NaN, infinity, autocast or quantised layers inside; layers of scripts cannot be read",
    ),
}
# A map with less than this at its maximum shows nothing.
_LEAST = 1e-9


@dataclass(frozen=True)
class Cell:
    """What a method made of a network.

    Attributes
    ----------
    state
        ``right``, ``refused`` (by a :class:`SetupFault`) or ``wrong``: another map than the
        reference's, a map where none is right, or another exception.
    said
        The message of the refusal, or what is wrong.
    """

    state: str
    said: str = ""


def cells_of(entry: Entry) -> dict[str, Cell]:
    """A row of the table: the cell of each method.

    A network that all methods have to refuse has no reference, so any map of it is wrong.
    """
    reference, target = None, 0
    if "all" not in entry.refused:
        reference = Reference(entry)
        target = reference.target
    model, scan = entry.network(), entry.scan()
    return {method: _cell(method, entry, (model, scan, target), reference) for method in NEEDS}


def _cell(method: str, entry: Entry, given: tuple, reference: Reference | None) -> Cell:
    options = OPTIONS.get(method, {})
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            found = explain(method, *given, **options)
        except SetupFault as fault:
            return Cell("refused", str(fault))
        except Exception as error:
            return Cell("wrong", f"traceback: {type(error).__name__}: {error}")
    stretched = any("stretched" in str(warning.message) for warning in warned)
    reads_maps = "maps" in NEEDS[method] or method == "cam"
    if reads_maps and stretched != (entry.step is None):
        return Cell("wrong", f"stretched: {stretched}, expected {entry.step is None}")
    if reference is None:
        return Cell("wrong", "a map where none is right")
    try:
        expected = reference.map_of(method)
    except (NoReferenceError, NoRuleError) as reason:
        return Cell("wrong", f"a map where none is right: {reason}")
    except RuntimeError as error:
        return Cell("wrong", f"no reference: {error}")
    return _compared(found, expected, entry.tolerance)


def _compared(found: np.ndarray, expected: np.ndarray, tolerance: float) -> Cell:
    largest = expected.max()
    if found.shape != expected.shape or found.dtype != np.float32:
        return Cell("wrong", f"{found.shape} {found.dtype}")
    if largest < _LEAST:
        return Cell("wrong", f"the reference shows nothing (maximum {largest:.2g})")
    if not np.isfinite(found).all():
        return Cell("wrong", "not finite")
    error = abs(found - expected).max() / largest
    both = np.corrcoef(found.ravel(), expected.ravel())[0, 1] if found.any() else 0.0
    said = f"largest error {error:.2g} of the maximum, correlation {both:.4f}"
    return Cell("right" if error <= tolerance and both > 0.999 else "wrong", said)


def kinds_table() -> str:
    """The catalogue in numbers, as a table in Markdown."""
    lines = ["| networks | | right | refused | why refused |", "|---|--:|--:|--:|---|"]
    every = list(CATALOGUE.values())
    rows = [(*texts, [e for e in every if e.kind == kind]) for kind, texts in KINDS.items()]
    for what, why, entries in [*rows, ("all", "", every)]:
        refused = sum(e.expected(method) is not None for e in entries for method in NEEDS)
        right = len(entries) * len(NEEDS) - refused
        lines.append(f"| {what} | {len(entries)} | {right} | {refused} | {why} |")
    return "\n".join(lines)
