import importlib.util
import json
import sys
from importlib.metadata import version

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from voxplain.anatomy import ladder
from voxplain.anatomy.ladder import RUNGS, climb, measure_rung, prepare_rungs, read_gates_template
from voxplain.anatomy.quality import Quality, dice, find_missed
from voxplain.anatomy.skull import GIVEN, SkullTool
from voxplain.faults import DataFault
from voxplain.volumes import axis_aligned_grid, read_array, read_image, write_array

BET, DEEPBET = SkullTool("bet", "6.0.7"), SkullTool("deepbet", "1.0.2")
GATE = {
    "min_brain_volume_ml": 700,
    "max_brain_volume_ml": 2300,
    "min_largest_part": 0.98,
    "max_border_share": 0.05,
    "min_overlap": 0.9,
    "min_similarity": 0.4,
}
SETTINGS = {
    "bet": {"fractional_intensity": 0.5, "robust_centre": False},
    "deepbet": {"threshold": 0.5, "dilate": 0},
    "ladder": list(RUNGS),
    "neck_mm": 170,
    "gate": GATE,
}

# Right only where it gets what the file beside it asks for; else it takes the whole head for brain.
FAKE_BET = """\
#!{python}
import json, sys
from pathlib import Path
import nibabel, numpy
from nibabel.processing import resample_from_to
told = json.loads(Path(__file__).with_name("told.json").read_text())
head = nibabel.load(sys.argv[1])
values = numpy.asarray(head.dataobj)
right = dict(
    plain=True,
    neck=head.shape[2] < told["slices"],
    bias=head.shape[2] < told["slices"] and values.std() != told["sd"],
    robust="-R" in sys.argv,
    never=False,
    nothing=False,
)[told["needs"]]
truth = resample_from_to(nibabel.load(told["truth"]), head, order=0)
mask = numpy.asarray(truth.dataobj) > 0 if right else values > 50
if told["needs"] == "nothing":
    mask[:] = False
elif not right and "-R" in sys.argv:
    mask &= numpy.asarray(truth.dataobj) == 0
mask = nibabel.Nifti1Image(mask.astype(numpy.uint8), head.affine)
nibabel.save(mask, sys.argv[2] + "_mask.nii.gz")
"""


@pytest.fixture
def bet(scan, tmp_path, monkeypatch):
    """Makes FSL's bet one that finds the brain of ``scan`` where it gets what it needs."""
    root = tmp_path / "fsl"
    (root / "bin").mkdir(parents=True)
    monkeypatch.setenv("FSLDIR", str(root))
    monkeypatch.setenv("FSLOUTPUTTYPE", "NIFTI_GZ")
    tool = root / "bin" / "bet"
    tool.write_text(FAKE_BET.format(python=sys.executable))
    tool.chmod(0o755)
    image, settings = read_image(scan.head_path), {**SETTINGS, "ladder": ["neck"]}
    (_, cut) = prepare_rungs(image, BET, settings)

    def needs(what):
        told = {
            "needs": what,
            "slices": scan.grid.shape[2],
            "sd": float(np.asarray(cut.image.dataobj).std()),
            "truth": str(scan.mask_path),
        }
        (root / "bin" / "told.json").write_text(json.dumps(told))

    return needs


@pytest.fixture
def quick_gate(scan, monkeypatch):
    """A gate that knows the true mask and registers nothing."""

    def measure(image, mask, template):
        start = scan.mask.shape[2] - mask.shape[2]
        return Quality(
            brain_volume_ml=float(mask.sum() * scan.grid.voxel_volume_ml),
            largest_part=1.0,
            border_share=0.0,
            overlap=dice(mask, scan.mask[:, :, start:]),
            similarity=0.8,
        )

    monkeypatch.setattr(ladder, "measure_rung", measure)


# --- climbing -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rung", "tried"),
    [
        ("plain", ["plain"]),
        ("neck", ["plain", "neck"]),
        ("bias", ["plain", "neck", "bias"]),
        ("robust", ["plain", "neck", "bias", "robust"]),
    ],
)
def test_the_ladder_is_climbed_to_the_first_rung_that_passes(scan, bet, quick_gate, rung, tried):
    bet(rung)
    found = climb(scan.head_path, BET, SETTINGS)
    assert found.rung == rung
    assert [trial.rung for trial in found.trials] == tried
    assert [bool(trial.missed) for trial in found.trials] == [True] * (len(tried) - 1) + [False]
    # A mask of a head that was cut lies where it belongs in the whole one.
    assert found.mask.shape == scan.mask.shape
    assert dice(found.mask, scan.mask) > 0.995
    told = found.as_dict()
    json.dumps(told)
    assert told["SkullStrippingRung"] == rung
    assert told["SkullStrippingMaskTool"] == "bet"
    assert told["SkullStrippingMaskOptions"]["robust_centre"] == (rung == "robust")
    assert [trial["rung"] for trial in told["SkullStrippingTrials"]] == tried
    assert told["SkullStrippingTrials"][-1]["passed"]
    assert told["SkullStrippingTrials"][-1]["overlap"] > 0.9


