"""The linear cross entropy as a module."""

from __future__ import annotations

import torch
from torch import nn

from fla.modules.fused_cross_entropy.options import loss_options
from fla.modules.fused_linear_cross_entropy.api import REDUCTIONS, fused_linear_cross_entropy_loss


class FusedLinearCrossEntropyLoss(nn.Module):
    """Cross entropy of a linear layer's outputs; :func:`fused_linear_cross_entropy_loss` explains the arguments."""

    def __init__(
        self,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        logit_scale: float = 1.0,
        logit_softcapping: float | None = None,
        num_chunks: int = 8,
        reduction: str = "mean",
        use_l2warp: bool = False,
        l2_penalty_factor: float = 1e-4,
        accumulate_grad_in_fp32: bool = True,
    ) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction: expected 'mean' or 'sum', got {reduction!r}")
        loss_options(ignore_index, label_smoothing, logit_scale, 0.0, logit_softcapping)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.logit_scale = logit_scale
        self.logit_softcapping = logit_softcapping
        self.num_chunks = num_chunks
        self.reduction = reduction
        self.use_l2warp = use_l2warp
        self.l2_penalty_factor = l2_penalty_factor
        self.accumulate_grad_in_fp32 = accumulate_grad_in_fp32

    def forward(
        self, x: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss of ``x @ weight.T + bias``; leading dimensions of x and target are flattened."""
        return fused_linear_cross_entropy_loss(
            x.reshape(-1, x.shape[-1]),
            target.reshape(-1),
            weight,
            bias,
            self.ignore_index,
            self.label_smoothing,
            self.logit_scale,
            self.logit_softcapping,
            self.num_chunks,
            self.reduction,
            self.use_l2warp,
            self.l2_penalty_factor,
            self.accumulate_grad_in_fp32,
        )
