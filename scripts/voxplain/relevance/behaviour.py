"""What a network gives for a scan: observed once, before it is explained.

The methods take a network for a function of one scan that gives logits. A network that is random,
that answers a scan by the other scans of its batch, or that computes in half precision is refused;
one that gives probabilities is explained as such.
"""

from __future__ import annotations

import pickle
import random
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from voxplain.faults import SetupFault
from voxplain.relevance.plain import HALF

# Modules with networks that tests/unit/test_refused_networks.py observes, so that jobs need not.
OURS = ("voxplain.models.rieke", "voxplain.models.voxcnn", "voxplain.models.voxresnet")
# Largest allowed difference between the answers to a scan alone and beside others, as a fraction of
# the difference between two scans, in addition to rounding.
_ALIKE = 1e-3
_ROUNDING = 1e3
# Operations that pass their input's values on.
_SAME_VALUES = (
    "alias", "clone", "detach", "_to_copy", "contiguous", "expand", "squeeze", "unsqueeze", "view",
    "_unsafe_view", "_reshape_alias", "reshape", "slice", "select", "t", "permute", "transpose",
)  # fmt: skip
# Operations whose output may have any value.
_UNBOUNDED = (
    "addmm", "mm", "bmm", "baddbmm", "addmv", "mv", "linear", "convolution", "mean", "sum",
)  # fmt: skip


class Head(Enum):
    """What the outputs of a network are."""

    LOGITS = "logits"
    LOG_PROBABILITIES = "logarithms of probabilities"
    PROBABILITIES = "probabilities"


@dataclass(frozen=True)
class Behaviour:
    """What a network gives.

    Attributes
    ----------
    head
        What its outputs are.
    in_batches
        Whether it takes several scans at a time.
    outputs
        Number of its outputs; None if it was not observed.
    """

    head: Head = Head.LOGITS
    in_batches: bool = True
    outputs: int | None = None


@dataclass
class _Known:
    """What is known of a network as it stands."""

    shape: Hashable
    behaviour: Behaviour | None = None
    passed: set[Hashable] = field(default_factory=set)


_known: weakref.WeakKeyDictionary[nn.Module, _Known] = weakref.WeakKeyDictionary()


def _of(model: nn.Module) -> _Known:
    """What is known of a network; nothing if it was changed, except for the values of weights."""
    shape = tuple(
        (
            id(module),
            type(module),
            "forward" in vars(module),
            *_hooks_of(module),
            *_settings_of(module),
        )
        for module in model.modules()
    )
    known = _known.get(model)
    if known is None or known.shape != shape:
        known = _known[model] = _Known(shape)
    return known


def _hooks_of(module: nn.Module) -> tuple[int, ...]:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return tuple(len(getattr(module, kind)) for kind in kinds)


def _settings_of(module: nn.Module) -> tuple[tuple[str, Any], ...]:
    """Settings of a module that its forward may read: flags, numbers, and functions by identity."""
    settings = vars(module).items()
    plain = [(key, value) for key, value in settings if isinstance(value, (bool, int, float, str))]
    called = [
        (key, id(value))
        for key, value in settings
        if callable(value) and not isinstance(value, (Tensor, type))
    ]
    return (*plain, *called)


def is_ours(model: nn.Module) -> bool:
    """Whether a network is one of this package as it stands, which the tests observe."""
    return type(model).__module__ in OURS and all(
        type(module).__module__.startswith(("torch.nn.modules.", "voxplain.models."))
        and not any(_hooks_of(module))
        and "forward" not in vars(module)
        for module in model.modules()
    )


def first_time(model: nn.Module, check: Hashable) -> bool:
    """Whether a network did not pass a check yet; never for those of this package."""
    return not is_ours(model) and check not in _of(model).passed


def note_passed(model: nn.Module, check: Hashable) -> None:
    """Remember that a network passed a check."""
    _of(model).passed.add(check)


def behaviour_of(model: nn.Module) -> Behaviour:
    """What was observed of a network; logits in batches if nothing was."""
    known = _known.get(model)
    return known.behaviour if known is not None and known.behaviour else Behaviour()


def check_target(outputs: Any, target: int) -> None:
    """Check that a network has the class.

    Parameters
    ----------
    outputs
        ``[1, classes]``; with one output the network has two classes.

    Raises
    ------
    SetupFault
        The outputs are of another kind or shape, or there is no such class.
    """
    if not isinstance(outputs, Tensor):
        raise SetupFault(
            f"the network gives a {type(outputs).__name__} for a scan; expected one tensor of "
            "logits [1, classes]. Put it into a module whose forward returns that tensor"
        )
    if outputs.ndim != 2 or outputs.shape[0] != 1 or not outputs.shape[1]:
        raise SetupFault(
            f"the network gives {list(outputs.shape)} for one scan; expected logits [1, classes]"
        )
    _check_class(outputs.shape[1], target)


