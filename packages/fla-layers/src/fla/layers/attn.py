"""Softmax attention as a layer: grouped heads, window, rotary positions, packed and padded batches, a cache."""

from __future__ import annotations

import torch
from torch import nn

from fla.layers.base import Call, Mixer, check_divisible
from fla.layers.utils import find_padding, has_padding
from fla.modules import RMSNorm, RotaryEmbedding
from fla.ops.attn import parallel_attn


class Attention(Mixer):
    r"""Causal softmax attention (arXiv 1706.03762) by PyTorch's own kernels.

    .. math:: o_t = \sum_{s} \mathrm{softmax}_s(q_t \cdot k_s / \sqrt{d})\, v_s, \qquad t - window\_size < s \le t

    Positions count the real tokens of each sequence. With a window the cache keeps no more keys than it needs.

    Args:
        hidden_size: channels in and out.
        num_heads: query heads.
        num_kv_heads: key and value heads, a divisor of ``num_heads``; as many unless given.
        qkv_bias: biases in the projections of queries, keys and values.
        qk_norm: RMS norm per head on queries and keys.
        window_size: keys that a query sees, its own included; all before it unless given.
        rope_theta: base of the rotary frequencies; None for no positions at all.
        max_position_embeddings: longest sequence the model is meant for; it limits nothing here.
        layer_idx: the layer's place in the cache.

    Raises:
        ValueError: sizes that the heads do not divide, or a window below 1.
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
    ) -> None:
        super().__init__(hidden_size, layer_idx)
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        check_divisible("hidden_size", hidden_size, "num_heads", num_heads)
        check_divisible("num_heads", num_heads, "num_kv_heads", num_kv_heads)
        if window_size is not None and window_size < 1:
            raise ValueError(f"window_size: expected at least 1, or None for no window, got {window_size}")
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.head_dim = hidden_size // num_heads
        self.qk_norm = qk_norm
        self.window_size = window_size
        self.rope_theta = rope_theta
        self.max_position_embeddings = max_position_embeddings

        kv_dim = num_kv_heads * self.head_dim
        self.q_proj = nn.Linear(hidden_size, hidden_size, bias=qkv_bias)
        self.k_proj = nn.Linear(hidden_size, kv_dim, bias=qkv_bias)
        self.v_proj = nn.Linear(hidden_size, kv_dim, bias=qkv_bias)
        self.o_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        if qk_norm:
            self.q_norm = RMSNorm(self.head_dim)
            self.k_norm = RMSNorm(self.head_dim)
        if rope_theta is not None:
            self.rotary = RotaryEmbedding(self.head_dim, base=rope_theta)

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Attention of the new tokens over themselves and the cache."""
        # Heads are counted from the channels: under tensor parallelism a rank holds a part of them.
        q, k, v = (project(x).unflatten(-1, (-1, self.head_dim)) for project in (self.q_proj, self.k_proj, self.v_proj))
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.rope_theta is not None:
            q, k = self._rotate(q, k, call)
        keys, values = (k, v) if call.cache is None else self._extend(k, v, call)
        if call.past == 0:
            o = parallel_attn(q, k, v, window_size=self.window_size, cu_seqlens=call.cu_seqlens)
        else:
            o = self._attend_to_past(q, keys, values, call)
        return (self.o_proj(o.flatten(-2)),)

    def _rotate(self, q: torch.Tensor, k: torch.Tensor, call: Call) -> tuple[torch.Tensor, torch.Tensor]:
        offset: int | torch.Tensor = call.past
        mask = call.attention_mask
        if call.past and mask is not None and has_padding(mask, mask.shape[1]):
            offset = mask[:, : call.past].sum(-1, dtype=torch.int32)
        return self.rotary(q, k, offset, call.cu_seqlens, call.past + call.steps)  # type: ignore[no-any-return]

    def _extend(self, k: torch.Tensor, v: torch.Tensor, call: Call) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values that the new tokens may see ``[B, L, H, D]``, and the cache told of the new ones."""
        if call.padding is not None:
            k, v = call.padding.pad(k), call.padding.pad(v)
        elif call.cu_seqlens is not None:
            raise ValueError(
                "cu_seqlens: a cache of keys needs rows; pass a padded batch [B, T] and its attention_mask instead"
            )
        return call.extend(k, v, self.window_size)

    def _attend_to_past(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, call: Call) -> torch.Tensor:
        length = keys.shape[1]
        padding = None if call.attention_mask is None else find_padding(call.attention_mask, length)
        if padding is None:
            return parallel_attn(q, keys, values, window_size=self.window_size)
        cu_seqlens, batch = call.cu_seqlens, q.shape[0]
        if cu_seqlens is None:
            cu_seqlens = torch.arange(0, batch * call.steps + 1, call.steps, dtype=torch.int32, device=q.device)
            q = q.flatten(0, 1)[None]
        o = parallel_attn(
            q,
            padding.unpad(keys),
            padding.unpad(values),
            window_size=self.window_size,
            cu_seqlens=cu_seqlens,
            cu_seqlens_k=padding.cu_seqlens,
        )
        return o if call.padding is not None else o[0].unflatten(0, (batch, call.steps))
