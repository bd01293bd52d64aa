"""Kimi delta attention (arXiv 2510.26692) as a layer."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from fla.layers._delta import DeltaHeads, head_value_dim, initial_decay
from fla.layers.base import Call
from fla.ops.kda import chunk_kda, fused_recurrent_kda
from fla.ops.kda.gate import check_lower_bound


class KimiDeltaAttention(DeltaHeads):
    r"""The gated delta rule with a decay of each key channel (arXiv 2510.26692).

    .. math::
        S_t = (I - \beta_t k_t k_t^\top)\, \mathrm{diag}(e^{g_t})\, S_{t-1} + \beta_t k_t v_t^\top, \qquad
        o_t = S_t^\top q_t / \sqrt{K}, \\
        g_t = -e^{A} \cdot \mathrm{softplus}(W_f x_t + dt), \qquad \beta_t = \mathrm{sigmoid}(W_b x_t)

    per value head, with queries and keys divided by their norms; then RMS norm per head, the output gate, which is a
    sigmoid, and the output projection. The projections of decay and gate are of rank ``head_dim * expand_v``. The state
    is kept in float32, ``[N, num_v_heads, V, K]``; g and beta are computed in float32.

    Args:
        hidden_size: channels in and out.
        expand_v: value channels of a head over ``head_dim``.
        head_dim: key channels of a head.
        num_heads: query and key heads.
        num_v_heads: value heads, a multiple of ``num_heads``; as many unless given.
        mode: ``"chunk"`` or ``"fused_recurrent"``; ``"fused_chunk"`` is another name of the first. Short calls
            outside training take the recurrent form in any mode.
        use_short_conv: a short causal convolution on queries, keys and values, which SiLU follows with and without it.
        allow_neg_eigval: double the write strength, so that the state's transition may have eigenvalues down to -1.
        safe_gate: the decay ends at ``lower_bound``, which must be given.
        lower_bound: l, where log decays end: they are ``l * sigmoid(exp(A) * (W_f x + dt))``. None unless given.
        conv_size: width of the convolution.
        conv_bias: whether it has a bias.
        layer_idx: the layer's place in the cache.
        norm_eps: added to the mean square in the norm of the output.

    Raises:
        ValueError: an unknown mode, sizes that do not fit, or a safe gate without its bound.
    """

    undecayed: ClassVar[tuple[str, ...]] = ("A_log", "dt_bias")
    A_log: nn.Parameter
    dt_bias: nn.Parameter

    def __init__(
        self,
        hidden_size: int = 2048,
        expand_v: float = 1,
        head_dim: int = 128,
        num_heads: int = 16,
        num_v_heads: int | None = None,
        mode: str = "chunk",
        use_short_conv: bool = True,
        allow_neg_eigval: bool = False,
        safe_gate: bool = False,
        lower_bound: float | None = None,
        conv_size: int = 4,
        conv_bias: bool = False,
        layer_idx: int | None = None,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__(hidden_size, layer_idx)
        if safe_gate and lower_bound is None:
            raise ValueError("lower_bound: expected the log decay that a safe_gate ends at, got None")
        if lower_bound is not None:
            check_lower_bound(lower_bound)
        rank = head_value_dim(head_dim, expand_v)
        self.add_heads(mode, num_heads, num_v_heads, head_dim, rank, use_short_conv, conv_size, conv_bias)
        self.allow_neg_eigval = allow_neg_eigval
        self.safe_gate = safe_gate
        self.lower_bound = lower_bound
        self.decay_dim = self.num_v_heads * head_dim
        self.f_proj = self._low_rank(rank, self.decay_dim, bias=False)
        self.b_proj = nn.Linear(hidden_size, self.num_v_heads, bias=False)
        self.add_parameters(self.initial_values(1))
        self.add_output(True, norm_eps, "sigmoid", self._low_rank(rank, self.value_dim, bias=True))

    def initial_values(self, num_hidden_layers: int) -> dict[str, torch.Tensor]:
        """Initial values of the decay by name, newly drawn. With a lower bound its rates start at 1."""
        values = initial_decay(self.num_v_heads, self.decay_dim)
        return values if self.lower_bound is None else {**values, "A_log": torch.zeros(self.num_v_heads)}

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Queries, keys, values, decays and write strengths of x, the recurrence, and the gated output."""
        q, k, v, conv_state = self.heads(x, call)
        o, state = (fused_recurrent_kda if self.is_recurrent(call) else chunk_kda)(
            q,
            k,
            v,
            g=self.f_proj(x).unflatten(-1, (-1, self.head_k_dim)),
            beta=self.b_proj(x),
            initial_state=call.read("recurrent_state"),
            output_final_state=call.writes,
            use_qk_l2norm_in_kernel=True,
            use_gate_in_kernel=True,
            use_beta_sigmoid_in_kernel=True,
            allow_neg_eigval=self.allow_neg_eigval,
            lower_bound=self.lower_bound,
            A_log=self.A_log,
            dt_bias=self.dt_bias,
            state_v_first=True,
            cu_seqlens=call.cu_seqlens,
        )
        call.write(recurrent_state=state, conv_state=conv_state)
        return (self.output(o, x),)

    def _low_rank(self, rank: int, width: int, bias: bool) -> nn.Sequential:
        return nn.Sequential(nn.Linear(self.hidden_size, rank, bias=False), nn.Linear(rank, width, bias=bias))