def _check_class(outputs: int, target: int) -> None:
    classes = max(2, outputs)
    if not 0 <= target < classes:
        raise SetupFault(
            f"the target is class {target}, and the network has {classes} classes, 0 to "
            f"{classes - 1}"
        )


@torch.no_grad()
def observe(model: nn.Module, batch: Tensor, target: int) -> Behaviour:
    """What a network gives for a scan, remembered while the network lives.

    Weights may change meanwhile: what is observed belongs to the network's code.

    Parameters
    ----------
    model
        From ``[batch, 1, x, y, z]`` to logits, in eval mode.
    batch
        ``[1, 1, x, y, z]``.
    target
        Index of a class, which the network must have.

    Raises
    ------
    SetupFault
        The network cannot be run on the scan, gives no outputs ``[1, classes]`` of finite numbers,
        has no such class, is random, answers a scan by the others of its batch, computes in half
        precision, or its outputs cannot be told from probabilities.
    """
    if is_ours(model):
        return Behaviour()
    known, check = _of(model), ("outputs", batch.dtype, batch.device)
    if known.behaviour is None or check not in known.passed:
        states = _random_states(batch.device)
        try:
            behaviour = _observed(model, batch, target, states)
        finally:
            _restore(states, batch.device)
        # Running it may have changed its settings, such as a counter.
        known = _of(model)
        known.behaviour = behaviour
        known.passed.add(check)
    _check_class(known.behaviour.outputs, target)
    return known.behaviour


