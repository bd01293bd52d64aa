"""The token shift: what it computes, pieces with a cache, packing, gradients, compile, and its errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.autograd import gradcheck

from fla.modules.token_shift import token_shift, token_shift_ref
from fla.modules.token_shift.ops import shift_bwd, shift_fwd

ENDS = [0, 0, 1, 5, 5, 12]


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(1, 12, 3, dtype=torch.float64), torch.randn(5, 1, 3, dtype=torch.float64)


def test_it_is_the_token_before_minus_the_token() -> None:
    x = torch.tensor([[1.0, 4.0, 9.0, 16.0]])[..., None]
    torch.testing.assert_close(token_shift(x), torch.tensor([[-1.0, -3.0, -5.0, -7.0]])[..., None])
    delta, cache = token_shift(x, cache=torch.tensor([[10.0]]), output_cache=True)
    torch.testing.assert_close(delta, torch.tensor([[9.0, -3.0, -5.0, -7.0]])[..., None])
    torch.testing.assert_close(cache, torch.tensor([[[16.0]]]))


@pytest.mark.parametrize("pieces", [(1,) * 12, (2, 1, 9), (7, 5)])
def test_in_pieces_with_a_cache_equals_at_once(pieces: tuple[int, ...]) -> None:
    x, _ = tensors()
    cache, parts = None, []
    for piece in x.split(pieces, 1):
        part, cache = token_shift(piece, cache=cache, output_cache=True)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), token_shift(x), atol=0, rtol=0)


@pytest.mark.parametrize("with_cache", [False, True])
def test_packed_equals_one_by_one(with_cache: bool) -> None:
    x, start = tensors()
    ends, cache = torch.tensor(ENDS), start if with_cache else None
    delta, last = token_shift(x, ends, cache, output_cache=True)
    torch.testing.assert_close(delta, token_shift_ref(x, ends, cache))
    for n, (a, b) in enumerate(zip(ENDS, ENDS[1:])):
        before = start[n : n + 1] if with_cache else torch.zeros(1, 1, 3, dtype=torch.float64)
        if a == b:
            torch.testing.assert_close(last[n : n + 1], before)
            continue
        alone, last_alone = token_shift(x[:, a:b], cache=before[:, 0], output_cache=True)
        torch.testing.assert_close(delta[:, a:b], alone)
        torch.testing.assert_close(last[n : n + 1], last_alone)


@pytest.mark.parametrize("packed", [False, True])
def test_gradients(packed: bool) -> None:
    x, start = (t.requires_grad_() for t in tensors())
    start, ends = (start, torch.tensor(ENDS)) if packed else (start[:1], None)
    assert gradcheck(lambda x, c: token_shift(x, ends, c, output_cache=True), (x, start))


def test_the_cache_is_a_copy_in_the_dtype_of_x() -> None:
    x = torch.randn(2, 3, 4).bfloat16()
    delta, cache = token_shift(x, cache=torch.randn(2, 4), output_cache=True)
    assert delta.dtype == cache.dtype == torch.bfloat16
    assert cache.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()


def test_compiles_whole_for_every_length() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, e: token_shift(x, e), fullgraph=True, dynamic=True, backend="aot_eager")
    for total, starts in ((12, ENDS), (20, [0, 9, 20])):
        x, ends = torch.randn(1, total, 6), torch.tensor(starts)
        torch.testing.assert_close(compiled(x, ends), token_shift(x, ends))


def test_ops_on_meta_tensors() -> None:
    x, cache = torch.empty(1, 12, 3, device="meta"), torch.empty(5, 3, device="meta")
    ends = torch.tensor(ENDS, device="meta")
    assert shift_fwd(x, cache, ends).shape == x.shape
    dx, dcache = shift_bwd(x, ends, torch.bfloat16)
    assert (dx.shape, dcache.shape, dcache.dtype) == (x.shape, cache.shape, torch.bfloat16)
    assert shift_bwd(x, ends, None)[1].numel() == 0


X = torch.randn(2, 5, 6)
BAD_INPUT: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": X[0]}, ValueError, r"x: expected shape \[B, T, D\]"),
    ({"x": X.long()}, TypeError, "x: expected float32, .*, got torch.int64"),
    ({"x": X[:, :0]}, ValueError, "dimension T is 0"),
    ({"cache": torch.randn(3, 6)}, ValueError, r"cache: expected shape \[N, 1, D\] or \[N, D\] with N=2, D=6, got \[3"),
    ({"cache": torch.randn(2, 2, 6)}, ValueError, "cache: expected shape"),
    ({"cache": torch.ones(2, 6).long()}, TypeError, "cache: expected float32"),
    ({"cache": torch.ones(2, 6, device="meta")}, ValueError, "cache: expected on cpu as x, got meta"),
    ({"cu_seqlens": torch.tensor([0, 5])}, ValueError, "packed sequences need a batch of 1"),
    ({"x": X[:1], "cu_seqlens": torch.tensor([0, 4])}, ValueError, "end at T=5"),
    ({"backend": "cuda"}, ValueError, "backend: expected one of"),
]


@pytest.mark.own_device
@pytest.mark.parametrize(("change", "error", "message"), BAD_INPUT, ids=[m for _, _, m in BAD_INPUT])
def test_bad_input_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        token_shift(**{"x": X, **change})
