"""Softmax attention as a layer: grouped heads, window, rotary positions, packed and padded batches, a cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fla.layers._attention import KeyMixer, attend_to_past, extend_cache, rotary_offset
from fla.layers.base import Call, check_divisible
from fla.modules import RMSNorm, RotaryEmbedding
from fla.ops.attn import parallel_attn


class Attention(KeyMixer):
    r"""Causal softmax attention (arXiv 1706.03762) by PyTorch's own kernels.

    .. math:: o_t = \sum_{s} \mathrm{softmax}_s(q_t \cdot k_s / \sqrt{d})\, v_s, \qquad t - window\_size < s \le t

    Positions count the real tokens of each sequence. With a window the cache keeps no more keys than it needs, however
    the sequence is cut into calls. :func:`fla.ops.attn.parallel_attn` says which of PyTorch's kernels runs when.

    Args:
        hidden_size: channels in and out.
        num_heads: query heads.
        num_kv_heads: key and value heads, a divisor of ``num_heads``; as many unless given.
        qkv_bias: biases in the projections of queries, keys and values.
        qk_norm: RMS norm per head on queries and keys, before they turn.
        window_size: keys that a query sees, its own included; all before it unless given.
        rope_theta: base of the rotary frequencies; None for no positions at all.
        max_position_embeddings: longest sequence the model is meant for; it limits nothing here.
        layer_idx: the layer's place in the cache.
        head_dim: channels of a head, ``hidden_size / num_heads`` unless given.
        o_bias: a bias in the output projection.
        norm_eps: added to the mean square in the norms of queries and keys.
        rope_scaling: stretch of positions beyond the context of training, as Hugging Face's configs say it;
            see :class:`fla.modules.rotary.scaling.RopeScaling`.

    Raises:
        TypeError: ``rope_scaling`` is no mapping.
        ValueError: sizes that the heads do not divide, a window below 1, an unknown scaling, or one without positions.
    """

    def __init__(
        self,
        hidden_size: int = 2048,
        num_heads: int = 32,
        num_kv_heads: int | None = None,
        qkv_bias: bool = False,
        qk_norm: bool = False,
        window_size: int | None = None,
        rope_theta: float | None = 10000.0,
        max_position_embeddings: int | None = None,
        layer_idx: int | None = None,
        head_dim: int | None = None,
        o_bias: bool = False,
        norm_eps: float = 1e-5,
        rope_scaling: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(hidden_size, layer_idx)
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if head_dim is None:
            check_divisible("hidden_size", hidden_size, "num_heads", num_heads)
            head_dim = hidden_size // num_heads
        check_divisible("num_heads", num_heads, "num_kv_heads", num_kv_heads)
        if window_size is not None and window_size < 1:
            raise ValueError(f"window_size: expected at least 1, or None for no window, got {window_size}")
        if rope_theta is None and rope_scaling is not None:
            raise ValueError("rope_scaling: there are no positions to scale where rope_theta is None")
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.head_dim = head_dim
        self.qk_norm = qk_norm
        self.window_size = window_size
        self.rope_theta = rope_theta
        self.rope_scaling = rope_scaling
        self.max_position_embeddings = max_position_embeddings
        self.norm_eps = norm_eps

        q_dim, kv_dim = num_heads * head_dim, num_kv_heads * head_dim
        self.q_proj = self.make_projection(hidden_size, q_dim, qkv_bias)
        self.k_proj = self.make_projection(hidden_size, kv_dim, qkv_bias)
        self.v_proj = self.make_projection(hidden_size, kv_dim, qkv_bias)
        self.o_proj = self.make_projection(q_dim, hidden_size, o_bias)
        if qk_norm:
            self.q_norm = RMSNorm(head_dim, eps=norm_eps)
            self.k_norm = RMSNorm(head_dim, eps=norm_eps)
        if rope_theta is not None:
            self.rotary = RotaryEmbedding(head_dim, base=rope_theta, scaling=rope_scaling)

    def make_projection(self, in_features: int, out_features: int, bias: bool) -> nn.Linear:
        """Make one of the four projections."""
        return nn.Linear(in_features, out_features, bias)

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Attention of the new tokens over themselves and the cache."""
        # Heads are counted from the channels: under tensor parallelism a rank holds a part of them.
        q, k, v = (project(x).unflatten(-1, (-1, self.head_dim)) for project in (self.q_proj, self.k_proj, self.v_proj))
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rope_theta is not None:
            q, k = self.rotary(q, k, rotary_offset(call), call.cu_seqlens, call.past + call.steps)
        keys, values = (k, v) if call.cache is None else extend_cache(k, v, call, self.window_size)
        if call.past == 0:
            o = parallel_attn(q, k, v, None, self.window_size, cu_seqlens=call.cu_seqlens, max_seqlen=call.max_seqlen)
        else:
            o = attend_to_past(q, keys, values, call, self.window_size)
        return (self.o_proj(o.flatten(-2)),)
