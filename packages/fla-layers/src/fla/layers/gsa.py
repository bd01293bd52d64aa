"""Gated slot attention (arXiv 2409.07146) as a layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fla.layers._slots import SlotHeads
from fla.layers.base import Call
from fla.modules.activations import swish
from fla.ops.gsa import chunk_gsa, fused_recurrent_gsa


class GatedSlotAttention(SlotHeads):
    r"""Attention over a bounded number of slots that forget (arXiv 2409.07146).

    .. math::
        H^k_t = H^k_{t-1} \mathrm{diag}(e^{g_t}) + \phi(k_t) (1 - e^{g_t})^\top, \quad
        H^v_t = \mathrm{diag}(e^{g_t}) H^v_{t-1} + (1 - e^{g_t})\, \mathrm{swish}(v_t)^\top, \quad
        o_t = {H^v_t}^\top \mathrm{softmax}(scale \cdot {H^k_t}^\top \phi(q_t))

    per head, with :math:`g_t = \mathrm{logsigmoid}(f_t) / gate\_logit\_normalizer` for each slot; then swish, an RMS
    norm over all channels, the output gate and the output projection. The gate is computed in float32, and so are the
    states kept: Hk ``[N, num_kv_heads, K, num_slots]`` and Hv ``[N, num_kv_heads, num_slots, V]``.

    Args:
        mode: ``"chunk"`` or ``"fused_recurrent"``; ``"fused_chunk"`` is another name of the first. Short calls
            outside training take the recurrent form in any mode.
        hidden_size: channels in and out.
        expand_k: key channels of all heads over ``hidden_size``.
        expand_v: value channels of all heads over ``hidden_size``.
        num_heads: query heads.
        num_kv_heads: heads of keys, values and slots, a divisor of ``num_heads``; as many unless given.
        use_short_conv: a short causal convolution and SiLU on queries, keys and values.
        conv_size: its width.
        conv_bias: whether it has a bias.
        num_slots: slots of a head; as many as it has key channels unless given.
        elementwise_affine: learn a weight for the norm of the output.
        norm_eps: added to its mean square.
        gate_logit_normalizer: divisor of the forget gate's logarithm.
        feature_map: :math:`\phi`, by its name in ``fla.modules.ACT2FN``; None for none.
        use_output_gate: gate the output by swish of a projection of the input.
        use_norm: normalise the output.
        layer_idx: the layer's place in the cache.
        scale: factor on the scores; ``K ** -0.5`` where it is None.

    Raises:
        ValueError: an unknown mode or activation, no slots, or sizes that the heads do not divide.
    """

    def __init__(
        self,
        mode: str = "chunk",
        hidden_size: int = 1024,
        expand_k: float = 1.0,
        expand_v: float = 1.0,
        num_heads: int = 4,
        num_kv_heads: int | None = None,
        use_short_conv: bool = False,
        conv_size: int = 4,
        conv_bias: bool = False,
        num_slots: int | None = None,
        elementwise_affine: bool | None = True,
        norm_eps: float = 1e-5,
        gate_logit_normalizer: int = 8,
        feature_map: str | None = "swish",
        use_output_gate: bool = False,
        use_norm: bool = True,
        layer_idx: int | None = None,
        scale: float | None = 1.0,
    ) -> None:
        super().__init__(hidden_size, layer_idx)
        self.add_heads(
            mode, expand_k, expand_v, num_heads, num_kv_heads, feature_map, use_short_conv, conv_size, conv_bias
        )
        self.gate_logit_normalizer = gate_logit_normalizer
        self.scale = scale
        self.f_proj = nn.Linear(hidden_size, self.add_slots(num_slots), bias=False)
        self.add_slot_output(self.value_dim, use_output_gate, use_norm, elementwise_affine, norm_eps)

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Queries, keys, values and gates of x, the recurrence, and the normalised output."""
        q, k, v, conv_state = self.heads(x, call)
        f = self.f_proj(x).unflatten(-1, (-1, self.num_slots))
        g = F.logsigmoid(f if f.dtype == torch.float64 else f.float()) / self.gate_logit_normalizer
        o, state = (fused_recurrent_gsa if self.is_recurrent(call) else chunk_gsa)(
            q,
            k,
            swish(v),
            -g.expm1().to(q.dtype),
            g,
            scale=self.scale,
            initial_state=call.read("recurrent_state"),
            output_final_state=call.writes,
            cu_seqlens=call.cu_seqlens,
        )
        call.write(recurrent_state=state, conv_state=conv_state)
        return (self.slot_output(swish(o.flatten(-2)), x),)
