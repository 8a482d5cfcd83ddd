"""The imports among the modules: there is no cycle, and no module imports from a higher floor."""

import ast
from graphlib import CycleError, TopologicalSorter

import pytest

# The lowest first. A module imports from its own floor and from those below it.
FLOORS = (
    ("faults", "checksums", "volumes", "store", "tables"),
    ("atlas",),
    ("cohort",),
    ("anatomy",),
    ("models", "training", "relevance", "comparison"),
    ("plots", "pages", "viewer"),
)


def imported(tree, modules):
    """The modules that a syntax tree imports, also in functions, but not those for types only."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from modules & {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            for alias in node.names:
                # A module of a package, or a name inside the module.
                name = f"{node.module}.{alias.name}"
                yield from modules & {name if name in modules else node.module}
        waiting += ast.iter_child_nodes(node)


@pytest.fixture(scope="module")
def graph(repository):
    """Module of the library -> modules of the library that it imports."""
    scripts = repository / "scripts"
    paths = {}
    for package in ("voxplain", "voxplain_workflow"):
        for path in (scripts / package).rglob("*.py"):
            parts = path.relative_to(scripts).with_suffix("").parts
            paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {
        name: set(imported(ast.parse(path.read_text(encoding="utf-8")), paths.keys()))
        for name, path in paths.items()
    }


def floor_of(module):
    """The number of a module's floor; the workflow's modules are above all others."""
    package, _, rest = module.partition(".")
    if package == "voxplain_workflow":
        return len(FLOORS)
    part = rest.partition(".")[0]
    return next(number for number, parts in enumerate(FLOORS) if part in parts)


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("import a.b", {"a.b"}),
        ("from a import b, c", {"a.b", "a"}),
        ("def f():\n    from a.b import x", {"a.b"}),
        ("if TYPE_CHECKING:\n    import a\nelse:\n    import a.b", {"a.b"}),
        ("if typing.TYPE_CHECKING:\n    import a", set()),
        ("import numpy", set()),
    ],
)
def test_imports_are_read_from_code(code, names):
    assert set(imported(ast.parse(code), {"a", "a.b"})) == names


def test_there_is_no_import_cycle(graph):
    assert graph["voxplain.cohort.scans"] > {"voxplain.cohort.scan", "voxplain.cohort.selection"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"in a circle: {' <- '.join(error.args[1])}")


def test_no_module_imports_from_a_higher_floor(graph):
    above = [
        f"{module} imports {name}"
        for module, imports in graph.items()
        for name in imports
        if module != "voxplain" and name != "voxplain" and floor_of(module) < floor_of(name)
    ]
    assert not above
