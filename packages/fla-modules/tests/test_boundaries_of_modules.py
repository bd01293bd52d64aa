"""Modules on packed sequences whose boundaries are rewritten in place, in ways that no tensor shows."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules

import pytest
import torch

import fla.modules
from fla.modules.convolution import causal_conv1d
from fla.modules.rotary import rotary_embedding
from fla.modules.token_shift import token_shift
from fla.utils.testing.rewrites import REWRITES

Call = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _convolve(x: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    weight = torch.linspace(-1, 1, 32, device=x.device).view(8, 4)
    y, state = causal_conv1d(x[:, :, 0], weight, output_final_state=True, cu_seqlens=ends)
    assert state is not None
    return torch.cat([y.flatten(), state.flatten()])


def _turn(x: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    angles = torch.arange(12, device=x.device)[:, None] / torch.arange(1, 5, device=x.device)
    return rotary_embedding(x, angles.cos(), angles.sin(), cu_seqlens=ends)


def _turn_from_offsets(x: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    angles = torch.arange(20, device=x.device)[:, None] / torch.arange(1, 5, device=x.device)
    offsets = torch.tensor([[5, 1], [3, 2]], device=x.device)[:, 0]
    return rotary_embedding(x, angles.cos(), angles.sin(), seqlen_offsets=offsets, cu_seqlens=ends)


def _shift(x: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    delta, cache = token_shift(x[:, :, 0], ends, output_cache=True)
    return torch.cat([delta.flatten(), cache.flatten()])


CALLS: dict[str, tuple[Callable[..., object], Call]] = {
    "convolution": (causal_conv1d, _convolve),
    "rotary": (rotary_embedding, _turn),
    "rotary with offsets": (rotary_embedding, _turn_from_offsets),
    "token shift": (token_shift, _shift),
}


def test_every_function_over_packed_sequences_is_here() -> None:
    found = set()
    for module in iter_modules(fla.modules.__path__, "fla.modules."):
        for function in filter(inspect.isfunction, vars(import_module(module.name)).values()):
            if function.__module__.endswith(".api") and "cu_seqlens" in inspect.signature(function).parameters:
                found.add(function)
    assert found == {function for function, _ in CALLS.values()}


@pytest.mark.parametrize("how", REWRITES)
@pytest.mark.parametrize("call", [call for _, call in CALLS.values()], ids=CALLS)
def test_boundaries_rewritten_in_place_are_read_again(call: Call, how: str, device: torch.device) -> None:
    x = torch.randn(1, 12, 1, 8, device=device)
    ends = REWRITES[how]([0, 4, 12], device)
    before = call(x, ends.tensor)
    ends.rewrite([0, 8, 12])
    after = call(x, ends.tensor)
    assert torch.equal(call(x, torch.tensor([0, 8, 12], device=device)), after)
    assert not torch.equal(before, after)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("lengths", [[12], [0, 5, 0, 7, 0], [1] * 12, [11, 1]], ids=str)
def test_positions_start_again_in_every_sequence(lengths: list[int], dtype: torch.dtype, device: torch.device) -> None:
    x = torch.randn(1, 12, 3, 8, device=device)
    angles = torch.arange(12, device=device)[:, None] / torch.arange(1, 5, device=device)
    ends = torch.tensor([0, *lengths], device=device).cumsum(0, dtype=dtype)
    parts = [rotary_embedding(part, angles.cos(), angles.sin()) for part in x.split(lengths, 1) if part.shape[1]]
    assert torch.equal(torch.cat(parts, 1), rotary_embedding(x, angles.cos(), angles.sin(), cu_seqlens=ends))
