"""The training loop: Adam on the cross-entropy, an epoch at a time, resumable after any of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from voxplain.faults import SetupFault
from voxplain.training.data import ScanDataset, batches


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave.

    Attributes
    ----------
    epoch
        From 1.
    train_loss, train_accuracy
        Over the epoch's batches as they were trained on, dropout included.
    test_loss, test_accuracy
        Of the held-out scans after the epoch. Only looked at: nothing is chosen by them.
    seconds
        Of the whole epoch.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float


def seed_everything(seed: int, epoch: int) -> torch.Generator:
    """Seed torch for one epoch, on every device, and give a generator for the order of its scans.

    Each epoch has its own seed, so that a resumed training draws what an uninterrupted one does.
    """
    own = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
    torch.manual_seed(own)
    return torch.Generator().manual_seed(own)


def train(
    model: nn.Module,
    training: ScanDataset,
    testing: ScanDataset,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    device: torch.device,
    workers: int = 0,
    checkpoint: Path | None = None,
    report: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Train a network in place: Adam, cross-entropy without class weights, no early stopping.

    Parameters
    ----------
    model
        From scans ``[batch, 1, x, y, z]`` to logits; left on ``device`` in eval mode.
    training, testing
        The testing scans' loss is recorded after every epoch and used for nothing.
    epochs, batch_size, learning_rate
        Rieke et al. 2018: 20, 5, 1e-4.
    seed
        Of the scans' order and of dropout; the weights are the caller's to initialise.
    workers
        Processes that read scans ahead.
    checkpoint
        File for the state after each epoch; if it is there, training goes on from it. Its name must
        stand for everything that made the state.
    report
        Called after each epoch.

    Returns
    -------
    Every epoch, those before a resumption included.

    Raises
    ------
    SetupFault
        The loss or a probability is no finite number any more.
    """
    model.to(device)
    # Kernels that give the same sums in every run, where there is a choice (cuDNN).
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    history: list[Epoch] = []
    if checkpoint is not None and checkpoint.is_file():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        history = [Epoch(**epoch) for epoch in state["history"]]
        print(f"going on after epoch {len(history)} of {epochs} ({checkpoint.name})", flush=True)
    for number in range(len(history) + 1, epochs + 1):
        began = time.perf_counter()
        order = seed_everything(seed, number)
        model.train()
        loss_sum = correct = 0.0
        for scans, labels in batches(training, batch_size, workers, order):
            scans, labels = scans.to(device, non_blocking=True), labels.to(device)
            optimiser.zero_grad(set_to_none=True)
            logits = model(scans)
            loss = nn.functional.cross_entropy(logits, labels)
            loss.backward()
            optimiser.step()
            loss_sum += loss.item() * len(labels)
            correct += (logits.argmax(1) == labels).sum().item()
        if not np.isfinite(loss_sum):
            raise SetupFault(
                f"the training loss is {loss_sum} in epoch {number}; lower training.learning_rate"
            )
        probabilities = predict(model, testing, device, batch_size, workers)
        # The loss above is that before each step: the last one may have broken the weights.
        if not np.isfinite(probabilities).all():
            raise SetupFault(
                f"the network gives no finite probabilities after epoch {number}; lower "
                "training.learning_rate"
            )
        truth = np.array(testing.labels)
        likelihood = np.clip(probabilities[np.arange(len(truth)), truth], 1e-12, None)
        history.append(
            Epoch(
                epoch=number,
                train_loss=loss_sum / len(training),
                train_accuracy=correct / len(training),
                test_loss=float(-np.log(likelihood).mean()),
                test_accuracy=float((probabilities.argmax(1) == truth).mean()),
                seconds=round(time.perf_counter() - began, 3),
            )
        )
        report(history[-1])
        if checkpoint is not None:
            _save(checkpoint, model, optimiser, history)
    model.eval()
    return history


def _save(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, history: list) -> None:
    """Write a checkpoint whole or not at all."""
    state = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "history": [asdict(epoch) for epoch in history],
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


@torch.no_grad()
def predict(
    model: nn.Module,
    scans: ScanDataset,
    device: torch.device,
    batch_size: int = 5,
    workers: int = 0,
) -> np.ndarray:
    """Class probabilities of scans, ``[scans, classes]`` float64, in eval mode."""
    model.eval()
    found = [
        torch.softmax(model(batch.to(device)).double(), dim=1).cpu().numpy()
        for batch, _ in batches(scans, batch_size, workers)
    ]
    return np.concatenate(found)
