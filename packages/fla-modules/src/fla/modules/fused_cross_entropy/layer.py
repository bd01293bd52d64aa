"""The cross entropy as a module."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fla.modules.fused_cross_entropy.api import REDUCTIONS, reduced_cross_entropy
from fla.modules.fused_cross_entropy.options import loss_options


class FusedCrossEntropyLoss(nn.Module):
    """Mean cross entropy of logits ``[N, V]`` and classes ``[N]``.

    Args:
        ignore_index: see :func:`fla.modules.fused_cross_entropy.cross_entropy_loss`.
        reduction: ``"mean"`` over the rows that count, ``"sum"``, or ``"none"`` for ``[N]``. Without any row that
            counts the loss is 0.
        label_smoothing: see ``cross_entropy_loss``, as what follows.
        logit_scale: factor on the logits.
        lse_square_scale: of the z-loss.
        logit_softcapping: the cap, or None.
        inplace_backward: write the gradient into the logits' own memory.
        process_group: the ranks that share out the classes.
        return_z_loss: also return the reduced z-loss, which the loss includes; it carries no gradient.

    Raises:
        ValueError: an option out of range.
    """

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
        options = loss_options(
            self.ignore_index, self.label_smoothing, self.logit_scale, self.lse_square_scale, self.logit_softcapping
        )
        loss, z_loss = reduced_cross_entropy(
            input, target, self.reduction, options, self.inplace_backward, self.process_group
        )
        return (loss, z_loss) if self.return_z_loss else loss
