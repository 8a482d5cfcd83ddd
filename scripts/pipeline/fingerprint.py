"""A fingerprint of the code that a job runs, so that a change of it, and of no other, reruns it.

Snakemake's own ``code`` trigger fires on a touched script and does not see imported modules.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path


def fingerprint(script: str | Path, library: str | Path, modules: Iterable[str] = ()) -> str:
    """Digest the syntax of a script and of the library modules that it uses, transitively.

    Comments, docstrings and layout do not count. A registry that imports its members by name at run
    time hides them from this walk: name the members a job selects in ``modules``.

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
    library = Path(library).resolve()
    seen: dict[Path, str] = {}
    waiting = [Path(script).resolve()]
    for name in modules:
        paths = list(_module_files(name, library))
        if not paths:
            raise FileNotFoundError(f"no module {name} in {library}")
        waiting += paths
    while waiting:
        path = waiting.pop()
        if path not in seen:
            digest, names = _parse(path, path.stat().st_mtime_ns)
            seen[path] = digest
            for name in names:
                waiting += _module_files(name, library)
    # The script counts by its content, wherever the checkout lies; modules by their place as well.
    told = sorted(
        f"{p.relative_to(library) if p.is_relative_to(library) else p.name} {digest}"
        for p, digest in seen.items()
    )
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]


@cache
def _parse(path: Path, _changed: int) -> tuple[str, tuple[str, ...]]:
    """Digest of a file's syntax tree, and the dotted names it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
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
    return digest, tuple(sorted(names))


def _dump(node: object) -> str:
    """A syntax tree as text that is the same in every version of Python.

    `ast.dump` is not: versions add fields, and differ in whether empty ones are shown. The number
    of a release (``__version__``) computes nothing and is left out.
    """
    if isinstance(node, list):
        return f"[{','.join(_dump(item) for item in node if not _is_version(item))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = ((name, getattr(node, name, None)) for name in node._fields)
    told = (f"{name}={_dump(value)}" for name, value in fields if value not in (None, []))
    return f"{type(node).__name__}({','.join(told)})"


def _is_version(node: object) -> bool:
    return isinstance(node, ast.Assign) and [getattr(t, "id", "") for t in node.targets] == [
        "__version__"
    ]


def _module_files(name: str, library: Path) -> Iterable[Path]:
    """The library's files that an import of a dotted name runs: its packages' and its own."""
    place = library
    for part in name.split("."):
        place = place / part
        if (place / "__init__.py").is_file():
            yield place / "__init__.py"
        elif place.with_suffix(".py").is_file():
            yield place.with_suffix(".py")
            return
        else:
            return
