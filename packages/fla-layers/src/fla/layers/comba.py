"""Comba (arXiv 2506.02475) as a layer."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from fla.layers._delta import DecayingDeltaHeads, head_value_dim
from fla.layers.base import Call
from fla.ops._engines.delta.options import write_strength
from fla.ops.comba import chunk_comba, fused_recurrent_comba
from fla.ops.gated_delta_rule import fused_gdn_gate


class Comba(DecayingDeltaHeads):
    r"""The gated delta rule that reads what it corrects before it decays, and answers without it (arXiv 2506.02475).

    .. math::
        S_t = e^{g_t} S_{t-1} + \beta_t k_t (v_t - S_{t-1}^\top p_t)^\top, \qquad
        o_t = S_t^\top (q_t - D\, p_t) / \sqrt{K}, \qquad p_t = \mathrm{sigmoid}(b)\, k_t, \\
        g_t = -e^{A} \cdot \mathrm{softplus}(W_a x_t + dt), \qquad \beta_t = \mathrm{sigmoid}(W_b x_t)

    per value head, where k, p and ``q - D p`` are divided by their norms before they meet the state, so that b acts on
    the last alone; then RMS norm per head, the output gate, which is a sigmoid, and the output projection. The state is
    kept in float32, ``[N, num_v_heads, K, V]``; g and beta are computed in float32.

    Args:
        hidden_size: channels in and out.
        expand_v: value channels of a head over ``head_dim``.
        head_dim: key channels of a head.
        num_heads: query and key heads.
        num_v_heads: value heads, a multiple of ``num_heads``; as many unless given.
        mode: ``"chunk"`` or ``"fused_recurrent"``; ``"fused_chunk"`` is another name of the first. Short calls
            outside training take the recurrent form in any mode.
        use_short_conv: a short causal convolution on queries, keys and values, which SiLU follows with and without it.
        use_output_gate: gate the output.
        use_output_correction: learn D of each head; 0 without.
        use_inner_decay: learn b of each head, the parameter ``decay``; p is k without.
        correction_factor: initial value of D.
        conv_size: width of the convolution.
        conv_bias: whether it has a bias.
        layer_idx: the layer's place in the cache.
        norm_eps: added to the mean square in the norm of the output.

    Raises:
        ValueError: an unknown mode, or sizes that do not fit.
    """

    undecayed: ClassVar[tuple[str, ...]] = (*DecayingDeltaHeads.undecayed, "decay", "D")
    decay: nn.Parameter
    D: nn.Parameter

    def __init__(
        self,
        hidden_size: int = 2048,
        expand_v: float = 2,
        head_dim: int = 256,
        num_heads: int = 6,
        num_v_heads: int | None = None,
        mode: str = "chunk",
        use_short_conv: bool = True,
        use_output_gate: bool = True,
        use_output_correction: bool = True,
        use_inner_decay: bool = True,
        correction_factor: float = 1.0,
        conv_size: int = 4,
        conv_bias: bool = False,
        layer_idx: int | None = None,
        norm_eps: float = 1e-5,
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
        self.use_output_correction = use_output_correction
        self.use_inner_decay = use_inner_decay
        self.correction_factor = correction_factor
        self.b_proj = nn.Linear(hidden_size, self.num_v_heads, bias=False)
        self.add_decay()
        self.add_parameters(self._initial_feedback())
        self.add_output(use_output_gate, norm_eps, "sigmoid")

    def initial_values(self, num_hidden_layers: int) -> dict[str, torch.Tensor]:
        """Initial values by name: those of the decay, newly drawn, and the parts of the keys."""
        return super().initial_values(num_hidden_layers) | self._initial_feedback()

    def _initial_feedback(self) -> dict[str, torch.Tensor]:
        parameters = {"decay": 1.0} if self.use_inner_decay else {}
        if self.use_output_correction:
            parameters["D"] = float(self.correction_factor)
        return {name: torch.full((self.num_heads,), value) for name, value in parameters.items()}

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Queries, keys, values, decay and write strengths of x, the recurrence, and the gated output."""
        q, k, v, conv_state = self.heads(x, call)
        # Under autocast the parameters are wider than what they multiply.
        p = (k * self.decay.sigmoid().unsqueeze(-1)).to(k.dtype) if self.use_inner_decay else k
        a = self.a_proj(x)
        o, state = (fused_recurrent_comba if self.is_recurrent(call) else chunk_comba)(
            q=(q - p * self.D.unsqueeze(-1)).to(q.dtype) if self.use_output_correction else q,
            k=k,
            v=v,
            p=p,
            g=fused_gdn_gate(a, self.A_log, self.dt_bias, torch.promote_types(a.dtype, torch.float32)),
            beta=write_strength(self.b_proj(x), True, False),
            initial_state=call.read("recurrent_state"),
            output_final_state=call.writes,
            use_qk_l2norm_in_kernel=True,
            cu_seqlens=call.cu_seqlens,
        )
        call.write(recurrent_state=state, conv_state=conv_state)
        return (self.output(o, x),)
