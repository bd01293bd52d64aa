"""Gated layer norm and gated RMS norm as modules."""

from __future__ import annotations

import torch

from fla.modules._norm.reference import GATES
from fla.modules.fused_norm_gate.api import layer_norm_gated, rms_norm_gated
from fla.modules.layernorm.layer import AffineNorm


class _GatedNorm(AffineNorm):
    """A norm that knows the activation of its gate."""

    def __init__(
        self,
        hidden_size: int,
        elementwise_affine: bool,
        bias: bool,
        activation: str,
        eps: float,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        if activation not in GATES:
            raise ValueError(f"activation: expected one of {', '.join(GATES)}, got {activation!r}")
        super().__init__(hidden_size, elementwise_affine, bias, eps, device, dtype)
        self.activation = activation

    def extra_repr(self) -> str:
        """Size and options."""
        return f"{super().extra_repr()}, activation={self.activation}"


class FusedLayerNormGated(_GatedNorm):
    """Layer norm times an activated gate; see :func:`fla.modules.fused_norm_gate.layer_norm_gated`.

    Args:
        hidden_size: channels D.
        elementwise_affine: learn a weight (and a bias) per channel.
        bias: learn a bias too.
        activation: of the gate, ``"swish"`` (``"silu"``) or ``"sigmoid"``.
        eps: added to the variance.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: an unknown activation.
    """

    def __init__(
        self,
        hidden_size: int,
        elementwise_affine: bool = True,
        bias: bool = False,
        activation: str = "swish",
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(hidden_size, elementwise_affine, bias, activation, eps, device, dtype)

    def forward(
        self,
        x: torch.Tensor,
        g: torch.Tensor,
        residual: torch.Tensor | None = None,
        prenorm: bool = False,
        residual_in_fp32: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Normalise ``x + residual`` and gate it by g; with ``prenorm`` return the sum as well."""
        return layer_norm_gated(
            x, g, self.weight, self.bias, self.activation, residual, prenorm, residual_in_fp32, self.eps
        )


class FusedRMSNormGated(_GatedNorm):
    """RMS norm times an activated gate; see :func:`fla.modules.fused_norm_gate.rms_norm_gated`.

    Args:
        hidden_size: channels D.
        elementwise_affine: learn a weight per channel.
        eps: added to the mean square.
        activation: of the gate, ``"swish"`` (``"silu"``) or ``"sigmoid"``.
        device: of the weight.
        dtype: of the weight.

    Raises:
        ValueError: an unknown activation.
    """

    def __init__(
        self,
        hidden_size: int,
        elementwise_affine: bool = True,
        eps: float = 1e-5,
        activation: str = "swish",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(hidden_size, elementwise_affine, False, activation, eps, device, dtype)

    def forward(
        self,
        x: torch.Tensor,
        g: torch.Tensor,
        residual: torch.Tensor | None = None,
        prenorm: bool = False,
        residual_in_fp32: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Normalise ``x + residual`` and gate it by g; with ``prenorm`` return the sum as well."""
        return rms_norm_gated(
            x, g, self.weight, self.bias, self.activation, residual, prenorm, residual_in_fp32, self.eps
        )
