import os
import shutil
from pathlib import Path

import pytest

from voxplain_workflow.planning.fingerprint import fingerprint

SCRIPT = '''\
"""Compute."""

from lib.upper import compute  # the upper floor

with job(snakemake):
    import lib.late

    compute(snakemake.input[0])
'''
UPPER = '''\
"""The upper floor."""

from lib import middle
from lib.other.deep import thing


def compute(path):
    """Compute one thing."""
    return middle.half(path) + thing
'''
MODULES = {
    "__init__.py": '"""The library."""\n',
    "upper.py": UPPER,
    "middle.py": "import lib.lower\n\n\ndef half(x):\n    return lib.lower.value(x) / 2\n",
    "lower.py": "def value(x):\n    return 1.0\n",
    "late.py": "LATE = True\n",
    "unrelated.py": "from lib.lower import value\n\nUNRELATED = 1\n",
    "other/__init__.py": '"""Other things."""\n',
    "other/deep.py": "thing = 3\n",
    "methods/__init__.py": "METHODS = ('gradient', 'occlusion')\n",
    "methods/gradient.py": "from lib.methods.shared import SCALE\n",
    "methods/occlusion.py": "SIZE = 40\n",
    "methods/shared.py": "SCALE = 2\n",
}


@pytest.fixture
def code(tmp_path):
    """A checkout with a script and a library."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "compute.py").write_text(SCRIPT)
    for name, text in MODULES.items():
        path = tmp_path / "scripts" / "lib" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "scripts"


def digest(code, *modules):
    return fingerprint(code / "compute.py", code, modules)


def change(path, old, new):
    """Replace text in a file and advance its time, as an editor does."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    later = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))


def test_a_fingerprint_is_sixteen_hexadecimal_digits_and_repeatable(code):
    first = digest(code)
    assert len(first) == 16
    assert int(first, 16) >= 0
    assert digest(code) == first


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("compute.py", "  # the upper floor", "  # another comment"),
        ("compute.py", '"""Compute."""', '"""Compute something else."""'),
        ("lib/upper.py", '"""Compute one thing."""', '"""Compute two things.\n\n    At length."""'),
        ("lib/upper.py", '    """Compute one thing."""\n', ""),
        ("lib/upper.py", "\n\n\ndef", "\n\n\n\n\n\n# here it begins\ndef"),
        ("lib/lower.py", "return 1.0", "return (  1.0  )"),
        ("lib/lower.py", "1.0", "1.00"),
        ("lib/__init__.py", '"""The library."""', ""),
        ("lib/middle.py", "return lib.lower.value(x) / 2", "return lib.lower.value(x)/2  # half"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(code, name, old, new):
    before = digest(code)
    change(code / name, old, new)
    assert digest(code) == before


def test_a_touched_file_does_not_count(code):
    before = digest(code)
    change(code / "lib" / "lower.py", "1.0", "1.0")
    assert digest(code) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("compute.py", "snakemake.input[0]", "snakemake.input[1]"),
        ("lib/upper.py", "+ thing", "- thing"),
        ("lib/middle.py", "/ 2", "/ 3"),
        ("lib/lower.py", "1.0", "1.1"),
        ("lib/late.py", "True", "False"),
        ("lib/other/deep.py", "3", "'3'"),
        ("lib/other/__init__.py", '"""Other things."""', "OTHER = 1"),
        ("lib/__init__.py", '"""The library."""', "import lib.unrelated"),
    ],
    ids=lambda value: value if value.endswith(".py") else "",
)
def test_a_change_of_code_that_the_script_reaches_counts(code, name, old, new):
    before = digest(code)
    change(code / name, old, new)
    assert digest(code) != before


def test_a_string_that_is_not_a_docstring_counts(code):
    change(code / "lib" / "lower.py", "return 1.0", "text = 'one'\n    return text")
    before = digest(code)
    change(code / "lib" / "lower.py", "'one'", "'two'")
    assert digest(code) != before


@pytest.mark.parametrize("name", ["unrelated.py", "methods/gradient.py", "methods/__init__.py"])
def test_a_change_of_a_module_that_the_script_does_not_reach_does_not_count(code, name):
    before = digest(code)
    with (code / "lib" / name).open("a") as stream:
        stream.write("\nMORE = 1\n")
    assert digest(code) == before


