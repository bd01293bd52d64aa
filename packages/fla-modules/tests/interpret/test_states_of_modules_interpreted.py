"""The short convolution's Triton kernels continue from the states that they return, in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch

from fla.modules.convolution import ShortConvolution, causal_conv1d_update
from fla.utils.numerics import assert_close
from fla.utils.testing.states import check_owned


@pytest.mark.parametrize("ends", [None, [0, 3, 3, 8]], ids=["rows", "packed"])
@torch.no_grad()
def test_decoding_continues_from_the_state_of_a_prefill(ends: list[int] | None, device: torch.device) -> None:
    conv = ShortConvolution(6, 4, backend="triton").to(device)
    exact = ShortConvolution(6, 4, backend="reference").to(device)
    exact.load_state_dict(conv.state_dict())
    rows = 2 if ends is None else len(ends) - 1
    cu_seqlens = None if ends is None else torch.tensor(ends, device=device)
    x = torch.randn(rows if ends is None else 1, 8, 6, device=device)
    (_, cache), (_, expected_cache) = (c(x, output_final_state=True, cu_seqlens=cu_seqlens) for c in (conv, exact))
    check_owned(cache, [x])
    for _ in range(2):
        step = torch.randn(rows, 1, 6, device=device)
        y, _ = conv(step, cache=cache)
        expected, _ = exact(step, cache=expected_cache)
        assert_close("step", expected, y, 1e-6)
        assert_close("cache", expected_cache, cache, 1e-6)


@torch.no_grad()
def test_a_step_updates_a_cache_of_any_strides(device: torch.device) -> None:
    x, weight, cache = (torch.randn(*shape, device=device) for shape in ((3, 6), (6, 4), (3, 6, 4)))
    scattered = torch.full((3, 8, 12), torch.nan, device=device)[:, ::2, ::2].transpose(1, 2)
    scattered.copy_(cache)
    expected, _ = causal_conv1d_update(x, cache, weight=weight, activation="silu", backend="triton")
    y, same = causal_conv1d_update(x, scattered, weight=weight, activation="silu", backend="triton")
    assert same is scattered
    assert torch.equal(y, expected)
    assert torch.equal(scattered, cache)
