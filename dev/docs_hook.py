"""Adds files from outside docs/ to the site, adapts links to them, and renders formulas.

In the repository a page links to `../config/README.md`, and the README to `docs/data.md`. In the
site all pages have the same root, so `../` and `docs/` are removed. A link to a file that is not a
page (a configuration) leads to a copy of the file.

A fenced block of `math`, which the repository's pages show as a formula, becomes MathML. Browsers
render it themselves, so nothing is loaded from a network.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.superfences import SuperFencesException

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "index.md": "README.md",
    "config/README.md": "config/README.md",
    "CHANGELOG.md": "CHANGELOG.md",
}
COPIES = ["config.yaml", "LICENSE", "CITATION.cff", "Containerfile"]
# A link's target, in brackets or as the source of a picture.
_LINK = re.compile(r"(\]\(|src=\")(?!https?:|#|mailto:)([^)\"#]*)")
# Brackets grow with their content only in a font for mathematics; systems have one of these.
_MATH_FONTS = "'STIX Two Math', 'Cambria Math', 'Latin Modern Math', 'DejaVu Math TeX Gyre', math"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Configure the rendering of formulas."""
    fence = {"name": "math", "class": "math", "format": set_formula}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    return config


def set_formula(source: str, *_: Any, **__: Any) -> str:
    """MathML of a formula in LaTeX.

    Raises
    ------
    SuperFencesException
        The formula cannot be rendered, or it has an unknown command, which would be shown as its
        name. (The extension suppresses any other exception.)
    """
    try:
        formula = convert(source, display="block")
    except Exception as error:
        raise SuperFencesException(f"a formula cannot be set: {source}") from error
    if "\\" in formula:
        raise SuperFencesException(f"a formula has a command that is not known: {source}")
    formula = formula.replace("<math ", f'<math style="font-family: {_MATH_FONTS}" ', 1)
    # A long formula scrolls in a narrow window.
    return f'<div style="padding: 0.5em 0; overflow: auto hidden">{formula}</div>'


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files from outside docs/."""
    copied = [*COPIES, *(f"config/{path.name}" for path in (ROOT / "config").glob("*.yaml"))]
    sources = PAGES | {path: path for path in copied}
    for target, source in sources.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Adapt the links of a notebook, which another plugin converts, to the pages of the site.

    Raises
    ------
    PluginError
        A linked page does not exist.
    """
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def lead(match: re.Match) -> str:
        target = files.get_file_from_path(match[1])
        if target is None:
            raise PluginError(f"{page.file.src_uri} links to {match[1]}, which is no page")
        return f'href="{target.url_relative_to(page.file)}'

    return re.sub(r'href="([\w/]+\.md)', lead, html)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Adapt links to the places of their targets in the site."""
    here = page.file.src_uri

    def lead(match: re.Match) -> str:
        before, target = match.groups()
        if here in ("index.md", "CHANGELOG.md"):
            target = re.sub(r"^docs/", "", target)
        elif here.startswith("config/"):
            target = re.sub(r"^\.\./docs/", "../", target)
        else:
            target = re.sub(r"^\.\./", "", target)
        return before + target

    return _LINK.sub(lead, markdown)
