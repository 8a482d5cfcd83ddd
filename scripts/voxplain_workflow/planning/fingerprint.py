"""Fingerprint of the code that a job runs: the job is rerun if this code changes, and only then.

The ``code`` trigger of Snakemake fires on a touched script and ignores imported modules.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

# Of :mod:`voxplain.relevance` and :mod:`voxplain.models`, see
# :mod:`voxplain_workflow.planning.code`.
_REGISTRIES = ("METHODS", "MODELS")
# A relative path of a file with a suffix other than .py: Python modules count by their imports.
_FILE = re.compile(r"(?:\w[\w.-]*/)*\w[\w.-]*\.(?!py$)\w+")

# Modules that jobs import and no result depends on: logs, exit statuses, and names in messages.
_LEFT_OUT = ("voxplain_workflow.jobs.frame", "voxplain_workflow.naming")


def fingerprint(
    script: str | Path,
    library: str | Path,
    modules: Iterable[str] = (),
    entries: Iterable[str] = (),
) -> str:
    """Digest a script and the library modules and files that it uses, transitively.

    Comments, docstrings and layout do not count. A registry imports its members by name at run
    time, so this function does not find them: name the members that a job selects in ``modules``.
    The entries of registries do not count, nor do constants that only registries use: else a new
    method or network would rerun the jobs of all others. Pass the entries that a job selects as
    ``entries``. The frame of jobs (:mod:`voxplain_workflow.jobs.frame`) and
    :mod:`voxplain_workflow.naming` are left out: they write logs and messages, not results.

    Any other file, such as a template, counts with all its bytes if a module has its path as one
    string, relative to the module's folder: ``Path(__file__).parent / "assets/page.html"``. A path
    that is joined from several strings is not detected, nor is a file that a template includes.

    Parameters
    ----------
    script
        The rule's script.
    library
        The folder that holds the library's packages; imports from elsewhere are not followed.
    modules
        Dotted names of modules that the job loads by name.
    entries
        Registry entries that the job selects, as text that is the same in every Python version.

    Returns
    -------
    16 hexadecimal digits.

    Raises
    ------
    FileNotFoundError
        A module of ``modules`` is not in the library.
    """
    folder = os.path.realpath(library)
    script_path = os.path.realpath(script)
    digests: dict[str, str] = {}
    waiting, known = [script_path], set(modules)
    for name in known:
        paths = list(_module_files(name, folder))
        module_path = f"{folder}{os.sep}{name.replace('.', os.sep)}"
        if not {f"{module_path}.py", f"{module_path}{os.sep}__init__.py"}.intersection(paths):
            raise FileNotFoundError(f"no module {name} in {library}")
        waiting += paths
    while waiting:
        path = waiting.pop()
        if path not in digests:
            changed = os.stat(path).st_mtime_ns
            if not path.endswith(".py"):
                digests[path] = _digest_file(path, changed)
                continue
            digests[path], names, files = _parse(path, changed)
            for name in names - known:
                if not f"{name}.".startswith(tuple(f"{module}." for module in _LEFT_OUT)):
                    waiting += _module_files(name, folder)
            known |= names
            beside = [f"{os.path.dirname(path)}{os.sep}{file}" for file in files]
            waiting += filter(os.path.isfile, beside)
    # Modules count by their path in the library and their content, the script by its content. The
    # path of the checkout does not count.
    inside = f"{folder}{os.sep}"
    places = {path: path.removeprefix(inside) for path in digests}
    if places[script_path] == script_path:
        places[script_path] = Path(script_path).name
    lines = sorted(f"{places[path]} {digest}" for path, digest in digests.items())
    lines += sorted(entries)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@cache
def _digest_file(path: str, _changed: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@cache
def _parse(path: str, _changed: int) -> tuple[str, frozenset[str], frozenset[str]]:
    """Digest of a module's syntax tree, the dotted names it imports, and possible file paths."""
    tree = ast.parse(Path(path).read_text(encoding="utf-8"), path)
    names, files = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            # `from package import module` may name a module or a thing inside the package.
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and _FILE.fullmatch(node.value)
        ):
            files.add(node.value)
        body = getattr(node, "body", None)
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
            and isinstance(body[0].value.value, str)
        ):
            node.body = body[1:]
    tree.body = _without_registries(tree.body)
    digest = hashlib.sha256(_dump(tree).encode()).hexdigest()
    return digest, frozenset(names), frozenset(files)


def _dump(node: object) -> str:
    """A syntax tree as text that is the same in every version of Python.

    `ast.dump` differs between versions: in its fields, and in whether it shows empty ones. The
    number of a release (``__version__``) does not affect results and is left out.
    """
    if isinstance(node, ast.AST):
        fields = []
        for name in node._fields:
            value = getattr(node, name, None)
            if value is not None and value != []:
                fields.append(f"{name}={_dump(value)}")
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return f"[{','.join([_dump(item) for item in node if _assigned(item) != '__version__'])}]"
    return repr(node)


def _assigned(node: object) -> str:
    """The name that a statement assigns to; empty if it is none or several."""
    if isinstance(node, ast.AnnAssign):
        return getattr(node.target, "id", "")
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        return getattr(node.targets[0], "id", "")
    return ""


def _without_registries(body: list[ast.stmt]) -> list[ast.stmt]:
    """The statements of a module, without registries and private constants that only they use."""
    left = [node for node in body if _assigned(node) not in _REGISTRIES]
    while len(left) < len(body):
        used_by_removed = _names_in(set(body) - set(left))
        body = left
        left = []
        for node in body:
            name = _assigned(node)
            removable = name.startswith("_") and name in used_by_removed
            if not removable or name in _names_in(set(body) - {node}):
                left.append(node)
    return left


def _names_in(nodes: Iterable[ast.AST]) -> set[str]:
    return {part.id for node in nodes for part in ast.walk(node) if isinstance(part, ast.Name)}


def _module_files(name: str, library: str) -> Iterator[str]:
    """Paths of the library files that an import of a dotted name runs: packages and module."""
    # Thousands of names are looked up whenever the workflow is read: pathlib would be too slow.
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
