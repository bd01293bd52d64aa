"""Host side of the cross entropy: the registered ops, the gradient, and what ranks tell each other."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from fla.modules._checks import needs_gradient
from fla.modules.fused_cross_entropy.options import LossOptions
from fla.modules.fused_cross_entropy.reference import logit_gradient_ref, reduce_rows_ref, row_statistics_ref
from fla.utils.derivatives import first_order
from fla.utils.registration import register_op

Triple = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def statistics_with_gradient_(logits: torch.Tensor, target: torch.Tensor, options: LossOptions, backend: str) -> Triple:
    """Statistics of contiguous logits, over which the gradient of the sum of all losses is written (no z-loss)."""
    if backend == "triton":
        from fla.modules.fused_cross_entropy import launch

        return launch.row_statistics(logits, target, options, gradient=True)
    statistics = row_statistics_ref(logits, target, options)
    one = torch.ones((), dtype=statistics[0].dtype, device=logits.device)
    logits.copy_(logit_gradient_ref(logits, target, statistics[0], one, one, options))
    return statistics


def row_statistics(logits: torch.Tensor, target: torch.Tensor, options: LossOptions, backend: str) -> Triple:
    """Per row the log-sum-exp, the target's logit and the sum of all, after scale and cap."""
    if backend != "triton":
        return row_statistics_ref(logits, target, options)
    from fla.modules.fused_cross_entropy import launch

    return launch.row_statistics(logits, target, options)


def reduce_rows(
    target: torch.Tensor,
    lse: torch.Tensor,
    at_target: torch.Tensor,
    total: torch.Tensor,
    reduction: str,
    options: LossOptions,
    backend: str,
) -> Triple:
    """The reduced loss and z-loss, and the factor that the reduction puts on a row's gradient."""
    if backend != "triton":
        return reduce_rows_ref(target, lse, at_target, total, reduction, options)
    from fla.modules.fused_cross_entropy import launch

    return launch.reduce_rows(target, lse, at_target, total, reduction, options)


def _statistics(logits: torch.Tensor, target: torch.Tensor, backend: str, *options: Any) -> Triple:
    return row_statistics(logits, target, LossOptions(*options), backend)


def _statistics_fake(logits: torch.Tensor) -> Triple:
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    lse, at_target, total = (logits.new_empty(logits.shape[0], dtype=dtype) for _ in range(3))
    return lse, at_target, total


def _reduce(
    target: torch.Tensor,
    lse: torch.Tensor,
    at_target: torch.Tensor,
    total: torch.Tensor,
    reduction: str,
    backend: str,
    *options: Any,
) -> Triple:
    return reduce_rows(target, lse, at_target, total, reduction, LossOptions(*options), backend)


def _reduce_fake(lse: torch.Tensor, reduction: str) -> Triple:
    loss, z = (lse.new_empty(lse.shape if reduction == "none" else ()) for _ in range(2))
    return loss, z, lse.new_empty(())


def _gradient(
    logits: torch.Tensor,
    target: torch.Tensor,
    lse: torch.Tensor,
    dloss: torch.Tensor,
    factor: torch.Tensor,
    backend: str,
    *options: Any,
) -> torch.Tensor:
    return _write_gradient(logits, target, lse, dloss, factor, backend, LossOptions(*options), inplace=False)


def _gradient_fake(logits: torch.Tensor) -> torch.Tensor:
    return logits.new_empty(logits.shape)


def _gradient_inplace(
    logits: torch.Tensor,
    target: torch.Tensor,
    lse: torch.Tensor,
    dloss: torch.Tensor,
    factor: torch.Tensor,
    backend: str,
    *options: Any,
) -> None:
    _write_gradient(logits, target, lse, dloss, factor, backend, LossOptions(*options), inplace=True)


def _gradient_inplace_fake() -> None:
    return None


