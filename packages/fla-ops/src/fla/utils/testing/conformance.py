"""One conformance check for everything that has a spec: outputs and gradients within the error budget.

A spec's cases are objects with ``name`` and ``make(device, dtype) -> (fn, inputs)``; see :class:`fla.utils._spec.Case`.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import NamedTuple

import torch

from fla.utils._spec import Case, Spec
from fla.utils.numerics import error_budget_for, get_err_ratio


class Row(NamedTuple):
    """One tensor of one case: how wrong it is and how wrong it may be."""

    what: str
    error: float
    budget: float

    @property
    def ok(self) -> bool:
        """Whether the error is a number within the budget."""
        return self.error <= self.budget


def specs(part: str = "fla.ops") -> Iterator[Spec]:
    """The spec of every family in ``part`` that has one."""
    for family in iter_modules(import_module(part).__path__):
        if family.ispkg and any(m.name == "spec" for m in iter_modules(import_module(f"{part}.{family.name}").__path__)):
            yield import_module(f"{part}.{family.name}.spec").SPEC


def run_case(
    case: Case, device: torch.device | str, backend: str, input_dtype: torch.dtype, compute_dtype: torch.dtype
) -> list[torch.Tensor]:
    """Outputs, then gradients, of ``case`` on inputs rounded to ``input_dtype`` and then cast to ``compute_dtype``.

    Gradients are those of a weighted sum of the outputs; the weights are the same for every backend and dtype.
    """
    fn, made = case.make(device, input_dtype)
    inputs = [_leaf(x, compute_dtype) for x in made]
    outputs = [o for o in _as_sequence(fn(*inputs, backend=backend)) if o is not None]
    leaves = [x for x in inputs if x.requires_grad]
    differentiable = [o for o in outputs if o.requires_grad]
    if not leaves or not differentiable:
        return outputs
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(o.shape, generator=generator).to(o.device, input_dtype).to(o.dtype) for o in differentiable]
    gradients = torch.autograd.grad(differentiable, leaves, weights, allow_unused=True)
    return [*outputs, *(torch.zeros_like(x) if d is None else d for x, d in zip(leaves, gradients, strict=True))]


def conformance(case: Case, device: torch.device | str, backend: str, dtype: torch.dtype, truth: str) -> list[Row]:
    """Hold ``backend`` against ``truth`` in float64, with ``truth`` in ``dtype`` setting the budget."""
    exact = run_case(case, device, truth, dtype, torch.float64)
    baseline = run_case(case, device, truth, dtype, dtype)
    result = run_case(case, device, backend, dtype, dtype)
    assert len(exact) == len(result)
    rows = []
    for i, (x, y, z) in enumerate(zip(exact, baseline, result, strict=True)):
        if x.shape != z.shape:
            raise AssertionError(f"{case.name}, tensor {i}: shape {tuple(z.shape)}, expected {tuple(x.shape)}")
        rows.append(Row(f"tensor {i}", get_err_ratio(x, z), error_budget_for(x, y, dtype)))
    return rows


def check(case: Case, device: torch.device | str, backend: str, dtype: torch.dtype, truth: str) -> list[Row]:
    """:func:`conformance`, raising AssertionError for the rows over budget."""
    rows = conformance(case, device, backend, dtype, truth)
    bad = [f"{row.what}: {row.error:.2e} > {row.budget:.2e}" for row in rows if not row.ok]
    if bad:
        raise AssertionError(f"{case.name} on {backend} in {dtype}: over the error budget: {'; '.join(bad)}")
    return rows


def _leaf(x: torch.Tensor, compute_dtype: torch.dtype) -> torch.Tensor:
    if not x.is_floating_point():
        return x
    cast = x.detach().to(torch.float64) if compute_dtype == torch.float64 else x.detach().clone()
    return cast.requires_grad_(x.requires_grad)


def _as_sequence(outputs: object) -> list[torch.Tensor]:
    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)  # type: ignore[call-overload]