@pytest.mark.slow
def test_the_gate_sends_a_head_with_its_skull_on_up_the_ladder(scan, bet):
    bet("neck")
    found = climb(scan.head_path, BET, SETTINGS)
    assert [trial.rung for trial in found.trials] == ["plain", "neck"]
    assert dice(found.mask, scan.mask) > 0.995


@pytest.mark.slow
def test_the_other_tool_is_the_last_rung_and_sees_the_head_as_it_came(scan, bet, quick_gate):
    bet("never")
    found = climb(scan.head_path, BET, {**SETTINGS, "ladder": ["neck", "robust", "deepbet"]})
    assert found.rung == "deepbet"
    assert len(found.trials) == 4
    told = found.as_dict()
    assert told["SkullStrippingMaskTool"] == "deepbet"
    assert told["SkullStrippingMaskToolVersion"] == version("deepbet")
    assert told["SkullStrippingMaskOptions"] == SETTINGS["deepbet"]
    assert dice(found.mask, scan.mask) > 0.95


@pytest.mark.slow
def test_where_no_rung_passes_the_best_of_them_is_left_to_quality_control(scan, bet, quick_gate):
    """The whole head is too large as well; with -R it takes all but the brain."""
    bet("never")
    settings = {**SETTINGS, "ladder": ["neck", "robust"]}
    found = climb(scan.head_path, BET, settings)
    assert len(found.trials) == 3
    assert [len(trial.missed) for trial in found.trials] == [2, 2, 1]
    assert found.rung == "robust"


@pytest.mark.slow
def test_a_head_in_which_no_rung_finds_anything_is_a_fault_of_the_data(scan, bet):
    bet("nothing")
    with pytest.raises(DataFault) as fault:
        climb(scan.head_path, BET, {**SETTINGS, "ladder": ["neck", "robust"]})
    assert str(scan.head_path) in fault.value.reason
    assert "bet found no brain" in fault.value.reason


@pytest.mark.slow
def test_an_empty_ladder_takes_the_mask_as_it_is(scan, bet):
    bet("never")
    settings = {key: SETTINGS[key] for key in ("bet",)} | {"ladder": []}
    found = climb(scan.head_path, BET, settings)
    assert (found.rung, found.trials) == ("plain", ())
    np.testing.assert_array_equal(found.mask, scan.volume > 50)


@pytest.mark.slow
def test_a_brain_that_came_without_skull_has_no_ladder(scan):
    found = climb(scan.brain_path, GIVEN, {"given": {}})
    assert (found.rung, found.trials) == ("n/a", ())
    brain, _ = read_array(scan.brain_path)
    assert dice(found.mask, brain > 0) > 0.99


@pytest.mark.slow
def test_where_the_other_tool_is_not_installed_the_ladder_ends_before_it(scan, bet, monkeypatch):
    bet("never")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, package=None: None if name == "deepbet" else found(name, package),
    )
    found = climb(scan.head_path, BET, {**SETTINGS, "ladder": ["deepbet"]})
    assert (found.rung, found.tool) == ("plain", BET)
    assert found.trials[-1].missed == ("deepbet is not installed here",)


# --- rungs ----------------------------------------------------------------------------------------


def rungs(image, tool=BET, **settings):
    return {head.rung: head for head in prepare_rungs(image, tool, {**SETTINGS, **settings})}


def column(height_mm, voxel_mm=2.0):
    """A bright column in air, its top 20 mm below the volume's."""
    slices = round((height_mm + 20) / voxel_mm)
    grid = axis_aligned_grid((40, 40, slices), (voxel_mm,) * 3, (-40, -40, -100))
    head = np.random.default_rng(0).uniform(0, 5, grid.shape).astype(np.float32)
    head[10:30, 10:30, : round(height_mm / voxel_mm)] = np.linspace(80, 120, 20)[:, None, None]
    return nib.Nifti1Image(head, grid.matrix)


