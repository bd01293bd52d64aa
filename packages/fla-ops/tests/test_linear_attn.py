"""Linear attention with a normaliser, Based and ReBased: definitions, feature maps, states that do not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fla.ops._engines.second_order.features import half_square, half_square_width, taylor, taylor_width
from fla.ops.based import fused_chunk_based, naive_parallel_based, parallel_based
from fla.ops.based.reference import naive_half_square, naive_taylor
from fla.ops.linear_attn import chunk_linear_attn, fused_recurrent_linear_attn
from fla.ops.rebased import naive_parallel_rebased, parallel_rebased
from fla.utils.numerics import agreement, assert_close, check_error_budget

TIGHT = agreement(torch.float64, 4096)
Feature = Callable[[torch.Tensor], torch.Tensor]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def qkv(time: int, dim: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return normal(2, time, 2, dim), normal(2, time, 2, dim, seed=1), normal(2, time, 2, 3, seed=2)


def test_linear_attention_is_what_its_matrix_of_weights_says() -> None:
    q, k, v = qkv(70)
    q, k = q.abs(), k.abs()
    weights = torch.einsum("bthd,bshd->bhts", q, k).tril()
    plain = torch.einsum("bhts,bshv->bthv", weights, v)
    normalised = 0.5 * plain / (0.5 * weights.sum(-1).transpose(1, 2).unsqueeze(-1) + 1e-10)
    for function in (chunk_linear_attn, fused_recurrent_linear_attn):
        assert_close("agreement", 0.5 * plain, function(q, k, v, normalize=False)[0], TIGHT, 0.0)
        assert_close("agreement", normalised, function(q, k, v, normalize=True)[0], TIGHT, 0.0)
    _, (_, z) = chunk_linear_attn(q, k, v, output_final_state=True)
    assert_close("agreement", k.sum(1, keepdim=True), z, TIGHT, 0.0)


@pytest.mark.parametrize("dim", [4, 5])
@pytest.mark.parametrize("use_norm", [True, False])
@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_features_give_the_weights_of_the_definition(dim: int, use_norm: bool, backend: str) -> None:
    q, k, v = qkv(70, dim)
    o = naive_parallel_based(q, k, v, 0.3, use_norm)
    assert_close("agreement", o, parallel_based(q, k, v, 0.3, use_norm, backend=backend), TIGHT, 0.0)
    o = naive_parallel_rebased(q, k, v, None, use_norm)
    assert_close("agreement", o, parallel_rebased(q, k, v, use_normalize=use_norm, backend=backend), 1e-10, 0.0)
    o, z = parallel_rebased(q, k, v, use_scale=False, return_both=True, backend=backend)
    assert_close("agreement", naive_parallel_rebased(q, k, v, 1.0, use_norm=False), o, TIGHT, 0.0)
    assert_close(
        "agreement", naive_parallel_rebased(q, k, torch.ones_like(v), 1.0, use_norm=False)[..., 0], z, TIGHT, 0.0
    )


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize(
    ("features", "naive", "width"),
    [(half_square, naive_half_square, half_square_width), (taylor, naive_taylor, taylor_width)],
    ids=["half_square", "taylor"],
)
def test_features_and_their_gradient(features: Feature, naive: Feature, width: Callable[[int], int], dim: int) -> None:
    x = normal(3, dim).requires_grad_()
    assert_close("agreement", naive(x), features(x), 1e-15, 0.0)
    assert features(x).shape[-1] == width(dim)
    assert torch.autograd.gradcheck(features, x)


def test_rebased_keeps_small_weights_in_half_precision() -> None:
    # Two small scores: in half precision the products that cancel in their squares would lose them.
    q, k, v = (
        torch.full((1, 2, 1, 3), 1.0),
        torch.tensor([[1.2, 0.7, -2.0], [0.3, 1.1, -1.3]]),
        torch.tensor([1.0, 3.0]),
    )
    half = [x.bfloat16() for x in (q, k.view(1, 2, 1, 3), v.view(1, 2, 1, 1))]
    o = parallel_rebased(*half)
    assert o.dtype == torch.bfloat16
    assert_close("agreement", naive_parallel_rebased(*(x.double() for x in half)), o, 0.01, 0.0)


def test_there_is_one_form_of_based() -> None:
    assert fused_chunk_based is parallel_based


@pytest.mark.parametrize(
    ("function", "plain", "width"),
    [
        (chunk_linear_attn, {"normalize": False}, 4),
        (fused_recurrent_linear_attn, {}, 4),
        (parallel_based, {"use_norm": False}, 16),
        (parallel_rebased, {"use_normalize": False}, 16),
    ],
)
def test_states_that_do_not_fit_are_named(function: Callable[..., Any], plain: dict[str, bool], width: int) -> None:
    q, k, v = qkv(3)
    s, z = normal(2, 2, width, 3), normal(2, 1, 2, width)
    normalised = {"normalize": True} if function is fused_recurrent_linear_attn else {}
    with pytest.raises(ValueError, match=r"initial_state: the normaliser.*expected \(S, z\), got S alone \[2, 2"):
        function(q, k, v, initial_state=s, **normalised)
    with pytest.raises(TypeError, match=r"initial_state: expected a pair of tensors \(S, z\), got tuple"):
        function(q, k, v, initial_state=(s, z, z), **normalised)
    with pytest.raises(TypeError, match="initial_state: expected a tensor S, got tuple"):
        function(q, k, v, initial_state=(s, z), **plain)
    with pytest.raises(ValueError, match=rf"initial_state\[1\].*\[N, 1, H, K\].*K={width}.*got \[2, 2, {width}\]"):
        function(q, k, v, initial_state=(s, z[:, 0]), **normalised)
    with pytest.raises(ValueError, match=r"initial_state: expected shape.*N=2"):
        function(q, k, v, initial_state=s[:1], **plain)
    with pytest.raises(ValueError, match=r"v: expected shape.*B=2"):
        function(q, k, v[:1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("features", [lambda x: F.elu(x) + 1, F.relu, torch.exp], ids=["elu", "relu", "exp"])
@pytest.mark.parametrize("function", [chunk_linear_attn, parallel_based, parallel_rebased])
def test_long_sums_are_divided_before_they_are_rounded(
    function: Callable[..., Any], features: Feature, dtype: torch.dtype, device: torch.device
) -> None:
    width = 64 if function is chunk_linear_attn else 4
    drawn = (normal(1, 8192, 1, n, seed=seed) for seed, n in enumerate((width, width, 16, 16)))
    q, k, v, do = (
        change(x).to(device) for change, x in zip((features, features, lambda v: v + 1, lambda do: do), drawn)
    )

    def run(wide: torch.dtype | None, do: torch.Tensor, backend: str | None) -> list[torch.Tensor]:
        """Of operands as the dtype under test rounds them, in a wider one."""
        leaves = [x.to(dtype).to(wide or dtype).requires_grad_() for x in (q, k, v)]
        results = function(*leaves, backend=backend)
        o = results[0] if isinstance(results, tuple) else results
        return [o.detach(), *torch.autograd.grad(o, leaves, do.to(o.dtype))]

    truth, baseline = run(torch.float64, do, "torch"), run(torch.float32, do.to(dtype), "torch")
    for name, exact, rounded, result in zip(("o", "dq", "dk", "dv"), truth, baseline, run(None, do, None)):
        check_error_budget(name, exact, rounded.to(dtype), result, dtype)
