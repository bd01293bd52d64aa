"""States of modules: contiguous, with memory of their own, and updated in place whatever their strides."""

from __future__ import annotations

import pytest
import torch

from fla.modules.convolution import causal_conv1d, causal_conv1d_update
from fla.modules.token_shift import token_shift
from fla.utils.numerics import agreement, assert_close
from fla.utils.testing.states import check_owned

BACKENDS = [None, "torch", "reference"]
LAYOUTS = {
    "rows": (3, 9, None),
    "one row": (1, 9, None),
    "one step": (3, 1, None),
    "packed": (1, 9, [0, 4, 4, 9]),
    "one packed": (1, 9, [0, 9]),
}
each_layout = pytest.mark.parametrize("layout", LAYOUTS)
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def packed_inputs(layout: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None, int]:
    """Inputs ``[B, T, D]`` that are a part of a larger tensor, as projections are, the boundaries, and N."""
    batch, steps, ends = LAYOUTS[layout]
    x = torch.randn(batch, steps, 20, device=device)[..., 2:8]
    return x, None if ends is None else torch.tensor(ends, device=device), batch if ends is None else len(ends) - 1


@each_backend
@each_layout
@pytest.mark.parametrize("width", [1, 4])
def test_a_convolutions_state_is_contiguous_and_owns_its_memory(
    layout: str, width: int, backend: str | None, device: torch.device
) -> None:
    x, ends, rows = packed_inputs(layout, device)
    weight = torch.randn(6, width, device=device)
    for start in (None, torch.randn(rows, 6, width, device=device)):
        options = {"output_final_state": True, "cu_seqlens": ends, "backend": backend}
        _, state = causal_conv1d(x, weight, initial_state=start, **options)
        check_owned(state, [x, weight] if start is None else [x, weight, start])


@each_backend
@each_layout
def test_a_token_shifts_cache_is_contiguous_and_owns_its_memory(
    layout: str, backend: str | None, device: torch.device
) -> None:
    x, ends, rows = packed_inputs(layout, device)
    for start in (None, torch.randn(rows, 1, 6, device=device)):
        _, cache = token_shift(x, ends, start, output_cache=True, backend=backend)
        check_owned(cache, [x] if start is None else [x, start])


@each_backend
@torch.no_grad()
def test_a_step_updates_a_cache_of_any_strides(backend: str | None, device: torch.device) -> None:
    x, weight, cache = (torch.randn(*shape, device=device) for shape in ((3, 6), (6, 4), (3, 6, 4)))
    scattered = torch.full((3, 8, 12), torch.nan, device=device)[:, ::2, ::2].transpose(1, 2)
    scattered.copy_(cache)
    expected, _ = causal_conv1d_update(x, cache, weight=weight, activation="silu", backend=backend)
    y, same = causal_conv1d_update(x, scattered, weight=weight, activation="silu", backend=backend)
    assert same is scattered
    # PyTorch may sum the scattered one in another order.
    assert_close("y", expected, y, agreement(torch.float32, 4))
    assert torch.equal(scattered, cache)
