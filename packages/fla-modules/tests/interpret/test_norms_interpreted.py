"""The registered ops of norms, gated linear units, token shift and the rotary embedding: one graph, odd calls."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch._dynamo.testing
from torch.library import opcheck

from fla.modules._norm import launch
from fla.modules._norm.ops import norm_bwd, norm_fwd
from fla.modules._norm.tiles import NormTile
from fla.modules.activations import swiglu, swiglu_linear
from fla.modules.activations.ops import glu_bwd, glu_fwd
from fla.modules.fused_bitlinear import rms_norm_quant
from fla.modules.fused_norm_gate import rms_norm_gated
from fla.modules.layernorm import group_norm, layer_norm, rms_norm
from fla.modules.rotary import RotaryEmbedding, rotary_embedding
from fla.modules.rotary.api import rotate
from fla.modules.rotary.ops import rotary
from fla.modules.token_shift import token_shift
from fla.modules.token_shift.ops import shift_bwd, shift_fwd
from fla.utils.registration import registered
from fla.utils.tiles import TileTable

X, Y, W, B = torch.randn(3, 8), torch.randn(3, 8), torch.randn(8), torch.randn(8)
HEADS, COS, SIN = torch.randn(1, 6, 2, 8), torch.randn(9, 4), torch.randn(9, 4)
OFFSETS, PACKED = torch.tensor([1, 2]), torch.tensor([0, 4, 6])
F32 = torch.float32


@pytest.mark.parametrize(
    ("op", "arguments"),
    [
        (norm_fwd, (X, None, W, None, None, "rms", "swish", 1e-5, 1, F32, None, False)),
        (norm_fwd, (X, None, W, B, Y, "rms", "swish", 1e-8, 1, F32, F32, True)),
        (norm_fwd, (X, Y, W, B, Y.half(), "layer", "sigmoid", 1e-5, 1, torch.float16, torch.float16, False)),
        (norm_bwd, (X, None, None, None, Y, None, "l2", "swish", 1e-5, 1, F32, None)),
        (norm_bwd, (X, Y, W, B, Y, Y, "layer", "swish", 1e-5, 1, torch.float16, F32)),
        (norm_fwd, (X, None, W, B, None, "rms", "swish", 1e-5, 2, F32, None, False)),
        (norm_bwd, (X, None, W, B, Y, None, "layer", "swish", 1e-5, 4, F32, None)),
        (glu_fwd, (X, Y, "swish", 1.0)),
        (glu_bwd, (X, Y, Y, "power", 3.0, True)),
        (glu_bwd, (X, Y, Y, "sigmoid", 1.0, False)),
        (shift_fwd, (X[None], None, None)),
        (shift_fwd, (HEADS[:, :, 0], HEADS[0, :2, 1], PACKED)),
        (shift_bwd, (HEADS[:, :, 0], PACKED, torch.float16)),
        (shift_bwd, (X[None], None, None)),
        (rotary, (HEADS, None, COS, SIN, None, None, None, None, 2, False, False)),
        (rotary, (HEADS, HEADS[:, :, :1], COS, SIN, SIN, COS, OFFSETS, PACKED, 0, True, True)),
    ],
)
def test_op_passes_opcheck(op: Callable[..., object], arguments: tuple[object, ...]) -> None:
    opcheck(registered(op), arguments)


FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "rms_norm": lambda x: rms_norm(x, W, residual=x.flip(0), prenorm=True, backend="triton")[1],
    "layer_norm": lambda x: layer_norm(x, W, B, backend="triton"),
    "group_norm": lambda x: group_norm(x, W, B, num_groups=2, backend="triton"),
    "rms_norm_gated": lambda x: rms_norm_gated(x, x.flip(0), W, backend="triton"),
    "rms_norm_quant": lambda x: rms_norm_quant(x, W, backend="triton"),
    "swiglu": lambda x: swiglu(x, x.flip(0), backend="triton"),
    "swiglu_linear": lambda x: swiglu_linear(x, x.flip(0), W.expand(4, 8), backend="triton"),
    "token_shift": lambda x: token_shift(x[None], cache=W[None], backend="triton"),
    "rotary": lambda x: rotary_embedding(x[None, :, None], COS, SIN, backend="triton"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiles_whole_and_once(name: str) -> None:
    function = FUNCTIONS[name]
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=counter)
    graphs = []
    for length in (3, 5, 8):
        x = torch.randn(length, 8, requires_grad=True)
        expected, result = function(x), compiled(x)
        torch.testing.assert_close(result, expected)
        d = torch.randn_like(expected)
        torch.testing.assert_close(torch.autograd.grad(result, x, d), torch.autograd.grad(expected, x, d))
        graphs.append(counter.frame_count)
    assert graphs[0] == graphs[-1]


def test_second_derivative_is_refused() -> None:
    x = torch.randn(2, 8, requires_grad=True)
    d = torch.randn(2, 8, requires_grad=True)
    (dx,) = torch.autograd.grad(rms_norm(x, W, backend="triton"), x, d, create_graph=True)
    with pytest.raises(RuntimeError, match="norm: this backend has no second derivative"):
        dx.sum().backward()


def test_empty_rows() -> None:
    x = torch.randn(0, 8, requires_grad=True)
    w = W.clone().requires_grad_()
    y = rms_norm(x, w, backend="triton")
    dx, dw = torch.autograd.grad(y, (x, w), torch.empty_like(y))
    assert y.shape == dx.shape == (0, 8)
    assert dw.eq(0).all()
    assert swiglu(x, x, backend="triton").shape == (0, 8)


@pytest.mark.parametrize("num_groups", [1, 2, 4])
def test_programs_take_several_blocks(num_groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "BACKWARD_TILES", TileTable(lambda key: NormTile(2, key.key_dim, 1)))
    inputs = [torch.randn(23, 8, requires_grad=True), W.clone().requires_grad_(), B.clone().requires_grad_()]
    d = torch.randn(23, 8)
    results = [
        torch.autograd.grad(group_norm(*inputs, is_rms_norm=True, num_groups=num_groups, backend=backend), inputs, d)
        for backend in ("triton", "torch")
    ]
    torch.testing.assert_close(*results)


def test_only_the_sum_is_used() -> None:
    x, r = torch.randn(2, 8, requires_grad=True), torch.randn(2, 8, requires_grad=True)
    _, total = rms_norm(x, W, residual=r, prenorm=True, backend="triton")
    d = torch.randn(2, 8)
    for gradient in torch.autograd.grad(total, (x, r), d):
        torch.testing.assert_close(gradient, d)


@pytest.mark.parametrize("scale_base", [None, 16.0])
@pytest.mark.parametrize(("offset", "cu_seqlens"), [(3, None), (3, PACKED), (OFFSETS, PACKED)])
def test_queries_and_keys_turn_in_one_launch(
    scale_base: float | None, offset: int | torch.Tensor, cu_seqlens: torch.Tensor | None
) -> None:
    q, k = torch.randn(1, 6, 3, 8, requires_grad=True), torch.randn(1, 6, 1, 8, requires_grad=True)
    tables = RotaryEmbedding(8, scale_base=scale_base)._make(10, q.device, torch.float32)
    d = torch.randn(1, 6, 3, 8), torch.randn(1, 6, 1, 8)
    results = []
    for backend in ("triton", "torch"):
        turned = rotate(q, k, tables, False, offset, cu_seqlens, backend)
        results.append((*turned, *torch.autograd.grad(turned, (q, k), d)))
    torch.testing.assert_close(*results)


def test_positions_past_the_tables_are_not_read() -> None:
    y = rotary_embedding(HEADS, COS, SIN, seqlen_offsets=torch.tensor([5]), backend="triton")
    assert y[:, :4].isfinite().all()
    assert y[:, 4:].isnan().all()


def test_frozen_weight_costs_no_product() -> None:
    x, y = torch.randn(3, 8, requires_grad=True), torch.randn(3, 8, requires_grad=True)
    o = swiglu_linear(x, y, torch.eye(8), backend="triton")
    expected = swiglu(x, y, backend="torch")
    d = torch.randn(3, 8)
    torch.testing.assert_close(torch.autograd.grad(o, (x, y), d), torch.autograd.grad(expected, (x, y), d))
