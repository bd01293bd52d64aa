"""Calls of any model: how they treat a mask and a cache; and checkpointing with a cache."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from transformers import GenerationConfig
from transformers.generation.configuration_utils import ALL_CACHE_IMPLEMENTATIONS

from fla.layers.cache import map_state, tensors_of
from fla.layers.utils import read_mask
from fla.models import Cache
from fla.models.base.modeling import FLAForCausalLM
from fla.utils.numerics import assert_close
from fla.utils.testing.reads import counted_reads
from fla.utils.testing.rewrites import REWRITES
from model_table import MODELS, TIGHT, Model, every_kind, every_model, gradients, tokens


def left_padded(lengths: list[int], steps: int) -> torch.Tensor:
    return (torch.arange(steps).flip(0) < torch.tensor(lengths)[:, None]).long()


@every_model
@pytest.mark.parametrize("way", REWRITES)
def test_a_mask_that_was_rewritten_is_read_anew(model: Model, way: str, device: torch.device) -> None:
    lm, ids = model.build(), tokens(3, 12)
    before, after = left_padded([12, 5, 9], 12), left_padded([7, 12, 4], 12)
    with torch.inference_mode("inference" in way):
        mask, rewrite = REWRITES[way](before.tolist(), device)
        first = lm(ids, mask).logits
        rewrite(after.tolist())
        second = lm(ids, mask).logits
        assert torch.equal(second, lm(ids, after).logits)
        assert not torch.allclose(first, second)


@every_model
@torch.no_grad()
def test_a_call_reads_its_mask_twice_at_most(model: Model) -> None:
    lm, ids, cache = model.build(), tokens(3, 30), Cache()
    mask = left_padded([30, 12, 3], 30)
    for start, end in ((0, 20), (20, 28), (28, 29), (29, 30)):
        with counted_reads("fla/layers", "fla/models") as reads:
            lm(ids[:, start:end], mask[:, :end], past_key_values=cache, use_cache=True)
        assert len(reads) <= 2, reads
    with counted_reads("fla/layers", "fla/models") as reads:
        lm(ids, torch.ones(3, 30))
    assert len(reads) == 1, reads


@pytest.mark.parametrize("name", ["gla, hybrid", "rwkv7, hybrid", "transformer, options"])
@torch.no_grad()
def test_a_mask_passes_the_hooks_that_move_arguments_between_devices(name: str, device: torch.device) -> None:
    accelerate = pytest.importorskip("accelerate")
    lm, ids, mask = MODELS[name].build(), tokens(3, 12), left_padded([12, 5, 9], 12)
    expected = lm(ids, mask).logits
    offloaded = accelerate.cpu_offload(lm, device)
    assert torch.equal(expected, offloaded(ids, mask).logits)
    known = read_mask(mask, 12)
    found = known.padding(12)
    moved = accelerate.utils.send_to_device({"attention_mask": known}, "meta")["attention_mask"]
    assert moved.padding(12).indices.device.type == "meta"
    assert moved.padding(12).indices.shape == found.indices.shape


def test_a_compiled_model_takes_a_padded_batch() -> None:
    torch._dynamo.reset()
    lm, ids, mask = MODELS["gla"].build(num_hidden_layers=1).train(), tokens(2, 20), left_padded([20, 7], 20)
    expected = lm(ids, mask, labels=ids)
    output = torch.compile(lm, backend="eager")(ids, mask, labels=ids)
    assert_close("logits", expected.logits, output.logits, TIGHT)
    assert_close("loss", expected.loss.detach(), output.loss.detach(), TIGHT)


def states(cache: Cache) -> list[torch.Tensor]:
    return [tensor for layer in cache for state in layer.values() for tensor in tensors_of(state)]


def bad_calls(lm: FLAForCausalLM, ids: torch.Tensor, past: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Calls that a model with a cache of ``past`` steps of two rows must refuse; ids ``[2, T]`` are what it may get."""
    steps, flat = ids.shape[1], ids.flatten()[None]
    mask, vectors = torch.ones(2, past + steps), lm.base_model.embeddings(ids)
    three = torch.cat([ids, ids[:1]])
    yield "one row", {"input_ids": ids[:1]}
    yield "three rows", {"input_ids": three}
    yield "three rows with a mask", {"input_ids": three, "attention_mask": left_padded([past] * 3, past + steps)}
    yield "ids that are floats", {"input_ids": ids.float()}
    yield "ids of one sequence", {"input_ids": ids[0]}
    yield "embeddings of other channels", {"inputs_embeds": vectors[..., 1:]}
    yield "ids and embeddings", {"input_ids": ids, "inputs_embeds": vectors}
    yield "a mask of the new steps", {"input_ids": ids, "attention_mask": mask[:, :steps]}
    yield "a mask of other rows", {"input_ids": ids, "attention_mask": mask[:1]}
    yield "a mask of other values", {"input_ids": ids, "attention_mask": 2 * mask}
    no_token = mask.masked_fill(torch.arange(past + steps) >= past, 0)
    yield "a mask without a token", {"input_ids": ids, "attention_mask": no_token}
    yield "boundaries of rows", {"input_ids": ids, "cu_seqlens": torch.tensor([0, steps, 2 * steps])}
    yield "boundaries of one sequence", {"input_ids": flat, "cu_seqlens": torch.tensor([0, 2 * steps])}
    if ids.device.type == "cpu":
        # Elsewhere to read boundaries would be to wait.
        yield "boundaries that end early", {"input_ids": flat, "cu_seqlens": torch.tensor([0, steps, 2 * steps - 1])}
    yield "boundaries in floats", {"input_ids": flat, "cu_seqlens": torch.tensor([0.0, steps, 2 * steps])}
    yield "labels of other steps", {"input_ids": ids, "labels": three}
    yield "attention weights", {"input_ids": ids, "output_attentions": True}
    windows = [getattr(lm.base_model._mixer(block), "window_size", None) for block in lm.base_model.layers]
    if any("attn_state" in layer for layer in filled(lm, ids)):
        packed = {"input_ids": flat, "cu_seqlens": torch.tensor([0, steps, 2 * steps])}
        yield "packed sequences after keys", packed
    if any(window is not None and window <= past for window in windows):
        hole = mask.clone()
        hole[1, past - 1] = 0
        yield "a hole under a window", {"input_ids": ids, "attention_mask": hole}


