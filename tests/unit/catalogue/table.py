"""The cells of the table: what a method makes of a network, compared with the reference."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from catalogue.entries import NEEDS, Entry
from catalogue.lrp_reference import NoRuleError
from catalogue.references import OPTIONS, NoReferenceError, Reference
from voxplain.faults import SetupFault
from voxplain.relevance import explain

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
    """A row of the table: the cell of each method."""
    try:
        reference: Reference | None = Reference(entry)
        target = reference.target
    except (NoReferenceError, RuntimeError, TypeError, AttributeError, ValueError):
        reference, target = None, 0
    return {method: _cell(method, entry, reference, target) for method in NEEDS}


def _cell(method: str, entry: Entry, reference: Reference | None, target: int) -> Cell:
    options = OPTIONS.get(method, {})
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            found = explain(method, entry.network(), entry.scan(), target, **options)
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
