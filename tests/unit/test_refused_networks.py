"""Networks that are not as the methods take them: explained right, or refused by name."""

import warnings

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import nn
from torch.nn import functional

from small_networks import (
    OF_THE_LOGIT,
    OF_THE_PROBABILITY,
    OPTIONS,
    SHAPE,
    Net,
    close,
    of,
    random_scan,
)
from voxplain.faults import SetupFault
from voxplain.models import MODELS, build_model
from voxplain.relevance import METHODS, behaviour, explain
from voxplain.relevance.behaviour import is_ours, observe
from voxplain.relevance.deletion import delete_and_insert
from voxplain.relevance.inputs import as_input
from voxplain.relevance.slopes import check_slope


@pytest.fixture
def scan():
    return random_scan()


# --- one output -----------------------------------------------------------------------------------


def as_two_classes(model):
    """The same network with a second output of 0, whose softmax is the sigmoid of the first."""
    two = Net()
    two.load_state_dict(
        {
            **model.state_dict(),
            "last.weight": torch.cat([0 * model.last.weight, model.last.weight]),
            "last.bias": torch.cat([0 * model.last.bias, model.last.bias]),
        }
    )
    return two


@pytest.mark.parametrize("target", [0, 1])
@pytest.mark.parametrize("name", OF_THE_PROBABILITY)
def test_one_output_is_the_logit_of_the_second_of_two_classes(name, target, scan):
    model = Net(classes=1)
    expected = of(name, as_two_classes(model), scan, target)
    np.testing.assert_allclose(of(name, model, scan, target), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", OF_THE_LOGIT)
def test_the_first_class_of_one_output_has_the_logit_with_the_other_sign(name, scan):
    model, minus = Net(classes=1), Net(lambda outputs: -outputs, classes=1)
    two = as_two_classes(model)
    np.testing.assert_allclose(of(name, model, scan, 1), of(name, two, scan, 1), rtol=1e-5)
    with torch.no_grad():
        minus.last.weight.mul_(-1), minus.last.bias.mul_(-1)
    minus.change = lambda values: values
    np.testing.assert_allclose(of(name, model, scan, 0), of(name, minus, scan, 1), rtol=1e-5)


@pytest.mark.parametrize("target", [-1, 2])
def test_one_output_has_two_classes(target, scan):
    with pytest.raises(SetupFault, match=f"target is class {target}, .* has 2 classes, 0 to 1"):
        of("sensitivity", Net(classes=1), scan, target)


@pytest.mark.parametrize("name", ["sensitivity", "occlusion"])
def test_a_regression_has_no_probability_and_is_refused_by_methods_of_it(name, scan):
    model = Net(lambda years: 70 + years, classes=1)
    with pytest.raises(SetupFault, match=r"only output is \d+\.\d+: read as a logit"):
        of(name, model, scan, 1)
    assert of("grad_cam_pp", model, scan, 1).max() > 0


# --- heads that are probabilities already ---------------------------------------------------------

HEADS = {
    "softmax": (lambda outputs: outputs.softmax(1), 3),
    "softmax by hand": (lambda outputs: outputs.exp() / outputs.exp().sum(1, keepdim=True), 3),
    "log-softmax": (lambda outputs: outputs.log_softmax(1), 3),
    "sigmoid": (torch.sigmoid, 1),
    "two of one": (lambda z: torch.cat([1 - z[:, :1].sigmoid(), z[:, :1].sigmoid()], 1), 1),
}


@pytest.mark.parametrize("name", OF_THE_PROBABILITY)
@pytest.mark.parametrize("head", HEADS)
def test_what_is_a_probability_already_is_explained_as_that(name, head, scan):
    function, classes = HEADS[head]
    found = of(name, Net(function, classes=classes), scan, 1)
    close(found + 1e-12, of(name, Net(classes=classes), scan, 1) + 1e-12, rtol=1e-3)


def test_deletion_reads_the_same_probabilities_as_the_methods(scan):
    steps = np.arange(scan.size).reshape(SHAPE) // 600
    expected = delete_and_insert(Net(), scan, 1, steps)
    found = delete_and_insert(Net(lambda outputs: outputs.softmax(1)), scan, 1, steps)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    one = Net(classes=1)
    found = delete_and_insert(one, scan, 1, steps)
    np.testing.assert_allclose(found, delete_and_insert(as_two_classes(one), scan, 1, steps))
    assert np.ptp(found[0]) > 1e-3


@pytest.mark.parametrize("name", OF_THE_LOGIT)
@pytest.mark.parametrize("head", HEADS)
def test_methods_of_the_logit_refuse_probabilities(name, head, scan):
    function, classes = HEADS[head]
    with pytest.raises(SetupFault, match=r"explains the logit, and the network gives .*probabil"):
        of(name, Net(function, classes=classes), scan, 1)


@pytest.mark.parametrize(
    ("head", "classes", "reason"),
    [
        (torch.sigmoid, 3, "a sigmoid of each of its 3 outputs"),
        (lambda z: 1 / (1 + torch.exp(-z)), 1, "lie between 0 and 1 whatever the scan"),
        (lambda z: z.softmax(1), 1, "a softmax of one output, which is 1"),
        (functional.logsigmoid, 1, "the logarithm of a sigmoid"),
    ],
)
def test_outputs_that_are_neither_logits_nor_probabilities_are_refused(head, classes, reason, scan):
    with pytest.raises(SetupFault, match=reason):
        of("sensitivity", Net(head, classes=classes), scan)


def test_logits_between_0_and_1_are_logits(scan):
    model = Net(lambda outputs: 0.5 + 0.01 * outputs)
    with torch.no_grad():
        outputs = model(torch.from_numpy(scan)[None, None])
    assert 0 < outputs.min() < outputs.max() < 1
    assert of("grad_cam_pp", model, scan).max() > 0


def cut_by_the_first(scans):
    filled = scans[0].sum((0, 2, 3)).nonzero().flatten()
    return scans[:, :, int(filled.min()) : int(filled.max()) + 1]


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    "change",
    [
        lambda scans: scans - 0.5 * scans.mean(0, keepdim=True),
        lambda scans: (scans - scans.mean()) / scans.std(),
        lambda scans: scans[:1].expand_as(scans),
        lambda scans: scans - scans[-1:].mean(),
        lambda scans: scans / scans.max(),
        lambda scans: cut_by_the_first(scans.abs()),
    ],
)
def test_a_network_that_answers_by_the_other_scans_of_a_batch_is_refused(name, change, scan):
    with pytest.raises(SetupFault, match="depends on the other scans of a batch"):
        of(name, Net(change, at="scan"), scan)


