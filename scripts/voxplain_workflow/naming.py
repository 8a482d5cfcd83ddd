"""Names of the configuration's keys, for faults that the library tells by its parameters' names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from voxplain.faults import ParameterFault, SetupFault


@contextmanager
def naming(keys: Mapping[str, str], hints: Mapping[str, str] | None = None) -> Iterator[None]:
    """A context in which a fault of a parameter names the key that the value comes from.

    ``folds is 5, but class AD has 3 patients`` becomes ``config: splits.folds is 5, but class AD
    has 3 patients``.

    Parameters
    ----------
    keys
        Parameter to key. The fault of any other parameter goes on as it is, to a context around
        this one. Of ``select.age`` the parameter is ``select``.
    hints
        Parameter to a remedy that only the configuration knows. It follows the message wherever the
        parameter is at fault or has a part in it.

    Raises
    ------
    SetupFault
        In place of the library's fault.
    """
    try:
        yield
    except ParameterFault as fault:
        name, dot, entry = fault.parameter.partition(".")
        if name not in keys:
            raise
        told = [hints[each] for each in (name, *fault.others) if hints and each in hints]
        message = "; ".join([fault.problem, *told])
        raise SetupFault(f"config: {keys[name]}{dot}{entry} {message}") from None
