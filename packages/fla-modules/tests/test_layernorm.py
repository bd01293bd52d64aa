"""Layer norm, RMS norm, group norm and their gated forms: values against the formulas, residuals, modules, errors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from fla.modules import FusedLayerNormGated, FusedRMSNormGated, GroupNorm, LayerNorm, RMSNorm
from fla.modules._norm import api
from fla.modules.fused_norm_gate import layer_norm_gated, rms_norm_gated
from fla.modules.layernorm import group_norm, layer_norm, rms_norm

EPS = 1e-3


def tensors(*names: str, rows: int = 3, dim: int = 5) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    sizes = {"weight": (dim,), "bias": (dim,)}
    return {n: torch.randn(sizes.get(n, (rows, dim)), dtype=torch.float64, requires_grad=True) for n in names}


def by_hand(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    residual: torch.Tensor,
    centred: bool,
    gate: torch.Tensor | None = None,
) -> torch.Tensor:
    total = x + residual
    if centred:
        total = total - total.mean(-1, keepdim=True)
    y = total / (total.square().mean(-1, keepdim=True) + EPS).sqrt() * weight + bias
    return y if gate is None else y * gate


@pytest.mark.parametrize(("function", "centred"), [(layer_norm, True), (rms_norm, False)])
def test_norm_is_its_formula(function: Callable[..., Any], centred: bool) -> None:
    t = tensors("x", "weight", "bias", "residual")
    y, total = function(**t, eps=EPS, prenorm=True)
    torch.testing.assert_close(y, by_hand(**t, centred=centred))
    torch.testing.assert_close(total, t["x"] + t["residual"])
    assert gradcheck(lambda *a: function(*a, EPS, True), tuple(t.values()))


@pytest.mark.parametrize("is_rms_norm", [False, True])
def test_group_norm_is_its_formula(is_rms_norm: bool) -> None:
    t = tensors("x", "weight", "bias", "residual", dim=12)
    y, total = group_norm(**t, eps=EPS, prenorm=True, is_rms_norm=is_rms_norm, num_groups=3)
    parts = zip(*(t[name].chunk(3, -1) for name in ("x", "weight", "bias", "residual")))
    expected = torch.cat([by_hand(*part, centred=not is_rms_norm) for part in parts], -1)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(total, t["x"] + t["residual"])
    assert gradcheck(lambda *a: group_norm(*a, EPS, True, False, is_rms_norm, 3), tuple(t.values()))


def test_group_norm_module_is_pytorchs_of_every_token() -> None:
    x, ours, theirs = torch.randn(2, 7, 6), GroupNorm(3, 6, bias=True, eps=EPS), nn.GroupNorm(3, 6, eps=EPS)
    for norm in (ours, theirs):
        torch.manual_seed(0)
        for parameter in norm.parameters():
            nn.init.normal_(parameter)
    torch.testing.assert_close(ours(x), theirs(x.flatten(0, 1)).view_as(x))
    torch.testing.assert_close(GroupNorm(1, 6, is_rms_norm=True)(x), RMSNorm(6)(x))
    assert repr(ours) == "GroupNorm(3, 6, eps=0.001, elementwise_affine=True, is_rms_norm=False)"


@pytest.mark.parametrize("activation", ["swish", "silu", "sigmoid"])
@pytest.mark.parametrize(("function", "centred"), [(layer_norm_gated, True), (rms_norm_gated, False)])
def test_gated_norm_is_its_formula(function: Callable[..., Any], centred: bool, activation: str) -> None:
    t = tensors("x", "g", "weight", "bias", "residual")
    y, total = function(**t, activation=activation, eps=EPS, prenorm=True)
    g = t.pop("g")
    gate = 1 / (1 + (-g).exp())
    gate = gate if activation == "sigmoid" else g * gate
    torch.testing.assert_close(y, by_hand(**t, centred=centred, gate=gate))
    torch.testing.assert_close(total, t["x"] + t["residual"])


@pytest.mark.parametrize(("ours", "theirs"), [(LayerNorm, nn.LayerNorm), (RMSNorm, nn.RMSNorm)])
def test_module_is_pytorchs(ours: type[nn.Module], theirs: type[nn.Module]) -> None:
    x = torch.randn(2, 7, 6)
    torch.testing.assert_close(ours(6, eps=EPS)(x), theirs(6, eps=EPS)(x))


@pytest.mark.parametrize(
    ("module", "keys"),
    [
        (LayerNorm(6), {"weight"}),
        (LayerNorm(6, bias=True), {"weight", "bias"}),
        (LayerNorm(6, elementwise_affine=False, bias=True), set()),
        (RMSNorm(6), {"weight"}),
        (GroupNorm(2, 6, bias=True), {"weight", "bias"}),
        (RMSNorm(6, elementwise_affine=False), set()),
        (FusedLayerNormGated(6, bias=True), {"weight", "bias"}),
        (FusedRMSNormGated(6), {"weight"}),
        (FusedRMSNormGated(6, False), set()),
    ],
)
def test_state_dict_names(module: nn.Module, keys: set[str]) -> None:
    assert set(module.state_dict()) == keys


def test_module_parameters_are_made_where_and_as_asked(device: torch.device) -> None:
    norm = FusedRMSNormGated(6, eps=1e-6, activation="sigmoid", device="meta", dtype=torch.bfloat16)
    assert norm.weight is not None
    assert (norm.weight.device.type, norm.weight.dtype) == ("meta", torch.bfloat16)
    assert repr(norm) == "FusedRMSNormGated(6, eps=1e-06, elementwise_affine=True, activation=sigmoid)"
    norm = norm.to_empty(device=device)
    norm.reset_parameters()
    torch.testing.assert_close(norm.weight, torch.ones(6, dtype=torch.bfloat16), check_dtype=False)


@pytest.mark.parametrize("make", [partial(LayerNorm, 6), partial(RMSNorm, 6), partial(GroupNorm, 2, 6)])
def test_prenorm_hands_the_sum_on(make: Callable[[], nn.Module]) -> None:
    module, x, residual = make(), torch.randn(2, 6), torch.randn(2, 6)
    y, total = module(x, residual, True)
    torch.testing.assert_close(total, x + residual)
    torch.testing.assert_close(module(x, residual), y)
    torch.testing.assert_close(module(total), y)


@pytest.mark.parametrize("make", [partial(FusedLayerNormGated, 6, bias=True), partial(FusedRMSNormGated, 6)])
def test_gated_prenorm_hands_the_sum_on(make: Callable[[], nn.Module]) -> None:
    module, (x, g, residual) = make(), torch.randn(3, 2, 6)
    y, total = module(x, g, residual, True)
    torch.testing.assert_close(total, x + residual)
    torch.testing.assert_close(module(total, g), y)


@pytest.mark.parametrize(
    ("residual_dtype", "in_fp32", "expected"),
    [
        (None, False, torch.bfloat16),
        (None, True, torch.float32),
        (torch.bfloat16, False, torch.bfloat16),
        (torch.bfloat16, True, torch.float32),
        (torch.float32, False, torch.float32),
    ],
)
def test_dtype_of_the_sum(residual_dtype: torch.dtype | None, in_fp32: bool, expected: torch.dtype) -> None:
    x = torch.randn(2, 6).bfloat16()
    residual = None if residual_dtype is None else torch.randn(2, 6, dtype=residual_dtype)
    y, total = RMSNorm(6)(x, residual, True, in_fp32)
    assert (y.dtype, total.dtype) == (torch.bfloat16, expected)
    exact = x.double() if residual is None else x.double() + residual.double()
    torch.testing.assert_close(total, exact.to(expected))


@pytest.mark.parametrize("shape", [(0, 6), (2, 0, 6)], ids=str)
def test_no_rows(shape: tuple[int, ...]) -> None:
    norm = RMSNorm(6)
    norm(torch.randn(shape)).sum().backward()
    assert norm.weight is not None
    assert norm.weight.grad is not None
    assert norm.weight.grad.eq(0).all()


def test_any_number_of_leading_dimensions() -> None:
    x = torch.randn(2, 3, 4, 6)
    torch.testing.assert_close(RMSNorm(6)(x)[1, 2, 3], RMSNorm(6)(x[1, 2, 3]))


def test_large_values_do_not_overflow_in_half_precision() -> None:
    x = torch.full((1, 64), 3e4, dtype=torch.float16)
    torch.testing.assert_close(rms_norm(x), torch.ones_like(x))


BAD_INPUT: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": [1.0]}, TypeError, "x: expected a tensor, got list"),
    (
        {"x": torch.ones(2, 6, dtype=torch.int64)},
        TypeError,
        "x: expected float32, .*, got torch.int64",
    ),
    ({"x": torch.tensor(1.0)}, ValueError, r"x: expected shape \[..., D\]"),
    ({"x": torch.ones(2, 0)}, ValueError, r"x: expected shape \[..., D\] with D >= 1, got \[2, 0\]"),
    ({"weight": torch.ones(5)}, ValueError, r"weight: expected shape \[D\] with D=6, got \[5\]"),
    ({"bias": torch.ones(6, 1)}, ValueError, r"bias: expected shape \[D\] with D=6, got \[6, 1\]"),
    ({"residual": torch.ones(1, 6)}, ValueError, r"residual: expected the shape of x \[2, 6\], got \[1, 6\]"),
    ({"residual": torch.ones(2, 6, device="meta")}, ValueError, "residual: expected on cpu as x, got meta"),
    ({"backend": "cuda"}, ValueError, "backend: expected one of"),
]


@pytest.mark.own_device
@pytest.mark.parametrize(("change", "error", "message"), BAD_INPUT, ids=[m for _, _, m in BAD_INPUT])
@pytest.mark.parametrize("function", [layer_norm, rms_norm, group_norm])
def test_bad_input_is_named(
    function: Callable[..., Any], change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        function(**{"x": torch.randn(2, 6), "weight": torch.ones(6), **change})


def test_bad_gate_is_named() -> None:
    x = torch.randn(2, 6)
    with pytest.raises(ValueError, match=r"g: expected the shape of x \[2, 6\], got \[6\]"):
        rms_norm_gated(x, torch.ones(6))
    with pytest.raises(ValueError, match="activation: expected one of swish, silu, sigmoid, got 'relu'"):
        layer_norm_gated(x, x, activation="relu")
    with pytest.raises(ValueError, match="activation: expected one of swish, silu, sigmoid, got 'relu'"):
        FusedRMSNormGated(6, activation="relu")
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        RMSNorm(6, elementwise_afine=False)  # type: ignore[call-arg]


@pytest.mark.parametrize("num_groups", [0, 4, -2])
def test_bad_groups_are_named(num_groups: int) -> None:
    with pytest.raises(ValueError, match=f"num_groups: expected to divide the D=6 channels of x, got {num_groups}"):
        group_norm(torch.randn(2, 6), num_groups=num_groups)
    with pytest.raises(ValueError, match=f"num_groups: expected to divide hidden_size=6, got {num_groups}"):
        GroupNorm(num_groups, 6)


def test_rows_too_wide_for_the_kernels_take_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "choose_backend", lambda x, backend: "triton")
    wide = torch.empty(1, api.MAX_TRITON_DIM + 1)
    assert api.choose_norm_backend(wide, None) == "torch"
    assert api.choose_norm_backend(wide[:, 1:], None) == "triton"
    assert api.choose_norm_backend(wide, None, groups=3) == "triton"
    with pytest.raises(ValueError, match="expected at most 8192 channels in x, got"):
        api.choose_norm_backend(wide, "triton")


def test_compiles_whole() -> None:
    norm = torch.compile(FusedRMSNormGated(6), fullgraph=True, dynamic=True, backend="aot_eager")
    for rows in (2, 5):
        x, g = torch.randn(rows, 6, requires_grad=True), torch.randn(rows, 6)
        torch.testing.assert_close(norm(x, g), rms_norm_gated(x, g, torch.ones(6), eps=1e-5))
        norm(x, g).sum().backward()
