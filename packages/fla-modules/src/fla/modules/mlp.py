"""The gated MLP of a transformer block."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from fla.modules._bare import is_bare_linear
from fla.modules.activations import powglu, swiglu, swiglu_linear

HIDDEN_ACTIVATIONS = ("swish", "silu", "powglu")
_MULTIPLE = 256


class GatedMLP(nn.Module):
    r"""Gated MLP (arXiv 2002.05202): ``down_proj(gate(gate_proj(x)) * up_proj(x))``.

    Args:
        hidden_size: channels in and out.
        hidden_ratio: hidden channels over ``hidden_size`` before the factor 2/3 that pays for the third matrix; 4
            unless given. Used where ``intermediate_size`` is not given; the result is rounded up to a multiple of 256.
        intermediate_size: hidden channels.
        hidden_act: ``"swish"`` (``"silu"``), or ``"powglu"`` for :func:`fla.modules.activations.powglu`.
        fuse_swiglu: do not keep the gated product for the backward pass but compute it again (on a GPU).
        powglu_power: the power of ``"powglu"``.
        linear: makes the three projections, called as ``nn.Linear`` is.

    Raises:
        ValueError: an unknown activation.
    """

    def __init__(
        self,
        hidden_size: int,
        hidden_ratio: float | None = None,
        intermediate_size: int | None = None,
        hidden_act: str = "swish",
        fuse_swiglu: bool = True,
        powglu_power: float = 3.0,
        linear: Callable[..., nn.Linear] = nn.Linear,
    ) -> None:
        super().__init__()
        if hidden_act not in HIDDEN_ACTIVATIONS:
            raise ValueError(f"hidden_act: expected one of {', '.join(HIDDEN_ACTIVATIONS)}, got {hidden_act!r}")
        hidden_ratio = 4 if hidden_ratio is None else hidden_ratio
        if intermediate_size is None:
            intermediate_size = -(-int(hidden_size * hidden_ratio * 2 / 3) // _MULTIPLE) * _MULTIPLE
        self.hidden_size = hidden_size
        self.hidden_ratio = hidden_ratio
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.fuse_swiglu = fuse_swiglu
        self.powglu_power = powglu_power
        self.gate_proj = linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., hidden_size]`` -> ``[..., hidden_size]``."""
        gate, y = self.gate_proj(x), self.up_proj(x)
        if self.hidden_act == "powglu":
            return self.down_proj(powglu(gate, y, self.powglu_power))  # type: ignore[no-any-return]
        if self.fuse_swiglu and is_bare_linear(self.down_proj):
            return swiglu_linear(gate, y, self.down_proj.weight, self.down_proj.bias)
        return self.down_proj(swiglu(gate, y))  # type: ignore[no-any-return]
