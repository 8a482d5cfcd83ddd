import json
import shutil
import sys
from importlib.metadata import version

import nibabel as nib
import numpy as np
import pytest

from voxplain.anatomy.quality import dice
from voxplain.anatomy.skull import SkullTool, describe, find_brain, find_tool
from voxplain.faults import DataFault, SetupFault
from voxplain.volumes import axis_aligned_grid, read_image, write_array

BET = SkullTool("bet", "6.0.7")
DEEPBET = SkullTool("deepbet", "1.0")
BET_OPTIONS = {"fractional_intensity": 0.4, "robust_centre": False}
DEEPBET_OPTIONS = {"threshold": 0.5, "dilate": 0}

# Writes its arguments beside itself, and a mask of voxels brighter than 50.
FAKE_BET = """\
#!{python}
import json, os, sys
from pathlib import Path
told = dict(arguments=sys.argv[1:], output_type=os.environ.get("FSLOUTPUTTYPE"))
Path(__file__).with_name("called.json").write_text(json.dumps(told))
if {writes}:
    import nibabel, numpy
    head = nibabel.load(sys.argv[1])
    mask = (numpy.asarray(head.dataobj) > 50).astype(numpy.uint8)
    nibabel.save(nibabel.Nifti1Image(mask, head.affine), sys.argv[2] + "_mask.nii.gz")
"""


@pytest.fixture
def no_fsl(monkeypatch):
    for name in ("FSLDIR", "FSLDEVDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FSLOUTPUTTYPE", "ANALYZE")  # restored at the end


@pytest.fixture
def fsl(tmp_path, monkeypatch, no_fsl):
    """An installation of FSL whose bet takes all bright voxels for brain."""
    root = tmp_path / "fsl"
    (root / "bin").mkdir(parents=True)
    (root / "etc").mkdir()
    (root / "etc" / "fslversion").write_text("6.0.7.4\n")
    install(root)
    monkeypatch.setenv("FSLDIR", str(root))
    return root


def install(root, writes=True):
    bet = root / "bin" / "bet"
    bet.write_text(FAKE_BET.format(python=sys.executable, writes=writes))
    bet.chmod(0o755)


def called(root):
    return json.loads((root / "bin" / "called.json").read_text())


@pytest.fixture
def blob(tmp_path):
    """A head with a bright block for a brain."""
    grid = axis_aligned_grid((12, 14, 10), (2.0, 2.0, 2.0), (-12, -14, -10))
    head = np.full(grid.shape, 10.0, np.float32)
    head[3:8, 4:10, 2:7] = 100
    path = tmp_path / "blob.nii.gz"
    write_array(path, head, grid)
    return path, head > 50


# --- which tool -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["auto", "bet"])
def test_bet_is_used_with_its_version_if_fsl_is_installed(fsl, tool):
    assert find_tool(tool) == SkullTool("bet", "6.0.7.4")


def test_bet_of_an_installation_without_version_file_has_an_unknown_version(fsl):
    shutil.rmtree(fsl / "etc")
    assert find_tool("bet") == SkullTool("bet", "unknown")


@pytest.mark.parametrize("tool", ["auto", "deepbet"])
def test_deepbet_is_used_with_its_version_if_fsl_is_not_installed(no_fsl, tool):
    assert find_tool(tool) == SkullTool("deepbet", version("deepbet"))


def test_deepbet_is_used_if_set_although_fsl_is_installed(fsl):
    assert find_tool("deepbet").name == "deepbet"


def test_an_fsl_folder_without_bet_is_not_an_installation(fsl):
    (fsl / "bin" / "bet").unlink()
    assert find_tool("auto").name == "deepbet"
    with pytest.raises(SetupFault, match="FSL's bet is not installed"):
        find_tool("bet")


def test_bet_without_fsl_is_refused_with_how_to_get_it(no_fsl):
    with pytest.raises(SetupFault) as fault:
        find_tool("bet")
    message = str(fault.value)
    assert "\n" not in message
    for part in ("tool is bet", "fsl.fmrib.ox.ac.uk", "FSLDIR", "--sdm conda", "deepbet"):
        assert part in message
    assert "non-commercial" in message


def test_without_any_tool_both_remedies_are_named(no_fsl, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    with pytest.raises(SetupFault) as fault:
        find_tool("auto")
    assert "pip install deepbet" in str(fault.value)
    assert "FSLDIR" in str(fault.value)


# --- BET, through fslpy ---------------------------------------------------------------------------


def test_the_mask_that_bet_writes_is_used(fsl, blob):
    path, bright = blob
    mask = find_brain(read_image(path), BET, BET_OPTIONS)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, bright)


def test_a_head_in_another_orientation_is_given_to_bet_and_masked_in_ras(fsl, blob, tmp_path):
    path, bright = blob
    flipped = nib.load(path).as_reoriented([[1, -1], [0, -1], [2, 1]])
    assert nib.aff2axcodes(flipped.affine) != ("R", "A", "S")
    nib.save(flipped, tmp_path / "flipped.nii.gz")
    np.testing.assert_array_equal(
        find_brain(read_image(tmp_path / "flipped.nii.gz"), BET, BET_OPTIONS), bright
    )


