"""Derivatives of gradients: right, or refused with a word on who has them, for every op over sequences."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from fla.ops import chunk_delta_rule, chunk_gla
from fla.ops._engines.second_order.features import half_square, taylor
from fla.ops._shared.cases import flatten
from fla.utils.numerics import get_err_ratio
from fla.utils.spec import SequenceOp, specs

OPS = [op for spec in specs("fla.ops") for op in spec.sequence_ops]
every_op = pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
SIZES = {"B": 1, "T": 3, "H": 1, "HV": 2, "K": 3, "V": 2, "M": 2}
REFUSED = re.compile(r"\w+: this backend has no second derivative; backend='reference', or FLA_BACKEND=reference")
TIGHT = 1e-10
Tensors = tuple[torch.Tensor, ...]
Function = Callable[..., Tensors]


def draw(op: SequenceOp, device: torch.device) -> tuple[Function, list[torch.Tensor]]:
    """A call on leaves in float64, whose outputs are the op's with its state."""
    names = op.make(SIZES, torch.Generator().manual_seed(0), torch.float64)
    leaves = [x.to(device).requires_grad_() for x in names.values()]

    def call(*tensors: torch.Tensor, backend: str | None = None) -> Tensors:
        return tuple(flatten(op.function(**dict(zip(names, tensors)), output_final_state=True, backend=backend)))

    return call, leaves


def loss(outputs: Tensors) -> torch.Tensor:
    """Its gradient depends on the outputs."""
    return sum((x.cos().sum() for x in outputs), torch.zeros(()))


def product(gradients: Tensors, leaves: list[torch.Tensor]) -> Tensors:
    """The Hessian of the loss times a vector."""
    total = sum(((i + 1) * x.sin()).sum() for i, x in enumerate(gradients))
    assert isinstance(total, torch.Tensor)
    return torch.autograd.grad(total, leaves)


@every_op
def test_a_second_derivative_is_right_or_refused(op: SequenceOp, device: torch.device) -> None:
    call, leaves = draw(op, device)
    plain = torch.autograd.grad(loss(call(*leaves)), leaves)
    gradients = torch.autograd.grad(loss(call(*leaves)), leaves, create_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, gradients))
    try:
        found = product(gradients, leaves)
    except RuntimeError as error:
        assert REFUSED.match(str(error)) or "derivative for aten::" in str(error), error  # noqa: PT017
        return
    expected = product(torch.autograd.grad(loss(call(*leaves, backend="reference")), leaves, create_graph=True), leaves)
    assert all(get_err_ratio(a, b) < TIGHT for a, b in zip(expected, found))


@every_op
def test_every_part_of_a_second_derivative_is_refused_or_right(op: SequenceOp, device: torch.device) -> None:
    """Of the gradient of each input by each input, where outputs have a constant gradient."""
    call, leaves = draw(op, device)
    results = []
    for backend in (None, "reference"):
        total = sum(x.sum() for x in call(*leaves, backend=backend))
        results.append(torch.autograd.grad(total, leaves, create_graph=True))
    for ours, truth in zip(*results):
        for leaf in leaves:
            expected = second(truth, leaf)
            try:
                found = second(ours, leaf)
            except RuntimeError as error:
                assert REFUSED.match(str(error)) or "derivative for aten::" in str(error), error  # noqa: PT017
                continue
            assert get_err_ratio(expected, found) < TIGHT or (expected - found).abs().max() < TIGHT


def second(gradient: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    if not gradient.requires_grad:
        return torch.zeros_like(leaf)
    (found,) = torch.autograd.grad(gradient.cos().sum(), leaf, retain_graph=True, allow_unused=True)
    return torch.zeros_like(leaf) if found is None else found


@every_op
def test_the_reference_can_be_differentiated_twice(op: SequenceOp, device: torch.device) -> None:
    call, leaves = draw(op, device)
    assert torch.autograd.gradgradcheck(partial(call, backend="reference"), leaves, fast_mode=True)


@pytest.mark.parametrize("reentrant", [False, True], ids=["saved tensors", "reentrant"])
@every_op
def test_checkpointing_changes_no_gradient(op: SequenceOp, reentrant: bool, device: torch.device) -> None:
    call, leaves = draw(op, device)
    expected = torch.autograd.grad(loss(call(*leaves)), leaves)
    outputs = checkpoint(call, *leaves, use_reentrant=reentrant)
    loss(outputs).backward()
    assert all(torch.equal(a, b.grad) for a, b in zip(expected, leaves))
    if not reentrant:
        outputs = checkpoint(call, *leaves, use_reentrant=False)
        gradients = torch.autograd.grad(loss(outputs), leaves, create_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(expected, gradients))


@pytest.mark.parametrize("by", [0, 3], ids=["queries", "the last operand"])
@pytest.mark.parametrize("op", [chunk_gla, chunk_delta_rule])
def test_hessian_vector_products_are_refused_or_those_of_finite_differences(
    op: Callable[..., Any], by: int, device: torch.device
) -> None:
    leaves = [torch.randn(1, 6, 2, 4, dtype=torch.float64, device=device) for _ in range(3)]
    last = -torch.rand(1, 6, 2, 4, dtype=torch.float64, device=device)
    leaves.append(last if op is chunk_gla else -last[..., 0])
    leaf = leaves[by].requires_grad_()
    direction = torch.randn_like(leaf)

    def gradient(at: torch.Tensor, backend: str | None) -> torch.Tensor:
        o, _ = op(*leaves[:by], at, *leaves[by + 1 :], backend=backend)
        return torch.autograd.grad(o.square().sum(), at, create_graph=True)[0]

    with pytest.raises(RuntimeError, match=REFUSED):
        torch.autograd.grad((gradient(leaf, None) * direction).sum(), leaf)
    (found,) = torch.autograd.grad((gradient(leaf, "reference") * direction).sum(), leaf)
    step = 1e-5
    after, before = (gradient(leaf + sign * step * direction, None).detach() for sign in (1, -1))
    assert get_err_ratio((after - before) / (2 * step), found) < 1e-7


@pytest.mark.parametrize("feature_map", [half_square, taylor])
@pytest.mark.parametrize("dim", [3, 4])
def test_features_can_be_differentiated_twice(
    feature_map: Callable[[torch.Tensor], torch.Tensor], dim: int, device: torch.device
) -> None:
    x = torch.randn(2, dim, dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradcheck(feature_map, x)
    assert torch.autograd.gradgradcheck(feature_map, x)
