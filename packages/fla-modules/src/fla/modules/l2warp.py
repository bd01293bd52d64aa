"""A pull on the largest logit of each row, as RWKV trains with: it acts on the gradient alone."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable


class L2Warp(torch.autograd.Function):
    """Passes the loss through and adds to the gradient of the logits; see :func:`l2_warp`."""

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor, logits: torch.Tensor, l2_penalty_factor: float) -> torch.Tensor:
        largest = logits.max(-1, keepdim=True)
        ctx.save_for_backward(largest.values, largest.indices)
        ctx.shape, ctx.factor = logits.shape, l2_penalty_factor * logits.shape[-1] / max(1, logits.numel())
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        values, indices = ctx.saved_tensors
        dlogits = values.new_zeros(ctx.shape).scatter_(-1, indices, values * ctx.factor)
        return dloss, dlogits * dloss.to(dlogits.dtype), None


def l2_warp(loss: torch.Tensor, logits: torch.Tensor, l2_penalty_factor: float = 1e-4) -> torch.Tensor:
    r"""``loss`` unchanged; the gradient of each row's largest logit m grows by ``l2_penalty_factor / rows * m``.

    Args:
        loss: a scalar.
        logits: ``[..., V]``, those the loss was computed from.
        l2_penalty_factor: how strongly large logits are pulled back.

    Returns:
        The loss.
    """
    return L2Warp.apply(loss, logits, l2_penalty_factor)  # type: ignore[no-untyped-call,no-any-return]
