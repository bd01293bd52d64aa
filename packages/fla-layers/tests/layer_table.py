"""The rows that every layer's tests run over, and what they do with a layer; a new layer adds rows to ``LAYERS``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fla.layers import (
    ABCAttention,
    Attention,
    BasedLinearAttention,
    BitAttention,
    Comba,
    DeltaNet,
    GatedDeltaNet,
    GatedDeltaProduct,
    GatedLinearAttention,
    GatedShortConvolution,
    GatedSlotAttention,
    HGRN2Attention,
    HGRNAttention,
    KimiDeltaAttention,
    LightNetAttention,
    LinearAttention,
    Mamba,
    Mamba2,
    Mixer,
    MultiheadLatentAttention,
    MultiScaleRetention,
    ReBasedLinearAttention,
    RWKV6Attention,
    RWKV6FeedForward,
    RWKV7Attention,
    RWKV7FeedForward,
    SimpleGatedLinearAttention,
    StateCache,
)
from fla.utils.numerics import agreement

HIDDEN = 32
#: Two projections, a norm and the sums of a mixer, each over some 40 numbers.
TIGHT = agreement(torch.float32, 160)
LAYERS: dict[str, Callable[[], Mixer]] = {
    "gla": lambda: GatedLinearAttention(hidden_size=HIDDEN, num_heads=2, layer_idx=0),
    "gla, convolution, grouped heads": lambda: GatedLinearAttention(
        hidden_size=HIDDEN, num_heads=4, num_kv_heads=2, use_short_conv=True, conv_bias=True, layer_idx=0
    ),
    "gla, recurrent, bounded gate": lambda: GatedLinearAttention(
        "fused_recurrent", HIDDEN, 1.0, 2.0, 2, feature_map="relu", clamp_min=-0.01, layer_idx=0
    ),
    "gla, norm apart": lambda: GatedLinearAttention(hidden_size=HIDDEN, num_heads=2, fuse_norm=False, layer_idx=0),
    "gla, sigmoid gate": lambda: GatedLinearAttention(hidden_size=HIDDEN, num_heads=2, gate_fn="sigmoid", layer_idx=0),
    "gla, no gate": lambda: GatedLinearAttention(
        hidden_size=HIDDEN, num_heads=2, use_output_gate=False, elementwise_affine=False, layer_idx=0
    ),
    "hgrn": lambda: HGRNAttention(hidden_size=HIDDEN, layer_idx=0),
    "hgrn, convolution, recurrent": lambda: HGRNAttention(
        "fused_recurrent", HIDDEN, 2, True, conv_bias=True, elementwise_affine=False, layer_idx=0
    ),
    "hgrn2": lambda: HGRN2Attention(hidden_size=HIDDEN, num_heads=2, expand_ratio=None, layer_idx=0),
    "hgrn2, convolution, recurrent": lambda: HGRN2Attention(
        "fused_recurrent", HIDDEN, 2, 24, True, conv_bias=True, elementwise_affine=False, layer_idx=0
    ),
    "lightnet": lambda: LightNetAttention(hidden_size=HIDDEN, expand_ratio=16, gate_low_rank_dim=8, layer_idx=0),
    "lightnet, convolution, recurrent": lambda: LightNetAttention(
        "fused_recurrent", HIDDEN, 2, 24, True, conv_bias=True, elementwise_affine=False, layer_idx=0
    ),
    "gsa": lambda: GatedSlotAttention(hidden_size=HIDDEN, num_heads=2, layer_idx=0),
    "gsa, convolution, grouped heads": lambda: GatedSlotAttention(
        "fused_chunk", HIDDEN, 1.0, 2.0, 4, 2, True, conv_bias=True, num_slots=12, use_output_gate=True, layer_idx=0
    ),
    "gsa, recurrent, no norm": lambda: GatedSlotAttention(
        "fused_recurrent", HIDDEN, 0.5, num_heads=2, feature_map=None, use_norm=False, scale=None, layer_idx=0
    ),
    "abc": lambda: ABCAttention(HIDDEN, num_heads=2, layer_idx=0),
    "abc, convolution, input gate": lambda: ABCAttention(
        HIDDEN, 1.0, 2.0, 2, True, conv_bias=True, num_slots=12, use_input_gate=True, use_output_gate=False, layer_idx=0
    ),
    "abc, no positions, no norm": lambda: ABCAttention(
        HIDDEN, num_heads=2, use_rope=False, use_norm=False, clamp_min=-0.5, clamp_max=None, layer_idx=0
    ),
    "retention": lambda: MultiScaleRetention(hidden_size=HIDDEN, num_heads=2, layer_idx=0),
    "retention, convolution, grouped heads": lambda: MultiScaleRetention(
        "parallel", HIDDEN, num_heads=4, num_kv_heads=2, feature_map="relu", use_short_conv=True, layer_idx=0
    ),
    "retention, recurrent, no gate": lambda: MultiScaleRetention(
        "fused_recurrent", HIDDEN, num_heads=2, use_output_gate=False, layer_idx=0
    ),
    "simple_gla": lambda: SimpleGatedLinearAttention(hidden_size=HIDDEN, num_heads=2, layer_idx=0),
    "simple_gla, grouped heads, recurrent": lambda: SimpleGatedLinearAttention(
        "fused_recurrent", HIDDEN, 0.5, 2.0, 4, 2, "relu", conv_bias=True, fuse_norm=False, layer_idx=0
    ),
    "simple_gla, no convolution": lambda: SimpleGatedLinearAttention(
        hidden_size=HIDDEN, num_heads=2, use_short_conv=False, gate_fn="sigmoid", layer_idx=0
    ),
    "rwkv6": lambda: RWKV6Attention(hidden_size=HIDDEN, num_heads=2, layer_idx=0),
    "rwkv6, recurrent": lambda: RWKV6Attention(
        "fused_recurrent", HIDDEN, 1.0, 2.0, 2, gate_fn="sigmoid", elementwise_affine=False, layer_idx=0
    ),
    "rwkv7": lambda: RWKV7Attention(hidden_size=HIDDEN, head_dim=16, layer_idx=0),
    "rwkv7, recurrent, wide values, no affine": lambda: RWKV7Attention(
        "fused_recurrent", HIDDEN, None, 2, 8, 8, 8, elementwise_affine=False, layer_idx=0, value_dim=48
    ),
    "delta_net": lambda: DeltaNet(hidden_size=HIDDEN, num_heads=2, layer_idx=0),
    "delta_net, recurrent, gate, no convolution": lambda: DeltaNet(
        "fused_recurrent", HIDDEN, 1, 0.5, 2.0, 2, use_gate=True, use_short_conv=False, layer_idx=0
    ),
    "delta_net, reflecting": lambda: DeltaNet(
        hidden_size=HIDDEN, num_heads=2, use_beta=False, allow_neg_eigval=True, qk_activation="identity", layer_idx=0
    ),
    "delta_net, relu": lambda: DeltaNet(
        "fused_chunk", hidden_size=HIDDEN, num_heads=2, conv_bias=True, qk_activation="relu", layer_idx=0
    ),
    "delta_net, elu, divided by sums": lambda: DeltaNet(
        hidden_size=HIDDEN, num_heads=2, allow_neg_eigval=True, qk_activation="elu", qk_norm="sum", layer_idx=0
    ),
    "gated_deltanet": lambda: GatedDeltaNet(HIDDEN, head_dim=16, num_heads=2, layer_idx=0),
    "gated_deltanet, grouped heads": lambda: GatedDeltaNet(
        HIDDEN, 1.5, 8, 2, 6, allow_neg_eigval=True, conv_bias=True, output_gate_activation="sigmoid", layer_idx=0
    ),
    "gated_deltanet, recurrent, no gate, no convolution": lambda: GatedDeltaNet(
        HIDDEN, 1, 16, 2, mode="fused_recurrent", use_gate=False, use_short_conv=False, layer_idx=0
    ),
    "gated_deltaproduct": lambda: GatedDeltaProduct(HIDDEN, head_dim=16, num_heads=2, layer_idx=0),
    "gated_deltaproduct, three steps, grouped heads": lambda: GatedDeltaProduct(
        HIDDEN, 1.5, 8, 2, 4, conv_bias=True, use_forget_gate=False, num_householder=3, layer_idx=0
    ),
    "gated_deltaproduct, one step, recurrent, no gate": lambda: GatedDeltaProduct(
        HIDDEN, 1, 16, 2, None, "fused_recurrent", False, False, allow_neg_eigval=False, num_householder=1, layer_idx=0
    ),
    "kda": lambda: KimiDeltaAttention(HIDDEN, head_dim=16, num_heads=2, layer_idx=0),
    "kda, lower bound, grouped heads": lambda: KimiDeltaAttention(
        HIDDEN, 1.5, 8, 2, 4, allow_neg_eigval=True, safe_gate=True, lower_bound=-5, conv_bias=True, layer_idx=0
    ),
    "kda, recurrent, no convolution": lambda: KimiDeltaAttention(
        HIDDEN, 0.5, 16, 2, mode="fused_recurrent", use_short_conv=False, layer_idx=0
    ),
    "comba": lambda: Comba(HIDDEN, head_dim=16, num_heads=2, layer_idx=0),
    "comba, grouped heads, no gate": lambda: Comba(
        HIDDEN, 1.5, 8, 2, 6, use_output_gate=False, correction_factor=0.02, conv_bias=True, layer_idx=0
    ),
    "comba, recurrent, without its corrections": lambda: Comba(
        HIDDEN, 1, 16, 2, None, "fused_recurrent", False, True, False, False, layer_idx=0
    ),
    "mamba": lambda: Mamba(HIDDEN, intermediate_size=48, layer_idx=0),
    "mamba, options": lambda: Mamba(
        HIDDEN, 5, 3, False, 40, 7, dt_init="constant", dt_scale=0.5, use_bias=True, hidden_act="swish", layer_idx=0
    ),
    "mamba2": lambda: Mamba2(head_dim=16, hidden_size=HIDDEN, state_size=8, layer_idx=0),
    "mamba2, groups, norm before gate": lambda: Mamba2(
        8, 8, HIDDEN, 12, 2, 2, 3, 0.5, D_has_hdim=True, norm_before_gate=True, use_bias=True, layer_idx=0
    ),
    "mamba2, limits, no norm": lambda: Mamba2(
        None, 12, HIDDEN, 9, 1.5, use_conv_bias=False, rmsnorm=False, dt_limit=(0.01, 0.05), layer_idx=0
    ),
    "linear_attn": lambda: LinearAttention(hidden_size=HIDDEN, num_heads=2, layer_idx=0),
    "linear_attn, hedgehog, normalised": lambda: LinearAttention(
        "fused_chunk", HIDDEN, 1.0, 1.0, 4, 2, "hedgehog", True, do_feature_map_norm=True, layer_idx=0
    ),
    "linear_attn, elu, normalised, recurrent": lambda: LinearAttention(
        "fused_recurrent", HIDDEN, 0.5, 2.0, 2, None, "elu", norm_q=True, do_feature_map_norm=True, layer_idx=0
    ),
    "linear_attn, t2r, no norm": lambda: LinearAttention(
        hidden_size=HIDDEN, num_heads=2, feature_map="t2r", output_norm="identity", layer_idx=0
    ),
    "linear_attn, dpfp": lambda: LinearAttention(
        hidden_size=HIDDEN, num_heads=2, feature_map="dpfp", norm_q=True, norm_k=True, layer_idx=0
    ),
    "linear_attn, relu": lambda: LinearAttention(hidden_size=HIDDEN, num_heads=2, feature_map="relu", layer_idx=0),
    "linear_attn, identity": lambda: LinearAttention(
        hidden_size=HIDDEN, num_heads=2, feature_map="identity", elementwise_affine=False, layer_idx=0
    ),
    "based": lambda: BasedLinearAttention(HIDDEN, 5, None, 2, layer_idx=0),
    "based, grouped heads": lambda: BasedLinearAttention(HIDDEN, 4, 2, 4, mode="fused_chunk", layer_idx=0),
    "rebased": lambda: ReBasedLinearAttention(HIDDEN, 64, 8, None, 2, eps=0.5, layer_idx=0),
    "rebased, nothing learned, grouped heads": lambda: ReBasedLinearAttention(
        HIDDEN, 64, 5, 2, 4, False, False, eps=0.5, mode="chunk", layer_idx=0
    ),
    "gated convolution": lambda: GatedShortConvolution(HIDDEN, layer_idx=0),
    "attn": lambda: Attention(HIDDEN, num_heads=2, layer_idx=0),
    "attn, grouped heads, qk-norm": lambda: Attention(
        HIDDEN, num_heads=4, num_kv_heads=2, qkv_bias=True, qk_norm=True, layer_idx=0
    ),
    "attn, window": lambda: Attention(HIDDEN, num_heads=2, window_size=7, layer_idx=0),
    "attn, window of two": lambda: Attention(HIDDEN, num_heads=2, window_size=2, layer_idx=0),
    "attn, wide heads, scaled positions": lambda: Attention(
        HIDDEN,
        num_heads=2,
        window_size=11,
        head_dim=24,
        o_bias=True,
        rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
        layer_idx=0,
    ),
    "attn, no positions": lambda: Attention(HIDDEN, num_heads=2, rope_theta=None, layer_idx=0),
    "bitattn": lambda: BitAttention(HIDDEN, num_heads=2, layer_idx=0),
    "bitattn, grouped heads, window": lambda: BitAttention(HIDDEN, 4, 2, 7, norm_eps=0.1, layer_idx=0),
    "mla": lambda: MultiheadLatentAttention(HIDDEN, 2, 12, 8, 16, 12, 8, None, layer_idx=0),
    "mla, window, plain queries": lambda: MultiheadLatentAttention(
        HIDDEN, 4, None, 4, 12, 6, 8, 12, window_size=7, layer_idx=0
    ),
    "mla, window of two, little compressed, stretched": lambda: MultiheadLatentAttention(
        HIDDEN, 2, 12, 8, 6, 8, 8, 16, 2, rope_scaling={"rope_type": "linear", "factor": 4.0}, layer_idx=0
    ),
}
#: What mixes the channels of a token and the one before it, after a layer that mixes tokens.
FEED_FORWARDS: dict[str, Callable[[], Mixer]] = {
    "rwkv6, channels": lambda: RWKV6FeedForward(HIDDEN, layer_idx=0),
    "rwkv7, channels": lambda: RWKV7FeedForward(HIDDEN, layer_idx=0),
}
every_layer = pytest.mark.parametrize("name", LAYERS)
every_mixer = pytest.mark.parametrize("name", [*LAYERS, *FEED_FORWARDS])
#: Recurrent layers with convolutions, which hold all that can be kept of packed sequences.
CONTINUED = [
    "linear_attn, hedgehog, normalised",
    "based",
    "abc, convolution, input gate",
    "gated convolution",
    "delta_net",
    "gated_deltanet, grouped heads",
    "gated_deltaproduct, three steps, grouped heads",
    "kda, lower bound, grouped heads",
    "comba, grouped heads, no gate",
    "mamba",
    "mamba2, groups, norm before gate",
    "gla, convolution, grouped heads",
    "gsa, convolution, grouped heads",
    "hgrn, convolution, recurrent",
    "hgrn2, convolution, recurrent",
    "lightnet, convolution, recurrent",
    "retention, convolution, grouped heads",
    "simple_gla, grouped heads, recurrent",
]


def build(name: str, dtype: torch.dtype | None = None) -> Mixer:
    torch.manual_seed(0)
    layer = {**LAYERS, **FEED_FORWARDS}[name]()
    with torch.no_grad():
        for parameter_name, parameter in layer.named_parameters():
            # A matrix that starts at zero hides what is behind it.
            if parameter.ndim == 2 and not parameter.any():
                parameter.normal_(std=0.2)
            # The values of a first token are whole numbers times one: without a weight some lie between two steps.
            if parameter_name.endswith("_proj.norm.weight"):
                parameter.uniform_(0.5, 1.5)
    return layer.to(dtype or torch.get_default_dtype()).eval()


def inputs(batch: int, steps: int) -> torch.Tensor:
    return torch.randn(batch, steps, HIDDEN, generator=torch.Generator().manual_seed(steps))


def padded(lengths: list[int], steps: int, side: str) -> torch.Tensor:
    """A mask whose row i has ``lengths[i]`` real tokens on the side away from the padding."""
    position = torch.arange(steps)
    if side == "left":
        position = position.flip(0)
    return (position < torch.tensor(lengths)[:, None]).long()


def decode(layer: Mixer, x: torch.Tensor, cuts: list[int], mask: torch.Tensor | None = None) -> torch.Tensor:
    """The outputs of x fed piece by piece, with the ends of the pieces in ``cuts``."""
    cache, outputs, start = StateCache(), [], 0
    for end in [*cuts, x.shape[1]]:
        o, _, returned, *_ = layer(
            x[:, start:end],
            attention_mask=None if mask is None else mask[:, :end],
            past_key_values=cache,
            use_cache=True,
        )
        assert returned is cache
        assert cache.get_seq_length(0) == end
        outputs.append(o)
        start = end
    return torch.cat(outputs, 1)
