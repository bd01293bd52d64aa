"""Derivatives of gradients of every module with a spec: right, or refused, and never in the way of a first one."""

from __future__ import annotations

import pytest
import torch

from fla.modules.fused_cross_entropy import cross_entropy_loss
from fla.modules.fused_linear_cross_entropy import fused_linear_cross_entropy_loss
from fla.modules.l2warp import l2_warp
from fla.utils.numerics import get_err_ratio
from fla.utils.spec import Case, specs

#: Gradients that pass through a rounding as if it were not there have no derivative to be held against.
ROUNDED = "fused_bitlinear"
CASES = [(spec.name, case) for spec in specs("fla.modules") for case in spec.cases if "tiny" in case.tags]
STEP = 1e-5


@pytest.mark.parametrize(("module", "case"), CASES, ids=[case.name for _, case in CASES])
def test_a_second_derivative_is_right_or_refused(module: str, case: Case, device: torch.device) -> None:
    function, inputs = case.make(device, torch.float64)
    leaves = [x for x in inputs if x.requires_grad]
    if not leaves:
        return
    directions = [torch.randn_like(x) for x in leaves]

    def gradients(step: float, create_graph: bool) -> list[torch.Tensor]:
        given = iter([x + step * d if step else x for x, d in zip(leaves, directions)])
        moved = [next(given) if x.requires_grad else x for x in inputs]
        returned = function(*moved, backend="torch")
        outputs = [returned] if isinstance(returned, torch.Tensor) else list(returned)
        roots = [x.cos().sum() for x in outputs if x.requires_grad]
        at = [x for x, leaf in zip(moved, inputs) if leaf.requires_grad]
        return list(torch.autograd.grad(sum(roots, torch.zeros(())), at, create_graph=create_graph))

    firsts = gradients(0, True)
    # PyTorch takes another formula for some of its own functions.
    assert all(get_err_ratio(a, b) < 1e-12 for a, b in zip(gradients(0, False), firsts))
    if module == ROUNDED:
        return
    try:
        found = torch.autograd.grad(sum((g * d).sum() for g, d in zip(firsts, directions)), leaves)
    except RuntimeError as error:
        # PyTorch's layer norm with a bias and no weight cannot be differentiated twice, as of 2.13.
        refused = ("this backend has no second derivative", "undefined Tensor")
        assert any(reason in str(error) for reason in refused), error  # noqa: PT017
        return
    pairs = zip(gradients(STEP, False), gradients(-STEP, False))
    expected = [(after - before) / (2 * STEP) for after, before in pairs]
    whole = [torch.cat([x.flatten() for x in parts]) for parts in (expected, found)]
    assert get_err_ratio(*whole) < 1e-6


def test_losses_have_second_derivatives_by_the_reference_alone(device: torch.device) -> None:
    x, weight = torch.randn(5, 4, dtype=torch.float64, device=device), torch.randn(7, 4, device=device).double()
    target = torch.tensor([0, 3, -100, 6, 2], device=device)
    x, weight = x.requires_grad_(), weight.requires_grad_()

    def linear(x: torch.Tensor, weight: torch.Tensor, backend: str | None = "reference") -> torch.Tensor:
        return fused_linear_cross_entropy_loss(x, target, weight, logit_softcapping=3.0, backend=backend)

    def plain(x: torch.Tensor, weight: torch.Tensor, backend: str | None = "reference") -> torch.Tensor:
        options = {"lse_square_scale": 0.1, "label_smoothing": 0.1, "backend": backend}
        losses, _ = cross_entropy_loss(x @ weight.t(), target, **options)
        return losses.sum()

    for loss in (linear, plain):
        assert get_err_ratio(loss(x, weight, None).detach(), loss(x, weight).detach()) < 1e-14
        assert torch.autograd.gradcheck(loss, (x, weight))
        assert torch.autograd.gradgradcheck(loss, (x, weight))
        for leaf in (x, weight):
            (gradient,) = torch.autograd.grad(loss(x, weight, None), leaf, create_graph=True)
            with pytest.raises(RuntimeError, match=r"cross_entropy_loss: this backend has no second derivative"):
                torch.autograd.grad(gradient.square().sum(), leaf)


def test_the_pull_on_logits_is_differentiated_as_it_acts(device: torch.device) -> None:
    logits = torch.randn(3, 5, dtype=torch.float64, device=device, requires_grad=True)
    loss = l2_warp(logits.new_zeros((), requires_grad=True), logits, 0.3)
    (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), logits)
    largest = torch.nn.functional.one_hot(logits.argmax(1), 5)
    assert torch.allclose(gradient, 0.1 * logits * largest)
    assert torch.allclose(second, 0.1 * largest.double())
