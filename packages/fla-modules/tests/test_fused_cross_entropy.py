"""Cross entropy and its linear form against PyTorch's own, and what PyTorch's does not have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fla.modules.fused_cross_entropy import FusedCrossEntropyLoss, cross_entropy_loss
from fla.modules.fused_cross_entropy.ops import (
    cross_entropy_bwd,
    cross_entropy_bwd_,
    cross_entropy_fwd,
    cross_entropy_reduce_fwd,
)
from fla.modules.fused_linear_cross_entropy import FusedLinearCrossEntropyLoss, fused_linear_cross_entropy_loss
from fla.modules.fused_linear_cross_entropy.ops import linear_cross_entropy_fwd
from fla.modules.l2warp import l2_warp
from fla.utils.numerics import agreement
from fla.utils.registration import registered

TIGHT = {"atol": agreement(torch.float64, 4096), "rtol": agreement(torch.float64, 4096)}
SIDES = {"x": (13, 5), "weight": (11, 5)}


def inputs(rows: int = 6, classes: int = 11) -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.randint(0, classes, (rows,))
    target[1] = -100
    return torch.randn(rows, classes, dtype=torch.float64, requires_grad=True), target


def gradient(loss: torch.Tensor, *leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(loss.sum(), leaves, retain_graph=True)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_it_is_pytorchs_cross_entropy(reduction: str, label_smoothing: float) -> None:
    logits, target = inputs()
    options: dict[str, Any] = {"reduction": reduction, "label_smoothing": label_smoothing}
    expected, loss = F.cross_entropy(logits, target, **options), FusedCrossEntropyLoss(**options)(logits, target)
    torch.testing.assert_close(loss, expected, **TIGHT)
    torch.testing.assert_close(gradient(loss, logits), gradient(expected, logits), **TIGHT)


def test_the_function_gives_every_row_its_loss_and_its_z_loss() -> None:
    logits, target = inputs()
    target[1] = 4
    losses, z_losses = cross_entropy_loss(logits, target, 0.1, 2.0, 0.3, 3.0, 4)
    shaped = 3 * torch.tanh(2 * logits / 3)
    expected_z = (0.3 * shaped.logsumexp(1).square()).where(target != 4, 0.0)
    expected = F.cross_entropy(shaped, target, reduction="none", label_smoothing=0.1, ignore_index=4) + expected_z
    torch.testing.assert_close((losses, z_losses), (expected, expected_z), **TIGHT)
    torch.testing.assert_close(gradient(losses, logits), gradient(expected, logits), **TIGHT)
    assert not z_losses.requires_grad


def test_scale_cap_and_z_loss() -> None:
    logits, target = inputs()
    shaped = 3 * torch.tanh(2 * logits / 3)
    z_loss = 0.1 * shaped.logsumexp(1)[target != -100].square().mean()
    expected = F.cross_entropy(shaped, target) + z_loss
    loss, z = FusedCrossEntropyLoss(logit_scale=2.0, logit_softcapping=3.0, lse_square_scale=0.1, return_z_loss=True)(
        logits, target
    )
    torch.testing.assert_close((loss, z), (expected, z_loss), **TIGHT)
    torch.testing.assert_close(gradient(loss, logits), gradient(expected, logits), **TIGHT)


def test_no_row_counts() -> None:
    logits, _ = inputs()
    loss: Any = FusedCrossEntropyLoss()(logits, torch.full((6,), -100))
    assert loss == 0
    assert gradient(loss, logits)[0].eq(0).all()
    x, weight = torch.randn(0, 4, requires_grad=True), torch.randn(11, 4, requires_grad=True)
    loss = fused_linear_cross_entropy_loss(x, torch.empty(0, dtype=torch.int64), weight, use_l2warp=True)
    assert loss == 0
    assert gradient(loss, weight)[0].eq(0).all()


def test_excluded_classes_and_ignored_rows_may_hold_infinities() -> None:
    logits, target = inputs()
    with torch.no_grad():
        logits[:, 3] = -torch.inf
        logits[1] = torch.nan
    target = target.where(target != 3, 4)
    expected, loss = F.cross_entropy(logits, target), FusedCrossEntropyLoss()(logits, target)
    torch.testing.assert_close(loss, expected, **TIGHT)
    torch.testing.assert_close(gradient(loss, logits)[0][0], gradient(expected, logits)[0][0], **TIGHT)
    assert gradient(loss, logits)[0][1].eq(0).all()


def test_the_gradient_in_place_takes_the_memory_of_the_logits() -> None:
    logits, target = inputs()
    (expected,) = gradient(F.cross_entropy(logits, target), logits)
    copy = logits * 1
    (in_place,) = gradient(FusedCrossEntropyLoss(inplace_backward=True)(copy, target), copy)
    torch.testing.assert_close(in_place, expected, **TIGHT)
    torch.testing.assert_close(copy.detach(), expected, **TIGHT)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("num_chunks", [1, 4, 100])
def test_the_linear_form_is_a_linear_layer_and_pytorchs_cross_entropy(reduction: str, num_chunks: int) -> None:
    _, target = inputs(13)
    x, weight, bias = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((13, 5), (11, 5), (11,)))
    expected = 2 * F.cross_entropy(F.linear(x, weight, bias), target, reduction=reduction)
    loss = 2 * FusedLinearCrossEntropyLoss(reduction=reduction, num_chunks=num_chunks)(x, target, weight, bias)
    torch.testing.assert_close(loss, expected, **TIGHT)
    torch.testing.assert_close(gradient(loss, x, weight, bias), gradient(expected, x, weight, bias), **TIGHT)


@pytest.mark.parametrize("frozen", ["x", "weight"])
def test_the_linear_form_with_a_frozen_side(frozen: str) -> None:
    _, target = inputs(13)
    sides = {n: torch.randn(s, dtype=torch.float64, requires_grad=n != frozen) for n, s in SIDES.items()}
    (trained,) = (side for side in sides.values() if side.requires_grad)
    expected = F.cross_entropy(F.linear(**{"input" if n == "x" else n: side for n, side in sides.items()}), target)
    loss = fused_linear_cross_entropy_loss(target=target, **sides)
    torch.testing.assert_close(gradient(loss, trained), gradient(expected, trained), **TIGHT)


def test_without_gradients_the_linear_form_computes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    _, target = inputs(13)
    x, weight = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in SIDES.values())
    monkeypatch.delattr("fla.modules.fused_linear_cross_entropy.ops.statistics_with_gradient_")
    with torch.no_grad():
        loss = fused_linear_cross_entropy_loss(x, target, weight)
        torch.testing.assert_close(loss, F.cross_entropy(x @ weight.t(), target), **TIGHT)


def test_the_mean_in_float16_does_not_vanish() -> None:
    x, weight = (torch.randn(s).half().requires_grad_() for s in ((4096, 8), (64, 8)))
    target = torch.randint(0, 64, (4096,))
    exact = [side.detach().double().requires_grad_() for side in (x, weight)]
    expected = 2.0**15 * F.cross_entropy(exact[0] @ exact[1].t(), target)
    loss = 2.0**15 * fused_linear_cross_entropy_loss(x, target, weight)
    for result, truth in zip(gradient(loss, x, weight), gradient(expected, *exact)):
        assert (result - truth).norm() <= 2e-3 * truth.norm()


def test_l2warp_pulls_on_the_largest_logit_alone() -> None:
    _, target = inputs(4)
    x, weight = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((4, 5), (11, 5)))
    logits = x @ weight.t()
    largest = logits.max(1).values
    plain = F.cross_entropy(logits, target)
    expected = gradient(plain + (0.5 * 0.1 / 4 * largest.square()).sum(), x, weight)
    warped = l2_warp(F.cross_entropy(logits, target), logits, 0.1)
    torch.testing.assert_close(warped, plain, **TIGHT)
    torch.testing.assert_close(gradient(warped, x, weight), expected, **TIGHT)
    fused = fused_linear_cross_entropy_loss(x, target, weight, use_l2warp=True, l2_penalty_factor=0.1)
    torch.testing.assert_close(fused, plain, **TIGHT)
    torch.testing.assert_close(gradient(fused, x, weight), expected, **TIGHT)


def test_under_autocast_the_linear_form_multiplies_in_the_low_dtype(device: torch.device) -> None:
    x, weight, target = torch.randn(8, 4, requires_grad=True), torch.randn(11, 4, requires_grad=True), inputs(8)[1]
    with torch.autocast(device.type, torch.bfloat16):
        loss = fused_linear_cross_entropy_loss(x, target, weight)
        expected = F.cross_entropy(F.linear(x, weight).float(), target)
    torch.testing.assert_close(loss, expected, atol=2e-2, rtol=2e-2)
    assert [d.dtype for d in gradient(loss, x, weight)] == [torch.float32, torch.float32]


def test_unknown_reduction_is_named() -> None:
    with pytest.raises(ValueError, match="reduction: expected one of mean, sum, none, got 'max'"):
        FusedCrossEntropyLoss(reduction="max")


def test_compiles_whole_for_every_length() -> None:
    torch._dynamo.reset()
    weight = torch.randn(11, 5, requires_grad=True)

    def both(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = FusedCrossEntropyLoss()(F.linear(x, weight), target)
        return loss + fused_linear_cross_entropy_loss(x, target, weight)

    compiled = torch.compile(both, fullgraph=True, dynamic=True, backend="aot_eager")
    for rows in (4, 7):
        x, target = torch.randn(rows, 5, requires_grad=True), torch.randint(0, 11, (rows,))
        torch.testing.assert_close(compiled(x, target), both(x, target))
        (dx, dweight), expected = (
            torch.autograd.grad(compiled(x, target), (x, weight)),
            gradient(both(x, target), x, weight),
        )
        torch.testing.assert_close((dx, dweight), expected)


def test_opcheck() -> None:
    logits, target = torch.randn(4, 9), torch.randint(0, 9, (4,))
    options = (-100, 0.1, 1.0, 0.1, 3.0, 0, 9)
    rows = [torch.randn(4) for _ in range(3)]
    torch.library.opcheck(registered(cross_entropy_fwd), (logits, target, "torch", *options))
    for reduction in ("mean", "none"):
        torch.library.opcheck(registered(cross_entropy_reduce_fwd), (target, *rows, reduction, "torch", *options))
    for op in (cross_entropy_bwd, cross_entropy_bwd_):
        torch.library.opcheck(
            registered(op), (logits, target, rows[0], torch.randn(()), torch.ones(()), "torch", *options)
        )
    linear = (torch.randn(4, 3), target, torch.randn(9, 3), torch.randn(9), "mean", 2, 0.1, True)
    for needs in ((True, True, True), (True, False, False)):
        torch.library.opcheck(registered(linear_cross_entropy_fwd), (*linear, *needs, "torch", *options))


@pytest.mark.own_device
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"target": torch.tensor([0, 11])}, ValueError, r"target: expected classes 0..10 or ignore_index=-100, got 11"),
        ({"target": torch.tensor([0.0, 1.0])}, TypeError, "target: expected int64 or int32"),
        ({"target": torch.tensor([0])}, ValueError, "target: expected shape"),
        ({"reduction": "mean"}, TypeError, "reduction"),
        ({"label_smoothing": 1.0}, ValueError, "label_smoothing: expected 0 <="),
        ({"logit_softcapping": -1.0}, ValueError, "logit_softcapping: expected a positive number"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cross_entropy_loss(**{"logits": torch.randn(2, 11), "target": torch.tensor([0, 1]), **change})
