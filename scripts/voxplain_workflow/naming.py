"""Configuration keys in errors: the library names its parameter, the user needs the key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from voxplain.faults import AvoidableFault, DataFault, ParameterFault, SetupFault, shortened


@contextmanager
def naming(keys: Mapping[str, str], hints: Mapping[str, str] | None = None) -> Iterator[None]:
    """Context that replaces a parameter in an error by the configuration key of its value.

    ``folds is 5, but class AD has 3 patients`` becomes ``config: splits.folds is 5, but class AD
    has 3 patients``.

    Parameters
    ----------
    keys
        Parameter to key. Faults of other parameters are re-raised unchanged, for an outer context.
        The parameter of ``select.age`` is ``select``.
    hints
        Parameter to a remedy in terms of the configuration. It is appended to the message if the
        parameter is at fault or involved.

    Raises
    ------
    SetupFault
        In place of the library's fault.
    DataFault
        In place of an :class:`AvoidableFault`; its remedy names the key.
    """
    try:
        yield
    except AvoidableFault as fault:
        if fault.parameter not in keys:
            raise
        raise DataFault(fault.reason, fault.remedy_named(keys[fault.parameter])) from None
    except ParameterFault as fault:
        name, dot, entry = fault.parameter.partition(".")
        if name not in keys:
            raise
        remedies = [hints[each] for each in (name, *fault.others) if hints and each in hints]
        message = "; ".join([fault.problem, *remedies])
        raise SetupFault(f"config: {keys[name]}{dot}{entry} {message}") from None


@contextmanager
def naming_files() -> Iterator[None]:
    """Context in which the user's files are looked for; its errors of the system name the file.

    Raises
    ------
    SetupFault
        In place of an error of the system: a name is too long, a file may not be read.
    """
    try:
        yield
    except OSError as error:
        named = shortened(str(error.filename)) if error.filename else "a file"
        raise SetupFault(f"{named} cannot be read ({error.strerror or error})") from None
