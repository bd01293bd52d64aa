"""Normalised writes by the Triton kernels where conformance does not go: steep rises, starts of nothing, empty ends."""

from __future__ import annotations

import pytest
import torch

from fla.ops.utils import normalised_writes, running_logsumexp
from fla.utils.numerics import assert_close


@pytest.mark.parametrize("spread", [1.0, 30.0, 300.0])
@pytest.mark.parametrize("ends", [None, [0, 0, 19, 299, 300]], ids=["dense", "packed"])
def test_any_size_from_any_start(ends: list[int] | None, spread: float) -> None:
    torch.manual_seed(0)
    s = spread * torch.randn(1, 300, 5)
    initial = spread * torch.randn(1 if ends is None else len(ends) - 1, 5)
    initial[-1, :3] = -torch.inf
    cu_seqlens = None if ends is None else torch.tensor(ends, dtype=torch.int32)
    cotangents = [torch.randn_like(x) for x in (s, s, initial)]

    def run(dtype: torch.dtype, backend: str) -> list[torch.Tensor]:
        leaves = [x.to(dtype).requires_grad_() for x in (s, initial)]
        results = normalised_writes(*leaves, cu_seqlens, backend=backend)
        gradients = torch.autograd.grad(results, leaves, [x.to(dtype) for x in cotangents])
        return [*results, running_logsumexp(*leaves, cu_seqlens, backend=backend), *gradients]

    names = ("write", "decay", "last", "z", "gradient of s", "gradient of initial")
    for name, truth, result in zip(names, run(torch.float64, "torch"), run(torch.float32, "triton")):
        assert_close(name, truth, result, 1e-6)


def test_an_empty_sequence_ends_as_it_starts() -> None:
    s, cu_seqlens = torch.randn(1, 9, 4), torch.tensor([0, 4, 4, 9])
    nothing = torch.full((3, 4), -torch.inf, requires_grad=True)
    results = [normalised_writes(s, initial, cu_seqlens, backend="triton") for initial in (None, nothing)]
    for expected, got in zip(*results):
        assert torch.equal(expected, got)
    assert torch.equal(results[0][2][1], nothing[1])
    (gradient,) = torch.autograd.grad(sum(x[x.isfinite()].sum() for x in results[1]), nothing)
    assert torch.equal(gradient, torch.zeros_like(nothing))
