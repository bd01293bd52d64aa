"""Host side of the linear cross entropy: loss and all gradients in one walk over chunks of rows."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from fla.modules.fused_cross_entropy.ops import reduce_rows, row_statistics, statistics_with_gradient_
from fla.modules.fused_cross_entropy.options import LossOptions
from fla.modules.fused_cross_entropy.reference import reduce_rows_ref, row_statistics_ref
from fla.utils.derivatives import first_order
from fla.utils.registration import register_op

Walked = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def _walk(
    x: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    reduction: str,
    num_chunks: int,
    l2_penalty: float,
    wide_sums: bool,
    needs_dx: bool,
    needs_dweight: bool,
    needs_dbias: bool,
    backend: str,
    *options: Any,
) -> Walked:
    """The loss, the factor of the reduction, and the gradients of the sum of all losses (empty where not needed).

    Gradients of the sum are of the size of x and weight; those of the mean would vanish in float16. The gradient of
    the weight stays in the dtype it was summed in.
    """
    loss_options = LossOptions(*options)
    narrow_weight = weight.to(x.dtype)
    dx, dweight, dbias = _empty_gradients(x, weight, bias, wide_sums, needs_dx, needs_dweight, needs_dbias)
    needs_gradient = needs_dx or needs_dweight or needs_dbias
    pull = _pull(target, reduction, loss_options) * l2_penalty if needs_gradient and l2_penalty else None
    chunks = []
    rows = max(1, -(-x.shape[0] // num_chunks))
    for start in range(0, max(1, x.shape[0]), rows):
        part = slice(start, min(start + rows, x.shape[0]))
        logits = x[part] @ narrow_weight.t()
        if bias is not None:
            logits += bias.to(logits.dtype)
        if not needs_gradient:
            chunks.append(row_statistics(logits, target[part], loss_options, backend))
            continue
        largest = None if pull is None else logits.max(1, keepdim=True)
        chunks.append(statistics_with_gradient_(logits, target[part], loss_options, backend))
        if largest is not None and pull is not None:
            logits.scatter_add_(1, largest.indices, largest.values * pull)
        if needs_dx:
            torch.mm(logits, narrow_weight, out=dx[part])
        if needs_dweight:
            _add_product(dweight, logits, x[part], first=start == 0)
        if needs_dbias:
            dbias += logits.sum(0, dtype=dbias.dtype)
    lse, at_target, total = (torch.cat(column) for column in zip(*chunks))
    loss, _, factor = reduce_rows(target, lse, at_target, total, reduction, loss_options, backend)
    return loss, factor, dx, dweight, dbias


def _empty_gradients(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    wide_sums: bool,
    needs_dx: bool,
    needs_dweight: bool,
    needs_dbias: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Room for each gradient, that of the bias zero; no room where not needed."""
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    dx = torch.empty_like(x, memory_format=torch.contiguous_format) if needs_dx else x.new_empty(0)
    dweight = weight.new_empty(weight.shape if needs_dweight else 0, dtype=exact if wide_sums else x.dtype)
    dbias = weight.new_zeros(weight.shape[0] if needs_dbias and bias is not None else 0, dtype=exact)
    return dx, dweight, dbias


def _pull(target: torch.Tensor, reduction: str, options: LossOptions) -> torch.Tensor:
    """l2warp takes the mean over all rows, whatever the loss does: its factor before the reduction's own."""
    if reduction == "sum":
        return torch.full((), 1.0 / max(1, target.shape[0]), dtype=torch.float64, device=target.device)
    return (target != options.ignore_index).sum().clamp(min=1).double() / max(1, target.shape[0])


def _add_product(total: torch.Tensor, dlogits: torch.Tensor, x: torch.Tensor, first: bool) -> None:
    """``total += dlogits.T @ x``, or ``=`` at first."""
    if total.dtype == x.dtype:
        torch.addmm(total, dlogits.t(), x, beta=0 if first else 1, out=total)
    elif first:
        total.copy_(dlogits.t() @ x)
    else:
        total += dlogits.t() @ x


def _walk_fake(
    x: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    reduction: str,
    num_chunks: int,
    l2_penalty: float,
    wide_sums: bool,
    needs_dx: bool,
    needs_dweight: bool,
    needs_dbias: bool,
    backend: str,
    *options: Any,
) -> Walked:
    scalar = x.new_empty((), dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
    gradients = _empty_gradients(x, weight, bias, wide_sums, needs_dx, needs_dweight, needs_dbias)
    return scalar, torch.empty_like(scalar), *gradients


linear_cross_entropy_fwd = register_op("linear_cross_entropy_fwd", _walk, _walk_fake, options=LossOptions)


class LinearCrossEntropyFunction(torch.autograd.Function):
    """Computes the gradients in the forward pass, while a chunk's logits are there; backward scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        target: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        place: torch.Tensor | None,
        *options: Any,
    ) -> torch.Tensor:
        loss, factor, *gradients = linear_cross_entropy_fwd(x, target, weight, bias, *options)
        ctx.save_for_backward(factor, place, *gradients)
        ctx.dtypes = x.dtype, weight.dtype, None if bias is None else bias.dtype
        return loss  # type: ignore[no-any-return]

    @staticmethod
    @first_order("fused_linear_cross_entropy_loss")
    def backward(ctx: Any, saved: tuple[Any, ...], dloss: torch.Tensor) -> tuple[Any, ...]:
        factor, _, *gradients = saved
        # Of shape [1], not [], so that the product is taken in the dtype of the factor and rounded once.
        scale = (dloss * factor).reshape(1)
        needed = (ctx.needs_input_grad[0], *ctx.needs_input_grad[2:4])
        dx, dweight, dbias = (
            (gradient * scale).to(dtype) if wanted else None
            for gradient, dtype, wanted in zip(gradients, ctx.dtypes, needed)
        )
        return dx, None, dweight, dbias, *(None,) * (len(ctx.needs_input_grad) - 4)


def linear_cross_entropy_ref(
    x: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    reduction: str,
    options: LossOptions,
) -> torch.Tensor:
    """The loss of all logits at once, autograd's to differentiate as often as is asked for."""
    logits = F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
    return reduce_rows_ref(target, *row_statistics_ref(logits, target, options), reduction, options)[0]