def filled(lm: FLAForCausalLM, ids: torch.Tensor) -> Cache:
    cache = Cache()
    lm(ids, past_key_values=cache, use_cache=True)
    return cache


def refuses(function: Callable[..., Any], *arguments: torch.Tensor, **call: Any) -> bool:
    try:
        function(*arguments, **call)
    except (ValueError, TypeError):
        return True
    return False


@every_model
@pytest.mark.parametrize("steps", [1, 3])
@torch.no_grad()
def test_a_refused_call_leaves_the_cache_as_it_was(model: Model, steps: int) -> None:
    lm, ids = model.build(), tokens(2, 14 + steps)
    past, new = ids[:, :14], ids[:, 14:]
    cache, untouched = filled(lm, past), filled(lm, past)
    for title, call in bad_calls(lm, new, 14):
        assert refuses(lm, **call, past_key_values=cache, use_cache=True), title
        assert [layer.seen for layer in cache] == [14] * len(cache), title
        assert all(map(torch.equal, states(cache), states(untouched))), title
    output, expected = (lm(new, past_key_values=c, use_cache=True).logits for c in (cache, untouched))
    assert torch.equal(output, expected)


@pytest.mark.parametrize("implementation", ALL_CACHE_IMPLEMENTATIONS)
@pytest.mark.parametrize("given", ["argument", "config", "model"])
def test_a_cache_of_another_kind_is_refused_by_name(implementation: str, given: str) -> None:
    lm, ids = MODELS["gla, hybrid"].build(), tokens(2, 5)
    options: dict[str, Any] = {"cache_implementation": implementation}
    if given == "config":
        options = {"generation_config": GenerationConfig(max_new_tokens=2, pad_token_id=0, **options)}
    elif given == "model":
        lm.generation_config.cache_implementation, options = implementation, {}
    if implementation in ("dynamic", "dynamic_full"):
        lm.generate(ids, max_new_tokens=2, **options)
        return
    with pytest.raises(ValueError, match=f"cache_implementation: expected None or 'dynamic', got '{implementation}'"):
        lm.generate(ids, max_new_tokens=2, **options)


