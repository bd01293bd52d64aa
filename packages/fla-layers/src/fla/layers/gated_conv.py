"""A gated short convolution as a layer."""

from __future__ import annotations

import torch
from torch import nn

from fla.layers.base import Call, Mixer
from fla.modules import ShortConvolution


class GatedShortConvolution(Mixer):
    r"""A short causal convolution, gated: the mixer of nearby tokens in Based (arXiv 2402.18668, 2312.04927).

    .. math:: o = W_o (W_g x \odot \mathrm{silu}(\mathrm{conv}(W_x x)))

    Args:
        hidden_size: channels in and out.
        conv_size: width of the convolution.
        conv_bias: whether it has a bias.
        layer_idx: the layer's place in the cache.
    """

    def __init__(
        self, hidden_size: int, conv_size: int = 3, conv_bias: bool = False, layer_idx: int | None = None
    ) -> None:
        super().__init__(hidden_size, layer_idx)
        self.x_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.g_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.conv1d = ShortConvolution(hidden_size, conv_size, bias=conv_bias, activation="silu")
        self.o_proj = nn.Linear(hidden_size, hidden_size, bias=False)

    def mix(self, x: torch.Tensor, call: Call, **shared: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """The gated convolution of x."""
        (convolved,), conv_state = call.convolve((self.conv1d,), (self.x_proj(x),))
        call.write(conv_state=conv_state)
        return (self.o_proj(self.g_proj(x) * convolved),)