@pytest.mark.parametrize("robust", [False, True])
def test_bet_gets_its_options_and_writes_the_mask_only(fsl, blob, robust):
    find_brain(read_image(blob[0]), BET, {"fractional_intensity": 0.35, "robust_centre": robust})
    _, _, *options = called(fsl)["arguments"]
    assert {"-m", "-n"} <= set(options)
    assert options[options.index("-f") + 1] == "0.35"
    assert ("-R" in options) == robust
    assert len(options) == 4 + robust
    assert called(fsl)["output_type"] == "NIFTI_GZ"


def test_bet_without_an_output_file_is_not_a_fault_of_the_data(fsl, blob):
    """FSL's script exits with 0 even if bet2 was killed or the disk was full."""
    install(fsl, writes=False)
    with pytest.raises(ChildProcessError, match="without writing a mask"):
        find_brain(read_image(blob[0]), BET, BET_OPTIONS)


def say(root, text, status):
    bet = root / "bin" / "bet"
    bet.write_text(f"#!/bin/sh\necho {text!r} >&2\nexit {status}\n")
    bet.chmod(0o755)


@pytest.mark.parametrize("status", [0, 139])
def test_bet_that_crashes_on_a_scan_is_a_fault_of_its_data(fsl, blob, status):
    say(fsl, "bet: line 399: 7 Segmentation fault (core dumped) bet2", status)
    with pytest.raises(DataFault, match=r"bet crashed \(Segmentation fault"):
        find_brain(read_image(blob[0]), BET, BET_OPTIONS)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("bet: line 399: 7 Killed bet2", 137),
        ("terminate called: std::bad_alloc, 7 Aborted bet2", 134),
        ("bet: not found", 127),
    ],
)
def test_bet_that_lacks_something_is_no_fault_of_a_scan(fsl, blob, text, status):
    say(fsl, text, status)
    with pytest.raises(ChildProcessError, match=f"without writing a mask.*code: {status}"):
        find_brain(read_image(blob[0]), BET, BET_OPTIONS)


def test_an_empty_mask_of_bet_is_a_fault_of_the_data_naming_the_scan(fsl, tmp_path):
    grid = axis_aligned_grid((12, 14, 10), (2.0, 2.0, 2.0), (-12, -14, -10))
    path = tmp_path / "dark.nii.gz"
    write_array(path, np.full(grid.shape, 10.0), grid)
    with pytest.raises(DataFault) as fault:
        find_brain(read_image(path), BET, BET_OPTIONS)
    assert "bet found no brain" in fault.value.reason


def test_the_empty_file_of_a_failed_scan_is_not_given_to_any_tool(fsl, tmp_path):
    path = tmp_path / "lost.nii.gz"
    path.touch()
    with pytest.raises(DataFault, match="failed in an earlier stage"):
        find_brain(read_image(path), BET, BET_OPTIONS)
    assert not (fsl / "bin" / "called.json").exists()


# --- deepbet --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deepbet_mask(scan):
    return find_brain(read_image(scan.head_path), DEEPBET, DEEPBET_OPTIONS)


@pytest.mark.slow
def test_deepbet_finds_the_brain_of_a_scan(scan, deepbet_mask):
    assert deepbet_mask.shape == scan.grid.shape
    assert deepbet_mask.dtype == bool
    assert dice(deepbet_mask, scan.mask) > 0.95


@pytest.mark.slow
def test_deepbet_excludes_the_skull_and_includes_the_middle_of_the_brain(scan, deepbet_mask):
    bright_outside = (scan.volume > 300) & ~scan.mask
    assert (deepbet_mask & bright_outside).sum() / bright_outside.sum() < 0.05
    middle = np.argwhere(scan.mask).mean(axis=0).round().astype(int)
    assert deepbet_mask[tuple(middle)]


def test_deepbet_finds_no_brain_in_a_constant_volume(tmp_path):
    grid = axis_aligned_grid((40, 48, 40), (4.0, 4.0, 4.0), (-80, -96, -80))
    path = tmp_path / "constant.nii.gz"
    write_array(path, np.full(grid.shape, 7.0), grid)
    with pytest.raises(DataFault) as fault:
        find_brain(read_image(path), DEEPBET, DEEPBET_OPTIONS)
    assert "deepbet found no brain" in fault.value.reason
    assert "bet" in fault.value.remedy


def test_the_sidecar_has_tool_version_options_and_volume():
    grid = axis_aligned_grid((10, 10, 10), (2.0, 2.0, 2.5), (0, 0, 0))
    mask = np.zeros(grid.shape, bool)
    mask[:4] = True
    metadata = describe(BET, {"robust_centre": True, "fractional_intensity": 0.4}, mask, grid)
    assert metadata == {
        "SkullStrippingTool": "bet",
        "SkullStrippingToolVersion": "6.0.7",
        "SkullStrippingOptions": {"fractional_intensity": 0.4, "robust_centre": True},
        "BrainVolumeMl": 4.0,
    }
    assert list(metadata["SkullStrippingOptions"]) == sorted(metadata["SkullStrippingOptions"])
    json.dumps(metadata)
