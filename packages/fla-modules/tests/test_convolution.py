"""The short convolution: what it computes, decoding, packing, gradients, compile, and its errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fla.modules.convolution import ShortConvolution, causal_conv1d, causal_conv1d_update
from fla.modules.convolution.ops import conv_bwd, conv_fwd, conv_update
from fla.utils.numerics import agreement
from fla.utils.registration import registered

TIGHT = {"atol": agreement(torch.float64, 4096), "rtol": agreement(torch.float64, 4096)}


def layer(**options: Any) -> ShortConvolution:
    return ShortConvolution(6, 4, bias=True, dtype=torch.float64, **options)


def test_it_is_pytorchs_causal_convolution() -> None:
    conv, x = layer(activation=None), torch.randn(2, 11, 6, dtype=torch.float64)
    expected = F.conv1d(F.pad(x.transpose(1, 2), (3, 0)), conv.weight, conv.bias, groups=6).transpose(1, 2)
    torch.testing.assert_close(conv(x)[0], expected, **TIGHT)
    silu = layer()
    silu.load_state_dict(conv.state_dict())
    torch.testing.assert_close(silu(x)[0], F.silu(expected), **TIGHT)
    torch.testing.assert_close(silu(x, residual=x)[0], F.silu(expected) + x, **TIGHT)


def test_its_weight_is_named_and_shaped_as_conv1d() -> None:
    assert {name: tuple(p.shape) for name, p in layer().named_parameters()} == {"weight": (6, 1, 4), "bias": (6,)}


@pytest.mark.parametrize("pieces", [(1,) * 9, (2, 1, 6), (5, 4), (1, 8)])
def test_in_pieces_with_a_cache_equals_at_once(pieces: tuple[int, ...]) -> None:
    conv, x = layer(), torch.randn(2, 9, 6, dtype=torch.float64)
    with torch.no_grad():
        y, state = conv(x, output_final_state=True)
        cache, parts = None, []
        for piece in x.split(pieces, 1):
            part, cache = conv(piece, cache=cache, output_final_state=True)
            parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), y, **TIGHT)
    torch.testing.assert_close(cache, state, **TIGHT)


def test_boundaries_given_on_the_cpu_alone_are_used_and_beside_others_compared(device: torch.device) -> None:
    x, weight = torch.randn(1, 12, 6, device=device), torch.randn(6, 4, device=device)
    ends = torch.tensor([0, 4, 12], device="cpu")
    expected, state = causal_conv1d(x, weight, output_final_state=True, cu_seqlens=ends.to(device))
    y, same_state = causal_conv1d(x, weight, output_final_state=True, cu_seqlens_cpu=ends)
    assert torch.equal(expected, y)
    assert torch.equal(state, same_state)
    assert not torch.equal(expected, causal_conv1d(x, weight)[0])
    with pytest.raises(ValueError, match="cu_seqlens_cpu: expected the boundaries of cu_seqlens, 4 at 1, got 8"):
        causal_conv1d(x.cpu(), weight.cpu(), cu_seqlens=ends, cu_seqlens_cpu=torch.tensor([0, 8, 12], device="cpu"))


def test_decoding_updates_the_cache_in_place() -> None:
    conv, cache = layer(), torch.zeros(3, 6, 4, dtype=torch.float64)
    x = torch.randn(3, 1, 6, dtype=torch.float64)
    with torch.no_grad():
        _, same = conv(x, cache=cache)
        packed_cache = torch.zeros_like(cache)
        packed, packed_same = conv(x.transpose(0, 1), cache=packed_cache, cu_seqlens=torch.arange(4))
    assert same is cache
    assert packed_same is packed_cache
    torch.testing.assert_close(packed_cache, cache, **TIGHT)
    torch.testing.assert_close(cache[..., -1], x[:, 0], **TIGHT)
    torch.testing.assert_close(packed[0], conv(x)[0][:, 0], **TIGHT)


def test_gradients_reach_through_the_cache() -> None:
    conv = layer()
    x = torch.randn(1, 7, 6, dtype=torch.float64, requires_grad=True)
    first, cache = conv(x[:, :3], output_final_state=True)
    rest, _ = conv(x[:, 3:], cache=cache)
    (whole,) = torch.autograd.grad(conv(x)[0].square().sum(), x)
    (pieces,) = torch.autograd.grad(torch.cat([first, rest], 1).square().sum(), x)
    torch.testing.assert_close(pieces, whole, **TIGHT)


def test_packed_equals_one_by_one() -> None:
    conv, x = layer(), torch.randn(1, 20, 6, dtype=torch.float64)
    ends, start = torch.tensor([0, 2, 2, 13, 20]), torch.randn(4, 6, 4, dtype=torch.float64)
    y, state = conv(x, cache=start, cu_seqlens=ends)
    for n, (a, b) in enumerate([(0, 2), (2, 2), (2, 13), (13, 20)]):
        if a == b:
            torch.testing.assert_close(state[n], start[n], **TIGHT)
            continue
        alone, state_alone = conv(x[:, a:b], cache=start[n : n + 1])
        torch.testing.assert_close(y[:, a:b], alone, **TIGHT)
        torch.testing.assert_close(state[n : n + 1], state_alone, **TIGHT)


def test_masked_inputs_count_as_zero() -> None:
    conv, x = layer(), torch.randn(2, 5, 6, dtype=torch.float64)
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    before = x.clone()
    torch.testing.assert_close(conv(x, mask=mask)[0], conv(x * mask[..., None])[0], **TIGHT)
    assert torch.equal(x, before)


def test_compiles_whole_for_every_length() -> None:
    torch._dynamo.reset()
    conv = ShortConvolution(6, 4)
    ends = torch.tensor([0, 3, 12])
    compiled = torch.compile(lambda x, e: conv(x, cu_seqlens=e)[0], fullgraph=True, dynamic=True, backend="aot_eager")
    for total, e in ((12, ends), (20, torch.tensor([0, 9, 20]))):
        x = torch.randn(1, total, 6)
        torch.testing.assert_close(compiled(x, e), conv(x, cu_seqlens=e)[0])
    update = torch.compile(
        lambda x, c: causal_conv1d_update(x, c, weight=conv.weight[:, 0])[0], fullgraph=True, backend="aot_eager"
    )
    x, cache = torch.randn(2, 6), torch.randn(2, 6, 4)
    expected = cache.clone()
    with torch.no_grad():
        y, _ = causal_conv1d_update(x, expected, weight=conv.weight[:, 0])
        torch.testing.assert_close(update(x, cache), y)
    torch.testing.assert_close(cache, expected)


def test_opcheck() -> None:
    x, w, b, s = torch.randn(1, 5, 6), torch.randn(6, 4), torch.randn(6), torch.randn(2, 6, 4)
    ends = torch.tensor([0, 2, 5])
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(registered(conv_update), (x[0, :2], s, None, w, b, True, "torch"), test_utils=checks)
    with torch.device("meta"):
        assert conv_fwd(x.to("meta"), w, b, x, s, ends, True).shape == x.shape
        assert [d.shape for d in conv_bwd(x.to("meta"), w.to("meta"), None, s.to("meta"), ends, x, True)] == [
            x.shape, w.shape, (0,), s.shape,
        ]  # fmt: skip


@pytest.mark.own_device
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.randn(2, 6)}, r"x: expected shape \[B, T, D\]"),
        ({"weight": torch.randn(5, 4)}, r"weight: expected shape \[D, W\] with D=6.*got \[5, 4\]"),
        ({"initial_state": torch.randn(1, 6, 3)}, "initial_state: expected shape"),
        ({"activation": "gelu"}, "activation: expected 'silu', 'swish' or None, got 'gelu'"),
        ({"cu_seqlens": torch.tensor([0, 4])}, "end at T=5"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        causal_conv1d(**{"x": torch.randn(1, 5, 6), "weight": torch.randn(6, 4), **change})


def test_bad_decoding_input_is_named() -> None:
    with pytest.raises(ValueError, match="x: expected one step for each of N=2 sequences"):
        causal_conv1d_update(torch.randn(3, 6), torch.randn(2, 6, 4), weight=torch.randn(6, 4))
    with pytest.raises(ValueError, match="x: expected one step"):
        causal_conv1d_update(torch.randn(2, 3, 6), torch.randn(6, 6, 4), weight=torch.randn(6, 4))
    with pytest.raises(ValueError, match="activation"):
        ShortConvolution(6, 4, activation="relu")
    with pytest.raises(ValueError, match="mask: expected shape"):
        layer()(torch.randn(2, 5, 6), mask=torch.ones(2, 4))
