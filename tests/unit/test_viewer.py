"""The viewer contains the given volumes, and a browser shows them."""

import base64
import gzip
import json
import re

import nibabel as nib
import numpy as np
import pytest
from matplotlib.image import imread

from browser import browse, needs_browser
from voxplain.faults import SetupFault
from voxplain.viewer import ViewedMap, _write_volume, write_viewer
from voxplain.volumes import Grid, axis_aligned_grid, read_array, write_array

WAITING = "--virtual-time-budget=30000"  # time to read and draw the volumes
GRID = axis_aligned_grid((30, 36, 30), (4.0, 4.0, 4.0), (-58, -70, -58))
NAMES = {1: "Left_L", 2: "Right_R </script>"}


@pytest.fixture
def viewer(tmp_path):
    """A page with two classes and two methods, and a scan on its own brain."""
    x, y, z = np.indices(GRID.shape)
    inside = (x - 14.5) ** 2 + (y - 17.5) ** 2 + (z - 14.5) ** 2 < 13**2
    brain = np.where(inside, 50 + 20 * np.sin(x / 3), 0)
    labels = np.where(inside, np.where(x < 15, 1, 2), 0)
    heat = np.where((x < 12) & (y > 15), 1e-4 * (1 + z), 0)
    volumes = {
        "brain": brain,
        "other": brain[::-1],
        "mask": inside,
        "labels": labels,
        "AD": heat,
        "NC": heat / 2,
        "scan": heat[::-1],
    }
    for name, volume in volumes.items():
        write_array(tmp_path / f"{name}.nii.gz", volume, GRID)
    paths = {name: str(tmp_path / f"{name}.nii.gz") for name in volumes}
    maps = [
        ViewedMap("c <b>, AD-NC", f"average of {group}", method, paths[group], paths["brain"])
        for group in ("AD", "NC")
        for method in ("occlusion", "lrp")
    ]
    maps.append(ViewedMap("c <b>, AD-NC", "I1 (AD)", "lrp", paths["scan"], paths["other"]))
    page = tmp_path / "place" / "viewer.html"
    page.parent.mkdir()
    write_viewer(
        page, "Maps & more", maps, paths["labels"], NAMES, paths["mask"], radiological=True
    )
    return page, volumes


def volume_in(page, name):
    """A volume as the page's scripts hold it, and its grid."""
    text = (page.parent / "viewer_files" / f"{name}.js").read_text()
    call = re.fullmatch(r"voxplain\((.*)\);", text.strip())
    stored_name, content = json.loads(f"[{call.group(1)}]")
    assert stored_name == name
    image = nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(content)))
    assert image.get_data_dtype() == np.uint8
    return image.get_fdata(), Grid.of(image)


def constant(page, name):
    return json.loads(re.search(rf"^const {name} = (.*);$", page.read_text(), re.M).group(1))


def test_the_page_contains_the_given_volumes(viewer):
    page, volumes = viewer
    for row in constant(page, "maps"):
        name = {"average of AD": "AD", "average of NC": "NC", "I1 (AD)": "scan"}[row["subject"]]
        expected = np.where(volumes["mask"], volumes[name], 0)
        volume, grid = volume_in(page, row["file"])
        assert grid.matches(GRID)
        np.testing.assert_allclose(volume, expected, atol=expected.max() / 255)
        under, _ = volume_in(page, row["under"])
        brain = volumes["other" if name == "scan" else "brain"]
        np.testing.assert_allclose(under, brain, atol=brain.max() / 255)
    labels, _ = volume_in(page, "atlas")
    np.testing.assert_array_equal(labels, volumes["labels"])
    assert constant(page, "areas") == {str(number): name for number, name in NAMES.items()}


def test_the_highest_voxel_of_each_map_is_given_in_mm(viewer):
    page, volumes = viewer
    row = constant(page, "maps")[0]
    heat = np.where(volumes["mask"], volumes["AD"], 0)
    place = np.unravel_index(heat.argmax(), heat.shape)
    assert row["peak"] == pytest.approx(GRID.matrix[:3, :3] @ place + GRID.matrix[:3, 3])


def test_each_map_has_its_own_scale_and_one_shared_by_the_classes(viewer):
    page, volumes = viewer
    rows = constant(page, "maps")
    largest = np.where(volumes["mask"], volumes["AD"], 0).max()
    assert [row["top"] for row in rows] == pytest.approx([largest] * 5, rel=1e-6)
    tops = [np.where(volumes["mask"], volumes[name], 0).max() for name in ("AD", "NC", "scan")]
    expected = [tops[0], tops[0], tops[1], tops[1], tops[2]]
    assert [row["own_top"] for row in rows] == pytest.approx(expected, rel=1e-6)


