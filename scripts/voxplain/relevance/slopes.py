"""Check that the gradient which PyTorch gives for a network is the slope of its outputs.

It is not where a part of the network is detached, runs under ``torch.no_grad``, is changed in place
unseen, or has a backward pass of its own. Heatmaps would lack that part without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from voxplain.faults import SetupFault
from voxplain.relevance.behaviour import first_line, first_time, note_passed
from voxplain.relevance.inputs import differentiating
from voxplain.relevance.plain import in_float64

# Random directions along which slopes are compared. A missing part that is a third of the gradient
# goes unnoticed along one of them at one in twenty.
_DIRECTIONS = 2
# Largest allowed difference from the gradient, as a fraction of its length times the step's.
_TRUSTED = 0.02
# In float64 steps are so short that no ReLU changes its side and hardly any jump is met.
_TRUSTED_FLOAT64 = 1e-3
_STEPS_FLOAT64 = (1e-6, 1e-8, 1e-5)
# Scans of at most so many voxels are compared in float64 at once, which takes no time there, and
# minutes for a large network on a CPU.
_SMALL = 100_000
# In float64 a CPU unfolds the input of a convolution, which takes 27 times its memory: gigabytes
# for the maps of scans with more voxels than this.
_LARGEST_FLOAT64 = 500_000
# Where the network cannot be run in float64, a larger difference at every step is needed.
_WRONG = 0.2
# Errors of a network's outputs by rounding, in units of the type's epsilon.
_ROUNDING = 100.0

Run = Callable[[Tensor], Tensor]


def check_slope(model: nn.Module, batch: Tensor) -> None:
    """Check the gradient of a network's outputs by the scan, once a network.

    Parameters
    ----------
    model
        From ``[batch, 1, x, y, z]`` to outputs ``[batch, classes]``, in eval mode.
    batch
        ``[1, 1, x, y, z]``; the gradient is taken near it.

    Raises
    ------
    SetupFault
        The network cannot be differentiated, or its gradient is not the slope of its outputs.
    """
    check_slope_of(
        model, batch, lambda point: model(point.clone()), "scan", "by the scan", batch.numel()
    )


def check_slope_of(
    model: nn.Module, near: Tensor, run: Run, check: Hashable, by: str, voxels: int
) -> None:
    """Check the gradient of a network's outputs by a tensor, once a network.

    Parameters
    ----------
    near
        The tensor; it is not changed.
    run
        Function from a tensor in its place to the outputs ``[1, classes]``.
    check
        Name under which it is remembered that the network passed.
    by
        For the message: ``by the scan``.
    voxels
        Number of voxels of the scan.

    Raises
    ------
    SetupFault
        As :func:`check_slope`.
    """
    if not first_time_of_slope(model, check, near):
        return
    near = near.detach()
    filled = near[near != 0]
    size = float(filled.double().square().mean().sqrt()) if filled.numel() else 1.0
    draw = torch.Generator().manual_seed(0)

    def noise() -> Tensor:
        drawn = torch.randn(near.shape, generator=draw, dtype=near.dtype)
        return drawn.mul_(size).to(near.device)

    # Not at the tensor itself: where a background is 0, ReLUs stand at their kink.
    point = near + 0.5 * noise()
    directions = [noise() for _ in range(_DIRECTIONS)]

    def exactly() -> list[_Comparison]:
        try:
            with in_float64(model):
                doubles = [direction.double() for direction in directions]
                return _compare(model, run, point.double(), doubles, _STEPS_FLOAT64, size)
        except Exception:  # no memory for it, or the network has a type of its own in its code
            return []

    short = near.dtype == torch.float64
    at_once = short or voxels <= _SMALL
    found, trusted = exactly() if at_once else [], _TRUSTED_FLOAT64
    if not found:
        steps = _STEPS_FLOAT64 if short else (1e-2, 1e-1, 1e-3)
        found, trusted = _compare(model, run, point, directions, steps, size), _TRUSTED
        if any(each.error > _TRUSTED or each.unclear for each in found):
            again = [] if at_once or voxels > _LARGEST_FLOAT64 else exactly()
            found, trusted = (again, _TRUSTED_FLOAT64) if again else (found, _WRONG)
    worst = max(found, key=lambda each: each.error)
    if worst.error > trusted:
        raise SetupFault(
            f"the gradient {by} that PyTorch gives for this network is not its slope: along a "
            f"random direction the outputs change by {worst.slope:.3g} and by the gradient "
            f"{worst.gradient:.3g}; a part of its forward is detached, under torch.no_grad or "
            "inference mode, changed in place, or has a backward of its own. Write it without for "
            "explaining, or choose occlusion"
        )
    if not worst.unclear:
        note_passed(model, _name_of(check, near))


def first_time_of_slope(model: nn.Module, check: Hashable, near: Tensor) -> bool:
    """Whether a network did not pass a check of :func:`check_slope_of` yet."""
    return first_time(model, _name_of(check, near))


def _name_of(check: Hashable, near: Tensor) -> Hashable:
    return "slope", check, near.dtype, near.device


class _Comparison:
    """Slopes along one direction.

    Attributes
    ----------
    slope, gradient
        By finite differences, and by the gradient.
    error
        Their difference beyond rounding, as a fraction of the larger of the slope and the
        gradient's length.
    unclear
        Whether rounding hides both.
    """

    def __init__(self, slope: float, gradient: float, length: float, rounding: float) -> None:
        self.slope, self.gradient = slope, gradient
        scale = max(abs(slope), length)
        self.error = max(0.0, abs(slope - gradient) - rounding) / scale if scale else 0.0
        self.unclear = rounding > 0.5 * scale


def _compare(
    model: nn.Module,
    run: Run,
    point: Tensor,
    directions: list[Tensor],
    steps: tuple[float, ...],
    size: float,
) -> list[_Comparison]:
    """For each direction the comparison at the step where the two agree best."""
    with ExitStack() as stack:
        stack.enter_context(differentiating(model))
        weights, gradient = _gradient(run, point)
        length = float(gradient.double().square().sum().sqrt()) * size

        @torch.no_grad()
        def value(at: Tensor) -> tuple[float, float]:
            terms = run(at).detach().double() * weights
            return float(terms.sum()), float(terms.abs().sum())

        best = []
        for direction in directions:
            along = float((gradient * direction).sum(dtype=torch.float64))
            tried: list[_Comparison] = []
            for step in steps:
                (above, most), (below, _) = (
                    value(torch.add(point, direction, alpha=way * step)) for way in (1, -1)
                )
                # Rounding of the outputs, and of the points on the way to them.
                rounding = _ROUNDING * torch.finfo(point.dtype).eps * most / step
                tried.append(_Comparison((above - below) / 2 / step, along, length, rounding))
                enough = _TRUSTED_FLOAT64 if point.dtype == torch.float64 else _TRUSTED
                if tried[-1].error <= enough and not tried[-1].unclear:
                    break
            best.append(min(tried, key=lambda each: (each.unclear, each.error)))
        return best


def _gradient(run: Run, point: Tensor) -> tuple[Tensor, Tensor]:
    """Random weights of the outputs, and the gradient of their sum at a point."""
    try:
        read = point.detach().clone().requires_grad_()
        outputs = run(read)
        draw = torch.Generator().manual_seed(1)
        weights = torch.randn(outputs.shape, generator=draw, dtype=torch.float64)
        weights = weights.to(outputs.device)
        score = (outputs.double() * weights).sum()
        if not score.requires_grad:
            return weights, torch.zeros_like(point)
        (gradient,) = torch.autograd.grad(score, read, allow_unused=True)
    except (SetupFault, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the network's own code: anything may be raised
        raise SetupFault(
            f"the network cannot be differentiated: {first_line(error)}; write it without "
            "inference mode, hooks and changes in place, or choose occlusion"
        ) from error
    if gradient is None:
        return weights, torch.zeros_like(point)
    return weights, gradient.detach()
