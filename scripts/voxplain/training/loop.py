"""The training loop, which can be resumed after any epoch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from voxplain.faults import ParameterFault, SetupFault
from voxplain.training.cropped import CroppedNetwork
from voxplain.training.data import Batches, Scans, plan_batches

# Name to a function that makes the optimiser from parameters and a learning rate.
OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": partial(torch.optim.Adam, fused=True),
    # With Nesterov's momentum, 0.9 as in Korolev et al. 2017 (the default of Lasagne).
    "sgd": partial(torch.optim.SGD, momentum=0.9, nesterov=True, fused=True),
}


@dataclass(frozen=True)
class Epoch:
    """Loss, accuracy and duration of one epoch.

    Attributes
    ----------
    epoch
        Number of the epoch, from 1.
    train_loss, train_accuracy
        Mean over the epoch's batches during training, with dropout; a scan that was drawn twice
        counts twice.
    test_loss, test_accuracy
        Loss and accuracy of the held-out scans after the epoch. They are only reported and do not
        influence the training.
    seconds
        Duration of the whole epoch.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float


def seed_everything(seed: int, epoch: int) -> torch.Generator:
    """Seed torch for one epoch, on every device; returns a generator for the order of its scans.

    Each epoch has a separate seed, so that a resumed training draws the same numbers as one without
    interruption.
    """
    epoch_seed = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
    torch.manual_seed(epoch_seed)
    return torch.Generator().manual_seed(epoch_seed)


def choose_precision(wanted: str, device: torch.device) -> torch.dtype:
    """The type of convolutions and matrix products, for ``auto`` or a type's name.

    ``auto`` is bfloat16 on a GPU, else float32. Weights, sums over voxels, batch norm, loss and
    optimiser always use float32.
    """
    if wanted == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[wanted]


def train(
    model: nn.Module,
    training: Scans,
    testing: Scans,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    device: torch.device,
    optimiser: str = "adam",
    every_class: bool = False,
    precision: str = "auto",
    deterministic: bool = True,
    checkpoint: Path | None = None,
    report: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Train a network in place: cross-entropy without class weights, no early stopping.

    Scans are 0 outside the brain; this background is computed only once for all its voxels, see
    :class:`voxplain.training.cropped.CroppedNetwork`.

    Parameters
    ----------
    model
        From scans ``[batch, 1, x, y, z]`` to logits; left on ``device`` in eval mode.
    training, testing
        The scans of the two sides. The loss of the testing scans is recorded after every epoch and
        not used.
    epochs, batch_size, learning_rate
        Rieke et al. 2018: 20, 5, 1e-4. For every paper see :class:`voxplain.models.Recipe`.
    seed
        Seed of the scans' order and of dropout; the caller initialises the weights.
    optimiser
        A key of :data:`OPTIMISERS`: ``adam``, or ``sgd`` with Nesterov's momentum of 0.9.
    every_class
        Whether every batch holds scans of every class, see
        :func:`voxplain.training.data.plan_batches`.
    precision
        See :func:`choose_precision`. Testing always uses float32.
    deterministic
        Whether cuDNN uses only kernels that give the same sums in every run; on a CPU all kernels
        do.
    checkpoint
        File for the state after each epoch; if it exists, training resumes from it. Its name must
        identify everything that determines the state.
    report
        Called after each epoch.

    Returns
    -------
    All epochs, including those before a resumption.

    Raises
    ------
    SetupFault
        The optimiser is unknown, the batches are too small, or the loss or a probability is not
        finite.
    """
    if optimiser not in OPTIMISERS:
        raise SetupFault(f"there is no optimiser {optimiser!r}; allowed: {', '.join(OPTIMISERS)}")
    model.to(device)
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    kind = choose_precision(precision, device)
    network = CroppedNetwork(model, training.statistics.brain)
    batches = Batches(training, device, batch_size, network.window)
    held_out = Batches(testing, device, batch_size, network.window)
    stepper = OPTIMISERS[optimiser](model.parameters(), lr=learning_rate)
    history: list[Epoch] = []
    if checkpoint is not None and checkpoint.is_file():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        stepper.load_state_dict(state["optimiser"])
        history = [Epoch(**epoch) for epoch in state["history"]]
        print(f"going on after epoch {len(history)} of {epochs} ({checkpoint.name})", flush=True)
    for number in range(len(history) + 1, epochs + 1):
        began = time.perf_counter()
        generator = seed_everything(seed, number)
        parts = plan_batches(training.labels, batch_size, generator, every_class)
        drawn = sum(map(len, parts))
        model.train()
        # Summed on the device: copying a number from a GPU at every step would make it wait.
        loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        correct = torch.zeros((), dtype=torch.int64, device=device)
        for scans, labels in batches.in_parts(parts):
            stepper.zero_grad(set_to_none=True)
            with torch.autocast(device.type, kind, enabled=kind != torch.float32):
                logits = network(scans)
            loss = nn.functional.cross_entropy(logits.float(), labels)
            loss.backward()
            stepper.step()
            loss_sum += loss.detach() * len(labels)
            correct += (logits.argmax(1) == labels).sum()
        if not torch.isfinite(loss_sum):
            raise ParameterFault(
                "learning_rate",
                f"is {learning_rate:g}, and the training loss is {loss_sum.item()} in epoch "
                f"{number}; choose a lower one",
            )
        probabilities = _probabilities(network, held_out)
        # The loss above is from before each step; the last step may have made the weights invalid.
        if not np.isfinite(probabilities).all():
            raise ParameterFault(
                "learning_rate",
                f"is {learning_rate:g}, and the network gives no finite probabilities after epoch "
                f"{number}; choose a lower one",
            )
        truth = np.array(testing.labels)
        likelihood = np.clip(probabilities[np.arange(len(truth)), truth], 1e-12, None)
        history.append(
            Epoch(
                epoch=number,
                train_loss=loss_sum.item() / drawn,
                train_accuracy=correct.item() / drawn,
                test_loss=float(-np.log(likelihood).mean()),
                test_accuracy=float((probabilities.argmax(1) == truth).mean()),
                seconds=round(time.perf_counter() - began, 3),
            )
        )
        report(history[-1])
        if checkpoint is not None:
            _save(checkpoint, model, stepper, history)
    model.eval()
    return history


def _save(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, history: list) -> None:
    """Write a checkpoint; the file is replaced when the new one is complete and on the disk."""
    state = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "history": [asdict(epoch) for epoch in history],
    }
    unfinished = path.with_suffix(".partial")
    with open(unfinished, "wb") as stream:
        torch.save(state, stream)
        # Else a machine that goes down may keep the new name and lose the content.
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(unfinished, path)


def predict(
    model: nn.Module, scans: Scans, device: torch.device, batch_size: int = 5
) -> np.ndarray:
    """Class probabilities of scans, ``[scans, classes]`` float64, in eval mode and float32."""
    network = CroppedNetwork(model, scans.statistics.brain)
    return _probabilities(network, Batches(scans, device, batch_size, network.window))


@torch.no_grad()
def _probabilities(network: CroppedNetwork, batches: Batches) -> np.ndarray:
    network.model.eval()
    batch_probabilities = [
        torch.softmax(network(scans).double(), dim=1)
        for scans, _ in batches.in_order(range(len(batches)))
    ]
    return torch.cat(batch_probabilities).cpu().numpy()
