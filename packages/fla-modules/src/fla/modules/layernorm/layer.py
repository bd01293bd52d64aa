"""Layer norm and RMS norm as modules."""

from __future__ import annotations

import torch
from torch import nn

from fla.modules.layernorm.api import layer_norm, rms_norm


class AffineNorm(nn.Module):
    """The parameters of a norm over the last dimension: ``weight``, and ``bias`` where asked for.

    Args:
        hidden_size: channels D.
        elementwise_affine: learn a weight (and a bias) per channel; else both are None.
        bias: learn a bias too.
        eps: added to the variance or the mean square.
        device: of the parameters.
        dtype: of the parameters.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        hidden_size: int,
        elementwise_affine: bool = True,
        bias: bool = False,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.elementwise_affine = elementwise_affine
        self.eps = eps

        def parameter(learned: bool) -> nn.Parameter | None:
            return nn.Parameter(torch.empty(hidden_size, device=device, dtype=dtype)) if learned else None

        self.register_parameter("weight", parameter(elementwise_affine))
        self.register_parameter("bias", parameter(elementwise_affine and bias))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight one, bias zero."""
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        """Size and options, as PyTorch's own norms show them."""
        return f"{self.hidden_size}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class LayerNorm(AffineNorm):
    """Layer norm over the last dimension; see :func:`fla.modules.layernorm.layer_norm`."""

    def forward(
        self,
        x: torch.Tensor,
        residual: torch.Tensor | None = None,
        prenorm: bool = False,
        residual_in_fp32: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Normalise ``x + residual``; with ``prenorm`` return that sum as well."""
        return layer_norm(x, self.weight, self.bias, residual, self.eps, prenorm, residual_in_fp32)


class RMSNorm(AffineNorm):
    """RMS norm over the last dimension; see :func:`fla.modules.layernorm.rms_norm`."""

    def forward(
        self,
        x: torch.Tensor,
        residual: torch.Tensor | None = None,
        prenorm: bool = False,
        residual_in_fp32: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Normalise ``x + residual``; with ``prenorm`` return that sum as well."""
        return rms_norm(x, self.weight, self.bias, residual, self.eps, prenorm, residual_in_fp32)
