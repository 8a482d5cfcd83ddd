"""HTML pages of results that open from disk in any browser, without a network."""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
import pandas as pd

from voxplain.faults import SetupFault

# Pixels on a screen for an inch in print: a figure with the width of a journal page nearly fills
# the page.
_PIXELS_PER_INCH = 150
# The path is one string, so that code fingerprints include the file
# (voxplain_workflow.planning.fingerprint).
_TEMPLATE = Path(__file__).parent / "assets/page.html"


@dataclass(frozen=True)
class Thumbnail:
    """A table cell with a picture from a separate file; it is loaded lazily, and a click opens it.

    Attributes
    ----------
    link
        Path of the picture, relative to the page.
    alt
        Alternative text of the picture.
    """

    link: str
    alt: str


@dataclass(frozen=True)
class Words:
    """A table cell with a longer text, which may be broken into lines."""

    text: str


@dataclass
class _Section:
    title: str
    parts: list[dict[str, Any]] = field(default_factory=list)


def _width_on_page(png: bytes) -> int | None:
    """Width of a picture on the page in pixels, by its size in print: all letters have one size.

    None for a PNG without a physical size (W3C, Portable Network Graphics, 11.3.4.3).
    """
    at = png.find(b"pHYs", 0, 4096)
    if at < 0 or png[at + 12] != 1:  # not in metres
        return None
    (across,), (per_metre,) = (struct.unpack_from(">I", png, place) for place in (16, at + 4))
    return round(across / (per_metre * 0.0254) * _PIXELS_PER_INCH)


class Page:
    """A page of text, pictures, and tables that sort by a click on their header.

    Pictures are embedded in the page, so that it is one file, or in separate files. Links are
    relative to the page, so that a folder of results can be moved.

    Attributes
    ----------
    title, lead, footer
        Heading, the paragraphs below it, and the last line.
    wide
        Whether its tables need the full width of the window.
    sections
        Sections in their order.
    """

    def __init__(
        self, title: str, lead: Sequence[str] = (), footer: str = "", wide: bool = False
    ) -> None:
        self.title, self.lead, self.footer, self.wide = title, list(lead), footer, wide
        self.sections: list[_Section] = []

    def add_section(self, title: str) -> None:
        """Begin a section; the next parts are added to it."""
        self.sections.append(_Section(title))

    def add_text(self, text: str) -> None:
        """Add a paragraph."""
        self._add(kind="text", text=text)

    def add_points(self, points: Sequence[str]) -> None:
        """Add a list of sentences."""
        if points:
            self._add(kind="points", points=list(points))

    def add_heading(self, text: str) -> None:
        """Add a heading one level below that of the section."""
        self._add(kind="heading", text=text)

    def add_link(self, text: str, link: str, name: str = "") -> None:
        """Add a paragraph that ends with a link, shown as its name or its path."""
        self._add(kind="link", text=text, link=quote(link), name=name or link)

    def add_code(self, text: str, caption: str, is_open: bool = False) -> None:
        """Add lines of code, which unfold below their caption."""
        self._add(kind="code", text=text, caption=caption, open=is_open)

    def add_picture(
        self,
        path: str | Path,
        alt: str,
        caption: str,
        link: str = "",
        within: bool = True,
        vector: str = "",
    ) -> None:
        """Add a PNG file.

        Parameters
        ----------
        alt
            Alternative text of the picture.
        link
            Path of the picture's file, relative to the page.
        within
            Whether the picture is embedded in the page; else the page shows its file.
        vector
            Path of the same picture for print (vector graphics), relative to the page.

        Raises
        ------
        SetupFault
            The file is not a PNG.
        """
        data = Path(path).read_bytes()
        if not data.startswith(b"\x89PNG\r\n"):
            raise SetupFault(f"{path} is no PNG picture; it was to stand on the page {self.title}")
        source = quote(link)
        if within:
            source = f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
        fields = {"alt": alt, "caption": caption, "link": link, "vector": vector}
        fields["width"] = _width_on_page(data)
        self._add(kind="picture", source=source, **fields)

    def add_table(
        self, table: pd.DataFrame, caption: str, link: str = "", digits: int = 2, find: str = ""
    ) -> None:
        """Add a table.

        Parameters
        ----------
        table
            Numbers are rounded to ``digits`` (integers are not) and sort as numbers; a missing
            number is shown as n/a. A cell that is a pair of a number and a text shows the text and
            sorts by the number. :class:`Thumbnail` and :class:`Words` are cells, too.
        link
            Path of the table's file, relative to the page.
        find
            Example of a search text. With it, the table has a search field that shows only the
            rows that contain all words of the search.
        """
        rows = [[_cell(value, digits) for value in row] for row in table.itertuples(index=False)]
        columns = [
            {"name": str(name), "number": any(_is_number(row[place]) for row in rows)}
            for place, name in enumerate(table.columns)
        ]
        self._add(kind="table", rows=rows, columns=columns, caption=caption, link=link, find=find)

    def write(self, path: str | Path) -> None:
        """Write the page; the file is replaced only when the new one is complete."""
        environment = jinja2.Environment(
            autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
        )
        text = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(page=self)
        unfinished = Path(f"{path}.unfinished")
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)

    def _add(self, **part: Any) -> None:
        if not self.sections:
            raise SetupFault(f"page {self.title}: a part before the first section")
        self.sections[-1].parts.append(part)


def with_interval(mean: float, low: float, high: float, digits: int = 2) -> tuple[float, str]:
    """A table cell: the number to sort by, and its text with the interval if there is one."""
    if pd.isna(mean):
        return mean, "n/a"
    text = f"{mean:z.{digits}f}"
    return mean, text if pd.isna(low) else f"{text} ({low:z.{digits}f} to {high:z.{digits}f})"


def _is_number(cell: Mapping[str, Any]) -> bool:
    """Whether a cell shows the number that it sorts by, not a word."""
    return cell["value"] is not None and not cell["text"][:1].isalpha()


def _cell(value: Any, digits: int) -> dict[str, Any]:
    """Fields of a cell for the template: its text, and the number to sort by or None."""
    if isinstance(value, Thumbnail):
        return {"text": value.alt, "value": None, "picture": quote(value.link)}
    if isinstance(value, Words):
        return {"text": value.text, "value": None, "words": True}
    if isinstance(value, tuple):
        number, text = value
        return {"text": text, "value": None if pd.isna(number) else float(number)}
    if isinstance(value, str):
        return {"text": value, "value": None}
    if pd.isna(value):
        return {"text": "n/a", "value": None}
    if isinstance(value, bool | np.bool_):
        return {"text": "yes" if value else "no", "value": None}
    # The option z: a small negative number is shown as 0.00, not as -0.00.
    shown = f"{value:d}" if isinstance(value, int | np.integer) else f"{value:z.{digits}f}"
    return {"text": shown, "value": float(value)}