def run(model: nn.Module, batch: Tensor) -> Any:
    """Output of a network for a copy of a batch, since a network may write to its input.

    Raises
    ------
    SetupFault
        It raises an error; not if memory does not suffice.
    """
    try:
        with torch.autocast(batch.device.type, enabled=False):
            return model(batch.clone())
    except (SetupFault, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the network's own code: anything may be raised
        raise SetupFault(
            f"the network cannot be run on a scan {list(batch.shape)} {str(batch.dtype)[6:]} in "
            f"eval mode and without gradients: {first_line(error)}"
        ) from error


def _shown(outputs: Tensor) -> str:
    return "[" + ", ".join(f"{value:.5g}" for value in outputs.flatten().tolist()) + "]"


def first_line(error: Exception) -> str:
    """Kind of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _observed(model: nn.Module, batch: Tensor, target: int, states: list[Any]) -> Behaviour:
    for name, module in model.named_modules():
        if ".quantized." in f"{type(module).__module__}.":
            raise SetupFault(
                f"the network's layer {name!r} is quantised, so what it gives changes in steps and "
                "with the other scans of a batch; explain the network as it was before"
            )
    watcher = _Watcher()
    try:
        with watcher:
            outputs = run(model, batch)
    except SetupFault:  # maybe of the watcher, which not every code can be run under
        watcher = _Watcher()
        outputs = run(model, batch)
    check_target(outputs, target)
    if watcher.half is not None:
        raise SetupFault(
            f"the network computes in {str(watcher.half)[6:]} inside (an autocast or .half() in "
            "its forward), where small changes are lost; let it compute in float32"
        )
    if type(outputs) is not Tensor or not outputs.dtype.is_floating_point:
        raise SetupFault(
            f"the network gives a {type(outputs).__name__} of {str(outputs.dtype)[6:]}; expected "
            "logits as a plain tensor of float32"
        )
    if not torch.isfinite(outputs).all():
        raise SetupFault(
            f"the network gives {_shown(outputs)} for the scan, which are no finite numbers; "
            "its weights or the scan are out of range"
        )
    if _drew(states, batch.device):
        raise SetupFault(
            "the network draws random numbers in eval mode (functional.dropout without "
            "training=self.training, dropout in an attention): its heatmaps would be random; "
            "switch that off"
        )
    again = run(model, batch)
    if not torch.allclose(again, outputs, rtol=0, atol=_rounding_of(outputs)):
        raise SetupFault(
            f"the network gives {_shown(outputs)} and then {_shown(again)} for the same scan: it "
            "is random or keeps something of the last scan; switch that off"
        )
    of_other, in_batches = _in_batch(model, batch, outputs)
    last = getattr(outputs, "_last", None)
    head = _head_of(model, last, batch, outputs, of_other)
    # Probabilities of 0 and 1 may be those of a network that is sure.
    sure = head is Head.PROBABILITIES and bool(((outputs == 0) | (outputs == 1)).all())
    if torch.equal(of_other, outputs) and not sure and _gives_one_answer(model, batch, outputs):
        raise SetupFault(
            f"the network gives {_shown(outputs)} whatever the scan: it keeps its first answer, or "
            "its weights make nothing of a scan"
        )
    return Behaviour(head, in_batches, outputs.shape[1])


def _gives_one_answer(model: nn.Module, batch: Tensor, outputs: Tensor) -> bool:
    """Whether a network gives the same for scans of other contents too."""
    ramp = torch.linspace(-2, 3, batch[0].numel(), dtype=batch.dtype, device=batch.device)
    others = (batch.flip(2, 3, 4), 3 * batch.flip(3) - 1, ramp.view_as(batch))
    return all(torch.equal(run(model, other), outputs) for other in others)


def _in_batch(model: nn.Module, batch: Tensor, outputs: Tensor) -> tuple[Tensor, bool]:
    """Outputs for another scan, and whether the network takes several scans at a time."""
    # Its sum, range, extremes and outline differ from those of the scan.
    other = 3 * batch
    other[:, :, : (batch.shape[2] + 1) // 2] = 0
    of_other = run(model, other)
    try:
        together = run(model, torch.cat([other, batch]))
    except (SetupFault, torch.OutOfMemoryError):
        together = None
    if not isinstance(together, Tensor) or together.shape != (2, outputs.shape[1]):
        return of_other, False
    allowed = _rounding_of(together) + _ALIKE * float((of_other - outputs).abs().max())
    for alone, beside in zip((outputs, of_other), (together[1:], together[:1]), strict=True):
        if not torch.allclose(beside, alone, rtol=0, atol=allowed):
            raise SetupFault(
                f"the network gives {_shown(alone)} for a scan alone and {_shown(beside)} for it "
                "beside another: what it says of a scan depends on the other scans of a batch, so "
                "its heatmaps would too; take statistics of each scan alone"
            )
    return of_other, True


def _rounding_of(outputs: Tensor) -> float:
    """Difference between two computations of the same outputs that is none."""
    return _ROUNDING * torch.finfo(outputs.dtype).eps * (1 + float(outputs.abs().max()))


def _head_of(
    model: nn.Module, last: str | None, batch: Tensor, outputs: Tensor, of_other: Tensor
) -> Head:
    """What the outputs of a network are, from those of two scans."""
    both = torch.cat([outputs, of_other]).double()
    if both.shape[1] == 1:
        if last in ("_softmax", "_log_softmax", "softmax", "log_softmax"):
            raise SetupFault(
                "the network ends in a softmax of one output, which is 1 whatever the scan; end in "
                "that output alone"
            )
        if last in ("log_sigmoid_forward", "log_sigmoid"):
            raise SetupFault("the network ends in the logarithm of a sigmoid; end in its logit")
        if last == "sigmoid" and _within_unit(both):
            return Head.PROBABILITIES
    else:
        if _within_unit(both) and (both.sum(1) - 1).abs().max() < 1e-4:
            return Head.PROBABILITIES
        if both.max() <= 1e-5 and both.logsumexp(1).abs().max() < 1e-4:
            return Head.LOG_PROBABILITIES
        if last == "sigmoid":
            raise SetupFault(
                f"the network ends in a sigmoid of each of its {both.shape[1]} outputs, which are "
                "no probabilities of classes that exclude each other; explain the network without "
                "the sigmoid, or with one output"
            )
    if last in _UNBOUNDED or not _within_unit(both):
        return Head.LOGITS
    extremes = [run(model, factor * batch) for factor in (1e4, -1e4, 1e2)]
    if all(_within_unit(each) for each in extremes):
        raise SetupFault(
            f"the network's outputs {_shown(outputs)} lie between 0 and 1 whatever the scan, "
            "as probabilities do, so they may be no logits; let it end in logits"
        )
    return Head.LOGITS


def _within_unit(values: Tensor) -> bool:
    return bool(((values >= -1e-6) & (values <= 1 + 1e-6)).all())


class _Watcher(TorchDispatchMode):
    """Mode that notes half precision, and of each tensor the operation that gave its values.

    The attribute ``_last`` of a tensor is the name of the operation, without those that only pass
    values on.

    Attributes
    ----------
    half
        A type below 32 bits in which an operation computed; None if there was none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.half: torch.dtype | None = None

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run an operation and note it."""
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        last = (
            getattr(args[0], "_last", None) if name in _SAME_VALUES and args else name.rstrip("_")
        )
        for result in tree_leaves(output):
            if isinstance(result, Tensor):
                result._last = last
                if result.dtype in HALF:
                    self.half = result.dtype
        return output


def _random_states(device: torch.device) -> list[Any]:
    """States of the generators that a network may draw from."""
    states = [torch.get_rng_state(), random.getstate(), np.random.get_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _drew(before: list[Any], device: torch.device) -> bool:
    """Whether random numbers were drawn since the generators had these states."""
    return any(
        not torch.equal(a, b) if torch.is_tensor(a) else pickle.dumps(a) != pickle.dumps(b)
        for a, b in zip(before, _random_states(device), strict=True)
    )


def _restore(states: list[Any], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    random.setstate(states[1])
    np.random.set_state(states[2])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[3], device)
