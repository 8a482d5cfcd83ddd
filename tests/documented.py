"""The code blocks of the documentation, and the files that they belong to."""

import dataclasses
import re
from pathlib import Path

# A longer fence may contain shorter ones.
_FENCE = re.compile(r"^(`{3,})(\w*)\n(.*?)^\1$", re.M | re.S)
_NEW = re.compile(r"^`([^`\n]+)`, a new file:\n\n\Z", re.M)
_CODE = r"(`+) ?(.+?) ?\3"
_LINES = re.compile(rf"^In `([^`\n]+)`, (before|after) the line {_CODE}:\n\n\Z", re.M)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes
    ----------
    path
        Path of the file that it is written to, from the line above it; None if not given.
    side, line
        ``before`` or ``after`` the line that begins so; None for a new file.
    """

    name: str
    language: str
    text: str
    path: str | None = None
    side: str | None = None
    line: str | None = None

    def write(self, checkout: Path) -> None:
        """Write the block into a checkout, as the page says."""
        path = checkout / self.path
        if self.side is None:
            assert not path.exists(), f"{self.name}: {self.path} is there already"
            path.write_text(self.text)
            return
        lines = path.read_text().splitlines(keepends=True)
        places = [n for n, line in enumerate(lines) if line.lstrip().startswith(self.line)]
        assert len(places) == 1, f"{self.name}: {len(places)} lines of {self.path} begin so"
        place = places[0] + (self.side == "after")
        path.write_text("".join([*lines[:place], self.text, *lines[place:]]))


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    text, blocks = page.read_text(), []
    for number, match in enumerate(_FENCE.finditer(text)):
        above = text[: match.start()]
        place = ()
        if new := _NEW.search(above):
            place = (new[1],)
        elif lines := _LINES.search(above):
            place = (lines[1], lines[2], lines[4])
        blocks.append(Block(f"{page.name}-{number}", match[2], match[3], *place))
    return blocks