def test_the_neck_is_cut_so_far_below_the_top_of_the_head():
    image = column(240)
    cut = rungs(image)["neck"]
    # The last bright slice is number 119; 170 mm below it lies number 34.
    assert cut.cut_off == 34
    np.testing.assert_array_equal(
        np.asarray(cut.image.dataobj), np.asarray(image.dataobj)[:, :, 34:]
    )
    assert cut.image.affine[2, 3] == image.affine[2, 3] + 34 * 2


def test_a_head_without_neck_has_no_such_rung():
    assert "neck" not in rungs(column(160))
    assert "neck" in rungs(column(160), neck_mm=140)


def test_a_bright_speck_above_is_not_the_top_of_the_head():
    image = column(240)
    values = np.asarray(image.dataobj).copy()
    values[3:5, 3:5, -4:] = 500
    assert rungs(nib.Nifti1Image(values, image.affine))["neck"].cut_off == 34


def test_each_rung_keeps_what_the_ones_before_it_did():
    own = rungs(column(240))
    assert list(own) == ["plain", "neck", "bias", "robust", "deepbet"]
    shapes = {rung: head.image.shape[2] for rung, head in own.items()}
    assert shapes == {"plain": 130, "neck": 96, "bias": 96, "robust": 96, "deepbet": 130}
    assert own["robust"].image is own["bias"].image
    assert [own[rung].options["robust_centre"] for rung in ("plain", "bias")] == [False, False]
    assert own["robust"].options == {"fractional_intensity": 0.5, "robust_centre": True}
    assert own["deepbet"].image is own["plain"].image
    assert own["deepbet"].tool.name == "deepbet"


@pytest.mark.slow
def test_rungs_that_a_tool_does_not_have_are_left_out():
    assert list(rungs(column(240), DEEPBET)) == ["plain", "neck", "bias"]
    thorough = {"fractional_intensity": 0.5, "robust_centre": True}
    assert list(rungs(column(240), bet=thorough)) == ["plain", "neck", "bias", "deepbet"]
    assert list(rungs(column(240), ladder=["robust"])) == ["plain", "robust"]


@pytest.mark.slow
def test_the_rung_against_bias_evens_out_the_field(scan):
    flat = np.asarray(rungs(read_image(scan.head_path))["bias"].image.dataobj)
    start = scan.grid.shape[2] - flat.shape[2]
    brain = ndimage.binary_erosion(scan.mask, iterations=2)[:, :, start:]
    clean, biased = (volume[:, :, start:][brain] for volume in (scan.clean, scan.volume))
    tissue = clean > np.percentile(clean, 20)
    before, after = (np.log(found[tissue] / clean[tissue]).std() for found in (biased, flat[brain]))
    assert after < 0.6 * before


# --- the gate -------------------------------------------------------------------------------------


def missed(scan, mask):
    image = read_image(scan.head_path)
    return [text for text, _ in find_missed(measure_rung(image, mask, read_gates_template()), GATE)]


@pytest.mark.slow
def test_the_true_mask_passes_the_gate(scan):
    assert missed(scan, scan.mask) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda m: m & (np.arange(m.shape[0]) > m.shape[0] // 2)[:, None, None], "overlap"),
        (lambda m: ndimage.binary_dilation(m, iterations=4), "overlap"),
        (lambda m: m & (np.arange(m.shape[2]) > m.shape[2] * 0.6), "brain volume"),
        (lambda m: np.ones_like(m), "share of the mask on the image border"),
        (lambda m: m & (np.arange(m.shape[1]) % 40 > 8)[:, None], "connected share"),
    ],
)
def test_a_mask_that_is_no_brain_misses_it(scan, spoil, told):
    assert any(text.startswith(told) for text in missed(scan, spoil(scan.mask)))


@pytest.mark.slow
def test_the_gate_is_the_same_for_every_resolution_and_template_of_a_run():
    brain, mask, grid = read_gates_template()
    assert grid.shape == (49, 58, 49)
    assert mask.sum() * grid.voxel_volume_ml == pytest.approx(1850, rel=0.1)
    assert brain[~mask].max() == 0


@pytest.mark.slow
def test_a_constant_volume_does_not_break_the_gate(tmp_path):
    grid = axis_aligned_grid((60, 60, 60), (3.0,) * 3, (-90, -90, -90))
    path = tmp_path / "constant.nii.gz"
    values = np.zeros(grid.shape, np.float32)
    values[20:40, 20:40, 20:40] = 7
    write_array(path, values, grid)
    assert missed_of(path, values > 0)
    # Nor does a brain that is dark throughout, which ANTs fails on.
    assert any(text.startswith("overlap") for text, _ in missed_of(path, values == 0))


def missed_of(path, mask):
    return find_missed(measure_rung(read_image(path), mask, read_gates_template()), GATE)
