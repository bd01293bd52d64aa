"""Calls of any layer: how they treat a mask and a cache."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from fla.layers import Mixer, StateCache
from fla.layers.cache import tensors_of
from fla.layers.utils import read_mask
from fla.utils.numerics import assert_close
from fla.utils.testing.reads import counted_reads
from fla.utils.testing.rewrites import REWRITES
from fla.utils.testing.states import check_owned
from layer_table import CONTINUED, TIGHT, build, every_layer, every_mixer, inputs, padded


@every_mixer
@pytest.mark.parametrize("way", REWRITES)
def test_a_mask_that_was_rewritten_is_read_anew(name: str, way: str, device: torch.device) -> None:
    layer, x = build(name), inputs(3, 12)
    before, after = padded([12, 5, 9], 12, "left"), padded([7, 12, 4], 12, "left")
    with torch.inference_mode("inference" in way):
        mask, rewrite = REWRITES[way](before.tolist(), device)
        first, *_ = layer(x, attention_mask=mask)
        rewrite(after.tolist())
        second, *_ = layer(x, attention_mask=mask)
        assert torch.equal(second, layer(x, attention_mask=after)[0])
        assert not torch.allclose(first, second)


@every_layer
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_a_mask_is_read_twice_at_most_however_many_layers_share_it(name: str, side: str) -> None:
    layer, x, mask, caches = build(name), inputs(3, 20), padded([20, 12, 3], 20, side), [StateCache(), StateCache()]
    for start, end in ((0, 12), (12, 18), (18, 19), (19, 20)):
        piece, seen = x[:, start:end], mask[:, :end]
        with counted_reads("fla/layers") as reads:
            once, *_ = layer(piece, seen, caches[0], use_cache=True)
        assert len(reads) <= 2, reads
        again = copy.deepcopy(caches[1])
        with counted_reads("fla/layers") as reads:
            shared = read_mask(seen, end - start)
            results = [layer(piece, shared, cache, use_cache=True)[0] for cache in (caches[1], again)]
        assert len(reads) <= 2, reads
        assert all(torch.equal(once, o) for o in results)


def test_a_mask_of_ones_is_read_once() -> None:
    layer, x = build("attn, window"), inputs(2, 6)
    with counted_reads("fla/layers") as reads:
        layer(x, torch.ones(2, 6))
    assert reads == ["tolist"]


def states(cache: StateCache) -> list[torch.Tensor]:
    return [tensor for layer in cache for state in layer.values() for tensor in tensors_of(state)]


def filled(layer: Mixer, x: torch.Tensor, **call: Any) -> StateCache:
    cache = StateCache()
    layer(x, past_key_values=cache, use_cache=True, **call)
    return cache


ROWS = torch.tensor([2, 0, 2])
CHANGES: dict[str, Callable[[StateCache], torch.Tensor]] = {
    "filled": lambda cache: torch.arange(3),
    "reordered": lambda cache: cache[0].reorder_cache(ROWS) or ROWS,
    "selected": lambda cache: cache[0].batch_select_indices(ROWS[:1]) or ROWS[:1],
    "repeated": lambda cache: cache[0].batch_repeat_interleave(2) or torch.arange(3).repeat_interleave(2),
}


@every_layer
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("lengths", [None, [9, 4, 1]], ids=["rows", "padded"])
@torch.no_grad()
def test_states_own_their_memory_and_are_continued_from(name: str, change: str, lengths: list[int] | None) -> None:
    layer, x = build(name), inputs(3, 11)
    mask = None if lengths is None else torch.nn.functional.pad(padded(lengths, 9, "left"), (0, 2), value=1)
    cache = filled(layer, x[:, :9], attention_mask=None if mask is None else mask[:, :9])
    check_owned(tuple(states(cache)), [x, *layer.parameters()])
    rows = CHANGES[change](cache)
    check_owned(tuple(states(cache)), [x, *layer.parameters()])
    copied = copy.deepcopy(cache)
    check_owned((*states(cache), *states(copied)))
    expected = layer(x[rows], None if mask is None else mask[rows])[0]
    for step in (9, 10):
        seen = None if mask is None else mask[rows, : step + 1]
        o, *_ = layer(x[rows, step : step + 1], seen, past_key_values=cache, use_cache=True)
        assert_close(f"step {step}", expected[:, step : step + 1], o, TIGHT)
        check_owned((*states(cache), *states(copied)), [x, *layer.parameters()])
    o, *_ = layer(x[rows, 9:], None if mask is None else mask[rows], past_key_values=copied)
    assert_close("copied", expected[:, 9:], o, TIGHT)


@pytest.mark.parametrize("name", CONTINUED)
@torch.no_grad()
def test_states_of_packed_sequences_own_their_memory(name: str) -> None:
    layer, x = build(name), inputs(1, 20)
    cache = filled(layer, x, cu_seqlens=torch.tensor([0, 7, 7, 20]))
    check_owned(tuple(states(cache)), [x, *layer.parameters()])


def bad_calls(layer: Mixer, x: torch.Tensor, past: int) -> Iterator[tuple[str, tuple[torch.Tensor, dict[str, Any]]]]:
    """Calls that a layer with a cache of ``past`` steps of two rows must refuse; x ``[2, T, D]`` is what it may get."""
    batch, steps, _ = x.shape
    mask = torch.ones(batch, past + steps)
    flat = x.flatten(0, 1)[None]
    yield "one row", (x[:1], {})
    yield "three rows", (torch.cat([x, x[:1]]), {})
    yield (
        "three rows with a mask",
        (torch.cat([x, x[:1]]), {"attention_mask": padded([past] * 3, past + steps, "left")}),
    )
    yield "a mask of the new steps", (x, {"attention_mask": mask[:, :steps]})
    yield "a mask of other rows", (x, {"attention_mask": mask[:1]})
    yield "a mask of other values", (x, {"attention_mask": 2 * mask})
    yield "a mask without a token", (x, {"attention_mask": mask.masked_fill(torch.arange(past + steps) >= past, 0)})
    yield "no mask", (x, {"attention_mask": [[1]]})
    yield "other channels", (x[..., 1:], {})
    yield "no steps to speak of", (x[:, 0], {})
    yield "boundaries of rows", (x, {"cu_seqlens": torch.tensor([0, steps, 2 * steps])})
    yield "boundaries of another number of sequences", (flat, {"cu_seqlens": torch.tensor([0, 2 * steps])})
    if x.device.type == "cpu":
        # Elsewhere to read boundaries would be to wait.
        yield "boundaries that end early", (flat, {"cu_seqlens": torch.tensor([0, steps, 2 * steps - 1])})
        yield "boundaries that fall", (flat, {"cu_seqlens": torch.tensor([0, 2 * steps + 1, 2 * steps])})
    yield "boundaries in floats", (flat, {"cu_seqlens": torch.tensor([0.0, steps, 2 * steps])})
    yield "attention weights", (x, {"output_attentions": True})
    yield "an argument that there is none of", (x, {"mask": mask})
    if getattr(layer, "window_size", None) is not None:
        mask[1, past - 1] = 0
        yield "a hole under the window", (x, {"attention_mask": mask})


def refuses(function: Callable[..., Any], *arguments: torch.Tensor, **call: Any) -> bool:
    try:
        function(*arguments, **call)
    except (ValueError, TypeError):
        return True
    return False


@every_layer
@pytest.mark.parametrize("steps", [1, 3])
@torch.no_grad()
def test_a_refused_call_leaves_the_cache_as_it_was(name: str, steps: int) -> None:
    layer, x = build(name), inputs(2, 12 + steps)
    past = x[:, :12]
    cache, untouched = filled(layer, past), filled(layer, past)
    for title, (given, call) in bad_calls(layer, x[:, 12:], 12):
        assert refuses(layer, given, past_key_values=cache, use_cache=True, **call), title
        assert cache.get_seq_length(0) == 12, title
        assert all(map(torch.equal, states(cache), states(untouched))), title
    o, expected = (layer(x[:, 12:], past_key_values=c, use_cache=True)[0] for c in (cache, untouched))
    assert torch.equal(o, expected)
