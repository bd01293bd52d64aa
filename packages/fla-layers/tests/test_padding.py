"""Padded batches as packed sequences, and the cache of plain loops."""

from __future__ import annotations

import copy
import itertools
from types import SimpleNamespace

import pytest
import torch

from fla.layers import StateCache, utils
from fla.layers.utils import (
    get_layer_cache,
    get_unpad_data,
    index_first_axis,
    pad_input,
    read_mask,
    repad_hidden_states,
    unpad_hidden_states,
    unpad_input,
    update_layer_cache,
)

# What is written here lies on the CPU.
pytestmark = pytest.mark.own_device
MASK = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 1, 0]])


def test_unpad_data_name_the_real_tokens() -> None:
    indices, cu_seqlens, longest = get_unpad_data(MASK)
    assert indices.tolist() == [2, 3, 4, 5, 6, 7, 12, 14]
    assert cu_seqlens.tolist() == [0, 2, 6, 6, 8]
    assert cu_seqlens.dtype == torch.int32
    assert longest == 4


@pytest.mark.parametrize("mask", [MASK, MASK.bool(), MASK.float()], ids=["int", "bool", "float"])
def test_unpadding_and_padding_are_inverse(mask: torch.Tensor) -> None:
    x = torch.arange(32.0).view(4, 4, 2)
    q, (k, v), indices, cu_seqlens, longest = unpad_input(x, (2 * x, 3 * x), mask, 4)
    assert torch.equal(q, x[MASK.bool()])
    assert torch.equal(q, index_first_axis(x.flatten(0, 1), indices))
    assert torch.equal(k, 2 * q)
    assert torch.equal(v, 3 * q)
    assert [boundaries.tolist() for boundaries in cu_seqlens] == [[0, 2, 6, 6, 8]] * 2
    assert longest == (4, 4)
    assert torch.equal(pad_input(q, indices, 4, 4), x * MASK[..., None])
    kept, (state,), *_ = unpad_input(x, (x,), mask, 4, keepdim=True)
    assert torch.equal(kept[0], q)
    assert torch.equal(state[0], q)


def test_queries_are_unpadded_by_the_last_columns() -> None:
    x = torch.arange(32.0).view(4, 4, 2)
    q, (k,), indices, cu_seqlens, longest = unpad_input(x[:, 2:], (x,), MASK, 2)
    assert torch.equal(q, x[:, 2:][MASK[:, 2:].bool()])
    assert torch.equal(k, x[MASK.bool()])
    assert [boundaries.tolist() for boundaries in cu_seqlens] == [[0, 2, 4, 4, 5], [0, 2, 6, 6, 8]]
    assert longest == (2, 4)
    assert torch.equal(pad_input(q, indices, 4, 2), x[:, 2:] * MASK[:, 2:, None])
    # A single query of each row, so that it can be told whose keys it sees.
    q, _, indices, (cu_seqlens_q, _), longest = unpad_input(x[:, 3:], (x,), MASK, 1)
    assert torch.equal(q, x[:, 3])
    assert (indices.tolist(), cu_seqlens_q.tolist(), longest) == ([0, 1, 2, 3], [0, 1, 2, 3, 4], (1, 4))
    with pytest.raises(ValueError, match=r"q: expected shape \[4, 2, ...\], got \[4, 4, 2\]"):
        unpad_input(x, (x,), MASK, 2)
    with pytest.raises(ValueError, match=r"states: expected shape \[4, 4, ...\], got \[4, 3, 2\]"):
        unpad_input(x, (x, x[:, 1:]), MASK, 4)


def test_hidden_states_are_unpadded_where_there_is_padding() -> None:
    x, ends = torch.randn(4, 4, 2), torch.tensor([0, 3, 4])
    packed, indices, cu_seqlens = unpad_hidden_states(x, None, MASK, 4)
    assert torch.equal(packed[0], x[MASK.bool()])
    assert cu_seqlens.tolist() == [0, 2, 6, 6, 8]
    assert torch.equal(repad_hidden_states(packed, indices, 4, 4), x * MASK[..., None])
    last, indices, cu_seqlens = unpad_hidden_states(x[:, 3:], None, MASK, 1)
    assert torch.equal(repad_hidden_states(last, indices, 4, 1), x[:, 3:] * MASK[:, 3:, None])
    assert cu_seqlens.tolist() == [0, 1, 2, 2, 2]
    for given, mask in ((None, None), (None, torch.ones(4, 4)), (ends, MASK)):
        same, indices, cu_seqlens = unpad_hidden_states(x, given, mask, 4)
        assert same is x
        assert indices is None
        assert cu_seqlens is given
        assert repad_hidden_states(same, indices, 4, 4) is x


