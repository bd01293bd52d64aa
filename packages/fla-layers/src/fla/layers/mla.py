"""Multi-head latent attention: keys and values of all heads from one latent per token, which is all the cache holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fla.layers._attention import KeyMixer, attend_to_past, extend_cache, rotary_offset
from fla.layers.base import Call
from fla.modules import RMSNorm, RotaryEmbedding
from fla.modules._bare import is_bare_linear
from fla.modules._checks import needs_gradient
from fla.modules.rotary.scaling import RopeScaling, yarn_mscale
from fla.ops.attn import parallel_attn

#: Whether products of half-precision matrices can be had unrounded, without a wider copy of the matrices.
_WIDENS = "dtype" in torch.ops.aten.bmm.overloads()


class MultiheadLatentAttention(KeyMixer):
    r"""Multi-head latent attention of DeepSeek-V2 (arXiv 2405.04434).

    .. math::
        c_t = \mathrm{norm}(W_c x_t), \quad [k^h_t; v^h_t] = W^h c_t, \quad r_t = \mathrm{rotate}(W_r x_t), \quad
        o^h_t = \sum_s \mathrm{softmax}_s(scale \cdot [q^h_t; \mathrm{rotate}(q'^h_t)] \cdot [k^h_s; r_s])\, v^h_s

    The cache holds the latent c and the rotary key r of each token, ``kv_lora_rank + qk_rope_head_dim`` numbers:
    with the defaults and in bfloat16 1152 bytes, where keys and values of all heads would be 10240. A few steps after
    others attend in the space of the latents, with :math:`W` taken into queries and outputs, so that keys and values
    of the past are never made; its scores and softmax are in float32 (float64 for float64 inputs).

    Positions count the real tokens of each sequence. With a window the cache keeps no more than it needs.

    Args:
        hidden_size: channels in and out.
        num_heads: heads.
        q_lora_rank: rank of the projection of queries, with a norm in its middle; None for a plain one.
        qk_rope_head_dim: channels of queries and keys that turn with the position; the keys' are shared by all heads.
        kv_lora_rank: channels of the latent.
        v_head_dim: channels of the values of a head.
        qk_nope_head_dim: channels of queries and keys without positions.
        qk_head_dim: channels of both kinds together; must be their sum where given.
        window_size: keys that a query sees, its own included; all before it unless given.
        rope_theta: base of the rotary frequencies.
        max_position_embeddings: longest sequence the model is meant for; it limits nothing here.
        rope_scaling: stretch of positions, as ``rope_scaling`` of Hugging Face configs has it; see
            :class:`fla.modules.RotaryEmbedding`. Its ``mscale_all_dim`` sharpens the scores (arXiv 2309.00071).
        layer_idx: the layer's place in the cache.

    Raises:
        ValueError: a size or a window below 1, a ``qk_head_dim`` that is not the sum, or an unknown scaling.
    """

    def __init__(
        self,
        hidden_size: int = 2048,
        num_heads: int = 16,
        q_lora_rank: int | None = 1536,
        qk_rope_head_dim: int = 64,
        kv_lora_rank: int = 512,
        v_head_dim: int = 128,
        qk_nope_head_dim: int = 128,
        qk_head_dim: int | None = 192,
        window_size: int | None = None,
        rope_theta: float = 10000.0,
        max_position_embeddings: int | None = None,
        rope_scaling: Mapping[str, Any] | None = None,
        layer_idx: int | None = None,
    ) -> None:
        super().__init__(hidden_size, layer_idx)
        _check_sizes(
            num_heads=num_heads,
            q_lora_rank=q_lora_rank,
            kv_lora_rank=kv_lora_rank,
            v_head_dim=v_head_dim,
            qk_nope_head_dim=qk_nope_head_dim,
            window_size=window_size,
        )
        if qk_head_dim not in (None, qk_nope_head_dim + qk_rope_head_dim):
            raise ValueError(
                f"qk_head_dim: expected qk_nope_head_dim + qk_rope_head_dim = {qk_nope_head_dim + qk_rope_head_dim}, "
                f"got {qk_head_dim}"
            )
        self.num_heads = num_heads
        self.q_lora_rank = q_lora_rank
        self.qk_rope_head_dim = qk_rope_head_dim
        self.kv_lora_rank = kv_lora_rank
        self.v_head_dim = v_head_dim
        self.qk_nope_head_dim = qk_nope_head_dim
        self.qk_head_dim = qk_nope_head_dim + qk_rope_head_dim
        self.window_size = window_size
        self.rope_theta = rope_theta
        self.max_position_embeddings = max_position_embeddings
        self.rope_scaling = rope_scaling

        q_dim, kv_dim = num_heads * self.qk_head_dim, num_heads * (qk_nope_head_dim + v_head_dim)
        self.q_proj: nn.Module
        if q_lora_rank is None:
            self.q_proj = nn.Linear(hidden_size, q_dim, bias=False)
        else:
            self.q_proj = _low_rank(hidden_size, q_lora_rank, q_dim)
        self.k_rope = nn.Linear(hidden_size, qk_rope_head_dim, bias=False)
        self.kv_proj = _low_rank(hidden_size, kv_lora_rank, kv_dim)
        self.o_proj = nn.Linear(num_heads * v_head_dim, hidden_size, bias=False)
        self.rotary = RotaryEmbedding(qk_rope_head_dim, base=rope_theta, scaling=rope_scaling)
        self.scale = self.qk_head_dim**-0.5 * _sharpening(self.rotary.scaling)

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Attention of the new tokens over themselves and the cache."""
        compress, norm, _ = self.kv_proj
        latents = norm(compress(x))[:, :, None]
        q, q_rotary = (
            self.q_proj(x)
            .unflatten(-1, (-1, self.qk_head_dim))
            .split((self.qk_nope_head_dim, self.qk_rope_head_dim), -1)
        )
        q_rotary, k_rotary = self.rotary(
            q_rotary, self.k_rope(x)[:, :, None], rotary_offset(call), call.cu_seqlens, call.past + call.steps
        )
        if call.cache is not None:
            all_latents, all_rotary = extend_cache(latents, k_rotary, call, self.window_size)
        if call.past == 0:
            keys, values = self._expand(latents, k_rotary)
            q = torch.cat((q, q_rotary), -1)
            o = parallel_attn(
                q, keys, values, self.scale, self.window_size, call.cu_seqlens, max_seqlen=call.max_seqlen
            )
        elif self._stays_compressed(call.steps):
            o = self._attend_to_latents(q, q_rotary, all_latents, all_rotary, call)
        else:
            keys, values = self._expand(all_latents, all_rotary)
            o = attend_to_past(torch.cat((q, q_rotary), -1), keys, values, call, self.window_size, self.scale)
        return (self.o_proj(o.flatten(-2)),)

    def _expand(self, latents: torch.Tensor, k_rotary: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of every head ``[B, L, H, D]``."""
        widths = self.qk_nope_head_dim, self.v_head_dim
        keys, values = self.kv_proj[2](latents[:, :, 0]).unflatten(-1, (-1, sum(widths))).split(widths, -1)
        return torch.cat((keys, k_rotary.expand(*keys.shape[:-1], -1)), -1), values

    def _stays_compressed(self, steps: int) -> bool:
        # Expanding costs rank * (nope + v) per head and step of the past, once; staying compressed costs
        # 2 * rank - nope - v more for each of the new steps, and scores that are kept: no more than heads would be.
        widths = self.qk_nope_head_dim + self.v_head_dim
        cheaper = steps * (2 * self.kv_lora_rank - widths) <= self.kv_lora_rank * widths
        bounded = steps <= self.qk_head_dim + self.v_head_dim
        # An adapter or a hook works when the projection is called; its weight alone would leave it out.
        return cheaper and bounded and is_bare_linear(self.kv_proj[2])

    def _attend_to_latents(
        self, q: torch.Tensor, q_rotary: torch.Tensor, latents: torch.Tensor, k_rotary: torch.Tensor, call: Call
    ) -> torch.Tensor:
        """Attention whose keys are the latents with the rotary keys, and whose values are the latents."""
        widths = self.qk_nope_head_dim, self.v_head_dim
        to_keys, to_values = self.kv_proj[2].get_parameter("weight").unflatten(0, (-1, sum(widths))).split(widths, 1)
        queries = torch.einsum("bthd,hdc->bthc", q, to_keys), q_rotary
        if call.padding is not None:
            queries = call.padding.pad(queries[0]), call.padding.pad(queries[1])
        hidden = _hidden(latents.shape[1], call, self.window_size, q.device)
        mixed = _latent_attention(queries, latents[:, :, 0], k_rotary[:, :, 0], hidden, self.scale)
        o = torch.einsum("bthc,hdc->bthd", mixed, to_values)
        return o if call.padding is None else call.padding.unpad(o)


def _low_rank(inputs: int, rank: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, rank, bias=False), RMSNorm(rank), nn.Linear(rank, outputs, bias=False))


def _check_sizes(**sizes: int | None) -> None:
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise ValueError(f"{name}: expected at least 1, got {size}")


def _sharpening(scaling: RopeScaling) -> float:
    """The factor on all scores that goes with YaRN where it asks for it, channels that do not turn included."""
    mscale = scaling.options.get("mscale_all_dim")
    return yarn_mscale(float(scaling.options["factor"]), float(mscale)) ** 2 if mscale else 1.0


def _hidden(length: int, call: Call, window_size: int | None, device: torch.device) -> torch.Tensor | None:
    """Mask of the last ``length`` steps that a new one does not see ``[B or 1, T, L]``, None if it sees all."""
    mask, steps = call.mask, call.steps
    if mask is None or not mask.has_padding(length):
        if steps == 1 and (window_size is None or length <= window_size):
            return None
        positions = torch.arange(length, device=device)[None]
        real = None
    else:
        real = mask.tensor[:, mask.length - length :] != 0
        positions = real.cumsum(-1)
    distance = positions[:, length - steps :, None] - positions[:, None]
    hidden = distance < 0
    if window_size is not None:
        hidden = hidden | (distance >= window_size)
    return hidden if real is None else hidden | ~real[:, None]


def _latent_attention(
    queries: tuple[torch.Tensor, torch.Tensor],
    latents: torch.Tensor,
    k_rotary: torch.Tensor,
    hidden: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """Attention of queries ``[B, T, H, C]`` and ``[B, T, H, R]`` over keys ``[B, L, C]`` and ``[B, L, R]``."""
    steps, heads = queries[0].shape[1:3]
    compressed, rotary = (_product(q.flatten(1, 2), k) for q, k in zip(queries, (latents, k_rotary)))
    scores = ((compressed + rotary) * scale).unflatten(1, (steps, heads))
    if hidden is not None:
        # Padding among the new steps sees nothing: minus infinity would make its gradients NaN.
        scores = scores.masked_fill(hidden[:, :, None], torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1).to(latents.dtype)
    return torch.bmm(weights.flatten(1, 2), latents).unflatten(1, (steps, heads))  # type: ignore[no-any-return]


def _product(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """Scores ``[B, N, L]`` of q ``[B, N, C]`` and k ``[B, L, C]``, in float32 at least."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    if q.is_cuda and q.dtype != dtype and _WIDENS and not needs_gradient(q, k):
        return torch.bmm(q, k.mT, out_dtype=dtype)
    return torch.bmm(q.to(dtype), k.to(dtype).mT)
