"""HGRN2 (arXiv 2404.07904) as a layer."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from fla.layers._forget_gate import bound_of_layer, bounded_forget_gate
from fla.layers.base import MODES, Call, Mixer, check_choice, expanded_heads
from fla.modules import RMSNorm, ShortConvolution
from fla.ops.gla import chunk_gla, fused_recurrent_gla


class HGRN2Attention(Mixer):
    r"""Gated linear recurrence with a state expanded by outer products (arXiv 2404.07904).

    .. math::
        e^{g_t} = b + (1 - b)\, \mathrm{sigmoid}(f_t), \qquad
        S_t = \mathrm{diag}(e^{g_t})\, S_{t-1} + (1 - e^{g_t})\, i_t^\top, \qquad
        o_t = S_t^\top \mathrm{swish}(q_t) / \sqrt{K}

    per head, with b the layer's lower bound of the forget gate; then an RMS norm over all channels and the output
    projection. The state is kept in float32, ``[N, num_heads, V, K]``, and the gate is computed in float32.

    Args:
        mode: ``"chunk"`` or ``"fused_recurrent"``; ``"fused_chunk"`` is another name of the first. Short calls
            outside training take the recurrent form in any mode.
        hidden_size: channels in and out.
        num_heads: heads; ``hidden_size / expand_ratio`` unless given.
        expand_ratio: key channels of a head; ``hidden_size / num_heads`` where it is None.
        use_short_conv: a short causal convolution on queries, forget gates and inputs.
        conv_size: its width.
        conv_bias: whether it has a bias.
        elementwise_affine: learn a weight for the norm of the output.
        norm_eps: added to its mean square.
        layer_idx: the layer's place in the cache, and its row of the lower bounds.

    Raises:
        ValueError: an unknown mode, neither ``num_heads`` nor ``expand_ratio``, or sizes that heads do not divide.
    """

    takes: ClassVar[tuple[str, ...]] = ("lower_bounds",)

    def __init__(
        self,
        mode: str = "chunk",
        hidden_size: int = 1024,
        num_heads: int | None = None,
        expand_ratio: int | None = 128,
        use_short_conv: bool = False,
        conv_size: int = 4,
        conv_bias: bool = False,
        elementwise_affine: bool | None = True,
        norm_eps: float = 1e-5,
        layer_idx: int | None = None,
    ) -> None:
        super().__init__(hidden_size, layer_idx)
        check_choice("mode", mode, MODES)
        self.mode = mode
        self.num_heads, self.head_f_dim = expanded_heads(hidden_size, num_heads, expand_ratio)
        self.head_i_dim = hidden_size // self.num_heads
        self.use_short_conv = use_short_conv
        forget_dim = self.num_heads * self.head_f_dim
        self.q_proj = nn.Linear(hidden_size, forget_dim, bias=False)
        self.f_proj = nn.Linear(hidden_size, forget_dim, bias=False)
        self.i_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        if use_short_conv:
            self.q_conv1d = ShortConvolution(forget_dim, conv_size, bias=conv_bias, activation=None)
            self.f_conv1d = ShortConvolution(forget_dim, conv_size, bias=conv_bias, activation=None)
            self.i_conv1d = ShortConvolution(hidden_size, conv_size, bias=conv_bias, activation=None)
        self.g_norm = RMSNorm(hidden_size, elementwise_affine=bool(elementwise_affine), eps=norm_eps)
        self.o_proj = nn.Linear(hidden_size, hidden_size, bias=False)

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Queries, forget gates and inputs of x, the recurrence, and the normalised output."""
        convolutions = (self.q_conv1d, self.f_conv1d, self.i_conv1d) if self.use_short_conv else ()
        (q, f, i), conv_state = call.convolve(convolutions, (self.q_proj(x), self.f_proj(x), self.i_proj(x)))
        g, k = bounded_forget_gate(f, bound_of_layer(shared.get("lower_bounds"), self.layer_idx))
        q, k, g = (y.unflatten(-1, (-1, self.head_f_dim)) for y in (F.silu(q), k.to(q.dtype), g))
        o, state = (fused_recurrent_gla if self.is_recurrent(call) else chunk_gla)(
            q,
            k,
            i.unflatten(-1, (-1, self.head_i_dim)),
            g,
            initial_state=call.read("recurrent_state"),
            output_final_state=call.writes,
            state_v_first=True,
            cu_seqlens=call.cu_seqlens,
        )
        call.write(recurrent_state=state, conv_state=conv_state)
        return (self.o_proj(self.g_norm(o.flatten(-2))),)
