"""Host side of the cross entropy: the registered ops, the gradient, and what ranks tell each other."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

from fla.modules.fused_cross_entropy.options import LossOptions
from fla.modules.fused_cross_entropy.reference import logit_gradient_ref, row_statistics_ref
from fla.utils._registration import register_op

_OPTIONS = "int ignore_index, float smoothing, float scale, float lse_square, float cap, int first, int classes"


def row_statistics(
    logits: torch.Tensor, target: torch.Tensor, options: LossOptions, backend: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Per row the log-sum-exp, the target's logit and the sum of all, after scale and cap."""
    if backend != "triton":
        return row_statistics_ref(logits, target, options)
    from fla.modules.fused_cross_entropy import launch

    return launch.row_statistics(logits, target, options)


def logit_gradient(
    logits: torch.Tensor,
    target: torch.Tensor,
    lse: torch.Tensor,
    dloss: torch.Tensor,
    options: LossOptions,
    backend: str,
    inplace: bool,
) -> torch.Tensor:
    """The gradient of the logits, in their own memory where ``inplace``."""
    if backend != "triton":
        gradient = logit_gradient_ref(logits, target, lse, dloss, options)
        return logits.copy_(gradient) if inplace else gradient
    from fla.modules.fused_cross_entropy import launch

    return launch.logit_gradient(logits, target, lse, dloss, options, inplace)


def _statistics(
    logits: torch.Tensor, target: torch.Tensor, backend: str, *options: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return row_statistics(logits, target, LossOptions(*options), backend)


def _statistics_fake(
    logits: torch.Tensor, target: torch.Tensor, backend: str, *options: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    lse, at_target, total = (logits.new_empty(logits.shape[0], dtype=dtype) for _ in range(3))
    return lse, at_target, total


def _gradient(
    logits: torch.Tensor, target: torch.Tensor, lse: torch.Tensor, dloss: torch.Tensor, backend: str, *options: Any
) -> torch.Tensor:
    return logit_gradient(logits, target, lse, dloss, LossOptions(*options), backend, inplace=False)


def _gradient_fake(
    logits: torch.Tensor, target: torch.Tensor, lse: torch.Tensor, dloss: torch.Tensor, backend: str, *options: Any
) -> torch.Tensor:
    return logits.new_empty(logits.shape)


def _gradient_inplace(
    logits: torch.Tensor, target: torch.Tensor, lse: torch.Tensor, dloss: torch.Tensor, backend: str, *options: Any
) -> None:
    logit_gradient(logits, target, lse, dloss, LossOptions(*options), backend, inplace=True)


def _gradient_inplace_fake(
    logits: torch.Tensor, target: torch.Tensor, lse: torch.Tensor, dloss: torch.Tensor, backend: str, *options: Any
) -> None:
    return None


cross_entropy_fwd = register_op(
    "cross_entropy_fwd",
    f"(Tensor logits, Tensor target, str backend, {_OPTIONS}) -> (Tensor, Tensor, Tensor)",
    _statistics,
    _statistics_fake,
)
cross_entropy_bwd = register_op(
    "cross_entropy_bwd",
    f"(Tensor logits, Tensor target, Tensor lse, Tensor dloss, str backend, {_OPTIONS}) -> Tensor",
    _gradient,
    _gradient_fake,
)
cross_entropy_bwd_ = register_op(
    "cross_entropy_bwd_",
    f"(Tensor(a!) logits, Tensor target, Tensor lse, Tensor dloss, str backend, {_OPTIONS}) -> ()",
    _gradient_inplace,
    _gradient_inplace_fake,
)


class CrossEntropyFunction(torch.autograd.Function):
    """Losses and z-losses ``[N]`` of all rows. Saves the logits and a number a row."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        target: torch.Tensor,
        options: LossOptions,
        inplace_backward: bool,
        process_group: Any,
        backend: str,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        lse, at_target, total = cross_entropy_fwd(logits, target, backend, *options)
        if process_group is not None:
            lse, at_target, total = _over_ranks(lse, at_target, total, process_group)
        smoothing = options.label_smoothing
        z = options.lse_square_scale * lse.square()
        losses = lse - (1 - smoothing) * at_target - smoothing / options.classes * total + z
        counts = target != options.ignore_index
        ctx.save_for_backward(logits, target, lse)
        ctx.options, ctx.inplace, ctx.backend = options, inplace_backward, backend
        z = torch.where(counts, z, 0.0)
        ctx.mark_non_differentiable(z)
        return torch.where(counts, losses, 0.0), z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dlosses: torch.Tensor, dz: torch.Tensor) -> tuple[Any, ...]:
        logits, target, lse = ctx.saved_tensors
        if not ctx.inplace:
            return cross_entropy_bwd(logits, target, lse, dlosses, ctx.backend, *ctx.options), *(None,) * 5
        logits = logits.detach()
        cross_entropy_bwd_(logits, target, lse, dlosses, ctx.backend, *ctx.options)
        return logits, *(None,) * 5


def _over_ranks(
    lse: torch.Tensor, at_target: torch.Tensor, total: torch.Tensor, group: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The statistics of rows whose classes are shared out among the ranks of a group."""
    parts = [torch.empty_like(lse) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, lse, group=group)
    sums = torch.stack([at_target, total])
    dist.all_reduce(sums, group=group)
    return torch.stack(parts).logsumexp(0), sums[0], sums[1]
