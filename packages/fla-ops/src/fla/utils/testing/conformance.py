"""Holds any backend of any function against the float64 truth, outputs and gradients alike.

Truth is the spec's truth backend on float64 copies of the inputs, the baseline the same backend on the inputs as
they are, the result the backend under test; how far the result may be off is :mod:`fla.utils.numerics`' to say. For
inputs in float64 the truth's own rounding counts, which the same backend's error in float32 tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple
from zlib import crc32

import torch

from fla.utils.numerics import check_error_budget, float64_rounding, get_err_ratio
from fla.utils.spec import Case, Results, seeded

#: How often a GPU computes the result, each time to be held to the budget: what races goes wrong only now and then.
GPU_RUNS = 3
#: On a GPU every case repeats a plan that was recorded on other values, in Triton's interpreter one of so many.
PLANNED_CASES = 4


class Measured(NamedTuple):
    """One compared tensor: its relative error and what it was allowed."""

    what: str
    error: float
    budget: float


def check_case(
    case: Case,
    backend: str,
    device: torch.device | str,
    dtype: torch.dtype,
    truth: str = "torch",
    gradients: bool = True,
) -> list[Measured]:
    """Run one case and hold every output, and the gradient of every input that requires it, to its budget.

    Args:
        case: what to run.
        backend: under test.
        device: to run all three on.
        dtype: of the inputs.
        truth: the backend that is right in float64.
        gradients: compare them too.

    Returns:
        What was measured, outputs first; of several runs the worst.

    Raises:
        AssertionError: something is over its budget, has the wrong shape or dtype, or lacks a gradient; the message
            lists all of it.
    """
    function, inputs = case.make(device, dtype)
    run = partial(outputs_and_gradients, case.name, gradients)
    exact = run(function, [_as_float64(x) for x in inputs], truth)
    baseline, truth_errors = exact, dict.fromkeys(exact, 0.0)
    if dtype == torch.float64:
        truth_errors = _truth_errors(case, device, truth, gradients)
    else:
        baseline = run(function, inputs, truth)
    on_cpu = torch.device(device).type == "cpu"
    if backend == "triton" and (not on_cpu or crc32(case.name.encode()) % PLANNED_CASES == 0):
        _run_on_zeros(partial(run, function, backend=backend), inputs)
    results = [run(function, inputs, backend) for _ in range(1 if on_cpu else GPU_RUNS)]
    measured, failures = [], []
    for what, expected in exact.items():
        try:
            found = []
            for result in results:
                if result[what].dtype != baseline[what].dtype:
                    raise AssertionError(f"{what}: dtype {result[what].dtype}, expected {baseline[what].dtype}")
                compared = (expected, baseline[what], result[what], dtype, truth_errors[what])
                found.append(Measured(what, *check_error_budget(what, *compared)))
            measured.append(max(found, key=lambda one: one.error))
        except AssertionError as failure:
            failures.append(str(failure))
    if failures:
        raise AssertionError("\n".join([f"{case.name} on {device} in {dtype}, backend {backend}:", *failures]))
    return measured


def _run_on_zeros(run: Callable[..., object], inputs: Sequence[torch.Tensor]) -> None:
    """A call of the same kind, so that what is measured repeats a plan that was recorded on other values."""
    values = [x.detach().clone() for x in inputs]
    with torch.no_grad():
        for x in inputs:
            if x.is_floating_point():
                x.zero_()
    run(inputs=inputs)
    with torch.no_grad():
        for x, value in zip(inputs, values):
            x.copy_(value)


def _truth_errors(case: Case, device: torch.device | str, truth: str, gradients: bool) -> dict[str, float]:
    """What rounding leaves in the float64 truth of each result."""
    function, inputs = case.make(device, torch.float32)
    run = partial(outputs_and_gradients, case.name, gradients, function)
    exact, rounded = run([_as_float64(x) for x in inputs], truth), run(inputs, truth)
    return {what: float64_rounding(get_err_ratio(expected, rounded[what])) for what, expected in exact.items()}


def _as_float64(x: torch.Tensor) -> torch.Tensor:
    if not x.is_floating_point():
        return x
    return x.detach().double().requires_grad_(x.requires_grad)


def outputs_and_gradients(
    name: str, gradients: bool, function: Callable[..., Results], inputs: Sequence[torch.Tensor], backend: str
) -> dict[str, torch.Tensor]:
    """Every output, and for each input that requires grad the gradient of a random projection of the outputs.

    The projection depends on ``name`` alone.
    """
    returned = function(*inputs, backend=backend)
    outputs = [returned] if isinstance(returned, torch.Tensor) else list(returned)
    found = {f"output {i}": output.detach() for i, output in enumerate(outputs)}
    if not gradients:
        return found
    cotangents = seeded(f"{name}: cotangents")
    # One draw for each output, whether or not it is differentiable, so that every backend sees the same numbers.
    draws = [torch.randn(o.shape, generator=cotangents, dtype=torch.float64).to(o.device, o.dtype) for o in outputs]
    roots = [(o, d) for o, d in zip(outputs, draws) if o.requires_grad]
    leaves = {f"gradient {i}": x for i, x in enumerate(inputs) if x.requires_grad}
    if leaves:
        found.update(
            zip(leaves, torch.autograd.grad([o for o, _ in roots], list(leaves.values()), [d for _, d in roots]))
        )
    return found