def test_statistics_of_each_scan_alone_are_right(scan):
    def standardised(scans):
        return (scans - scans.mean((1, 2, 3, 4), keepdim=True)) / scans.std(
            (1, 2, 3, 4), keepdim=True
        )

    model, box = Net(standardised, at="scan"), scan.copy()
    box[2:6, 2:6, 2:6] = 0
    with torch.no_grad():
        whole, without = (
            model(torch.from_numpy(each)[None, None]).softmax(1)[0, 1] for each in (scan, box)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = explain("voxel_occlusion", model, scan, 1, size=4, stride=4)
    assert found[4, 4, 4] == pytest.approx(abs(float(whole - without)), rel=1e-3)


def test_a_network_for_one_scan_at_a_time_is_given_one_at_a_time(scan):
    model = Net(lambda maps: maps.view(1, 6, 4, 4, 3), at="late")
    with pytest.warns(RuntimeWarning, match="it takes one scan at a time"):
        found = of("occlusion", model, scan)
    np.testing.assert_allclose(found, of("occlusion", Net(), scan), atol=1e-6)


def test_the_parts_are_compared_for_several_regions_the_first_time(scan):
    model, sizes = Net(), []
    model.last.register_forward_hook(lambda module, given, output: sizes.append(len(output)))
    sums = []
    for _ in range(2):
        sizes.clear()
        of("occlusion", model, scan)
        sums.append(sum(sizes))
    assert sums[0] > sums[1] + 3


# --- randomness -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_network_that_is_random_in_eval_mode_is_refused(name, scan):
    state = torch.get_rng_state()
    with pytest.raises(SetupFault, match="draws random numbers in eval mode"):
        of(name, Net(lambda maps: functional.dropout(maps, 0.5), at="maps"), scan)
    assert torch.equal(torch.get_rng_state(), state)


def attention(maps):
    rows = maps.flatten(2).transpose(1, 2)
    return functional.scaled_dot_product_attention(rows, rows, rows, dropout_p=0.3).transpose(1, 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda maps: attention(maps).view_as(maps),
        lambda maps: maps * (torch.rand(()) > 1e-6),  # seldom
        lambda maps: maps * (1 + np.random.rand()),
    ],
)
def test_any_random_number_is_noticed(change, scan):
    with pytest.raises(SetupFault, match="draws random numbers in eval mode"):
        of("sensitivity", Net(change, at="late"), scan)