def test_a_layer_finds_its_own_states() -> None:
    layer, cache, state = SimpleNamespace(layer_idx=1), StateCache(), torch.randn(2, 3)
    assert get_layer_cache(layer, None) is None
    assert get_layer_cache(layer, cache) is None
    assert update_layer_cache(layer, None, recurrent_state=state) is None
    update_layer_cache(layer, cache, recurrent_state=state, offset=5)
    found = get_layer_cache(layer, cache)
    assert found["recurrent_state"] is state
    assert found["conv_state"] is None
    assert (cache.get_seq_length(0), cache.get_seq_length(1)) == (0, 5)
    layer.layer_idx = None
    with pytest.raises(ValueError, match="layer_idx: SimpleNamespace needs it"):
        get_layer_cache(layer, cache)
    with pytest.raises(TypeError, match="states"):
        update_layer_cache(SimpleNamespace(layer_idx=0), cache, states=state)


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_padding_of_the_last_columns_is_that_of_these_columns(columns: int) -> None:
    mask = read_mask(MASK, 2)
    found, (indices, cu_seqlens, _) = mask.padding(columns), get_unpad_data(MASK[:, 4 - columns :])
    assert found is not None
    assert mask.padding(columns) is found
    assert torch.equal(found.indices, indices)
    assert torch.equal(found.cu_seqlens, cu_seqlens)
    assert found.cu_seqlens.dtype == torch.int32


def test_no_padding_is_found_where_there_is_none() -> None:
    mask = read_mask(torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]]), 1)
    assert [mask.has_padding(columns) for columns in (1, 2, 3, 4)] == [False, False, False, True]
    assert mask.padding(3) is None
    with pytest.raises(ValueError, match="no real token among the last 2 steps"):
        read_mask(torch.tensor([[1, 0, 0]]), 2).padding(2)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_hole_is_padding_that_takes_the_place_of_a_token_in_a_window(steps: int) -> None:
    for bits in itertools.product((0, 1), repeat=6):
        mask = read_mask(torch.tensor([[0, 0, 1, 1, 1, 1], bits]), steps)
        before = 6 - steps
        for kept in range(before + 1):
            window, older = bits[before - kept : before], bits[: before - kept]
            assert mask.has_hole(kept) == (any(older) and any(bits[before:]) and not all(window)), (bits, kept)


def test_a_mask_that_moves_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = read_mask(MASK, 2)
    found = mask.padding(3)
    assert mask.to("cpu") is mask
    moved = mask.to("meta")
    monkeypatch.setattr(utils, "_read_layout", None)
    assert moved.tensor.device.type == moved.padding(3).indices.device.type == "meta"
    assert moved.padding(3).indices.shape == found.indices.shape
    assert copy.deepcopy(mask).padding(3).cu_seqlens.tolist() == found.cu_seqlens.tolist()
    with pytest.raises(ValueError, match="read for 3 steps, got 2"):
        read_mask(mask, 3)


def keys(cache: StateCache, layer_idx: int = 0) -> list[int]:
    return cache[layer_idx]["attn_state"][0].flatten().tolist()


def step(start: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
    new = torch.arange(float(start), end).view(1, -1, 1, 1)
    return new, -new


def test_a_window_keeps_what_the_next_step_sees() -> None:
    cache = StateCache()
    for start, end in ((0, 2), (2, 3), (3, 8)):
        visible = cache.update(attn_state=step(start, end), offset=end - start, cache_kwargs={"window_size": 4})
        assert visible["attn_state"][0].flatten().tolist() == list(range(max(start - 3, 0), end))
        assert keys(cache) == list(range(max(end - 3, 0), end))
    assert cache.get_seq_length() == 8
    with pytest.raises(ValueError, match="cannot be cropped"):
        cache[0].crop(-1)


def test_a_window_of_one_keeps_nothing() -> None:
    cache = StateCache()
    visible = cache.update(attn_state=step(0, 3), offset=3, cache_kwargs={"window_size": 1})
    assert visible["attn_state"][0].shape[1] == 3
    assert keys(cache) == []


def test_states_are_kept_by_layer_and_name() -> None:
    cache, state = StateCache(), torch.randn(2, 3)
    cache.update(recurrent_state=state, conv_state=(state, None), layer_idx=1, offset=5)
    assert [cache.get_seq_length(i) for i in range(3)] == [0, 5, 0]
    assert cache[1]["recurrent_state"] is state
    assert cache[1]["ffn_state"] is None
    cache[1].reorder_cache(torch.tensor([1, 0]))
    assert torch.equal(cache[1]["conv_state"][0], state.flip(0))
    assert cache[1]["conv_state"][1] is None
    assert len(list(cache)) == 2
    with pytest.raises(ValueError, match="cannot be cropped"):
        cache[1].crop(-1)
    with pytest.raises(ValueError, match="window_size, got windows"):
        cache.update(cache_kwargs={"windows": 1})


@pytest.mark.parametrize(("tokens", "left"), [(-2, 4), (4, 4), (0, 6), (9, 6), (torch.tensor(-1), 5)])
def test_keys_are_cropped_by_count_or_length(tokens: int, left: int) -> None:
    cache = StateCache()
    cache.update(attn_state=step(0, 6), offset=6)
    cache[0].crop(tokens)
    assert cache.get_seq_length() == left
    assert keys(cache) == list(range(left))
    for kept in cache[0]["attn_state"]:
        assert kept.untyped_storage().nbytes() == left * kept.element_size()
