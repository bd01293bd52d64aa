"""Host side of the linear cross entropy: loss and all gradients in one walk over chunks of rows."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from fla.modules.fused_cross_entropy.function import logit_gradient, row_statistics
from fla.modules.fused_cross_entropy.options import LossOptions
from fla.utils._registration import register_op


def _walk(
    x: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    mean: bool,
    num_chunks: int,
    l2_penalty: float,
    wide_sums: bool,
    needs_gradient: bool,
    backend: str,
    ignore_index: int,
    label_smoothing: float,
    logit_scale: float,
    softcapping: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss and the gradients of x, weight and bias for a loss gradient of 1 (empty where not needed)."""
    options = LossOptions(ignore_index, label_smoothing, logit_scale, softcapping=softcapping, classes=weight.shape[0])
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    sum_dtype = exact if wide_sums else weight.dtype
    factor = torch.ones((), dtype=exact, device=x.device)
    if mean:
        factor = factor / (target != ignore_index).sum().clamp(min=1)
    narrow_weight = weight.to(x.dtype)
    loss = x.new_zeros((), dtype=exact)
    dx = torch.empty_like(x) if needs_gradient else x.new_empty(0)
    dweight = torch.zeros_like(weight, dtype=sum_dtype) if needs_gradient else x.new_empty(0)
    dbias = torch.zeros_like(bias, dtype=sum_dtype) if needs_gradient and bias is not None else x.new_empty(0)
    rows = -(-x.shape[0] // num_chunks)
    for start in range(0, x.shape[0], rows):
        part = slice(start, min(start + rows, x.shape[0]))
        logits = x[part] @ narrow_weight.t()
        if bias is not None:
            logits += bias.to(logits.dtype)
        lse, at_target, total = row_statistics(logits, target[part], options, backend)
        losses = lse - (1 - label_smoothing) * at_target - label_smoothing / options.classes * total
        loss += losses.masked_fill(target[part] == ignore_index, 0.0).sum() * factor
        if not needs_gradient:
            continue
        largest = logits.max(1, keepdim=True) if l2_penalty else None
        dlogits = logit_gradient(logits, target[part], lse, factor.expand(lse.shape), options, backend, inplace=True)
        if largest is not None:
            dlogits.scatter_add_(1, largest.indices, largest.values * (l2_penalty / x.shape[0]))
        dx[part] = dlogits @ narrow_weight
        dweight += dlogits.t() @ x[part]
        if bias is not None:
            dbias += dlogits.sum(0, dtype=exact)
    return loss, dx, dweight.to(weight.dtype), dbias if bias is None else dbias.to(bias.dtype)


def _walk_fake(
    x: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    mean: bool,
    num_chunks: int,
    l2_penalty: float,
    wide_sums: bool,
    needs_gradient: bool,
    backend: str,
    ignore_index: int,
    label_smoothing: float,
    logit_scale: float,
    softcapping: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    loss = x.new_empty((), dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
    if not needs_gradient:
        return loss, x.new_empty(0), weight.new_empty(0), x.new_empty(0)
    dbias = x.new_empty(0) if bias is None else bias.new_empty(bias.shape)
    return loss, x.new_empty(x.shape), weight.new_empty(weight.shape), dbias


linear_cross_entropy = register_op(
    "linear_cross_entropy",
    "(Tensor x, Tensor target, Tensor weight, Tensor? bias, bool mean, int num_chunks, float l2_penalty,"
    " bool wide_sums, bool needs_gradient, str backend, int ignore_index, float label_smoothing, float logit_scale,"
    " float softcapping) -> (Tensor, Tensor, Tensor, Tensor)",
    _walk,
    _walk_fake,
)


class LinearCrossEntropyFunction(torch.autograd.Function):
    """Computes the gradients in the forward pass, while a chunk's logits are there; backward scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        target: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *options: Any,
    ) -> torch.Tensor:
        mean, num_chunks, l2_penalty, wide_sums, backend, *loss_options = options
        needs_gradient = any(ctx.needs_input_grad)
        loss, dx, dweight, dbias = linear_cross_entropy(
            x, target, weight, bias, mean, num_chunks, l2_penalty, wide_sums, needs_gradient, backend, *loss_options
        )
        ctx.has_bias = bias is not None
        ctx.save_for_backward(dx, dweight, dbias)
        return loss  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: torch.Tensor) -> tuple[Any, ...]:
        dx, dweight, dbias = (d * dloss.to(d.dtype) for d in ctx.saved_tensors)
        return dx, None, dweight, dbias if ctx.has_bias else None, *(None,) * 9
