"""Layer norm, RMS norm and group norm as modules."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from fla.modules._initial import set_initial_values
from fla.modules.layernorm.api import group_norm, layer_norm, rms_norm


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

    undecayed: ClassVar[tuple[str, ...]] = ("weight", "bias")
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
        """Set the initial values."""
        set_initial_values(self)

    def initial_values(self, num_hidden_layers: int) -> dict[str, torch.Tensor]:
        """Weight one, bias zero."""
        values = {} if self.weight is None else {"weight": torch.ones_like(self.weight)}
        return values if self.bias is None else {**values, "bias": torch.zeros_like(self.bias)}

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


class GroupNorm(AffineNorm):
    """Layer norm or RMS norm over each group of channels; see :func:`fla.modules.layernorm.group_norm`.

    Args:
        num_groups: G; divides ``hidden_size``.
        hidden_size: channels D of all groups together.
        elementwise_affine: learn a weight (and a bias) per channel; else both are None.
        bias: learn a bias too.
        eps: added to the variance or the mean square.
        is_rms_norm: divide by the root of the mean square, without subtracting the mean.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: the groups do not divide the channels.
    """

    def __init__(
        self,
        num_groups: int,
        hidden_size: int,
        elementwise_affine: bool = True,
        bias: bool = False,
        eps: float = 1e-5,
        is_rms_norm: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if num_groups < 1 or hidden_size % num_groups:
            raise ValueError(f"num_groups: expected to divide hidden_size={hidden_size}, got {num_groups}")
        super().__init__(hidden_size, elementwise_affine, bias, eps, device, dtype)
        self.num_groups = num_groups
        self.is_rms_norm = is_rms_norm

    def forward(
        self,
        x: torch.Tensor,
        residual: torch.Tensor | None = None,
        prenorm: bool = False,
        residual_in_fp32: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Normalise every group of ``x + residual``; with ``prenorm`` return that sum as well."""
        return group_norm(
            x, self.weight, self.bias, residual, self.eps, prenorm, residual_in_fp32, self.is_rms_norm, self.num_groups
        )

    def extra_repr(self) -> str:
        """Sizes and options."""
        return f"{self.num_groups}, {super().extra_repr()}, is_rms_norm={self.is_rms_norm}"
