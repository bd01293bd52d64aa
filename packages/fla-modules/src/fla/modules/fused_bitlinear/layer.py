"""Linear layers that compute with ternary weights and 8-bit activations, and learn the weights in full."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fla.modules._bare import is_bare
from fla.modules.fused_bitlinear.api import activation_quant, rms_norm_quant, weight_quant
from fla.modules.layernorm import RMSNorm


class BitLinear(nn.Linear):
    r"""A linear layer of BitNet b1.58 (arXiv 2402.17764), with an RMS norm before it.

    .. math:: y = \mathrm{quant}_8(\mathrm{norm}(x))\, \mathrm{quant}_{1.58}(W)^\top + b

    ``weight`` is kept and trained in full: gradients pass through both quantisations as if they were not there. See
    :class:`PackedBitLinear` for inference. An adapter beside the layer (LoRA) adds to its output in full precision;
    merged into ``weight`` it is rounded to three values with it, and results change.

    Args:
        in_features: channels in.
        out_features: channels out.
        bias: learn a bias.
        norm_eps: added to the mean square in the norm.
        device: of the parameters.
        dtype: of the parameters.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        norm_eps: float = 1e-8,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        self.norm = RMSNorm(in_features, eps=norm_eps, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., in_features]`` -> ``[..., out_features]``."""
        return F.linear(activation_quant(self.norm(x)), weight_quant(self.weight), self.bias)


class FusedBitLinear(BitLinear):
    """:class:`BitLinear` with norm and quantisation in one pass over the activations."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., in_features]`` -> ``[..., out_features]``."""
        return F.linear(norm_and_quantise(self.norm, x), weight_quant(self.weight), self.bias)


def norm_and_quantise(norm: RMSNorm, x: torch.Tensor) -> torch.Tensor:
    """``activation_quant(norm(x))``, in one pass with nothing rounded between where the norm need not be called."""
    if not is_bare(norm, RMSNorm, x.shape[-1]):
        return activation_quant(norm(x))
    y = rms_norm_quant(x, norm.weight, norm.bias, eps=norm.eps)
    assert isinstance(y, torch.Tensor)
    return y
