"""An HTML page to view heatmaps slice by slice; it opens from disk, without a network.

The slices are drawn by NiiVue (BSD 2-Clause), whose script is in a folder beside the page, together
with the volumes. A page from disk may not read files, but it may run scripts: each volume is a
script, which is loaded when the volume is first shown.
"""

from __future__ import annotations

import base64
import gzip
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import nibabel as nib
import numpy as np

from voxplain.faults import SetupFault
from voxplain.volumes import Grid, read_array, resample, smooth_for

# Each path is one string, so that code fingerprints include the file
# (voxplain_workflow.planning.fingerprint).
_HERE = Path(__file__).parent
_TEMPLATE = _HERE / "assets/viewer.html"
_NIIVUE, _LICENCE = _HERE / "assets/niivue.umd.js", _HERE / "assets/LICENSE.niivue"
_MEANING = (
    "Bright: the network's output for its target (by default the disease, the first class) depends "
    "on this voxel, in scans of every class; no sign. Values as the method gives them."
)
_FINEST_MM = 2.0  # at 1 mm volumes would be eight times as large, and heatmaps are coarser


@dataclass(frozen=True)
class ViewedMap:
    """A heatmap of the viewer.

    Attributes
    ----------
    run, subject, method
        The choices of the viewer: the network; the average of a class, or a scan; the method.
    path
        Path of the heatmap.
    under
        Path of the brain below the heatmap.
    """

    run: str
    subject: str
    method: str
    path: str
    under: str


def write_viewer(
    page: str | Path,
    title: str,
    maps: Sequence[ViewedMap],
    atlas: str | Path,
    names: Mapping[int, str],
    brain: str | Path,
    links: Mapping[str, str] | None = None,
    radiological: bool = False,
) -> None:
    """Write the page, and beside it a folder with the files that it shows.

    Parameters
    ----------
    page
        Path of the page; its folder has the page's name, with ``_files``.
    maps
        Heatmaps in the order of the viewer's menus. Each has a colour scale from 0 to its maximum;
        those of the same run and method can be shown on a common scale, up to their largest
        maximum.
    atlas, names
        Label volume on the grid of the brains; label value to area name.
    brain
        Brain mask; outside of it a heatmap is not shown.
    links
        Names of other pages to their paths.
    radiological
        Whether the page starts in radiological convention, the subject's left on the right.

    Raises
    ------
    SetupFault
        A heatmap has voxels that are not finite, so that it has no highest one.
    """
    page = Path(page)
    folder = page.with_name(f"{page.stem}_files")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_NIIVUE, folder / "niivue.js")
    shutil.copyfile(_LICENCE, folder / _LICENCE.name)
    inside = read_array(brain, np.uint8)[0] > 0
    labels, grid = read_array(atlas, np.uint8)
    _write_volume(folder, "atlas", labels, grid, order=0)
    unders: dict[str, str] = {}
    for map_ in maps:
        if map_.under not in unders:
            unders[map_.under] = f"brain-{len(unders) + 1}"
            _write_volume(folder, unders[map_.under], *read_array(map_.under))
    entries: list[dict[str, Any]] = []
    tops: dict[tuple[str, str], float] = {}
    for number, map_ in enumerate(maps, start=1):
        values, grid = read_array(map_.path)
        values = np.where(inside, values, 0)
        if not np.isfinite(values).all():
            raise SetupFault(
                f"heatmap {map_.path} has voxels that are not finite numbers; delete it and run "
                "again"
            )
        top = _write_volume(folder, f"map-{number}", values, grid)
        highest = np.unravel_index(int(values.argmax()), values.shape)
        peak = grid.matrix[:3, :3] @ highest + grid.matrix[:3, 3]
        key = (map_.run, map_.method)
        tops[key] = max(tops.get(key, 0.0), top)
        keys = {"run": map_.run, "subject": map_.subject, "method": map_.method}
        files = {"file": f"map-{number}", "under": unders[map_.under]}
        position = [round(float(mm), 2) for mm in peak]
        entries.append({**keys, **files, "peak": position, "own_top": top or 1.0})
    for row in entries:
        row["top"] = tops[row["run"], row["method"]] or 1.0
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    text = template.render(
        title=title,
        meaning=_MEANING,
        links=list((links or {}).items()),
        radiological=radiological,
        files=folder.name,
        files_json=_as_script(folder.name),
        maps=_as_script(entries),
        areas=_as_script({str(number): name for number, name in names.items()}),
    )
    page.write_text(text, encoding="utf-8")


def _as_script(value: object) -> str:
    """A value as JSON for a script of a page, escaped so that no text can end the script."""
    return jinja2.utils.htmlsafe_json_dumps(value)


def _write_volume(folder: Path, name: str, array: np.ndarray, grid: Grid, order: int = 1) -> float:
    """Write a volume as a script and return its largest value.

    Values are stored in 256 steps from the smallest to the largest, which the eye cannot
    distinguish.
    """
    if max(grid.voxel_size) < _FINEST_MM:
        coarse = grid.coarsened(_FINEST_MM)
        array = array if order == 0 else smooth_for(array, grid, coarse)
        array, grid = resample(array, grid, coarse, order=order), coarse
    image = nib.Nifti1Image(array, grid.matrix)
    image.set_data_dtype(np.uint8)
    image.header.set_xyzt_units("mm")
    image.set_sform(grid.matrix, code="mni")
    image.set_qform(grid.matrix, code="mni")
    content = base64.b64encode(gzip.compress(image.to_bytes(), mtime=0)).decode("ascii")
    text = f"voxplain({json.dumps(name)}, {json.dumps(content)});\n"
    (folder / f"{name}.js").write_text(text, encoding="utf-8")
    return float(array.max(initial=0))
