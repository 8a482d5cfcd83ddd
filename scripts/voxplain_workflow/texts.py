"""Free text of the user's tables as params of jobs.

Snakemake's own report writes the params of a job into a script of its page as they are: a text with
``</script>`` ends that script, and what follows it runs in the browser of whoever opens the report.
"""

from __future__ import annotations

import json
from typing import Any

# As JSON writes a character by its number: the same text, which no page takes for its own.
_ESCAPES = str.maketrans({sign: f"\\u{ord(sign):04x}" for sign in "<>&"})


def shield(value: Any) -> str:
    """A value as JSON text without any character that has a meaning in a page."""
    return json.dumps(value, ensure_ascii=True).translate(_ESCAPES)


def unshield(text: str) -> Any:
    """The value of :func:`shield`."""
    return json.loads(text)
