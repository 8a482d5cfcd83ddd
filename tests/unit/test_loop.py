import copy
import os
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import nn

from voxplain.faults import SetupFault
from voxplain.models import MODELS, build_model
from voxplain.store import write_scan
from voxplain.training.data import Scans, plan_batches
from voxplain.training.loop import Epoch, choose_precision, predict, seed_everything, train
from voxplain.training.statistics import VoxelStatistics
from voxplain.volumes import axis_aligned_grid

CPU = torch.device("cpu")
EDGE = 6
# How far the loss of an epoch may be from that of a plain loop in float32.
LOSS_TOLERANCE = 5e-3


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def written(folder, volumes, labels, mask=None):
    """Volumes as scans that are left as they are, to 16 bits."""
    shape = volumes.shape[1:]
    grid = axis_aligned_grid(shape, (2, 2, 2), (0, 0, 0))
    ones = np.ones(shape, "f4")
    statistics = VoxelStatistics(0 * ones, ones, ones > 0 if mask is None else mask, grid)
    paths = [folder / f"scan{number}.npy" for number in range(len(volumes))]
    for path, volume in zip(paths, volumes, strict=True):
        write_scan(path, volume, statistics.brain)
    return Scans(paths, [int(label) for label in labels], statistics)


def volumes_of(scans, order=None):
    """Normalised scans ``[scans, 1, x, y, z]`` and their classes, not by the loop's own way."""
    order = range(len(scans)) if order is None else order
    volumes = [scans.statistics.normalise(scans.stored[n]) for n in order]
    return torch.from_numpy(np.stack(volumes))[:, None], torch.tensor(scans.labels)[list(order)]


