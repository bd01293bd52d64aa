"""HGRN (arXiv 2311.04823) as a layer."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from fla.layers._forget_gate import bound_of_layer, bounded_forget_gate
from fla.layers.base import MODES, Call, Mixer, check_choice
from fla.modules import FusedRMSNormGated, ShortConvolution
from fla.modules.activations import swiglu
from fla.ops.hgrn import chunk_hgrn


class HGRNAttention(Mixer):
    r"""Gated linear recurrence, elementwise (arXiv 2311.04823).

    .. math::
        e^{g_t} = b + (1 - b)\, \mathrm{sigmoid}(f_t), \qquad
        h_t = e^{g_t} \odot h_{t-1} + (1 - e^{g_t}) \odot \mathrm{swish}(i_t)

    with b the layer's lower bound of the forget gate; then an RMS norm over all channels, gated by a projection of the
    input, and the output projection. The state is kept in float32, ``[N, hidden_size * expand_ratio]``, and the gate
    is computed in float32.

    Args:
        mode: ``"chunk"``, ``"fused_recurrent"`` or ``"fused_chunk"``, three names of the same scan.
        hidden_size: channels in and out.
        expand_ratio: channels of the state over ``hidden_size``.
        use_short_conv: a short causal convolution on inputs and forget gates.
        conv_size: its width.
        conv_bias: whether it has a bias.
        elementwise_affine: learn a weight for the norm of the output.
        norm_eps: added to its mean square.
        layer_idx: the layer's place in the cache, and its row of the lower bounds.

    Raises:
        ValueError: an unknown mode, or an ``expand_ratio`` below 1.
    """

    takes: ClassVar[tuple[str, ...]] = ("lower_bounds",)

    def __init__(
        self,
        mode: str = "chunk",
        hidden_size: int = 1024,
        expand_ratio: int = 1,
        use_short_conv: bool = False,
        conv_size: int = 4,
        conv_bias: bool = False,
        elementwise_affine: bool | None = True,
        norm_eps: float = 1e-5,
        layer_idx: int | None = None,
    ) -> None:
        super().__init__(hidden_size, layer_idx)
        check_choice("mode", mode, MODES)
        if expand_ratio < 1:
            raise ValueError(f"expand_ratio: expected at least 1, got {expand_ratio}")
        self.mode = mode
        self.input_dim = hidden_size * expand_ratio
        self.use_short_conv = use_short_conv
        self.i_proj = nn.Linear(hidden_size, self.input_dim, bias=False)
        self.f_proj = nn.Linear(hidden_size, self.input_dim, bias=False)
        self.g_proj = nn.Linear(hidden_size, self.input_dim, bias=False)
        if use_short_conv:
            self.i_conv1d = ShortConvolution(self.input_dim, conv_size, bias=conv_bias, activation=None)
            self.f_conv1d = ShortConvolution(self.input_dim, conv_size, bias=conv_bias, activation=None)
        self.g_norm = FusedRMSNormGated(self.input_dim, elementwise_affine=bool(elementwise_affine), eps=norm_eps)
        self.o_proj = nn.Linear(self.input_dim, hidden_size, bias=False)

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Inputs and forget gates of x, the recurrence, and the gated output."""
        convolutions = (self.i_conv1d, self.f_conv1d) if self.use_short_conv else ()
        (i, f), conv_state = call.convolve(convolutions, (self.i_proj(x), self.f_proj(x)))
        g, rest = bounded_forget_gate(f, bound_of_layer(shared.get("lower_bounds"), self.layer_idx))
        o, state = chunk_hgrn(
            swiglu(i, rest.to(i.dtype)),
            g,
            initial_state=call.read("recurrent_state"),
            output_final_state=call.writes,
            cu_seqlens=call.cu_seqlens,
        )
        call.write(recurrent_state=state, conv_state=conv_state)
        return (self.o_proj(self.g_norm(o, self.g_proj(x))),)
