"""Pages of results that open from disk in any browser: one file, nothing from a network."""

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

# Of a screen, for an inch in print: a figure as wide as a journal's page nearly fills ours.
_PIXELS_PER_INCH = 150
_TEMPLATE = """\
{%- macro told(part) %}
{{ part.caption }}{% if part.link %} <a href="{{ part.link }}">{{ part.link }}</a>{% endif %}
{% endmacro -%}
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ page.title }}</title>
<style>
:root { --ink: #1d2430; --soft: #5b6675; --line: #d9dee5; --tint: #f4f6f9; --mark: #0b6e99; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: white; font: 16px/1.5 system-ui, sans-serif; }
main, header { max-width: {{ "112rem" if page.wide else "76rem" }}; margin: 0 auto;
               padding: 0 1.25rem; }
header { padding-top: 2rem; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .5rem; padding-top: .75rem;
     border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .25rem; }
p, li { max-width: 48rem; }
pre { overflow-x: auto; background: var(--tint); padding: .75rem 1rem; font-size: .85rem; }
summary { cursor: pointer; }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; }
a { color: var(--mark); }
figure { margin: 1rem 0; }
figcaption, caption { color: var(--soft); font-size: .9rem; text-align: left; padding: .25rem 0; }
figcaption { max-width: 48rem; }
caption div { min-width: min(22rem, calc(100vw - 2.5rem)); overflow-wrap: anywhere;
              max-width: min(48rem, calc(100vw - 2.5rem)); }
img { max-width: 100%; height: auto; display: block; }
/* Shadows where there is more to scroll to. */
.scroll { overflow-x: auto; margin: 1rem 0; background:
  linear-gradient(to right, white, transparent) 0 0 / 3rem 100% local no-repeat,
  linear-gradient(to left, white, transparent) 100% 0 / 3rem 100% local no-repeat,
  linear-gradient(to right, #0003, transparent) 0 0 / .9rem 100% scroll no-repeat,
  linear-gradient(to left, #0003, transparent) 100% 0 / .9rem 100% scroll no-repeat; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: left; white-space: nowrap;
         border-bottom: 1px solid var(--line); }
th { background: var(--tint); }
td.number, th.number { text-align: right; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--mark); }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
footer { max-width: 76rem; margin: 3rem auto 2rem; padding: 0 1.25rem; color: var(--soft);
         font-size: .85rem; }
td.words { white-space: normal; max-width: 26rem; overflow-wrap: anywhere; }
td.words:not(:empty) { min-width: 14rem; }
td img { width: 15rem; max-width: none; height: 9.5rem; object-fit: cover; background: black; }
tr { vertical-align: top; }
.find { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: baseline; margin: 1rem 0; }
.find input { font: inherit; padding: .25rem .5rem; min-width: 18rem; max-width: 100%; }
.find output { color: var(--soft); font-size: .9rem; }
@media print { .find, nav, th button::after { display: none; } }
</style>
</head>
<body>
<header>
<h1>{{ page.title }}</h1>
{% for text in page.lead %}<p>{{ text }}</p>
{% endfor %}
{% if page.sections | length > 1 %}<nav aria-label="Sections"><ul>
{% for section in page.sections %}
<li><a href="#section-{{ loop.index }}">{{ section.title }}</a></li>
{% endfor %}
</ul></nav>{% endif %}
</header>
<main>
{% for section in page.sections %}
<section id="section-{{ loop.index }}">
<h2>{{ section.title }}</h2>
{% for part in section.parts %}
{% if part.kind == "text" %}<p>{{ part.text }}</p>
{% elif part.kind == "points" %}<ul>
{% for point in part.points %}<li>{{ point }}</li>
{% endfor %}</ul>
{% elif part.kind == "heading" %}<h3>{{ part.text }}</h3>
{% elif part.kind == "link" %}<p>{{ part.text }} <a href="{{ part.link }}">{{ part.name }}</a></p>
{% elif part.kind == "code" %}<details{% if part.open %} open{% endif %}>
<summary>{{ part.caption }}</summary>
<pre tabindex="0"><code>{{ part.text }}</code></pre>
</details>
{% elif part.kind == "picture" %}<figure>
{% if part.link %}<a href="{{ part.link }}">{% endif %}
<img alt="{{ part.alt }}" loading="lazy"{% if part.width %} width="{{ part.width }}"{% endif %}
src="{{ part.source }}">{% if part.link %}</a>{% endif %}
<figcaption>{{ told(part) }}{% if part.vector %} (<a href="{{ part.vector }}">PDF</a>){% endif %}
</figcaption>
</figure>
{% else %}{% if part.find %}<div class="find">
<label>Find <input type="search" placeholder="{{ part.find }}"></label>
<output></output>
</div>{% endif %}<div class="scroll" tabindex="0" role="region" aria-label="{{ part.caption }}">
<table>
<caption><div>{{ told(part) }}</div></caption>
<thead><tr>
{% for column in part.columns %}
<th scope="col"{% if column.number %} class="number"{% endif %}>
<button type="button">{{ column.name }}</button></th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in part.rows %}
<tr>
{% for cell in row %}
{% if cell.picture is defined %}
<td><a href="{{ cell.picture }}"><img alt="{{ cell.text }}" loading="lazy" decoding="async"
src="{{ cell.picture }}"></a></td>
{% elif cell.words is defined %}
<td class="words">{{ cell.text }}</td>
{% elif cell.value is none %}
<td{% if part.columns[loop.index0].number %} class="number"{% endif %}>{{ cell.text }}</td>
{% else %}
<td{% if part.columns[loop.index0].number %} class="number"{% endif %}
 data-value="{{ cell.value }}">{{ cell.text }}</td>
{% endif %}
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
{% endfor %}
</section>
{% endfor %}
</main>
<footer>{{ page.footer }}</footer>
<script>
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, table = head.closest("table");
    const upwards = head.getAttribute("aria-sort") === "descending";
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", upwards ? "ascending" : "descending");
    const key = (row) => row.cells[head.cellIndex].dataset.value;
    const text = (row) => row.cells[head.cellIndex].textContent;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const x = key(a), y = key(b);
      // What is no number stands below all numbers, whichever way they are sorted.
      if ((x === undefined) !== (y === undefined)) return x === undefined ? 1 : -1;
      const order = x === undefined ? text(a).localeCompare(text(b)) : x - y;
      return upwards ? order : -order;
    });
    table.tBodies[0].append(...rows);
  });
}
for (const find of document.querySelectorAll(".find")) {
  const input = find.querySelector("input"), told = find.querySelector("output");
  const rows = [...find.nextElementSibling.querySelectorAll("tbody tr")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const show = () => {
    const words = input.value.toLowerCase().split(/\\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, place) => {
      row.hidden = !words.every((word) => texts[place].includes(word));
      shown += !row.hidden;
    });
    told.textContent = `${shown} of ${rows.length} rows`;
  };
  input.addEventListener("input", show);
  show();
}
</script>
</body>
</html>
"""


