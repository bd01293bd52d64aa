"""Gated DeltaProduct (arXiv 2502.10297) as a layer."""

from __future__ import annotations

import torch
from torch import nn

from fla.layers._delta import DecayingDeltaHeads, head_value_dim
from fla.layers.base import Call
from fla.ops._engines.delta.options import write_strength
from fla.ops.gated_delta_product import chunk_gated_delta_product, fused_recurrent_gated_delta_product
from fla.ops.gated_delta_rule import fused_gdn_gate


class GatedDeltaProduct(DecayingDeltaHeads):
    r"""The gated delta product (arXiv 2502.10297): several steps of the delta rule for every token.

    .. math::
        S_{t,0} = e^{g_t} S_{t-1,n}, \qquad
        S_{t,i} = (I - \beta_{t,i} k_{t,i} k_{t,i}^\top)\, S_{t,i-1} + \beta_{t,i} k_{t,i} v_{t,i}^\top, \qquad
        o_t = S_{t,n}^\top q_t / \sqrt{K}, \\
        g_t = -e^{A} \cdot \mathrm{softplus}(W_a x_t + dt), \qquad \beta_t = \mathrm{sigmoid}(W_b x_t)

    per value head, with queries and keys divided by their norms; then RMS norm per head, the output gate and the output
    projection. The state is kept in float32, ``[N, num_v_heads, K, V]``; g and beta are computed in float32.

    Args:
        hidden_size: channels in and out.
        expand_v: value channels of a head over ``head_dim``.
        head_dim: key channels of a head.
        num_heads: query and key heads.
        num_v_heads: value heads, a multiple of ``num_heads``; as many unless given.
        mode: ``"chunk"`` or ``"fused_recurrent"``; ``"fused_chunk"`` is another name of the first. Short calls
            outside training take the recurrent form in any mode.
        use_output_gate: gate the output.
        use_short_conv: a short causal convolution on queries, keys and values, which SiLU follows with and without it.
        conv_size: width of the convolution.
        conv_bias: whether it has a bias.
        layer_idx: the layer's place in the cache.
        norm_eps: added to the mean square in the norm of the output.
        use_forget_gate: whether the state decays.
        allow_neg_eigval: double the write strength, so that the state's transition may have eigenvalues down to -1.
        num_householder: n, the steps of each token.

    Raises:
        ValueError: an unknown mode, or sizes that do not fit.
    """

    def __init__(
        self,
        hidden_size: int = 2048,
        expand_v: float = 2,
        head_dim: int = 256,
        num_heads: int = 6,
        num_v_heads: int | None = None,
        mode: str = "chunk",
        use_output_gate: bool = True,
        use_short_conv: bool = True,
        conv_size: int = 4,
        conv_bias: bool = False,
        layer_idx: int | None = None,
        norm_eps: float = 1e-5,
        use_forget_gate: bool = True,
        allow_neg_eigval: bool = True,
        num_householder: int = 2,
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
            num_householder=num_householder,
        )
        self.allow_neg_eigval = allow_neg_eigval
        self.use_forget_gate = use_forget_gate
        self.b_proj = nn.Linear(hidden_size, self.num_v_heads * num_householder, bias=False)
        if use_forget_gate:
            self.add_decay()
        self.add_output(use_output_gate, norm_eps)

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Queries, keys, values, decay and write strengths of x, the recurrence, and the gated output."""
        q, k, v, conv_state = self.heads(x, call)
        beta = write_strength(self.b_proj(x), True, self.allow_neg_eigval)
        o, state = (fused_recurrent_gated_delta_product if self.is_recurrent(call) else chunk_gated_delta_product)(
            q,
            k,
            v,
            self._log_decay(x),
            self.sub_steps(beta, 1).squeeze(-1),
            self.num_householder,
            initial_state=call.read("recurrent_state"),
            output_final_state=call.writes,
            use_qk_l2norm_in_kernel=True,
            cu_seqlens=call.cu_seqlens,
        )
        call.write(recurrent_state=state, conv_state=conv_state)
        return (self.output(o, x),)

    def _log_decay(self, x: torch.Tensor) -> torch.Tensor | None:
        if not self.use_forget_gate:
            return None
        a = self.a_proj(x)
        return fused_gdn_gate(a, self.A_log, self.dt_bias, torch.promote_types(a.dtype, torch.float32))
