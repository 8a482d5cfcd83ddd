"""A page as a browser shows it."""

import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="needs chromium (Debian's package of that name)"
)


def browse(page: Path, *options: str, query: str = "") -> str:
    """Output of a headless browser for a page on disk; ``query`` is added to the address."""
    # A canvas in 3D is drawn without a graphics card.
    drawing = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    words = [CHROMIUM, "--headless", "--no-sandbox", "--hide-scrollbars", *drawing, *options]
    done = subprocess.run(
        [*words, f"{page.as_uri()}{query}"],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return done.stdout
