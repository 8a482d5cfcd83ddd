"""A fingerprint of the code that a job runs, so that a change of it, and of no other, reruns it.

Snakemake's own ``code`` trigger fires on a touched script and does not see imported modules.
"""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

# Of :mod:`voxplain.relevance` and :mod:`voxplain.models`.
_REGISTRIES = ("METHODS", "MODELS")


def fingerprint(script: str | Path, library: str | Path, modules: Iterable[str] = ()) -> str:
    """Digest the syntax of a script and of the library modules that it uses, transitively.

    Comments, docstrings and layout do not count. A registry that imports its members by name at run
    time hides them from this walk: name the members a job selects in ``modules``. The registries'
    entries do not count themselves: what they say of code is where it is, and one more method or
    network is no change of the others.

    Parameters
    ----------
    script
        The rule's script.
    library
        The folder that holds the library's packages; imports from elsewhere are not followed.
    modules
        Dotted names of modules that the job loads by name.

    Returns
    -------
    16 hexadecimal digits.

    Raises
    ------
    FileNotFoundError
        A module of ``modules`` is not in the library.
    """
    folder = os.path.realpath(library)
    own = os.path.realpath(script)
    digests: dict[str, str] = {}
    waiting, known = [own], set(modules)
    for name in known:
        paths = list(_module_files(name, folder))
        own_file = f"{folder}{os.sep}{name.replace('.', os.sep)}"
        if not {f"{own_file}.py", f"{own_file}{os.sep}__init__.py"}.intersection(paths):
            raise FileNotFoundError(f"no module {name} in {library}")
        waiting += paths
    while waiting:
        path = waiting.pop()
        if path not in digests:
            digests[path], names = _parse(path, os.stat(path).st_mtime_ns)
            for name in names - known:
                waiting += _module_files(name, folder)
            known |= names
    # The script counts by its content, wherever the checkout lies; modules by their place as well.
    inside = f"{folder}{os.sep}"
    places = {path: path.removeprefix(inside) for path in digests}
    if places[own] == own:
        places[own] = Path(own).name
    told = sorted(f"{places[path]} {digest}" for path, digest in digests.items())
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


@cache
def _parse(path: str, _changed: int) -> tuple[str, frozenset[str]]:
    """Digest of a file's syntax tree, and the dotted names it imports."""
    tree = ast.parse(Path(path).read_text(encoding="utf-8"), path)
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            # `from package import module` may name a module or a thing inside the package.
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        body = getattr(node, "body", None)
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
            and isinstance(body[0].value.value, str)
        ):
            node.body = body[1:]
    digest = hashlib.sha256(_dump(tree).encode()).hexdigest()
    return digest, frozenset(names)


def _dump(node: object) -> str:
    """A syntax tree as text that is the same in every version of Python.

    `ast.dump` is not: versions add fields, and differ in whether empty ones are shown. The number
    of a release (``__version__``) and the registries compute nothing and are left out.
    """
    if isinstance(node, ast.AST):
        told = []
        for name in node._fields:
            value = getattr(node, name, None)
            if value is not None and value != []:
                told.append(f"{name}={_dump(value)}")
        return f"{type(node).__name__}({','.join(told)})"
    if isinstance(node, list):
        return f"[{','.join([_dump(item) for item in node if not _computes_nothing(item)])}]"
    return repr(node)


def _computes_nothing(node: object) -> bool:
    if isinstance(node, ast.AnnAssign):
        return getattr(node.target, "id", "") in _REGISTRIES
    return isinstance(node, ast.Assign) and [getattr(t, "id", "") for t in node.targets] == [
        "__version__"
    ]


def _module_files(name: str, library: str) -> Iterator[str]:
    """The library's files that an import of a dotted name runs: its packages' and its own."""
    # Thousands of names are looked up whenever the workflow is read: pathlib would be felt.
    place = library
    for part in name.split("."):
        place = f"{place}{os.sep}{part}"
        if os.path.isfile(package := f"{place}{os.sep}__init__.py"):
            yield package
        elif os.path.isfile(module := f"{place}.py"):
            yield module
            return
        else:
            return
