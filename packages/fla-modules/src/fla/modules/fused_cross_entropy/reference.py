"""Statistics and gradient of the cross entropy in plain PyTorch: the torch backend, and in float64 the truth."""

from __future__ import annotations

import torch

from fla.modules.fused_cross_entropy.options import LossOptions


def row_statistics_ref(
    logits: torch.Tensor, target: torch.Tensor, options: LossOptions
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Per row the log-sum-exp, the target's logit (0 if it is not here) and the sum of all, after scale and cap.

    The sum is taken only where labels are smoothed: a logit of minus infinity is legal otherwise.
    """
    shaped = _shaped(logits, options)
    column, here = _target_column(logits, target, options)
    at_target = shaped.gather(1, column[:, None])[:, 0].where(here, 0.0)
    lse = shaped.logsumexp(1)
    return lse, at_target, shaped.sum(1) if options.label_smoothing else torch.zeros_like(lse)


def reduce_rows_ref(
    target: torch.Tensor,
    lse: torch.Tensor,
    at_target: torch.Tensor,
    total: torch.Tensor,
    reduction: str,
    options: LossOptions,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The reduced loss and z-loss, and the factor that the reduction puts on a row's gradient."""
    counts = target != options.ignore_index
    smoothing = options.label_smoothing
    z = options.lse_square_scale * lse.square()
    losses = lse - (1 - smoothing) * at_target - smoothing / options.classes * total + z
    losses, z = losses.where(counts, 0.0), z.where(counts, 0.0)
    factor = torch.ones((), dtype=lse.dtype, device=lse.device)
    if reduction == "none":
        return losses, z, factor
    if reduction == "mean":
        factor = factor / counts.sum().clamp(min=1)
    return losses.sum() * factor, z.sum() * factor, factor


def logit_gradient_ref(
    logits: torch.Tensor,
    target: torch.Tensor,
    lse: torch.Tensor,
    dloss: torch.Tensor,
    factor: torch.Tensor,
    options: LossOptions,
) -> torch.Tensor:
    """Gradient of the logits, given that of the reduced loss and the reduction's factor."""
    shaped = _shaped(logits, options)
    gradient = (shaped - lse[:, None]).exp_()
    gradient *= (1 + 2 * options.lse_square_scale * lse)[:, None]
    if options.label_smoothing:
        gradient -= options.label_smoothing / options.classes
    column, here = _target_column(logits, target, options)
    gradient.scatter_add_(1, column[:, None], here.to(gradient.dtype)[:, None] * (options.label_smoothing - 1.0))
    if options.softcapping:
        gradient *= 1 - (shaped / options.softcapping).square()
    gradient *= (dloss * factor * options.logit_scale).expand(target.shape)[:, None]
    return gradient.masked_fill_((target == options.ignore_index)[:, None], 0.0).to(logits.dtype)


def _shaped(logits: torch.Tensor, options: LossOptions) -> torch.Tensor:
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    shaped = logits.to(dtype) * options.logit_scale
    return options.softcapping * torch.tanh(shaped / options.softcapping) if options.softcapping else shaped


def _target_column(
    logits: torch.Tensor, target: torch.Tensor, options: LossOptions
) -> tuple[torch.Tensor, torch.Tensor]:
    """The column of every row's target, and whether it is among this rank's."""
    column = target - options.first
    here = (column >= 0) & (column < logits.shape[1]) & (target != options.ignore_index)
    return column.clamp(0, logits.shape[1] - 1), here
