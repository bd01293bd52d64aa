"""Statistics and gradient of the cross entropy in plain PyTorch: the torch backend, and in float64 the truth."""

from __future__ import annotations

import torch

from fla.modules.fused_cross_entropy.options import LossOptions


def row_statistics_ref(
    logits: torch.Tensor, target: torch.Tensor, options: LossOptions
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Per row the log-sum-exp, the target's logit (0 if it is not here) and the sum of all, after scale and cap."""
    shaped = _shaped(logits, options)
    column, here = _target_column(logits, target, options)
    at_target = shaped.gather(1, column[:, None])[:, 0] * here
    return shaped.logsumexp(1), at_target, shaped.sum(1)


def logit_gradient_ref(
    logits: torch.Tensor, target: torch.Tensor, lse: torch.Tensor, dloss: torch.Tensor, options: LossOptions
) -> torch.Tensor:
    """Gradient of the logits, given that of every row's loss."""
    shaped = _shaped(logits, options)
    gradient = (shaped - lse[:, None]).exp_()
    gradient *= (1 + 2 * options.lse_square_scale * lse)[:, None]
    if options.label_smoothing:
        gradient -= options.label_smoothing / options.classes
    column, here = _target_column(logits, target, options)
    gradient.scatter_add_(1, column[:, None], here.to(gradient.dtype)[:, None] * (options.label_smoothing - 1.0))
    if options.softcapping:
        gradient *= 1 - (shaped / options.softcapping).square()
    gradient *= (dloss * (target != options.ignore_index) * options.logit_scale)[:, None]
    return gradient.to(logits.dtype)


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
