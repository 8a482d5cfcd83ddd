"""What a run rests on, to be cited: papers of the data, the tools, the networks and the methods."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxplain import __version__
from voxplain.models import MODELS
from voxplain.relevance import METHODS


@dataclass(frozen=True)
class Citation:
    """A paper.

    Attributes
    ----------
    key
        Of BibTeX.
    kind
        ``article``, ``inproceedings`` or ``misc``.
    authors
        As BibTeX takes them.
    title, venue, year
        ``venue`` with volume and pages.
    use
        What a run has of it.
    """

    key: str
    kind: str
    authors: str
    title: str
    venue: str
    year: int
    use: str

    @property
    def text(self) -> str:
        """One line of it."""
        names = self.authors.split(" and ")
        told = names[0].split(",")[0]
        told += {1: "", 2: f" and {names[-1].split(',')[0]}"}.get(len(names), " et al.")
        return f"{self.use}: {told} {self.year}, {self.title}. {self.venue}."


# Journal or series, volume (issue), pages or number of the article.
_PLACE = re.compile(
    r"(?P<name>.+?),? (?P<volume>\d+)(?:\((?P<number>[\d-]+)\))?(?:, |:)(?P<pages>[\w-]+)"
)
_VOXPLAIN = Citation(
    "voxplain",
    "misc",
    "The voxplain authors",
    "voxplain: compared relevance heatmaps of 3D convolutional networks for Alzheimer's disease",
    f"Software, version {__version__}",
    2026,
    "The run",
)
_SNAKEMAKE = Citation(
    "molder2021",
    "article",
    "Mölder, Felix and Jablonski, Kim Philipp and Letcher, Brice and others",
    "Sustainable data analysis with Snakemake",
    "F1000Research 10:33",
    2021,
    "Workflow",
)
_RIEKE = Citation(
    "rieke2018",
    "inproceedings",
    "Rieke, Johannes and Eitel, Fabian and Weygandt, Martin and Haynes, John-Dylan and Ritter, "
    "Kerstin",
    "Visualizing Convolutional Networks for MRI-based Diagnosis of Alzheimer's Disease",
    "MLCN, LNCS 11038, 24-31",
    2018,
    "The comparison of heatmaps",
)
_WEN = Citation(
    "wen2020",
    "article",
    "Wen, Junhao and Thibeau-Sutre, Elina and Diaz-Melo, Mauricio and others",
    "Convolutional neural networks for classification of Alzheimer's disease: Overview and "
    "reproducible evaluation",
    "Medical Image Analysis 63, 101694",
    2020,
    "The rules against leakage",
)
_DCM2NIIX = Citation(
    "li2016",
    "article",
    "Li, Xiangrui and Morgan, Paul S. and Ashburner, John and Smith, Jolinda and Rorden, "
    "Christopher",
    "The first step for neuroimaging data analysis: DICOM to NIfTI conversion",
    "Journal of Neuroscience Methods 264, 47-56",
    2016,
    "Conversion (dcm2niix)",
)
_BET = Citation(
    "smith2002",
    "article",
    "Smith, Stephen M.",
    "Fast robust automated brain extraction",
    "Human Brain Mapping 17(3), 143-155",
    2002,
    "Skull removal (BET)",
)
_DEEPBET = Citation(
    "fisch2024",
    "article",
    "Fisch, Lukas and Zumdick, Stefan and Barkhau, Carlotta and others",
    "deepbet: Fast brain extraction of T1-weighted MRI using Convolutional Neural Networks",
    "Computers in Biology and Medicine 179, 108845",
    2024,
    "Skull removal (deepbet)",
)
_N4 = Citation(
    "tustison2010",
    "article",
    "Tustison, Nicholas J. and Avants, Brian B. and Cook, Philip A. and others",
    "N4ITK: Improved N3 Bias Correction",
    "IEEE Transactions on Medical Imaging 29(6), 1310-1320",
    2010,
    "Bias field (N4)",
)
_ANTS = Citation(
    "avants2008",
    "article",
    "Avants, Brian B. and Epstein, Charles L. and Grossman, Murray and Gee, James C.",
    "Symmetric diffeomorphic image registration with cross-correlation: Evaluating automated "
    "labeling of elderly and neurodegenerative brain",
    "Medical Image Analysis 12(1), 26-41",
    2008,
    "Registration (ANTs)",
)
_ICBM = Citation(
    "fonov2011",
    "article",
    "Fonov, Vladimir and Evans, Alan C. and Botteron, Kelly and Almli, C. Robert and McKinstry, "
    "Robert C. and Collins, D. Louis",
    "Unbiased average age-appropriate atlases for pediatric studies",
    "NeuroImage 54(1), 313-327",
    2011,
    "Template (ICBM152 2009c)",
)
_AAL = Citation(
    "tzourio2002",
    "article",
    "Tzourio-Mazoyer, Nathalie and Landeau, Brigitte and Papathanassiou, Dimitri and others",
    "Automated Anatomical Labeling of Activations in SPM Using a Macroscopic Anatomical "
    "Parcellation of the MNI MRI Single-Subject Brain",
    "NeuroImage 15(1), 273-289",
    2002,
    "Areas (AAL)",
)
_DESIKAN = Citation(
    "desikan2006",
    "article",
    "Desikan, Rahul S. and Ségonne, Florent and Fischl, Bruce and others",
    "An automated labeling system for subdividing the human cerebral cortex on MRI scans into "
    "gyral based regions of interest",
    "NeuroImage 31(3), 968-980",
    2006,
    "Regions (Desikan-Killiany)",
)
_TEMPLATEFLOW = Citation(
    "ciric2022",
    "article",
    "Ciric, Rastko and Thompson, William H. and Lorenz, Romy and others",
    "TemplateFlow: FAIR-sharing of multi-scale, multi-species brain models",
    "Nature Methods 19, 1568-1571",
    2022,
    "Where the template is from (TemplateFlow)",
)
_PYTORCH = Citation(
    "paszke2019",
    "inproceedings",
    "Paszke, Adam and Gross, Sam and Massa, Francisco and others",
    "PyTorch: An Imperative Style, High-Performance Deep Learning Library",
    "NeurIPS 32",
    2019,
    "Networks (PyTorch)",
)
_PETSIUK = Citation(
    "petsiuk2018",
    "inproceedings",
    "Petsiuk, Vitali and Das, Abir and Saenko, Kate",
    "RISE: Randomized Input Sampling for Explanation of Black-box Models",
    "BMVC",
    2018,
    "Deletion and insertion",
)
_ADEBAYO = Citation(
    "adebayo2018",
    "inproceedings",
    "Adebayo, Julius and Gilmer, Justin and Muelly, Michael and Goodfellow, Ian and Hardt, Moritz "
    "and Kim, Been",
    "Sanity Checks for Saliency Maps",
    "NeurIPS 31",
    2018,
    "Randomised layers",
)
# Of networks and methods, which name their sources by key.
_OF_NETWORKS_AND_METHODS = (
    Citation(
        "korolev2017",
        "inproceedings",
        "Korolev, Sergey and Safiullin, Amir and Belyaev, Mikhail and Dodonova, Yulia",
        "Residual and plain convolutional neural networks for 3D brain MRI classification",
        "ISBI, 835-838",
        2017,
        "VoxCNN and VoxResNet",
    ),
    Citation(
        "yang2018",
        "inproceedings",
        "Yang, Chengliang and Rangarajan, Anand and Ranka, Sanjay",
        "Visual Explanations From Deep 3D Convolutional Neural Networks for Alzheimer's Disease "
        "Classification",
        "AMIA Annual Symposium, 1571-1580",
        2018,
        "Segments, 3D (Grad-)CAM and localisation",
    ),
    Citation(
        "simonyan2014",
        "inproceedings",
        "Simonyan, Karen and Vedaldi, Andrea and Zisserman, Andrew",
        "Deep Inside Convolutional Networks: Visualising Image Classification Models and "
        "Saliency Maps",
        "ICLR Workshop",
        2014,
        "Sensitivity",
    ),
    Citation(
        "springenberg2015",
        "inproceedings",
        "Springenberg, Jost Tobias and Dosovitskiy, Alexey and Brox, Thomas and Riedmiller, Martin",
        "Striving for Simplicity: The All Convolutional Net",
        "ICLR Workshop",
        2015,
        "Guided backpropagation",
    ),
    Citation(
        "zeiler2014",
        "inproceedings",
        "Zeiler, Matthew D. and Fergus, Rob",
        "Visualizing and Understanding Convolutional Networks",
        "ECCV, LNCS 8689, 818-833",
        2014,
        "Occlusion",
    ),
    Citation(
        "zhou2016",
        "inproceedings",
        "Zhou, Bolei and Khosla, Aditya and Lapedriza, Agata and Oliva, Aude and Torralba, Antonio",
        "Learning Deep Features for Discriminative Localization",
        "CVPR, 2921-2929",
        2016,
        "CAM",
    ),
    Citation(
        "selvaraju2017",
        "inproceedings",
        "Selvaraju, Ramprasaath R. and Cogswell, Michael and Das, Abhishek and Vedantam, "
        "Ramakrishna "
        "and Parikh, Devi and Batra, Dhruv",
        "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
        "ICCV, 618-626",
        2017,
        "Grad-CAM",
    ),
    Citation(
        "chattopadhay2018",
        "inproceedings",
        "Chattopadhay, Aditya and Sarkar, Anirban and Howlader, Prantik and "
        "Balasubramanian, Vineeth N",
        "Grad-CAM++: Generalized Gradient-Based Visual Explanations for Deep "
        "Convolutional Networks",
        "WACV, 839-847",
        2018,
        "Grad-CAM++",
    ),
    Citation(
        "bach2015",
        "article",
        "Bach, Sebastian and Binder, Alexander and Montavon, Grégoire and Klauschen, Frederick and "
        "Müller, Klaus-Robert and Samek, Wojciech",
        "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance "
        "Propagation",
        "PLOS ONE 10(7), e0130140",
        2015,
        "LRP",
    ),
    Citation(
        "smilkov2017",
        "misc",
        "Smilkov, Daniel and Thorat, Nikhil and Kim, Been and Viégas, Fernanda and "
        "Wattenberg, Martin",
        "SmoothGrad: removing noise by adding noise",
        "arXiv:1706.03825",
        2017,
        "SmoothGrad",
    ),
    Citation(
        "sundararajan2017",
        "inproceedings",
        "Sundararajan, Mukund and Taly, Ankur and Yan, Qiqi",
        "Axiomatic Attribution for Deep Networks",
        "ICML, PMLR 70, 3319-3328",
        2017,
        "Integrated gradients",
    ),
)
_BY_KEY = {paper.key: paper for paper in (_RIEKE, _WEN, _ADEBAYO, *_OF_NETWORKS_AND_METHODS)}


@dataclass(frozen=True)
class Used:
    """What a run made, beside what its configuration says.

    Attributes
    ----------
    models
        Names of the networks that were trained.
    methods
        By which heatmaps were made.
    followed, randomised
        Whether areas were deleted and inserted; whether layers were made random.
    """

    models: frozenset[str] = frozenset()
    methods: tuple[str, ...] = ()
    followed: bool = False
    randomised: bool = False


def citations_of(config: Mapping[str, Any], used: Used) -> list[Citation]:
    """What a run of a completed configuration rests on, each once.

    The tools that ``skull.tool: auto`` may choose are both named.
    """
    cohorts = config["cohorts"].values()
    heads = any(cohort["images_are"] == "heads" for cohort in cohorts)
    cited: list[Citation] = [_RIEKE, _WEN]
    cited += [_DCM2NIIX] * any(cohort["source"] != "bids" for cohort in cohorts)
    tool, ladder = config["skull"]["tool"], config["skull"]["ladder"]
    if heads:
        cited += [_BET] * (tool != "deepbet")
        cited += [_DEEPBET] * (tool != "bet" or "deepbet" in ladder)
    corrected = config["bias_correction"] != "never" or (heads and "bias" in ladder)
    cited += [_N4] * corrected
    # The ladder's gate registers heads, whatever becomes of brains.
    cited += [_ANTS] * (heads or any(cohort["images_are"] != "registered" for cohort in cohorts))
    cited += [_ICBM] + [_TEMPLATEFLOW] * (config["template"] == "templateflow")
    cited += [_PYTORCH] * bool(used.models)
    cited += [_BY_KEY[key] for name in sorted(used.models) for key in MODELS[name].sources]
    cited += [_AAL, _DESIKAN] * bool(used.methods)
    cited += [_BY_KEY[key] for name in used.methods for key in METHODS[name].sources]
    cited += [_PETSIUK] * used.followed + [_ADEBAYO] * used.randomised
    return list(dict.fromkeys([_VOXPLAIN, *cited, _SNAKEMAKE]))


def to_bibtex(cited: Sequence[Citation]) -> str:
    """The papers as BibTeX entries."""
    where = {"article": "journal", "inproceedings": "booktitle", "misc": "howpublished"}
    entries = []
    for citation in cited:
        venue = _PLACE.fullmatch(citation.venue) if citation.kind != "misc" else None
        places = venue.groupdict() if venue else {"name": citation.venue}
        fields = {
            # Braces keep a name of several people from being read as one person's.
            "author": citation.authors if "," in citation.authors else f"{{{citation.authors}}}",
            "title": f"{{{citation.title}}}",
            where[citation.kind]: places.pop("name"),
            **{key: value.replace("-", "--") for key, value in places.items() if value},
            "year": str(citation.year),
        }
        lines = [f"  {key} = {{{value}}}" for key, value in fields.items()]
        entries.append(f"@{citation.kind}{{{citation.key},\n" + ",\n".join(lines) + "\n}\n")
    return "\n".join(entries)
