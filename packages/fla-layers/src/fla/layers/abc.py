"""Attention with bounded memory control (arXiv 2110.02488) as a layer."""

from __future__ import annotations

import torch
from torch import nn

from fla.layers._positions import rotate_from
from fla.layers._slots import SlotHeads
from fla.layers.base import Call
from fla.modules import RotaryEmbedding
from fla.modules.activations import swish
from fla.ops.abc import chunk_abc, fused_recurrent_abc


class ABCAttention(SlotHeads):
    r"""Attention over a bounded number of slots whose writes sum to one (arXiv 2110.02488).

    .. math::
        z_t = \log \sum_{j \le t} e^{s_j}, \quad H^k_t = \sum_{j \le t} k_j (e^{s_j - z_t})^\top, \quad
        H^v_t = \sum_{j \le t} e^{s_j - z_t} v_j^\top, \quad
        o_t = {H^v_t}^\top \mathrm{softmax}({H^k_t}^\top q_t / \sqrt{K})

    per head, with s a projection of the input, clamped; then RMS norm per head, the output gate and the output
    projection. Positions count the real tokens of each sequence. The states are kept in float32: Hk
    ``[N, num_heads, K, num_slots]``, Hv ``[N, num_heads, num_slots, V]`` and z ``[N, num_heads, num_slots]``; and with
    them, where sequences differ in length, how many tokens each has seen. Short calls outside training take the
    recurrent form, all others go chunk by chunk.

    Args:
        hidden_size: channels in and out.
        expand_k: key channels of all heads over ``hidden_size``.
        expand_v: value channels of all heads over ``hidden_size``.
        num_heads: heads.
        use_short_conv: a short causal convolution and SiLU on queries, keys and values.
        conv_size: its width.
        conv_bias: whether it has a bias.
        num_slots: slots of a head; as many as it has key channels unless given.
        elementwise_affine: learn a weight for the norm of the output.
        norm_eps: added to its mean square.
        gate_low_rank_dim: has no effect, as the gate's projection is of full rank; existing programs pass it.
        gate_logit_normalizer: has no effect, as no gate forgets; existing programs pass it.
        use_rope: rotary positions on queries and keys.
        use_input_gate: swish on queries, keys and values.
        use_output_gate: gate the output by swish of a projection of the input.
        use_norm: normalise the output.
        clamp_min: lower bound of s; None for none.
        clamp_max: upper bound of s; None for none.
        layer_idx: the layer's place in the cache.

    Raises:
        ValueError: no slots, sizes that the heads do not divide, or with ``use_rope`` key channels of a head that do
            not make pairs.
    """

    def __init__(
        self,
        hidden_size: int = 1024,
        expand_k: float = 0.5,
        expand_v: float = 1.0,
        num_heads: int = 4,
        use_short_conv: bool = False,
        conv_size: int = 4,
        conv_bias: bool = False,
        num_slots: int | None = None,
        elementwise_affine: bool | None = True,
        norm_eps: float = 1e-5,
        gate_low_rank_dim: int = 16,
        gate_logit_normalizer: int = 16,
        use_rope: bool = True,
        use_input_gate: bool = False,
        use_output_gate: bool = True,
        use_norm: bool = True,
        clamp_min: float | None = -32,
        clamp_max: float | None = 32,
        layer_idx: int | None = None,
    ) -> None:
        super().__init__(hidden_size, layer_idx)
        feature_map = "swish" if use_input_gate else None
        self.add_heads("chunk", expand_k, expand_v, num_heads, None, feature_map, use_short_conv, conv_size, conv_bias)
        self.use_input_gate, self.use_rope = use_input_gate, use_rope
        self.clamp_min, self.clamp_max = clamp_min, clamp_max
        self.s_proj = nn.Linear(hidden_size, self.add_slots(num_slots), bias=False)
        if use_rope:
            self.rotary = RotaryEmbedding(self.head_k_dim)
        self.add_slot_output(self.head_v_dim, use_output_gate, use_norm, elementwise_affine, norm_eps)

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values of x at their positions, the writes to the slots, and the gated output."""
        q, k, v, conv_state = self.heads(x, call)
        *state, seen = call.read("recurrent_state") or (None,)
        if self.use_rope:
            q, k, seen = rotate_from(seen, self.rotary, q, k, call)
        o, written = (fused_recurrent_abc if self.is_recurrent(call) else chunk_abc)(
            q,
            k,
            swish(v) if self.use_input_gate else v,
            self._writes(x),
            initial_state=tuple(state) or None,
            output_final_state=call.writes,
            cu_seqlens=call.cu_seqlens,
        )
        call.write(recurrent_state=None if written is None else (*written, seen), conv_state=conv_state)
        return (self.slot_output(o, x),)

    def _writes(self, x: torch.Tensor) -> torch.Tensor:
        """Logarithms of the writes to each slot ``[B, T, H, M]``."""
        s: torch.Tensor = self.s_proj(x).unflatten(-1, (-1, self.num_slots))
        return s if self.clamp_min is None and self.clamp_max is None else s.clamp(self.clamp_min, self.clamp_max)
