"""Docstrings name things by Sphinx's roles, which Markdown does not know: leave their names."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|data|func|meth|mod):`~?(?:[\w.]*\.)?(\w+)`")


class PlainRoles(griffe.Extension):
    """Turns a role with a dotted name into the name as code."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change an object's docstring."""
        if obj.docstring:
            obj.docstring.value = _ROLE.sub(r"`\1`", obj.docstring.value)
