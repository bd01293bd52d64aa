"""The L2 norm as a module."""

from __future__ import annotations

import torch
from torch import nn

from fla.modules.l2norm.api import l2_norm


class L2Norm(nn.Module):
    """Scale the last dimension to unit length; see :func:`fla.modules.l2norm.l2_norm`.

    Args:
        eps: added to the sum of squares.
        output_dtype: of the result; that of the input unless given.
    """

    def __init__(self, eps: float = 1e-6, output_dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.eps = eps
        self.output_dtype = output_dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., D]`` -> ``[..., D]``."""
        return l2_norm(x, self.eps, self.output_dtype)

    def extra_repr(self) -> str:
        """The options."""
        return f"eps={self.eps}, output_dtype={self.output_dtype}"