def test_a_new_module_beside_the_others_does_not_count(code):
    before = digest(code)
    (code / "lib" / "new.py").write_text("NEW = 1\n")
    assert digest(code) == before


def test_a_named_module_counts_with_all_that_it_imports(code):
    plain = digest(code)
    gradient, occlusion = (
        digest(code, "lib.methods.gradient"),
        digest(code, "lib.methods.occlusion"),
    )
    assert len({plain, gradient, occlusion}) == 3
    change(code / "lib" / "methods" / "shared.py", "2", "4")
    assert digest(code) == plain
    assert digest(code, "lib.methods.gradient") != gradient
    assert digest(code, "lib.methods.occlusion") == occlusion


def test_the_order_of_named_modules_does_not_count(code):
    names = ("lib.methods.gradient", "lib.methods.occlusion")
    assert digest(code, *names) == digest(code, *reversed(names))


def test_a_named_module_that_does_not_exist_is_an_error(code):
    with pytest.raises(FileNotFoundError, match="no module nowhere"):
        digest(code, "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no module lib\.methods\.nothing"):
        digest(code, "lib.methods.nothing")


def test_imports_from_outside_the_library_are_not_followed(code):
    change(code / "lib" / "lower.py", "def value", "import json\n\n\ndef value")
    assert len(digest(code)) == 16


def test_modules_that_import_each_other_are_read_once_each(code):
    change(code / "lib" / "lower.py", "def value", "import lib.upper\n\n\ndef value")
    assert digest(code) == digest(code)


def test_the_place_of_the_checkout_does_not_count(code, tmp_path):
    elsewhere = tmp_path / "another" / "place"
    shutil.copytree(code, elsewhere)
    assert digest(elsewhere) == digest(code)
    assert digest(elsewhere, "lib.methods.gradient") == digest(code, "lib.methods.gradient")


def test_a_renamed_module_counts(code):
    before = digest(code)
    (code / "lib" / "lower.py").rename(code / "lib" / "lowest.py")
    change(code / "lib" / "middle.py", "lib.lower", "lib.lowest")
    assert digest(code) != before


def test_every_script_of_the_workflow_has_its_own_fingerprint(repository):
    folder = repository / "scripts"
    scripts = sorted(Path(folder).glob("*.py"))
    digests = {script.name: fingerprint(script, folder) for script in scripts}
    assert len(digests) > 5
    assert len(set(digests.values())) == len(digests)


def test_the_version_number_is_not_code(tmp_path):
    (tmp_path / "package").mkdir()
    script = tmp_path / "script.py"
    script.write_text("import package\n")
    module = tmp_path / "package" / "__init__.py"
    prints = []
    for text in ('__version__ = "0.1.0"', '__version__ = "0.2.0"', "level = 2"):
        module.write_text(f"{text}\nother = 1\n")
        prints.append(fingerprint(script, tmp_path))
    assert prints[0] == prints[1] != prints[2]


def test_one_more_entry_of_a_registry_does_not_change_the_others(tmp_path):
    (tmp_path / "methods").mkdir()
    script = tmp_path / "explain.py"
    script.write_text("from methods import METHODS\n")
    (tmp_path / "methods" / "plain.py").write_text("A = 1\n")
    (tmp_path / "methods" / "other.py").write_text("A = 2\n")
    registry, prints = tmp_path / "methods" / "__init__.py", {}
    for entries in ('{"plain": "methods.plain"}', '{"plain": "methods.plain", "other": "x"}'):
        registry.write_text(f"METHODS: dict[str, str] = {entries}\n")
        for name in ("plain", "other"):
            result = fingerprint(script, tmp_path, [f"methods.{name}"])
            prints.setdefault(name, set()).add(result)
    assert [len(result) for result in prints.values()] == [1, 1]
    assert prints["plain"] != prints["other"]
    registry.write_text("METHODS: dict[str, str] = {}\nLEVEL = 2\n")
    assert fingerprint(script, tmp_path, ["methods.plain"]) not in prints["plain"]


