"""Softmax attention with ternary weights in its projections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from fla.layers.attn import Attention
from fla.modules import FusedBitLinear


class BitAttention(Attention):
    r"""Causal softmax attention of BitNet b1.58 (arXiv 2402.17764).

    It is :class:`fla.layers.Attention` whose four projections are :class:`fla.modules.FusedBitLinear`: weights of -1, 0
    and 1 times one number, activations of 8 bits, and a norm before each.

    Args:
        hidden_size: channels in and out.
        num_heads: query heads; divide ``hidden_size``.
        num_kv_heads: key and value heads, a divisor of ``num_heads``; as many unless given.
        window_size: keys that a query sees, its own included; all before it unless given.
        rope_theta: base of the rotary frequencies; None for no positions at all.
        max_position_embeddings: longest sequence the model is meant for; it limits nothing here.
        norm_eps: added to the mean square in the norms before the projections.
        layer_idx: the layer's place in the cache.
        rope_scaling: stretch of positions beyond the context of training; see :class:`fla.layers.Attention`.

    Raises:
        TypeError: ``rope_scaling`` is no mapping.
        ValueError: sizes that the heads do not divide, a window below 1, an unknown scaling, or one without positions.
    """

    def __init__(
        self,
        hidden_size: int = 2048,
        num_heads: int = 32,
        num_kv_heads: int | None = None,
        window_size: int | None = None,
        rope_theta: float | None = 10000.0,
        max_position_embeddings: int | None = None,
        norm_eps: float = 1e-8,
        layer_idx: int | None = None,
        rope_scaling: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            hidden_size,
            num_heads,
            num_kv_heads,
            window_size=window_size,
            rope_theta=rope_theta,
            max_position_embeddings=max_position_embeddings,
            layer_idx=layer_idx,
            norm_eps=norm_eps,
            rope_scaling=rope_scaling,
        )

    def make_projection(self, in_features: int, out_features: int, bias: bool) -> nn.Linear:
        """Make one of the four projections."""
        return FusedBitLinear(in_features, out_features, bias, self.norm_eps)
