"""Gated linear attention (arXiv 2312.06635) as a layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fla.layers._heads import GatedHeads
from fla.layers.base import Call, repeat_heads
from fla.ops.gla import chunk_gla, fused_recurrent_gla


class GatedLinearAttention(GatedHeads):
    r"""Gated linear attention (arXiv 2312.06635).

    .. math::
        S_t = \mathrm{diag}(e^{g_t})\, S_{t-1} + k_t v_t^\top, \qquad o_t = S_t^\top q_t / \sqrt{K}, \qquad
        g_t = \mathrm{logsigmoid}(W_2 W_1 x_t + b) / gate\_logit\_normalizer

    per head; then RMS norm per head, the output gate and the output projection. The state is kept in float32,
    ``[N, num_heads, V, K]``.

    Args:
        mode: ``"chunk"`` or ``"fused_recurrent"``; ``"fused_chunk"`` is another name of the first. Short calls
            outside training take the recurrent form in any mode.
        hidden_size: channels in and out.
        expand_k: key channels of all heads over ``hidden_size``.
        expand_v: value channels of all heads over ``hidden_size``.
        num_heads: query heads.
        num_kv_heads: key and value heads, a divisor of ``num_heads``; as many unless given.
        feature_map: activation of queries and keys by its name in ``fla.modules.ACT2FN``; none unless given.
        use_short_conv: a short causal convolution and SiLU on queries, keys and values.
        conv_size: its width.
        conv_bias: whether it has a bias.
        use_output_gate: gate the output.
        gate_fn: activation of the output gate by its name in ``fla.modules.ACT2FN``.
        elementwise_affine: learn a weight for the norm of the output.
        norm_eps: added to its mean square.
        gate_logit_normalizer: divisor of the forget gate's logarithm.
        gate_low_rank_dim: rank of the projection to the forget gate.
        clamp_min: lower bound of the forget gate's logarithm; none unless given.
        fuse_norm: norm and output gate in one step, where ``gate_fn`` is swish.
        layer_idx: the layer's place in the cache.

    Raises:
        ValueError: an unknown mode or activation, or sizes that the heads do not divide.
    """

    def __init__(
        self,
        mode: str = "chunk",
        hidden_size: int = 1024,
        expand_k: float = 0.5,
        expand_v: float = 1.0,
        num_heads: int = 4,
        num_kv_heads: int | None = None,
        feature_map: str | None = None,
        use_short_conv: bool = False,
        conv_size: int = 4,
        conv_bias: bool = False,
        use_output_gate: bool = True,
        gate_fn: str = "swish",
        elementwise_affine: bool | None = True,
        norm_eps: float = 1e-5,
        gate_logit_normalizer: int = 16,
        gate_low_rank_dim: int = 16,
        clamp_min: float | None = None,
        fuse_norm: bool = True,
        layer_idx: int | None = None,
    ) -> None:
        super().__init__(hidden_size, layer_idx)
        self.add_heads(
            mode, expand_k, expand_v, num_heads, num_kv_heads, feature_map, use_short_conv, conv_size, conv_bias
        )
        self.gate_logit_normalizer = gate_logit_normalizer
        self.clamp_min = clamp_min
        self.gk_proj = nn.Sequential(
            nn.Linear(hidden_size, gate_low_rank_dim, bias=False),
            nn.Linear(gate_low_rank_dim, self.kv_key_dim, bias=True),
        )
        self.add_output(use_output_gate, gate_fn, fuse_norm, elementwise_affine, norm_eps)

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Queries, keys, values and gates of x, the recurrence, and the gated output."""
        q, k, v, conv_state = self.heads(x, call)
        g = F.logsigmoid(self.gk_proj(x)) / self.gate_logit_normalizer
        if self.clamp_min is not None:
            g = g.clamp(min=self.clamp_min)
        o, state = (fused_recurrent_gla if self.is_recurrent(call) else chunk_gla)(
            q,
            repeat_heads(k, self.num_kv_groups),
            repeat_heads(v, self.num_kv_groups),
            repeat_heads(g.unflatten(-1, (-1, self.head_k_dim)), self.num_kv_groups),
            initial_state=call.read("recurrent_state"),
            output_final_state=call.writes,
            state_v_first=True,
            cu_seqlens=call.cu_seqlens,
        )
        call.write(recurrent_state=state, conv_state=conv_state)
        return (self.output(o, x),)