@dataclass(frozen=True)
class Thumbnail:
    """A cell that shows a picture beside the page, which a click opens; it loads when it is seen.

    Attributes
    ----------
    link
        Where the picture is, relative to the page.
    alt
        What it shows, for who cannot see it.
    """

    link: str
    alt: str


@dataclass(frozen=True)
class Words:
    """A cell of several words, which may be broken into lines."""

    text: str


@dataclass
class _Section:
    title: str
    parts: list[dict[str, Any]] = field(default_factory=list)


def _width_on_page(png: bytes) -> int | None:
    """Pixels of a page to show a picture in, by its size in print, so that letters are all alike.

    None for a PNG that does not say how large it is (W3C, Portable Network Graphics, 11.3.4.3).
    """
    at = png.find(b"pHYs", 0, 4096)
    if at < 0 or png[at + 12] != 1:  # not in metres
        return None
    (across,), (per_metre,) = (struct.unpack_from(">I", png, place) for place in (16, at + 4))
    return round(across / (per_metre * 0.0254) * _PIXELS_PER_INCH)


class Page:
    """A page of text, tables that sort by a click on their head, and pictures.

    Pictures are within the page, which is one file to keep or to pass on, or in files beside it;
    links are relative to the page, so that a folder of results can be moved.

    Attributes
    ----------
    title, lead, footer
        Heading, the paragraphs below it, and the last line.
    wide
        Whether its tables need all the width there is.
    sections
        In their order.
    """

    def __init__(
        self, title: str, lead: Sequence[str] = (), footer: str = "", wide: bool = False
    ) -> None:
        self.title, self.lead, self.footer, self.wide = title, list(lead), footer, wide
        self.sections: list[_Section] = []

    def add_section(self, title: str) -> None:
        """Begin a section; what is added next stands in it."""
        self.sections.append(_Section(title))

    def add_text(self, text: str) -> None:
        """Add a paragraph."""
        self._add(kind="text", text=text)

    def add_points(self, points: Sequence[str]) -> None:
        """Add a list of sentences."""
        if points:
            self._add(kind="points", points=list(points))

    def add_heading(self, text: str) -> None:
        """Add a heading below the section's."""
        self._add(kind="heading", text=text)

    def add_link(self, text: str, link: str, name: str = "") -> None:
        """Add a paragraph that ends with a link, under its name or its own path."""
        self._add(kind="link", text=text, link=quote(link), name=name or link)

    def add_code(self, text: str, caption: str, is_open: bool = False) -> None:
        """Add lines to copy, which unfold below their caption."""
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
            What it shows, for who cannot see it.
        link
            Where the picture's own file is, relative to the page.
        within
            Whether the picture becomes part of the page; else it is shown from its own file.
        vector
            Where the same picture is as a file for print, relative to the page.

        Raises
        ------
        SetupFault
            The file is no PNG.
        """
        data = Path(path).read_bytes()
        if not data.startswith(b"\x89PNG\r\n"):
            raise SetupFault(f"{path} is no PNG picture; it was to stand on the page {self.title}")
        source = quote(link)
        if within:
            source = f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
        told = {"alt": alt, "caption": caption, "link": link, "vector": vector}
        told["width"] = _width_on_page(data)
        self._add(kind="picture", source=source, **told)

    def add_table(
        self, table: pd.DataFrame, caption: str, link: str = "", digits: int = 2, find: str = ""
    ) -> None:
        """Add a table.

        Parameters
        ----------
        table
            Cells that are numbers are rounded to ``digits`` (whole numbers are not) and sort as
            numbers; a missing one says n/a. A cell that is a pair of a number and a text shows the
            text and sorts by the number; :class:`Thumbnail` and :class:`Words` are cells too.
        link
            Where the table's own file is, relative to the page.
        find
            An example of what to look for; with it, a field above the table shows only the rows
            that hold all words written there.
        """
        rows = [[_cell(value, digits) for value in row] for row in table.itertuples(index=False)]
        columns = [
            {"name": str(name), "number": any(_is_number(row[place]) for row in rows)}
            for place, name in enumerate(table.columns)
        ]
        self._add(kind="table", rows=rows, columns=columns, caption=caption, link=link, find=find)

    def write(self, path: str | Path) -> None:
        """Write the page, whole or not at all."""
        environment = jinja2.Environment(
            autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
        )
        text = environment.from_string(_TEMPLATE).render(page=self)
        unfinished = Path(f"{path}.unfinished")
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)

    def _add(self, **part: Any) -> None:
        if not self.sections:
            raise SetupFault(f"page {self.title}: a part before the first section")
        self.sections[-1].parts.append(part)


def with_interval(mean: float, low: float, high: float, digits: int = 2) -> tuple[float, str]:
    """A cell of a table: a number that sorts, and its text with the interval if there is one."""
    if pd.isna(mean):
        return mean, "n/a"
    told = f"{mean:z.{digits}f}"
    return mean, told if pd.isna(low) else f"{told} ({low:z.{digits}f} to {high:z.{digits}f})"


def _is_number(cell: Mapping[str, Any]) -> bool:
    """Whether a cell shows the number that it sorts by, and no word instead of it."""
    return cell["value"] is not None and not cell["text"][:1].isalpha()


def _cell(value: Any, digits: int) -> dict[str, Any]:
    """What a cell shows, and the number that it sorts by, if any."""
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
    # A small number below 0 is no -0.00.
    shown = f"{value:d}" if isinstance(value, int | np.integer) else f"{value:z.{digits}f}"
    return {"text": shown, "value": float(value)}
