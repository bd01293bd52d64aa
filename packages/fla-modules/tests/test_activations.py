"""Activations and gated linear units: values against the formulas, extremes, autocast, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from fla.modules.activations import (
    ACT2FN,
    bias_gelu,
    fast_gelu,
    logsigmoid,
    powglu,
    sigmoid,
    sigmoidglu,
    sqrelu,
    swiglu,
    swiglu_linear,
    swish,
)

X = torch.linspace(-6, 6, 61, dtype=torch.float64)
S = 1 / (1 + (-X).exp())
GELU = X / 2 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (X + 0.044715 * X**3)))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (sigmoid, S),
        (logsigmoid, S.log()),
        (lambda x: logsigmoid(x, 16.0), S.log() / 16),
        (swish, X * S),
        (sqrelu, X.clamp(min=0) ** 2),
        (fast_gelu, GELU),
        (lambda x: bias_gelu(x - 1, torch.ones_like(x)), GELU),
        (lambda x: swiglu(x, x + 2), X * S * (X + 2)),
        (lambda x: sigmoidglu(x, x + 2), S * (X + 2)),
    ],
)
def test_activation_is_its_formula(function: Callable[[torch.Tensor], torch.Tensor], expected: torch.Tensor) -> None:
    torch.testing.assert_close(function(X), expected)


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_powglu_is_its_formula(power: float) -> None:
    y = torch.randn_like(X)
    expected = [
        y_.item() * s.item() * (x ** (power / (x**0.5 + 1)) if x > 0 else x) for x, y_, s in zip(X.tolist(), y, S)
    ]
    torch.testing.assert_close(powglu(X, y, power), X.new_tensor(expected))


@pytest.mark.parametrize("function", [swiglu, sigmoidglu, powglu])
def test_gradients(function: Callable[..., torch.Tensor]) -> None:
    x, y = (torch.randn(4, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert gradcheck(function, (x, y))


@pytest.mark.parametrize(
    "function", [logsigmoid, swish, *(lambda x, f=f: f(x, x) for f in (swiglu, sigmoidglu, powglu))]
)
def test_extremes_stay_finite(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    x = torch.tensor([-1e4, -100.0, -1e-30, 0.0, 1e-38, 1e-12, 100.0, 1e4], requires_grad=True)
    y = function(x)
    y.sum().backward()
    assert x.grad is not None
    assert y.isfinite().all()
    assert x.grad.isfinite().all()


def test_swiglu_linear_is_a_linear_map_of_swiglu() -> None:
    x, y = (torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight, bias = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((4, 6), (4,)))
    torch.testing.assert_close(swiglu_linear(x, y, weight, bias), F.silu(x) * y @ weight.T + bias)
    assert gradcheck(swiglu_linear, (x, y, weight, bias))


def test_swiglu_linear_under_autocast(device: torch.device) -> None:
    x, y, weight = torch.randn(2, 6), torch.randn(2, 6).bfloat16(), torch.randn(4, 6, requires_grad=True)
    with torch.autocast(device.type, torch.bfloat16):
        o = swiglu_linear(x, y, weight)
    assert o.dtype == torch.bfloat16
    o.sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_names_that_configs_use() -> None:
    plain = {"identity", "relu", "elu", "tanh", "sigmoid", "logsigmoid", "silu", "swish", "sqrelu", "gelu"}
    assert set(ACT2FN) == plain | {"bias_gelu"}
    torch.testing.assert_close(ACT2FN["elu"](X), torch.where(X > 0, X, X.exp() - 1))
    torch.testing.assert_close(ACT2FN["tanh"](X), 2 / (1 + (-2 * X).exp()) - 1)
    assert ACT2FN["identity"](X) is X
    torch.testing.assert_close(ACT2FN["gelu"](X), GELU)
    torch.testing.assert_close(ACT2FN["silu"](X), X * S)


BAD_INPUT: list[tuple[tuple[Any, Any], type[Exception], str]] = [
    ((X, [1.0]), TypeError, "y: expected a tensor, got list"),
    ((X.long(), X.long()), TypeError, "x: expected float32, bfloat16, float16 or float64, got torch.int64"),
    ((X, X.float()), TypeError, "y: expected torch.float64 as x, got torch.float32"),
    ((X, X[1:]), ValueError, r"y: expected the shape of x \[61\], got \[60\]"),
    ((X, X.to("meta")), ValueError, "y: expected on cpu as x, got meta"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_INPUT, ids=[m for _, _, m in BAD_INPUT])
def test_bad_input_is_named(arguments: tuple[Any, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        swiglu(*arguments)


def test_bad_linear_map_is_named() -> None:
    with pytest.raises(ValueError, match=r"weight: expected shape \[E, D\] with D=61, got \[61\]"):
        swiglu_linear(X, X, X)
    with pytest.raises(TypeError, match="weight: expected torch.float64 as x, got torch.float32"):
        swiglu_linear(X, X, X.new_ones(2, 61).float())
    with pytest.raises(ValueError, match=r"bias: expected shape \[E\] with E=2, got \[3\]"):
        swiglu_linear(X, X, X.new_ones(2, 61), X.new_ones(3))
    with pytest.raises(ValueError, match="power: expected above 0, got 0"):
        powglu(X, X, 0)