def test_fine_volumes_are_resampled_to_2_mm(tmp_path):
    grid = axis_aligned_grid((40, 40, 40), (1.0, 1.0, 1.0), (-20, -20, -20))
    labels = np.zeros(grid.shape, np.uint8)
    labels[:20] = 7
    values = {"brain": labels + 1.0, "map": labels * 1e-3, "labels": labels, "mask": labels > 0}
    for name, volume in values.items():
        write_array(tmp_path / f"{name}.nii.gz", volume, grid)
    paths = {name: tmp_path / f"{name}.nii.gz" for name in values}
    one = ViewedMap("run", "average of AD", "lrp", str(paths["map"]), str(paths["brain"]))
    page = tmp_path / "viewer.html"
    write_viewer(page, "t", [one], paths["labels"], {7: "Area"}, paths["mask"])
    assert '<input id="radiological" type="checkbox">' in page.read_text()
    resampled, coarse = volume_in(page, "atlas")
    assert coarse.shape == (20, 20, 20)
    assert coarse.voxel_size == (2.0, 2.0, 2.0)
    assert set(np.unique(resampled)) == {0, 7}, "labels are not mixed"


def test_a_heatmap_without_a_highest_voxel_is_refused_by_its_name(viewer, tmp_path):
    _, volumes = viewer
    write_array(tmp_path / "nan.nii.gz", np.where(volumes["mask"], np.nan, 0), GRID)
    one = ViewedMap(
        "run", "I1", "lrp", str(tmp_path / "nan.nii.gz"), str(tmp_path / "brain.nii.gz")
    )
    paths = [tmp_path / f"{name}.nii.gz" for name in ("labels", "mask")]
    with pytest.raises(SetupFault, match=r"nan\.nii\.gz has voxels that are not finite"):
        write_viewer(tmp_path / "viewer.html", "t", [one], paths[0], NAMES, paths[1])


def test_the_files_of_the_page_are_the_same_bytes_at_another_time(viewer, monkeypatch):
    page, _ = viewer
    before = (page.parent / "viewer_files/atlas.js").read_bytes()
    monkeypatch.setattr(gzip.time, "time", lambda: 1.0)
    labels, grid = read_array(page.parent.parent / "labels.nii.gz", np.uint8)
    _write_volume(page.parent / "viewer_files", "atlas", labels, grid, order=0)
    assert (page.parent / "viewer_files/atlas.js").read_bytes() == before


def test_a_name_cannot_end_the_pages_script(viewer):
    page, _ = viewer
    text = page.read_text()
    assert text.count("</script>") == 2, "its two scripts"
    assert "<title>Maps &amp; more</title>" in text


@pytest.mark.slow
@needs_browser
def test_a_browser_shows_the_choice_and_names_the_area(viewer, tmp_path):
    page, volumes = viewer
    # A voxel's centre, on the left, where there is relevance.
    place = np.array([8, 20, 20])
    x, y, z = GRID.matrix[:3, :3] @ place + GRID.matrix[:3, 3]
    query = f"#subject=average+of+NC&method=lrp&at={x:g},{y:g},{z:g}"
    dom = browse(page, "--dump-dom", WAITING, query=query)
    assert '<body data-state="ready" data-order="radiological">' in dom, dom[-3000:]
    shown = dict(re.findall(r'<span id="(\w+)">([^<]*)', dom))
    assert shown["area"] == "Left_L"
    assert shown["where"] == f"x {x:.0f}, y {y:.0f}, z {z:.0f} mm"
    value = float(shown["value"].split()[1])
    assert value == pytest.approx(volumes["NC"][tuple(place)], abs=volumes["NC"].max() / 100)
    picture = tmp_path / "viewer.png"
    query = query.replace("NC", "AD")  # the brighter one
    size = "--window-size=1000,700"
    browse(page, size, WAITING, f"--screenshot={picture}", query=query)
    pixels = imread(picture)[..., :3]
    middle = pixels[120:650]
    grey = (np.ptp(middle, axis=-1) < 0.05) & (middle.mean(axis=-1) > 0.25)
    warm = (middle[..., 0] > middle[..., 2] + 0.2) & (middle[..., 0] > 0.35)
    assert grey.mean() > 0.03, "the brain"
    assert 0.003 < warm.mean() < 0.3, "the heatmap, on a part of the brain"


@pytest.mark.slow
@needs_browser
def test_it_opens_at_the_highest_voxel(viewer):
    page, _ = viewer
    x, y, z = constant(page, "maps")[0]["peak"]
    dom = browse(page, "--dump-dom", WAITING)
    assert f'<span id="where">x {x:.0f}, y {y:.0f}, z {z:.0f} mm' in dom


@pytest.mark.slow
@needs_browser
def test_a_file_that_is_missing_is_named(viewer):
    page, _ = viewer
    (page.parent / "viewer_files/atlas.js").unlink()
    dom = browse(page, "--dump-dom", WAITING)
    assert '<body data-state="failed"' in dom
    assert "viewer_files/atlas.js is missing" in dom