def _write_gradient(
    logits: torch.Tensor,
    target: torch.Tensor,
    lse: torch.Tensor,
    dloss: torch.Tensor,
    factor: torch.Tensor,
    backend: str,
    options: LossOptions,
    *,
    inplace: bool,
) -> torch.Tensor:
    if backend != "triton":
        gradient = logit_gradient_ref(logits, target, lse, dloss, factor, options)
        return logits.copy_(gradient) if inplace else gradient
    from fla.modules.fused_cross_entropy import launch

    return launch.logit_gradient(logits, target, lse, dloss, factor, options, inplace)


cross_entropy_fwd = register_op("cross_entropy_fwd", _statistics, _statistics_fake, options=LossOptions)
cross_entropy_reduce_fwd = register_op("cross_entropy_reduce_fwd", _reduce, _reduce_fake, options=LossOptions)
cross_entropy_bwd = register_op("cross_entropy_bwd", _gradient, _gradient_fake, options=LossOptions)
cross_entropy_bwd_ = register_op(
    "cross_entropy_bwd_", _gradient_inplace, _gradient_inplace_fake, mutates=("logits",), options=LossOptions
)


class CrossEntropyFunction(torch.autograd.Function):
    """The reduced loss and z-loss. Saves the logits and a number a row."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        target: torch.Tensor,
        options: LossOptions,
        reduction: str,
        inplace_backward: bool,
        process_group: Any,
        backend: str,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        loss, z, factor, lse = _losses(logits, target, options, reduction, process_group, backend)
        ctx.save_for_backward(logits, target, lse, factor)
        ctx.options, ctx.inplace, ctx.backend = options, inplace_backward, backend
        ctx.mark_non_differentiable(z)
        return loss, z

    @staticmethod
    @first_order("cross_entropy_loss")
    def backward(ctx: Any, saved: tuple[Any, ...], dloss: torch.Tensor, dz: torch.Tensor) -> tuple[Any, ...]:
        logits, target, lse, factor = saved
        if not ctx.inplace:
            return cross_entropy_bwd(logits, target, lse, dloss, factor, ctx.backend, *ctx.options), *(None,) * 6
        logits = logits.detach()
        cross_entropy_bwd_(logits, target, lse, dloss, factor, ctx.backend, *ctx.options)
        return logits, *(None,) * 6


def run_cross_entropy(
    logits: torch.Tensor,
    target: torch.Tensor,
    options: LossOptions,
    reduction: str,
    inplace_backward: bool,
    process_group: Any,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The reduced loss and z-loss on checked arguments; without ranks the reference is autograd's to differentiate."""
    if backend == "reference" and process_group is None:
        loss, z, _ = reduce_rows_ref(target, *row_statistics_ref(logits, target, options), reduction, options)
        return loss, z.detach()
    if not needs_gradient(logits):
        return _losses(logits, target, options, reduction, process_group, backend)[:2]
    return CrossEntropyFunction.apply(  # type: ignore[no-untyped-call,no-any-return]
        logits, target, options, reduction, inplace_backward, process_group, backend
    )


def _losses(
    logits: torch.Tensor, target: torch.Tensor, options: LossOptions, reduction: str, process_group: Any, backend: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The reduced loss and z-loss, the factor of the reduction, and the log-sum-exp of each row."""
    statistics: Triple = cross_entropy_fwd(logits, target, backend, *options)
    if process_group is not None:
        statistics = _over_ranks(*statistics, process_group)
    loss, z, factor = cross_entropy_reduce_fwd(target, *statistics, reduction, backend, *options)
    return loss, z, factor, statistics[0]


def _over_ranks(lse: torch.Tensor, at_target: torch.Tensor, total: torch.Tensor, group: Any) -> Triple:
    """The statistics of rows whose classes are shared out among the ranks of a group."""
    parts = [torch.empty_like(lse) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, lse, group=group)
    sums = torch.stack([at_target, total])
    dist.all_reduce(sums, group=group)
    return torch.stack(parts).logsumexp(0), sums[0], sums[1]
