"""Brings what lies outside docs/ into the site, and makes links between the two fit.

In the repository a page links to `../config/README.md`, and the README to `docs/data.md`. In the
site all of them stand below one root, so that `../` and `docs/` fall away. A link to a file that is
no page (a configuration) leads to a copy of the file.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "index.md": "README.md",
    "config/README.md": "config/README.md",
    "CHANGELOG.md": "CHANGELOG.md",
}
COPIES = ["config.yaml", "LICENSE", "CITATION.cff", "Containerfile"]
# A link's target, in brackets or as the source of a picture.
_LINK = re.compile(r"(\]\(|src=\")(?!https?:|#|mailto:)([^)\"#]*)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files from outside docs/."""
    copied = [*COPIES, *(f"config/{path.name}" for path in (ROOT / "config").glob("*.yaml"))]
    sources = PAGES | {path: path for path in copied}
    for target, source in sources.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead where their targets are in the site."""
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
