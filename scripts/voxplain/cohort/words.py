"""How words of tables and headers are compared."""

from __future__ import annotations

import re


def plain(text: str) -> str:
    """A word by its letters and digits in lower case, as tables' words are compared."""
    return re.sub(r"[^a-z0-9]", "", text.lower())
