"""The functional form of the cross entropy."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from fla.modules.fused_cross_entropy.ops import run_cross_entropy
from fla.modules.fused_cross_entropy.options import LossOptions, check_targets, loss_options
from fla.utils.backends import choose_backend
from fla.utils.validation import bind_shapes, check_floating, check_same_device

REDUCTIONS = ("mean", "sum", "none")


def cross_entropy_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    label_smoothing: float = 0.0,
    logit_scale: float = 1.0,
    lse_square_scale: float = 0.0,
    logit_softcapping: float | None = None,
    ignore_index: int = -100,
    inplace_backward: bool = False,
    process_group: Any = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Cross entropy of every row of logits with its class, in nats.

    .. math:: \ell = lse - (1 - \epsilon)\, x_{target} - \epsilon\, \bar x + \lambda\, lse^2, \qquad
        lse = \log \sum_j e^{x_j}

    with :math:`x = logit\_scale \cdot logits`, soft-capped to :math:`c \tanh(x / c)` where a cap is given. Computed in
    float32 (float64 for float64 logits). Differentiable once in the logits. The mean or the sum over rows is
    :class:`fla.modules.FusedCrossEntropyLoss`'s.

    Args:
        logits: ``[N, V]``; float32, bfloat16, float16, or float64 on the torch backend.
        target: classes ``[N]``, int64 or int32.
        label_smoothing: epsilon.
        logit_scale: factor on the logits.
        lse_square_scale: lambda, of the z-loss (arXiv 2204.02311).
        logit_softcapping: c, or None.
        ignore_index: rows with this target have loss and z-loss 0.
        inplace_backward: write the gradient into the logits' own memory; their values are lost.
        process_group: the ranks that share out the classes: each has ``V`` of them, in the order of ranks.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        ``(losses, z_losses)``, both ``[N]`` in float32. The losses include the z-losses, which carry no gradient.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a shape or device that does not fit, an option out of range, on the CPU a class out of range, or a
            backend that cannot run here.
    """
    return reduced_cross_entropy(
        logits,
        target,
        "none",
        loss_options(ignore_index, label_smoothing, logit_scale, lse_square_scale, logit_softcapping),
        inplace_backward,
        process_group,
        backend,
    )


def reduced_cross_entropy(
    logits: torch.Tensor,
    target: torch.Tensor,
    reduction: str,
    options: LossOptions,
    inplace_backward: bool = False,
    process_group: Any = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`cross_entropy_loss`, reduced over the rows that count: ``"mean"``, ``"sum"``, or ``"none"``.

    Without any row that counts the loss is 0.
    """
    sizes = bind_shapes({"logits": (logits, "N V"), "target": (target, "N")})
    check_floating({"logits": logits})
    check_same_device({"logits": logits, "target": target})
    if target.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"target: expected int64 or int32, got {target.dtype}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: expected one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    rank, ranks = (
        (0, 1) if process_group is None else (dist.get_rank(process_group), dist.get_world_size(process_group))
    )
    options = options._replace(first=rank * sizes["V"], classes=ranks * sizes["V"])
    check_targets(target, options)
    loss, z_loss = run_cross_entropy(
        logits, target.long(), options, reduction, inplace_backward, process_group, choose_backend(logits, backend)
    )
    return loss, z_loss