def test_a_generator_of_the_networks_own_is_noticed(scan):
    draw = torch.Generator().manual_seed(0)
    model = Net(lambda maps: maps + 0.1 * torch.rand(maps.shape, generator=draw), at="late")
    with pytest.raises(SetupFault, match="for the same scan: it is random or keeps something"):
        of("sensitivity", model, scan)


def test_a_network_that_remembers_the_last_scan_is_refused(scan):
    given = []

    def change(maps):
        given.append(maps)
        return maps * len(given)

    with pytest.raises(SetupFault, match="for the same scan: it is random or keeps something"):
        of("sensitivity", Net(change, at="late"), scan)


# --- cam ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change", [lambda logits: logits.mul_(-2), lambda logits: logits.exp_(), lambda z: z.add_(z**2)]
)
def test_cam_refuses_what_is_changed_in_place_behind_the_dense_layer(change, scan):
    with pytest.raises(SetupFault, match=r"logits are no nn\.Linear's output"):
        of("cam", Net(change), scan)


# --- what a network is given and gives ------------------------------------------------------------


@pytest.mark.parametrize("name", ["sensitivity", "cam", "occlusion", "lrp"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda outputs: (outputs, outputs), "gives a tuple for a scan"),
        (lambda outputs: {"logits": outputs}, "gives a dict for a scan"),
        (lambda outputs: outputs[0], r"gives \[2\] for one scan"),
        (lambda outputs: outputs.argmax(1, keepdim=True), "expected logits as a plain tensor"),
        (lambda outputs: outputs @ torch.ones(5, 5), "cannot be run on a scan .* RuntimeError"),
    ],
)
def test_other_outputs_are_refused(name, change, reason, scan):
    with pytest.raises(SetupFault, match=reason):
        of(name, Net(change), scan)


class Optional(Net):
    """A network with arguments that explain does not give."""

    def forward(self, scans, age=None, *more, factor=None, **others):
        outputs = super().forward(scans)
        if factor is not None or more or others:
            outputs = outputs * factor
        return outputs if age is None else outputs + age


class Hooked(Net):
    """A network that registers a hook each time that it runs."""

    def forward(self, scans):
        self.second.register_forward_hook(lambda module, given, output: 1 * output)
        return super().forward(scans)


def scripted(freeze):
    script = torch.jit.script(nn.Sequential(*list(Net().children())).eval())
    return torch.jit.freeze(script) if freeze else script


def in_inference():
    with torch.inference_mode():
        return Net()


class Inside(Net):
    """A network that runs in inference mode."""

    def forward(self, scans):
        with torch.inference_mode():
            return super().forward(scans)


class Compiled(nn.Module):
    """What torch.compile puts around a network; to compile one here takes eight seconds."""

    def __init__(self):
        super().__init__()
        self._orig_mod = Net()
        self.eval()

    def forward(self, scans):
        raise RuntimeError("compiled code")