def detach(cache: Cache) -> None:
    for layer in cache:
        layer.apply(torch.Tensor.detach)


def two_segments(
    lm: FLAForCausalLM, ids: torch.Tensor, cut: int, start: Cache, detached: bool, leaves: list[torch.Tensor]
) -> tuple[torch.Tensor, dict[str, torch.Tensor], list[torch.Tensor], Cache]:
    """The losses of truncated backpropagation over two segments, all gradients, and the cache."""
    cache, losses = copy.copy(start), []
    cache.layers = []
    rest = iter(leaves)
    for layer in start:
        own = copy.copy(layer)
        own.update({name: map_state(lambda _: next(rest), state) for name, state in layer.items()})
        cache.layers.append(own)
    for segment in ids.split([cut, ids.shape[1] - cut], 1):
        losses.append(lm(segment, labels=segment, past_key_values=cache, use_cache=True).loss)
        if detached:
            detach(cache)
    for parameter in (*lm.parameters(), *leaves):
        parameter.grad = None
    sum(losses).backward()
    got = {name: p.grad for name, p in lm.named_parameters()}
    return torch.stack(losses).detach(), got, [x.grad for x in leaves], cache


@every_model
@pytest.mark.parametrize(
    ("reentrant", "detached", "cut"),
    # Each two of these settings meet in every way.
    [(False, True, 8), (True, False, 8), (False, False, 1), (True, True, 1)],
    ids=["detached", "reentrant, through", "through, one step", "reentrant, detached, one step"],
)
def test_checkpointing_changes_nothing_where_segments_follow_each_other(
    model: Model, reentrant: bool, detached: bool, cut: int
) -> None:
    lm, ids = model.build().train(), tokens(2, 26)
    with torch.no_grad():
        start = filled(lm, ids[:, :10])
    leaves = [x.clone().requires_grad_(x.is_floating_point()) for x in states(start)]
    expected = two_segments(lm, ids[:, 10:], cut, start, detached, leaves)
    lm.gradient_checkpointing_enable({"use_reentrant": reentrant})
    lm.enable_input_require_grads()
    loss, got, starts, cache = two_segments(lm, ids[:, 10:], cut, start, detached, leaves)
    assert_close("losses", expected[0], loss, 1e-6)
    for name, gradient in expected[1].items():
        assert_close(name, gradient, got[name], TIGHT)
    for gradient, result in zip(expected[2], starts, strict=True):
        assert (gradient is None) == (result is None)
        if gradient is not None:
            assert_close("gradient of the first state", gradient, result, TIGHT)
    assert [layer.seen for layer in cache] == [26] * lm.config.num_hidden_layers
    for state, result in zip(states(expected[3]), states(cache), strict=True):
        assert_close("state", state, result, TIGHT)


@every_kind
@pytest.mark.parametrize("reentrant", [False, True], ids=["plain", "reentrant"])
def test_checkpointing_reads_a_cache_that_is_not_to_be_written(model: Model, reentrant: bool) -> None:
    lm, ids = model.build().train(), tokens(2, 20)
    with torch.no_grad():
        cache, untouched = filled(lm, ids[:, :10]), filled(lm, ids[:, :10])
    rest = ids[:, 10:]
    expected = lm(rest, labels=rest, past_key_values=cache, use_cache=False).loss
    wanted = gradients(lm, expected)
    lm.gradient_checkpointing_enable({"use_reentrant": reentrant})
    lm.enable_input_require_grads()
    lm.zero_grad()
    loss = lm(rest, labels=rest, past_key_values=cache, use_cache=False).loss
    loss.backward()
    assert_close("loss", expected.detach(), loss.detach(), 1e-6)
    for name, parameter in lm.named_parameters():
        assert_close(name, wanted[name], parameter.grad, TIGHT)
    assert cache.get_seq_length() == 10
    assert all(map(torch.equal, states(cache), states(untouched)))