def noisy(count, seed, edge=EDGE, signal=1.5):
    """Noise, to which one class adds a bright corner."""
    draw = np.random.default_rng(seed)
    volumes = draw.normal(size=(count, edge, edge, edge)).astype("f4")
    labels = np.arange(count) % 2
    volumes[labels == 1, : edge // 2, : edge // 2, : edge // 2] += signal
    return volumes, labels


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    return written(tmp_path_factory.mktemp("training"), *noisy(14, 1))


@pytest.fixture(scope="module")
def testing(tmp_path_factory):
    return written(tmp_path_factory.mktemp("testing"), *noisy(6, 2))


def network(seed=0, classes=2):
    """A small network with all that a resumed training could lose: batch norm and dropout."""
    seed_everything(seed, 0)
    return nn.Sequential(
        nn.Conv3d(1, 3, 3),
        nn.BatchNorm3d(3),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Flatten(),
        nn.Dropout(0.4),
        nn.Linear(24, classes),
    )


def linear():
    """A network without batch norm and dropout."""
    seed_everything(3, 0)
    return nn.Sequential(nn.Flatten(), nn.Linear(EDGE**3, 2))


def trained(training, testing, model=None, **changes):
    model = network() if model is None else model
    settings = {"epochs": 4, "batch_size": 5, "learning_rate": 0.01, "seed": 7, "device": CPU}
    history = train(model, training, testing, **{**settings, **changes})
    return model, history


def timeless(history):
    return [replace(epoch, seconds=0) for epoch in history]


def assert_equal_weights(first, second):
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys()
    for key in ours:
        assert torch.equal(ours[key], theirs[key]), key


# --- what is learnt -------------------------------------------------------------------------------


def test_a_bright_corner_is_learnt(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    training = written(tmp_path / "a", *noisy(14, 1, signal=3))
    testing = written(tmp_path / "b", *noisy(6, 2, signal=3))
    model, history = trained(training, testing, epochs=12, learning_rate=0.03)
    assert [epoch.epoch for epoch in history] == list(range(1, 13))
    assert history[-1].test_accuracy == 1
    assert history[-1].train_loss < 0.5 * history[0].train_loss
    assert history[-1].test_loss < 0.3
    probabilities = predict(model, testing, CPU)
    assert (probabilities.argmax(1) == testing.labels).all()


def test_labels_that_say_nothing_are_not_predicted_on_other_scans(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    volumes, labels = noisy(14, 3, signal=0)
    others, truth = noisy(40, 4, signal=0)
    _, history = trained(
        written(tmp_path / "a", volumes, labels),
        written(tmp_path / "b", others, truth),
        epochs=15,
        learning_rate=0.03,
    )
    assert history[-1].train_accuracy > 0.8  # by heart
    assert abs(history[-1].test_accuracy - 0.5) < 0.25  # three standard deviations


def test_the_network_of_rieke_learns_on_a_grid_of_forty(tmp_path):
    volumes, labels = noisy(4, 5, edge=40)
    scans = written(tmp_path, volumes, labels)
    seed_everything(0, 0)
    model = build_model("rieke", (40, 40, 40), 2, dropout=0.0)
    _, history = trained(scans, scans, model, epochs=10, batch_size=4, learning_rate=3e-3)
    assert history[-1].train_loss < 0.1 * history[0].train_loss
    assert history[-1].train_accuracy == 1


@pytest.mark.parametrize(
    ("name", "edge"),
    [("voxcnn", 40), ("voxresnet", 10), ("voxresnet_gap", 10), ("voxresnet_shallow_gap", 8)],
)
def test_each_network_learns_by_its_papers_recipe(tmp_path, name, edge):
    """Its optimiser and batches, at a rate for few steps; dropout would hide them behind noise."""
    recipe = MODELS[name].recipe
    scans = written(tmp_path, *noisy(7, 5, edge=edge, signal=3))
    seed_everything(0, 0)
    options = {"dropout": 0.0} if name == "voxcnn" else {}
    model = build_model(name, (edge,) * 3, 2, **options)
    _, history = trained(
        scans,
        scans,
        model,
        epochs=2,
        batch_size=recipe.batch_size,
        learning_rate=1e-3 if recipe.optimiser == "adam" else 1e-2,
        optimiser=recipe.optimiser,
        every_class=recipe.every_class,
    )
    assert history[-1].train_loss < 0.6 * history[0].train_loss


# --- what is recorded -----------------------------------------------------------------------------


def test_an_epochs_numbers_are_those_of_a_step_done_by_hand(training, testing):
    # One batch of all scans: its loss is known before the step, the test loss after it.
    model, (epoch,) = trained(training, testing, epochs=1, batch_size=14, learning_rate=0.02)

    own = network()
    order = torch.randperm(14, generator=seed_everything(7, 1))
    scans, labels = volumes_of(training, order.tolist())
    # Batch norm takes it out again: its gradient is rounding, which Adam scales up to whole steps.
    own[0].bias.requires_grad_(False)
    own.train()
    logits = own(scans)
    loss = nn.functional.cross_entropy(logits, labels)
    optimiser = torch.optim.Adam(own.parameters(), lr=0.02)
    loss.backward()
    optimiser.step()
    own.eval()
    with torch.no_grad():
        after = own(volumes_of(testing)[0])
    truth = torch.tensor(testing.labels)

    assert epoch.train_loss == pytest.approx(loss.item(), rel=1e-6)
    assert epoch.train_accuracy == (logits.argmax(1) == labels).double().mean().item()
    expected = nn.functional.cross_entropy(after.double(), truth).item()
    assert epoch.test_loss == pytest.approx(expected, rel=1e-6)
    assert epoch.test_accuracy == pytest.approx((after.argmax(1) == truth).double().mean().item())
    for key, value in own.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-5, atol=1e-5)


def test_the_training_loss_weighs_a_short_batch_by_its_scans(training, testing):
    # Without a step worth the name every batch sees the same network: 14 scans in batches of 4, 4,
    # 4 and 2 give the mean over scans, as one batch would.
    losses = [
        trained(training, testing, linear(), epochs=1, batch_size=size, learning_rate=1e-12)[1][
            0
        ].train_loss
        for size in (4, 14)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("every_class", [False, True])
def test_nesterovs_steps_and_the_mean_loss_are_those_done_by_hand(testing, tmp_path, every_class):
    """As Lasagne, which Korolev et al. 2017 used, writes them: v = 0.9 v - rate * gradient, and the
    weights take 0.9 v - rate * gradient."""
    volumes, labels = noisy(13, 4)
    labels[:] = 0
    labels[[3, 8]] = 1  # rarer than one in a batch
    scans = written(tmp_path, volumes, labels)
    rate, settings = 0.01, {"epochs": 3, "batch_size": 4, "optimiser": "sgd"}
    model, history = trained(
        scans, testing, linear(), learning_rate=rate, every_class=every_class, **settings
    )

    own = linear().double()
    velocity = [torch.zeros_like(values) for values in own.parameters()]
    for epoch in (1, 2, 3):
        parts = plan_batches(scans.labels, 4, seed_everything(7, epoch), every_class)
        losses, right, drawn = 0.0, 0, 0
        for part in parts:
            given, truth = volumes_of(scans, part)
            logits = own(given.double())
            each = nn.functional.cross_entropy(logits, truth, reduction="none")
            losses, right = losses + each.sum().item(), right + (logits.argmax(1) == truth).sum()
            drawn += len(part)
            gradients = torch.autograd.grad(each.mean(), list(own.parameters()))
            with torch.no_grad():
                for place, gradient in enumerate(gradients):
                    velocity[place] = 0.9 * velocity[place] - rate * gradient
                    list(own.parameters())[place] += 0.9 * velocity[place] - rate * gradient
        assert drawn == (15 if every_class else 13)  # four batches hold four of the rare class
        assert history[epoch - 1].train_loss == pytest.approx(losses / drawn, rel=1e-5)
        assert history[epoch - 1].train_accuracy == pytest.approx(right.item() / drawn)
    for key, value in own.state_dict().items():
        found = model.state_dict()[key].double()
        torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-6)


def test_a_single_scan_is_never_a_batch_which_batch_norm_could_not_take(
    training, testing, tmp_path
):
    scans = written(tmp_path, *noisy(11, 6))
    seed_everything(0, 0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(EDGE**3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    seen = []
    model[2].register_forward_hook(lambda part, given, out: seen.append((part.training, len(out))))
    trained(scans, testing, model, epochs=1, batch_size=5)
    assert [count for in_training, count in seen if in_training] == [5, 4, 2]
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model.train()(torch.zeros(1, 1, EDGE, EDGE, EDGE))


def test_every_epoch_is_reported_as_it_ends(training, testing):
    told = []
    _, history = trained(training, testing, report=told.append)
    assert told == history
    assert all(epoch.seconds > 0 for epoch in history)


def test_the_test_scans_only_get_looked_at(training, testing, tmp_path):
    other = written(tmp_path, *noisy(9, 8))
    first, history = trained(training, testing)
    second, others = trained(training, other)
    assert_equal_weights(first, second)
    assert [e.train_loss for e in history] == [e.train_loss for e in others]
    assert [e.test_loss for e in history] != [e.test_loss for e in others]


def test_the_network_is_left_in_eval_mode(training, testing):
    model, _ = trained(training, testing, epochs=1)
    assert not any(part.training for part in model.modules())


# --- the same again -------------------------------------------------------------------------------


def test_the_same_seed_trains_the_same_network_and_another_seed_another(training, testing):
    first, history = trained(training, testing)
    torch.manual_seed(99)  # what came before has no say
    again, same_history = trained(training, testing)
    assert_equal_weights(first, again)
    assert timeless(history) == timeless(same_history)
    other, _ = trained(training, testing, seed=8)
    assert not torch.equal(first[0].weight, other[0].weight)


def test_each_epoch_has_its_own_order():
    orders = [
        torch.randperm(14, generator=seed_everything(seed, epoch)).tolist()
        for seed in (1, 2)
        for epoch in (0, 1, 2)
    ]
    assert len({str(order) for order in orders}) == 6
    drawn = [(seed_everything(1, 2), torch.rand(3))[1] for _ in range(2)]
    assert torch.equal(*drawn)


class Interrupted(Exception):
    pass


def interrupt_at(number):
    def report(epoch):
        if epoch.epoch == number:
            raise Interrupted

    return report


@pytest.mark.parametrize(
    ("interruptions", "settings"),
    [
        ([1], {}),
        ([2], {}),
        ([4], {}),
        ([5], {}),
        ([2, 4], {}),
        ([3, 3], {}),
        ([2, 4], {"optimiser": "sgd"}),
        ([3], {"optimiser": "sgd", "every_class": True}),
        ([2, 4], {"every_class": True, "batch_size": 3}),
    ],
)
def test_a_resumed_training_is_the_uninterrupted_one_to_the_bit(
    training, testing, tmp_path, interruptions, settings
):
    settings = {"epochs": 5, **settings}
    whole, history = trained(training, testing, **settings)
    checkpoint = tmp_path / ".checkpoint-x.pt"
    for number in interruptions:
        with pytest.raises(Interrupted):
            trained(
                training, testing, checkpoint=checkpoint, report=interrupt_at(number), **settings
            )
        torch.rand(number)  # the generator is somewhere else when training goes on
    told = []
    # Other first weights: those of the checkpoint count.
    begun_with = network(seed=0 if interruptions == [1] else 5)
    resumed, again = trained(
        training, testing, begun_with, checkpoint=checkpoint, report=told.append, **settings
    )
    assert_equal_weights(whole, resumed)
    assert timeless(again) == timeless(history)
    # The epoch that was interrupted is not in the checkpoint; those before it are not trained anew.
    assert [epoch.epoch for epoch in told] == list(range(interruptions[-1], 6))
    np.testing.assert_array_equal(predict(whole, testing, CPU), predict(resumed, testing, CPU))


def test_a_finished_training_is_read_back_without_an_epoch(training, testing, tmp_path):
    checkpoint = tmp_path / ".checkpoint-x.pt"
    first, history = trained(training, testing, checkpoint=checkpoint)
    told = []
    second, again = trained(
        training, testing, network(5), checkpoint=checkpoint, report=told.append
    )
    assert told == []
    assert again == history  # with its seconds
    assert_equal_weights(first, second)
    assert not any(part.training for part in second.modules())


def test_a_checkpoint_holds_plain_values_and_leaves_no_partial_file(training, testing, tmp_path):
    checkpoint = tmp_path / ".checkpoint-x.pt"
    _, history = trained(training, testing, epochs=2, checkpoint=checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]
    state = torch.load(checkpoint, weights_only=True)
    assert state.keys() == {"model", "optimiser", "history"}
    assert state["history"] == [asdict(epoch) for epoch in history]


def test_a_training_that_ends_while_it_saves_keeps_the_state_before(
    training, testing, tmp_path, monkeypatch
):
    checkpoint = tmp_path / ".checkpoint-x.pt"
    whole, history = trained(training, testing)
    save, saved = torch.save, []

    def breaks_off(state, stream):
        saved.append(stream)
        if len(saved) == 3:
            stream.write(b"half a state")
            raise Interrupted
        save(state, stream)

    monkeypatch.setattr(torch, "save", breaks_off)
    with pytest.raises(Interrupted):
        trained(training, testing, checkpoint=checkpoint)
    monkeypatch.undo()
    resumed, again = trained(training, testing, network(5), checkpoint=checkpoint)
    assert_equal_weights(whole, resumed)
    assert timeless(again) == timeless(history)


def test_a_checkpoint_is_on_the_disk_before_it_takes_the_place_of_the_last(
    training, testing, tmp_path, monkeypatch
):
    done = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, c=call: (done.append(n), c(*a))[1])
    trained(training, testing, checkpoint=tmp_path / ".checkpoint-x.pt", epochs=2)
    assert done == ["fsync", "replace"] * 2


# --- what is refused ------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_is_refused_by_epoch_and_key(training, testing, tmp_path):
    checkpoint = tmp_path / ".checkpoint-x.pt"
    with pytest.raises(SetupFault) as fault:
        trained(training, testing, learning_rate=1e30, checkpoint=checkpoint)
    assert "in epoch 1; choose a lower one" in str(fault.value)
    assert "\n" not in str(fault.value)
    assert not checkpoint.exists()


def test_an_unknown_optimiser_is_refused_with_those_that_there_are(training, testing):
    with pytest.raises(SetupFault, match=r"no optimiser 'lion'; allowed: adam, sgd"):
        trained(training, testing, optimiser="lion")


@pytest.mark.parametrize(("size", "every_class"), [(1, False), (1, True)])
def test_batches_too_small_to_train_on_are_refused(training, testing, size, every_class):
    with pytest.raises(SetupFault, match=f"batch_size is {size}"):
        trained(training, testing, batch_size=size, every_class=every_class)


def test_weights_that_give_no_numbers_after_the_last_step_are_refused(training, testing, tmp_path):
    # The only batch's loss is computed before its step and is finite.
    checkpoint = tmp_path / ".checkpoint-x.pt"
    model = nn.Sequential(nn.Flatten(), nn.Linear(EDGE**3, 8), nn.ReLU(), nn.Linear(8, 2))
    one_step = {"epochs": 1, "batch_size": 14, "learning_rate": 1e30}
    with pytest.raises(
        SetupFault, match=r"learning_rate is 1e\+30, .*epoch 1; choose a lower one"
    ) as fault:
        trained(training, testing, model, checkpoint=checkpoint, **one_step)
    assert "\n" not in str(fault.value)
    assert not checkpoint.exists()


# --- predicting -----------------------------------------------------------------------------------


def test_predictions_are_the_softmax_of_the_logits_in_eval_mode(testing):
    model = network(classes=3)
    model.train()
    probabilities = predict(model, testing, CPU)
    assert not model.training
    with torch.no_grad():
        logits = model(volumes_of(testing)[0]).double().numpy()
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert probabilities.shape == (6, 3)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 100])
def test_predictions_do_not_depend_on_the_batch_size(training, testing, batch_size):
    model, _ = trained(training, testing, epochs=2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()  # a caller may have left it so
    found = predict(model, training, CPU, batch_size=batch_size)
    np.testing.assert_allclose(found, predict(model, training, CPU), atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_predicting_records_no_gradients(testing):
    seen = []
    model = network()
    model[-1].register_forward_hook(lambda *parts: seen.append(parts[2].requires_grad))
    predict(model, testing, CPU)
    assert seen
    assert not any(seen)


# --- against a plain loop -------------------------------------------------------------------------


def plain_loop(model, training, testing, epochs, batch_size, learning_rate, seed):
    """What :func:`train` is to compute, written down plainly; whole scans, float32."""
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    curves = []
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(training), generator=seed_everything(seed, epoch)).tolist()
        model.train()
        total = 0.0
        for start in range(0, len(order), batch_size):
            scans, labels = volumes_of(training, order[start : start + batch_size])
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(model(scans), labels)
            loss.backward()
            optimiser.step()
            total += loss.item() * len(labels)
        model.eval()
        with torch.no_grad():
            scans, labels = volumes_of(testing)
            held_out = nn.functional.cross_entropy(model(scans), labels).item()
        curves.append((total / len(training), held_out))
    return np.array(curves)


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    """Scans with background, for the network of Rieke on a grid of forty."""
    mask = np.zeros((40, 44, 42), bool)
    mask[6:33, 5:39, 3:34] = np.random.default_rng(9).uniform(size=(27, 34, 31)) > 0.2
    sides = []
    for name, count, seed in (("train", 14, 11), ("test", 6, 12)):
        draw = np.random.default_rng(seed)
        labels = np.arange(count) % 2
        volumes = draw.normal(size=(count, *mask.shape)).astype("f4")
        volumes[labels == 1, :20, :20, :20] += 0.5
        sides.append(written(tmp_path_factory.mktemp(name), volumes, labels, mask))
    return sides


@pytest.mark.slow
def test_the_loss_curve_is_that_of_a_plain_loop(brains):
    """Float32 rounds in another order, and Adam's first steps depend on the sign of a gradient."""
    settings = {"epochs": 5, "batch_size": 5, "learning_rate": 1e-3, "seed": 3}
    seed_everything(0, 0)
    model = build_model("rieke", (40, 44, 42), 2, dropout=0.3)
    expected = plain_loop(copy.deepcopy(model), *brains, **settings)
    history = train(model, *brains, device=CPU, **settings)
    found = np.array([(epoch.train_loss, epoch.test_loss) for epoch in history])
    assert np.ptp(expected[:, 0]) > 0.1  # something is learnt
    np.testing.assert_allclose(found, expected, rtol=0, atol=LOSS_TOLERANCE)


@pytest.mark.slow
def test_the_loss_curve_in_bfloat16_is_near_it(brains):
    settings = {"epochs": 5, "batch_size": 5, "learning_rate": 1e-3, "seed": 3, "device": CPU}
    curves = []
    for precision in ("float32", "bfloat16"):
        seed_everything(0, 0)
        model = build_model("rieke", (40, 44, 42), 2, dropout=0.3)
        history = train(model, *brains, precision=precision, **settings)
        curves.append([epoch.train_loss for epoch in history])
    assert curves[0] != curves[1]
    np.testing.assert_allclose(curves[1], curves[0], rtol=0, atol=0.05)


def test_a_gpu_computes_in_bfloat16_unless_told_otherwise():
    gpu = torch.device("cuda")
    assert choose_precision("auto", gpu) == torch.bfloat16
    assert choose_precision("auto", CPU) == torch.float32
    for device in (CPU, gpu):
        assert choose_precision("float32", device) == torch.float32
        assert choose_precision("bfloat16", device) == torch.bfloat16


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_choice_of_kernels_is_handed_to_cudnn(training, testing, deterministic):
    trained(training, testing, epochs=1, deterministic=deterministic)
    assert torch.backends.cudnn.deterministic == deterministic
    assert torch.backends.cudnn.benchmark != deterministic


def test_an_epoch_as_a_dict_is_a_row_of_the_history():
    assert list(asdict(Epoch(1, 0.5, 0.6, 0.7, 0.8, 1.2))) == [
        "epoch",
        "train_loss",
        "train_accuracy",
        "test_loss",
        "test_accuracy",
        "seconds",
    ]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux can withhold cores")
def test_the_number_of_threads_gives_the_gradient_and_not_the_number_of_cores():
    """What the key threads relies on."""
    cores, before = os.sched_getaffinity(0), torch.get_num_threads()
    model = build_model("rieke", (40, 40, 40), 2).eval()
    scans = torch.randn(4, 1, 40, 40, 40, generator=torch.Generator().manual_seed(1))
    gradients = []
    try:
        torch.set_num_threads(3)
        for allowed in (cores, {min(cores)}):
            os.sched_setaffinity(0, allowed)
            model.zero_grad()
            nn.functional.cross_entropy(model(scans), torch.tensor([0, 1, 0, 1])).backward()
            gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(before)
    assert all(map(torch.equal, *gradients))
