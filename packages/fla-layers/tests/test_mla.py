"""Multi-head latent attention: what its cache holds, and that attending to latents is attending to heads."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from fla.layers import MultiheadLatentAttention, StateCache
from fla.utils.numerics import assert_close

HIDDEN = 32
YARN = {
    "rope_type": "yarn",
    "factor": 8.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 4.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 0.7,
}


def build(**options: Any) -> MultiheadLatentAttention:
    torch.manual_seed(0)
    sizes = {"q_lora_rank": 12, "qk_rope_head_dim": 8, "kv_lora_rank": 16, "v_head_dim": 12, "qk_nope_head_dim": 8}
    sizes |= {"qk_head_dim": None, "num_heads": 3, "layer_idx": 0}
    return MultiheadLatentAttention(HIDDEN, **{**sizes, **options}).double().eval()


def inputs(batch: int, steps: int) -> torch.Tensor:
    return torch.randn(batch, steps, HIDDEN, generator=torch.Generator().manual_seed(steps), dtype=torch.float64)


def decode(
    layer: MultiheadLatentAttention, x: torch.Tensor, cuts: list[int], mask: torch.Tensor | None = None
) -> torch.Tensor:
    cache, outputs = StateCache(), []
    for start, end in zip([0, *cuts], [*cuts, x.shape[1]]):
        seen = None if mask is None else mask[:, :end]
        outputs.append(layer(x[:, start:end], seen, past_key_values=cache, use_cache=True)[0])
    return torch.cat(outputs, 1)


def count_calls(module: torch.nn.Module) -> list[int]:
    """The steps that ``module`` is called on. The hook on what makes the heads keeps it from being passed over."""
    calls: list[int] = []
    module.register_forward_hook(lambda module, given, result: calls.append(given[0].shape[1]))
    return calls


@pytest.mark.parametrize("window_size", [None, 6])
@pytest.mark.parametrize("side", [None, "left", "right"])
def test_attending_to_latents_is_attending_to_heads(window_size: int | None, side: str | None) -> None:
    x, cuts, mask = inputs(3, 30), [10, 11, 14, 15, 21, 22], None
    if side is not None:
        real = torch.arange(30) < torch.tensor([30, 17, 11])[:, None]
        mask = (real.flip(1) if side == "left" else real).long()
    compressed, with_heads = build(window_size=window_size), build(window_size=window_size)
    calls = count_calls(with_heads.kv_proj[2])
    expected = decode(with_heads, x, cuts, mask)
    assert len(calls) == 7
    got = decode(compressed, x, cuts, mask)
    assert_close("pieces", expected, got, 1e-13)
    assert_close("whole", compressed(x, mask)[0], got, 1e-13)


def test_many_steps_after_others_make_heads_and_few_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x, made = build(kv_lora_rank=20, v_head_dim=12), inputs(2, 80), []
    expand = MultiheadLatentAttention._expand
    monkeypatch.setattr(
        MultiheadLatentAttention, "_expand", lambda *arguments: made.append(arguments[1].shape[1]) or expand(*arguments)
    )
    # 20 * (8 + 12) products once for a step of the past, 2 * 20 - 8 - 12 more for each new step: even at 20.
    assert_close("pieces", layer(x)[0], decode(layer, x, [30, 50, 71]), 1e-13)
    assert made == [80, 30, 71]


def test_the_cache_holds_latents_and_rotary_keys_only() -> None:
    torch.manual_seed(0)
    layer, cache = MultiheadLatentAttention(layer_idx=0).bfloat16().eval(), StateCache()
    with torch.no_grad():
        for steps in (3, 1):
            layer(torch.randn(2, steps, 2048).bfloat16(), past_key_values=cache, use_cache=True)
    stored = sum(tensor.untyped_storage().nbytes() for tensor in cache[0]["attn_state"]) / (2 * 4)
    assert stored == (512 + 64) * 2 == 1152
    assert 16 * (192 + 128) * 2 / stored == pytest.approx(8.9, abs=0.05)


def test_a_window_bounds_the_cache() -> None:
    layer, cache, x = build(window_size=5), StateCache(), inputs(2, 24)
    for piece in x.split(8, 1):
        layer(piece, past_key_values=cache, use_cache=True)
        assert [tensor.shape[1] for tensor in cache[0]["attn_state"]] == [4, 4]


def test_gradients_of_cached_steps_survive_padding() -> None:
    layer, x = build(), inputs(2, 12)
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[1, 4:] = 0  # of the last steps, the second row has none
    mask[1, 0] = 0
    gradients = []
    for cuts in ([], [8]):
        leaf = x.clone().requires_grad_()
        decode(layer, leaf, cuts, mask).square().sum().backward()
        gradients.append(leaf.grad)
    assert_close("gradient", *gradients, 1e-12)


def test_an_adapter_on_the_projection_of_keys_and_values_is_not_left_out() -> None:
    layer, x = build(), inputs(2, 12)
    layer.kv_proj[2].register_forward_hook(lambda module, given, result: 1.5 * result)
    assert_close("pieces", layer(x)[0], decode(layer, x, [8, 9]), 1e-13)


def test_half_precision_decodes_near_float64() -> None:
    exact, x = build(num_heads=8, kv_lora_rank=32), inputs(2, 40)
    rounded = build(num_heads=8, kv_lora_rank=32).bfloat16()
    exact.load_state_dict(rounded.state_dict())
    got = decode(rounded, x.bfloat16(), list(range(20, 40)))
    assert got.dtype == torch.bfloat16
    assert_close("steps", exact(x.bfloat16().double())[0], got, 0.02)


def written_out(
    layer: MultiheadLatentAttention, x: torch.Tensor, frequencies: torch.Tensor, scale: float, stretch: float
) -> torch.Tensor:
    """The definition, pair by pair; a pair that turns becomes longer by ``stretch``."""
    steps, nope, half = x.shape[1], layer.qk_nope_head_dim, layer.qk_rope_head_dim // 2
    angles = torch.arange(steps)[:, None] * frequencies

    def rotate(y: torch.Tensor) -> torch.Tensor:
        turned = torch.complex(y[..., :half], y[..., half:]) * torch.polar(torch.full_like(angles, stretch), angles)
        return torch.cat([turned.real, turned.imag], -1)

    q = layer.q_proj(x).unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
    made = layer.kv_proj(x).unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
    scores = q[..., :nope] @ made[..., :nope].mT + rotate(q[..., nope:]) @ rotate(layer.k_rope(x))[:, None].mT
    hidden = torch.ones(steps, steps).triu(1).bool()
    o = (scores * scale).masked_fill(hidden, -torch.inf).softmax(-1) @ made[..., nope:]
    return layer.o_proj(o.transpose(1, 2).flatten(2))


def test_is_its_definition() -> None:
    layer, x = build(), inputs(2, 20)
    frequencies = 10000.0 ** -(torch.arange(0, 8, 2) / 8).double()
    # The tables of cosines and sines are in float32.
    assert_close("plain", written_out(layer, x, frequencies, 16**-0.5, 1.0), layer(x)[0], 1e-6)


def test_yarn_stretches_positions_and_sharpens_the_scores() -> None:
    layer, x = build(rope_scaling=YARN), inputs(2, 90)
    exponent = torch.arange(0, 8, 2).double() / 8
    turns = 64 * 10000.0**-exponent / (2 * math.pi)  # in the length that the model was trained on

    def pair(turns: float) -> float:
        return 8 * math.log(64 / (turns * 2 * math.pi)) / (2 * math.log(10000.0))

    low, high = math.floor(pair(4.0)), math.ceil(pair(1.0))
    stretched = ((torch.arange(4) - low) / (high - low)).clamp(0, 1).double()
    assert 0 < stretched.sum() < 4
    assert turns[0] > 4
    frequencies = 10000.0**-exponent * (1 - stretched + stretched / 8)
    mscale, mscale_all_dim = (0.1 * m * math.log(8) + 1 for m in (1.0, 0.7))
    expected = written_out(layer, x, frequencies, 16**-0.5 * mscale_all_dim**2, mscale / mscale_all_dim)
    assert_close("stretched", expected, layer(x)[0], 1e-6)
    assert_close("pieces", layer(x)[0], decode(layer, x, [60, 61, 64, 89]), 1e-13)