def test_constants_of_a_registry_count_where_something_else_names_them(tmp_path):
    """A job's params contain what the entries say about it."""
    script = tmp_path / "explain.py"
    script.write_text("import methods\n")
    registry, prints = tmp_path / "methods.py", []
    entries = "METHODS: dict[str, int] = {'plain': _MORE}\n"
    for text in (
        "_PART = 1\n_MORE = _PART + 1\n" + entries,
        "_PART = 2\n_MORE = _PART + 1\n" + entries,
        "_PART = 2\n_MORE = 5\n" + entries,
        "_PART = 1\n_MORE = _PART + 1\n" + entries + "LEVEL = _PART\n",
        "_PART = 2\n_MORE = _PART + 1\n" + entries + "LEVEL = _PART\n",
        "PART = 1\n_MORE = PART + 1\n" + entries,
        "PART = 2\n_MORE = PART + 1\n" + entries,
    ):
        registry.write_text(text)
        prints.append(fingerprint(script, tmp_path))
    assert prints[0] == prints[1]
    assert len(set(prints[1:])) == len(prints[1:])


@pytest.fixture
def with_files(code):
    """A module that reads a template, and a folder of other files."""
    folder = code / "lib" / "assets"
    folder.mkdir()
    for name in ("page.html", "other.html", "part.py"):
        (folder / name).write_text("<p>one</p>\n")
    names = (
        "NAMES = ('assets/page.html', 'assets/missing.html', 'assets', 'assets/part.py', 'a.b')\n"
    )
    (code / "lib" / "lower.py").write_text(f"{names}\n\ndef value(x):\n    return 1.0\n")
    return code


def test_a_file_that_a_module_names_counts_to_the_last_byte(with_files):
    before = digest(with_files)
    change(with_files / "lib/assets/page.html", "</p>\n", "</p>\n\n")
    assert digest(with_files) != before


@pytest.mark.parametrize("name", ["other.html", "part.py"])
def test_a_file_that_no_module_names_does_not_count(with_files, name):
    before = digest(with_files)
    change(with_files / "lib/assets" / name, "one", "two")
    assert digest(with_files) == before


def test_a_deleted_or_new_file_counts(with_files):
    before = digest(with_files)
    (with_files / "lib/assets/page.html").rename(with_files / "lib/assets/missing.html")
    assert digest(with_files) != before


def test_the_place_of_a_checkout_with_files_does_not_count(with_files, tmp_path):
    elsewhere = tmp_path / "another"
    shutil.copytree(with_files, elsewhere)
    assert digest(elsewhere) == digest(with_files)


def test_every_file_beside_the_modules_counts_for_the_scripts_that_use_it(repository, tmp_path):
    """A path that a module joins from several strings would not be found."""
    copy = tmp_path / "scripts"
    shutil.copytree(
        repository / "scripts", copy, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
    )
    scripts = sorted(copy.glob("*.py"))
    before = {script.stem: fingerprint(script, copy) for script in scripts}
    counts = {}
    for path in sorted(copy.rglob("*.*")):
        if path.is_file() and path.suffix != ".py":
            content = path.read_bytes()
            path.write_bytes(content + b"\n")
            os.utime(path, ns=(1, 1))
            changed = {s.stem for s in scripts if fingerprint(s, copy) != before[s.stem]}
            counts[path.name] = changed
            path.write_bytes(content)
    # Costs are read while a run is planned, not by a job; no result depends on the placeholder.
    unread = {name for name, changed in counts.items() if not changed}
    assert unread == {"costs.json", "lost_scan.png"}
    assert counts["page.html"] == {"report_results", "report_trust", "show_quality"}
    assert counts["viewer.html"] == {"show_heatmaps"}
    assert counts["references.bib"] == {"report_results"}


def test_the_entries_that_a_job_selects_count_in_any_order(code):
    script = code / "compute.py"
    fingerprints = {fingerprint(script, code, entries=e) for e in (["a", "b"], ["b", "a"])}
    fingerprints |= {digest(code), fingerprint(script, code, entries=["a"])}
    assert len(fingerprints) == 3
