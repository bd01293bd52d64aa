"""The cross entropy as a module."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fla.modules.fused_cross_entropy.api import REDUCTIONS, cross_entropy_loss
from fla.modules.fused_cross_entropy.options import loss_options


class FusedCrossEntropyLoss(nn.Module):
    """Cross entropy of logits ``[N, V]`` and classes ``[N]``; :func:`cross_entropy_loss` explains the arguments."""

    def __init__(
        self,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        logit_scale: float = 1.0,
        lse_square_scale: float = 0.0,
        logit_softcapping: float | None = None,
        inplace_backward: bool = False,
        process_group: Any = None,
        return_z_loss: bool = False,
    ) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction: expected one of {', '.join(REDUCTIONS)}, got {reduction!r}")
        loss_options(ignore_index, label_smoothing, logit_scale, lse_square_scale, logit_softcapping)
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.label_smoothing = label_smoothing
        self.logit_scale = logit_scale
        self.lse_square_scale = lse_square_scale
        self.logit_softcapping = logit_softcapping
        self.inplace_backward = inplace_backward
        self.process_group = process_group
        self.return_z_loss = return_z_loss

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """The loss, or ``(loss, z_loss)``."""
        return cross_entropy_loss(
            input,
            target,
            self.ignore_index,
            self.reduction,
            self.label_smoothing,
            self.logit_scale,
            self.lse_square_scale,
            self.logit_softcapping,
            self.inplace_backward,
            self.process_group,
            self.return_z_loss,
        )
