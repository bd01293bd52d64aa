"""DeltaNet (arXiv 2406.06484) as a layer."""

from __future__ import annotations

import torch
from torch import nn

from fla.layers._delta import DeltaHeads
from fla.layers.base import Call, check_choice, check_divisible
from fla.ops._engines.delta.options import write_strength
from fla.ops.delta_rule import chunk_delta_rule, fused_recurrent_delta_rule

QK_NORMS = ("l2", "sum")


class DeltaNet(DeltaHeads):
    r"""The delta rule (arXiv 2406.06484).

    .. math::
        S_t = (I - \beta_t k_t k_t^\top)\, S_{t-1} + \beta_t k_t v_t^\top, \qquad o_t = S_t^\top q_t / \sqrt{K}, \qquad
        \beta_t = \mathrm{sigmoid}(W_b x_t)

    per head; then RMS norm per head, the output gate if any, and the output projection. The state is kept in float32,
    ``[N, num_heads, K, V]``; beta is computed in float32.

    Args:
        mode: ``"chunk"`` or ``"fused_recurrent"``; ``"fused_chunk"`` is another name of the first. Short calls
            outside training take the recurrent form in any mode.
        d_model: another name of ``hidden_size``, which wins where it is given.
        hidden_size: channels in and out.
        expand_k: key channels of all heads over ``hidden_size``.
        expand_v: value channels of all heads over ``hidden_size``.
        num_heads: heads.
        use_beta: learn the write strength; without it every step overwrites what its key holds.
        use_gate: gate the output.
        use_short_conv: a short causal convolution on queries, keys and values.
        conv_size: its width.
        conv_bias: whether it has a bias.
        allow_neg_eigval: double the write strength, so that the state's transition may have eigenvalues down to -1.
        layer_idx: the layer's place in the cache.
        qk_activation: activation of queries and keys: ``"silu"``, ``"relu"``, ``"elu"`` (plus one) or ``"identity"``.
            That of the values is SiLU.
        qk_norm: queries and keys are divided by their ``"l2"`` norm, or by their ``"sum"``: meant for activations that
            are not negative.
        norm_eps: added to the mean square in the norm of the output.

    Raises:
        ValueError: an unknown mode, activation or norm, or sizes that the heads do not divide.
    """

    def __init__(
        self,
        mode: str = "chunk",
        d_model: int | None = None,
        hidden_size: int = 1024,
        expand_k: float = 1.0,
        expand_v: float = 1.0,
        num_heads: int = 4,
        use_beta: bool = True,
        use_gate: bool = False,
        use_short_conv: bool = True,
        conv_size: int = 4,
        conv_bias: bool = False,
        allow_neg_eigval: bool = False,
        layer_idx: int | None = None,
        qk_activation: str = "silu",
        qk_norm: str = "l2",
        norm_eps: float = 1e-5,
    ) -> None:
        hidden_size = hidden_size if d_model is None else d_model
        super().__init__(hidden_size, layer_idx)
        check_choice("qk_norm", qk_norm, QK_NORMS)
        key_dim, value_dim = int(hidden_size * expand_k), int(hidden_size * expand_v)
        check_divisible("hidden_size * expand_k", key_dim, "num_heads", num_heads)
        check_divisible("hidden_size * expand_v", value_dim, "num_heads", num_heads)
        self.add_heads(
            mode,
            num_heads,
            None,
            key_dim // num_heads,
            value_dim // num_heads,
            use_short_conv,
            conv_size,
            conv_bias,
            qk_activation,
        )
        self.use_beta = use_beta
        self.allow_neg_eigval = allow_neg_eigval
        self.qk_norm = qk_norm
        if use_beta:
            self.b_proj = nn.Linear(hidden_size, num_heads, bias=False)
        self.add_output(use_gate, norm_eps)

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Queries, keys, values and write strengths of x, the recurrence, and the normalised output."""
        q, k, v, conv_state = self.heads(x, call)
        if self.use_beta:
            beta = write_strength(self.b_proj(x), True, self.allow_neg_eigval)
        else:
            beta = torch.full_like(v[..., 0], 2.0 if self.allow_neg_eigval else 1.0)
        if self.qk_norm == "sum":
            q, k = _divide_by_sum(q), _divide_by_sum(k)
        o, state = (fused_recurrent_delta_rule if self.is_recurrent(call) else chunk_delta_rule)(
            q,
            k,
            v,
            beta,
            initial_state=call.read("recurrent_state"),
            output_final_state=call.writes,
            use_qk_l2norm_in_kernel=self.qk_norm == "l2",
            cu_seqlens=call.cu_seqlens,
        )
        call.write(recurrent_state=state, conv_state=conv_state)
        return (self.output(o, x),)


def _divide_by_sum(x: torch.Tensor) -> torch.Tensor:
    # The two parts of the gradient cancel, so neither is rounded to half precision.
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    total = wide.sum(-1, keepdim=True)
    # 1 stands in for a sum of 0, where an activation has left nothing.
    return (wide / torch.where(total == 0, 1, total)).to(x.dtype)
