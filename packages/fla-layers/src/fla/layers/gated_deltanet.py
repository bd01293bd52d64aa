"""Gated DeltaNet (arXiv 2412.06464) as a layer."""

from __future__ import annotations

import torch
from torch import nn

from fla.layers._delta import DecayingDeltaHeads, head_value_dim
from fla.layers.base import Call
from fla.ops.gated_delta_rule import chunk_gated_delta_rule, fused_recurrent_gated_delta_rule


class GatedDeltaNet(DecayingDeltaHeads):
    r"""The gated delta rule (arXiv 2412.06464).

    .. math::
        S_t = e^{g_t} (I - \beta_t k_t k_t^\top)\, S_{t-1} + \beta_t k_t v_t^\top, \qquad
        o_t = S_t^\top q_t / \sqrt{K}, \\
        g_t = -e^{A} \cdot \mathrm{softplus}(W_a x_t + dt), \qquad \beta_t = \mathrm{sigmoid}(W_b x_t)

    per value head, with queries and keys divided by their norms; then RMS norm per head, the output gate and the output
    projection. The state is kept in float32, ``[N, num_v_heads, V, K]``; g and beta are computed in float32.

    Args:
        hidden_size: channels in and out.
        expand_v: value channels of a head over ``head_dim``.
        head_dim: key channels of a head.
        num_heads: query and key heads.
        num_v_heads: value heads, a multiple of ``num_heads``; as many unless given.
        mode: ``"chunk"`` or ``"fused_recurrent"``; ``"fused_chunk"`` is another name of the first. Short calls
            outside training take the recurrent form in any mode.
        use_gate: gate the output.
        use_short_conv: a short causal convolution on queries, keys and values, which SiLU follows with and without it.
        allow_neg_eigval: double the write strength, so that the state's transition may have eigenvalues down to -1.
        conv_size: width of the convolution.
        conv_bias: whether it has a bias.
        layer_idx: the layer's place in the cache.
        norm_eps: added to the mean square in the norm of the output.
        output_gate_activation: activation of the output gate, ``"swish"`` (``"silu"``) or ``"sigmoid"``.

    Raises:
        ValueError: an unknown mode or activation, or sizes that do not fit.
    """

    def __init__(
        self,
        hidden_size: int = 2048,
        expand_v: float = 2,
        head_dim: int = 256,
        num_heads: int = 6,
        num_v_heads: int | None = None,
        mode: str = "chunk",
        use_gate: bool = True,
        use_short_conv: bool = True,
        allow_neg_eigval: bool = False,
        conv_size: int = 4,
        conv_bias: bool = False,
        layer_idx: int | None = None,
        norm_eps: float = 1e-5,
        output_gate_activation: str = "swish",
    ) -> None:
        super().__init__(hidden_size, layer_idx)
        self.add_heads(
            mode,
            num_heads,
            num_v_heads,
            head_dim,
            head_value_dim(head_dim, expand_v),
            use_short_conv,
            conv_size,
            conv_bias,
        )
        self.allow_neg_eigval = allow_neg_eigval
        self.b_proj = nn.Linear(hidden_size, self.num_v_heads, bias=False)
        self.add_decay()
        self.add_output(use_gate, norm_eps, output_gate_activation)

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Queries, keys, values, decay and write strengths of x, the recurrence, and the gated output."""
        q, k, v, conv_state = self.heads(x, call)
        o, state = (fused_recurrent_gated_delta_rule if self.is_recurrent(call) else chunk_gated_delta_rule)(
            q,
            k,
            v,
            g=self.a_proj(x),
            beta=self.b_proj(x),
            initial_state=call.read("recurrent_state"),
            output_final_state=call.writes,
            use_qk_l2norm_in_kernel=True,
            use_beta_sigmoid_in_kernel=True,
            allow_neg_eigval=self.allow_neg_eigval,
            use_gate_in_kernel=True,
            A_log=self.A_log,
            dt_bias=self.dt_bias,
            state_v_first=True,
            cu_seqlens=call.cu_seqlens,
        )
        call.write(recurrent_state=state, conv_state=conv_state)
        return (self.output(o, x),)
