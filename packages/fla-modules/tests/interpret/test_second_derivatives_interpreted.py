"""Kernels of modules have no second derivatives: they say so, and their first ones are the same in a graph."""

from __future__ import annotations

import pytest
import torch

from fla.utils.spec import Case, specs

#: The first and the last small case of every module that runs kernels.
CASES = [
    case
    for spec in specs("fla.modules")
    for case in [[case for case in spec.cases if "tiny" in case.tags][i] for i in (0, -1)]
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_second_derivative_is_refused_and_a_first_is_not(case: Case) -> None:
    function, inputs = case.make("cpu", torch.float32)
    leaves = [x for x in inputs if x.requires_grad]
    if not leaves:
        return

    def gradients(create_graph: bool) -> tuple[torch.Tensor, ...]:
        returned = function(*inputs, backend="triton")
        outputs = [returned] if isinstance(returned, torch.Tensor) else list(returned)
        roots = [x.cos().sum() for x in outputs if x.requires_grad]
        return torch.autograd.grad(sum(roots, torch.zeros(())), leaves, create_graph=create_graph)

    firsts = gradients(create_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(gradients(create_graph=False), firsts))
    for gradient in firsts:
        with pytest.raises(RuntimeError, match="this backend has no second derivative; backend='reference'"):
            torch.autograd.grad(gradient.cos().sum(), leaves, retain_graph=True, allow_unused=True)
