"""Launchers of the cross entropy kernels."""

from __future__ import annotations

import torch
import triton

from fla.modules.fused_cross_entropy import kernels
from fla.modules.fused_cross_entropy.options import LossOptions
from fla.utils._tiles import power_of_two


def _block(classes: int, widest: int) -> int:
    return min(power_of_two(classes), widest)


def row_statistics(
    logits: torch.Tensor, target: torch.Tensor, options: LossOptions
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See :func:`fla.modules.fused_cross_entropy.reference.row_statistics_ref`."""
    logits, target = logits.contiguous(), target.contiguous()
    rows, classes = logits.shape
    lse, at_target, total = (logits.new_empty(rows, dtype=torch.float32) for _ in range(3))
    if rows:
        kernels.statistics_kernel[(rows,)](
            logits,
            target,
            lse,
            at_target,
            total,
            logits.stride(0),
            options.logit_scale,
            options.softcapping,
            options.first,
            options.ignore_index,
            V=classes,
            BV=_block(classes, 4096),
            CAPPED=options.softcapping > 0,
            num_warps=8,
        )
    return lse, at_target, total


def logit_gradient(
    logits: torch.Tensor,
    target: torch.Tensor,
    lse: torch.Tensor,
    dloss: torch.Tensor,
    options: LossOptions,
    inplace: bool,
) -> torch.Tensor:
    """See :func:`fla.modules.fused_cross_entropy.reference.logit_gradient_ref`; in place, logits are overwritten."""
    if not logits.is_contiguous():
        inplace, logits = False, logits.contiguous()
    target, dloss = target.contiguous(), dloss.contiguous()
    rows, classes = logits.shape
    dlogits = logits if inplace else torch.empty_like(logits)
    if rows:
        block = _block(classes, 4096)
        kernels.gradient_kernel[(rows, triton.cdiv(classes, block))](
            logits,
            target,
            lse,
            dloss,
            dlogits,
            logits.stride(0),
            options.logit_scale,
            options.softcapping,
            options.first,
            options.ignore_index,
            options.label_smoothing,
            options.classes,
            options.lse_square_scale,
            V=classes,
            BV=block,
            CAPPED=options.softcapping > 0,
            num_warps=8,
        )
    return dlogits
