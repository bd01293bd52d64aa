"""A pull on the largest logit of each row, as RWKV trains with: it acts on the gradient alone."""

from __future__ import annotations

from typing import Any

import torch


class L2Warp(torch.autograd.Function):
    """Passes the loss through and gives the largest logits a gradient; see :func:`l2_warp`."""

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor, largest: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.save_for_backward(largest)
        ctx.factor = factor
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, dloss: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        (largest,) = ctx.saved_tensors
        return dloss, largest * ctx.factor * dloss.to(largest.dtype), None


def l2_warp(loss: torch.Tensor, logits: torch.Tensor, l2_penalty_factor: float = 1e-4) -> torch.Tensor:
    r"""``loss`` unchanged; the gradient of each row's largest logit m grows by ``l2_penalty_factor / rows * m``.

    Args:
        loss: a scalar.
        logits: ``[..., V]``, those the loss was computed from.
        l2_penalty_factor: how strongly large logits are pulled back.

    Returns:
        The loss.
    """
    factor = l2_penalty_factor * logits.shape[-1] / max(1, logits.numel())
    return L2Warp.apply(loss, logits.max(-1).values, factor)  # type: ignore[no-untyped-call,no-any-return]
