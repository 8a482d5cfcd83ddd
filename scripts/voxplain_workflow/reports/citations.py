"""Papers to cite for a run: those of the data, the tools, the networks and the methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bibtexparser
from bibtexparser.model import Entry, Field

from voxplain import __version__
from voxplain.models import MODELS
from voxplain.relevance import METHODS

# Keys in references.bib; those of networks and methods are in their registries.
_VOXPLAIN, _SNAKEMAKE = "voxplain", "molder2021"
_RIEKE, _WEN = "rieke2018", "wen2020"
_DCM2NIIX = "li2016"
_BET, _DEEPBET = "smith2002", "fisch2024"
_N4, _ANTS = "tustison2010", "avants2008"
_ICBM, _TEMPLATEFLOW = "fonov2011", "ciric2022"
_AAL, _DESIKAN = "tzourio2002", "desikan2006"
_PYTORCH = "paszke2019"
_PETSIUK, _ADEBAYO = "petsiuk2018", "adebayo2018"


@dataclass(frozen=True)
class Citation:
    """A paper.

    Attributes
    ----------
    key, kind
        Of the BibTeX entry; ``kind`` is ``article``, ``inproceedings`` or ``misc``.
    fields
        Of the BibTeX entry, by their names.
    use
        What a run uses the paper for.
    """

    key: str
    kind: str
    fields: Mapping[str, str]
    use: str

    @property
    def authors(self) -> list[str]:
        """Names of the authors, family name first; ``others`` for authors left out."""
        return _without_braces(self.fields["author"]).split(" and ")

    @property
    def title(self) -> str:
        """Title without the braces that preserve capitals."""
        return _without_braces(self.fields["title"])

    @property
    def year(self) -> int:
        """Year of publication."""
        return int(self.fields["year"])

    @property
    def venue(self) -> str:
        """Journal or series, with volume and pages."""
        fields = self.fields
        name = next(
            fields[key] for key in ("journal", "booktitle", "howpublished") if key in fields
        )
        volume = f" {fields['volume']}" if "volume" in fields else ""
        number = f"({fields['number']})" if "number" in fields else ""
        pages = f", {fields['pages'].replace('--', '-')}" if "pages" in fields else ""
        return f"{name}{volume}{number}{pages}"

    @property
    def text(self) -> str:
        """The citation as one line."""
        families = [name.split(",")[0] for name in self.authors]
        names = families[0]
        names += {1: "", 2: f" and {families[-1]}"}.get(len(families), " et al.")
        return f"{self.use}: {names} {self.year}, {self.title}. {self.venue}."


def read_papers() -> dict[str, Citation]:
    """Papers of references.bib, by their keys."""
    library = bibtexparser.parse_file(Path(__file__).with_name("references.bib"))
    papers = {}
    for entry in library.entries:
        # A value may extend over several lines.
        fields = {field.key: " ".join(field.value.split()) for field in entry.fields}
        if entry.key == _VOXPLAIN:
            fields["howpublished"] += f", version {__version__}"
        use = fields.pop("use")
        papers[entry.key] = Citation(entry.key, entry.entry_type, fields, use)
    return papers


@dataclass(frozen=True)
class Used:
    """Results of a run that need citations, in addition to its configuration.

    Attributes
    ----------
    models
        Names of the networks that were trained.
    methods
        Names of the methods of its heatmaps.
    followed, randomised
        Whether areas were deleted and inserted; whether layers were made random.
    """

    models: frozenset[str] = frozenset()
    methods: tuple[str, ...] = ()
    followed: bool = False
    randomised: bool = False


def citations_of(config: Mapping[str, Any], used: Used) -> list[Citation]:
    """Papers to cite for a run with a completed configuration, each once.

    With ``skull.tool: auto`` both tools are cited.
    """
    cohorts = config["cohorts"].values()
    heads = any(cohort["images_are"] == "heads" for cohort in cohorts)
    cited = [_RIEKE, _WEN]
    cited += [_DCM2NIIX] * any(cohort["source"] != "bids" for cohort in cohorts)
    tool, ladder = config["skull"]["tool"], config["skull"]["ladder"]
    if heads:
        cited += [_BET] * (tool != "deepbet")
        cited += [_DEEPBET] * (tool != "bet" or "deepbet" in ladder)
    corrected = config["bias_correction"] != "never" or (heads and "bias" in ladder)
    cited += [_N4] * corrected
    # The gate of the ladder registers heads, even if brains are not registered.
    cited += [_ANTS] * (heads or any(cohort["images_are"] != "registered" for cohort in cohorts))
    cited += [_ICBM] + [_TEMPLATEFLOW] * (config["template"] == "templateflow")
    cited += [_PYTORCH] * bool(used.models)
    cited += [key for name in sorted(used.models) for key in MODELS[name].sources]
    cited += [_AAL, _DESIKAN] * bool(used.methods)
    cited += [key for name in used.methods for key in METHODS[name].sources]
    cited += [_PETSIUK] * used.followed + [_ADEBAYO] * used.randomised
    papers = read_papers()
    return [papers[key] for key in dict.fromkeys([_VOXPLAIN, *cited, _SNAKEMAKE])]


def to_bibtex(cited: Sequence[Citation]) -> str:
    """The papers as BibTeX entries."""
    entries = [
        Entry(paper.kind, paper.key, [Field(*field) for field in paper.fields.items()])
        for paper in cited
    ]
    layout = bibtexparser.BibtexFormat()
    layout.indent, layout.block_separator = "  ", "\n"
    return bibtexparser.write_string(bibtexparser.Library(entries), bibtex_format=layout)


def _without_braces(value: str) -> str:
    return value.replace("{", "").replace("}", "")
