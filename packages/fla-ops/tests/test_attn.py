"""Softmax attention: what the conformance cases do not ask."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fla.ops._engines.softmax import varlen
from fla.ops._shared.arguments import widened
from fla.ops.attn import naive_parallel_attn, parallel_attn
from fla.utils import backends
from fla.utils.numerics import assert_close


def draw(
    batch: int = 2, steps: int = 10, length: int | None = None, heads: int = 2, channels: int = 8
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    lengths = (steps, length or steps, length or steps)
    return [torch.randn(batch, n, h, channels, generator=generator) for n, h in zip(lengths, (heads, 2, 2))]


def test_the_process_may_choose_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = draw()
    monkeypatch.setattr(backends, "PROCESS_BACKEND", "reference")
    assert torch.equal(parallel_attn(q, k, v), naive_parallel_attn(q, k, v))
    monkeypatch.setattr(backends, "PROCESS_BACKEND", "triton")
    assert_close("o", naive_parallel_attn(q, k, v), parallel_attn(q, k, v), 1e-6)


def test_the_scale_is_a_factor_on_the_scores() -> None:
    q, k, v = draw()
    assert_close("o", parallel_attn(3 * q, k, v, scale=1.0), parallel_attn(q, k, v, scale=3.0), 1e-6)
    assert_close("o", parallel_attn(q, k, v, scale=8**-0.5), parallel_attn(q, k, v), 1e-6)


def test_memory_is_linear_in_the_length() -> None:
    q, k, v = (x.requires_grad_() for x in draw(1, 3000))
    biggest = 0

    def watch(x: torch.Tensor) -> torch.Tensor:
        nonlocal biggest
        biggest = max(biggest, x.numel())
        return x

    for options in ({}, {"window_size": 100}, {"cu_seqlens": torch.tensor([0, 1000, 3000])}):
        with torch.autograd.graph.saved_tensors_hooks(watch, lambda x: x):
            parallel_attn(q, k, v, **options).sum().backward()
    # All scores would be 3000 * 3000 a head; a block of a window is 256 * 356.
    assert biggest < 3000 * 64


def test_channels_that_are_there_are_not_copied() -> None:
    x = torch.randn(3, 2, 8)
    assert widened(x, 8) is x
    assert torch.equal(widened(x, 16), torch.cat([x, torch.zeros_like(x)], -1))


INT = torch.tensor


def kernel(q: Any, k: Any, v: Any, ends: Any, ends_k: Any, max_q: int, max_k: int, **options: Any) -> torch.Tensor:
    """What the variable-length kernel of a GPU is documented to do."""
    assert ends.dtype == ends_k.dtype == torch.int32
    assert (max_q, max_k) == (max(ends.diff()), max(ends_k.diff()))
    (left, right), grouped = options["window_size"], q.shape[1] != k.shape[1]
    assert right == 0
    assert q.shape[-1] % 8 == 0
    assert options.get("enable_gqa", False) == grouped
    window_size = None if left < 0 else left + 1
    return naive_parallel_attn(q[None], k[None], v[None], options["scale"], window_size, ends, ends_k)[0]


def with_groups(
    q: Any, k: Any, v: Any, a: Any, b: Any, c: int, d: int, *, scale: Any, window_size: Any, enable_gqa: bool
) -> Any:
    return kernel(q, k, v, a, b, c, d, scale=scale, window_size=window_size, enable_gqa=enable_gqa)


def without_groups(q: Any, k: Any, v: Any, a: Any, b: Any, c: int, d: int, *, scale: Any, window_size: Any) -> Any:
    return kernel(q, k, v, a, b, c, d, scale=scale, window_size=window_size)


@pytest.mark.parametrize("form", [with_groups, without_groups])
@pytest.mark.parametrize(
    ("tensors", "options"),
    [
        (draw(1), {"cu_seqlens": INT([0, 3, 10])}),
        (draw(1, heads=4), {"cu_seqlens": INT([0, 3, 10]), "window_size": 3}),
        (draw(heads=4), {"window_size": 3}),
        (draw(length=17), {}),
        (draw(heads=4, channels=13), {"window_size": 3}),
        (draw(1, 3, 9, heads=6), {"cu_seqlens": INT([0, 1, 3]), "cu_seqlens_k": INT([0, 4, 9]), "window_size": 2}),
    ],
)
def test_the_variable_length_kernel_is_told_what_it_knows(
    form: Any, tensors: list[torch.Tensor], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", SimpleNamespace(varlen_attn=form))
    monkeypatch.setattr(varlen, "_options", None)
    defaults: dict[str, Any] = {"window_size": None, "cu_seqlens": None, "cu_seqlens_k": None}
    o = varlen.varlen_attention(*tensors, scale=0.5, **{**defaults, **options})
    assert_close("o", naive_parallel_attn(*tensors, scale=0.5, **options), o, 1e-6)


@pytest.mark.parametrize(
    ("tensors", "options", "message"),
    [
        (draw(heads=3), {}, r"q: expected HQ a multiple of the H=2.*\[2, 10, 3, 8\]"),
        (draw(length=5), {}, r"k: .*S >= T, T=10, got \[2, 5, 2, 8\]"),
        (draw(1, 10, 12), {"cu_seqlens": INT([0, 10])}, r"k: .*S = T without cu_seqlens_k.*\[1, 12, 2, 8\]"),
        (draw(), {"window_size": 0}, "window_size: .*got 0"),
        (draw(), {"cu_seqlens": INT([0, 20])}, "cu_seqlens: .*B=2"),
        (draw(1), {"cu_seqlens_k": INT([0, 10])}, "cu_seqlens_k: .*None"),
        (draw(1), {"cu_seqlens": INT([0, 10]), "cu_seqlens_k": INT([0, 5, 10])}, r"cu_seqlens_k: .*\[2\], got \[3\]"),
        (
            draw(1),
            {"cu_seqlens": INT([0, 5, 10]), "cu_seqlens_k": INT([0, 4, 10])},
            "cu_seqlens_k: expected at least 5 keys",
        ),
        (draw(1), {"cu_seqlens": INT([0, 9])}, "cu_seqlens: .*T=10, got 0..9"),
        (draw(), {"backend": "triton"}, "backend: expected one of torch, reference.*'triton'"),
    ],
)
def test_bad_input_is_refused_by_name(tensors: list[torch.Tensor], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parallel_attn(*tensors, **options)