UNUSUAL = {
    "optional": Optional,
    "hooked": Hooked,
    "scripted": lambda: scripted(False),
    "frozen": lambda: scripted(True),
    "traced": lambda: torch.jit.trace(Net(), torch.zeros(1, 1, *SHAPE)),
    "made in inference mode": in_inference,
    "inference mode": Inside,
    "one scan": lambda: Net(lambda maps: maps.view(1, 6, 4, 4, 3), at="late"),
    "compiled": Compiled,
    "parallel": lambda: nn.DataParallel(Net()).eval(),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("made", UNUSUAL)
def test_unusual_networks_are_explained_right_or_refused(name, made, scan):
    expected, model = of(name, Net(), scan), UNUSUAL[made]()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="every occlusion is a full forward")
        try:
            found = of(name, model, scan)
        except SetupFault as fault:
            assert "\n" not in str(fault)
            refused = {
                "hooked": ("lrp", "lrp_grad_cam_pp"),
                "inference mode": {*METHODS} - {"cam", "lrp"},
                "optional": (),
            }.get(made, ("cam", "grad_cam", "grad_cam_pp", "lrp", "lrp_grad_cam_pp", "guided"))
            assert name in refused or (name.startswith("guided") and "guided" in refused)
            return
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["sensitivity", "guided_grad_cam_pp", "occlusion", "lrp"])
def test_a_caller_in_inference_mode_gets_the_same(name, scan):
    with torch.inference_mode():
        found = of(name, Net(), torch.from_numpy(scan))
    np.testing.assert_array_equal(found, of(name, Net(), scan))


class Means(nn.Module):
    """A network without parameters."""

    def forward(self, scans):
        return torch.stack(
            [scans[:, 0, :6].mean((1, 2, 3)), scans[:, 0].square().mean((1, 2, 3))], 1
        )


@pytest.mark.parametrize("name", METHODS)
def test_a_network_without_parameters_is_explained_or_refused(name, scan):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name in OF_THE_LOGIT or name == "guided_backprop":
            with pytest.raises(SetupFault):
                of(name, Means().eval(), scan)
        else:
            assert of(name, Means().eval(), scan, 1).max() > 0


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (torch.sum, "a network is a torch.nn.Module"),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(2)).eval(), "'1.weight' has no values yet"),
        (Net().to("meta"), "is a meta tensor"),
        (torch.jit.script(nn.Conv3d(1, 2, 3)).half().eval(), "before it is scripted"),
    ],
)
def test_what_is_no_network_yet_is_refused(model, reason, scan):
    with pytest.raises(SetupFault, match=reason):
        of("sensitivity", model, scan)


def test_tensors_are_taken_as_options(scan):
    labels = torch.from_numpy(OPTIONS["area_occlusion"]["labels"])
    found = explain("area_occlusion", Net(), scan, 0, labels=MetaTensor(labels))
    np.testing.assert_array_equal(found, of("area_occlusion", Net(), scan))


# --- the networks of this package -----------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_the_networks_of_this_package_pass_what_jobs_need_not_repeat(name, monkeypatch):
    shape = {"rieke": (46, 47, 48), "voxcnn": (40, 42, 41)}.get(name, (17, 20, 18))
    torch.manual_seed(0)
    model = build_model(name, shape, 2).eval()
    assert is_ours(model)
    batch = as_input(model, np.random.default_rng(0).normal(size=shape))
    monkeypatch.setattr(behaviour, "OURS", ())
    assert not is_ours(model)
    assert observe(model, batch, 1) == behaviour.Behaviour(outputs=2)
    check_slope(model, batch)
    assert len(behaviour._known[model].passed) == 2  # nothing was too small to be compared


def test_a_network_of_this_package_that_was_changed_is_looked_at():
    model = build_model("voxresnet_gap", (17, 20, 18), 2).eval()
    assert is_ours(model)
    handle = model.register_forward_hook(lambda module, given, output: output)
    assert not is_ours(model)
    handle.remove()
    assert is_ours(model)
    model.dropout = Net()
    assert not is_ours(model)
