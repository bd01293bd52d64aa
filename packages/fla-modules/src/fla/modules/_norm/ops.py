"""Host side of the norms on a GPU: the registered ops and what is saved for the backward pass."""

from __future__ import annotations

from typing import Any

import torch

from fla.modules._checks import needs_gradient
from fla.utils.derivatives import first_order
from fla.utils.registration import register_op

_LAUNCH = "fla.modules._norm.launch"


def _fwd(
    x: torch.Tensor,
    gate: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    kind: str,
    activation: str,
    eps: float,
    groups: int,
    out_dtype: torch.dtype,
    total_dtype: torch.dtype | None,
    quantise: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the result, and ``x + residual``."""
    raise NotImplementedError


def _fwd_fake(
    x: torch.Tensor, out_dtype: torch.dtype, total_dtype: torch.dtype | None
) -> tuple[torch.Tensor, torch.Tensor]:
    total = x.new_empty(0) if total_dtype is None else x.new_empty(x.shape, dtype=total_dtype)
    return x.new_empty(x.shape, dtype=out_dtype), total


def _bwd(
    total: torch.Tensor,
    gate: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    dy: torch.Tensor,
    dtotal: torch.Tensor | None,
    kind: str,
    activation: str,
    eps: float,
    groups: int,
    x_dtype: torch.dtype,
    residual_dtype: torch.dtype | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of x, residual, gate, weight and bias."""
    raise NotImplementedError


def _bwd_fake(
    total: torch.Tensor,
    gate: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    x_dtype: torch.dtype,
    residual_dtype: torch.dtype | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    separate = residual_dtype not in (None, x_dtype)
    return (
        total.new_empty(total.shape, dtype=x_dtype),
        total.new_empty(total.shape, dtype=residual_dtype) if separate else total.new_empty(0),
        *(total.new_empty(0) if p is None else p.new_empty(p.shape) for p in (gate, weight, bias)),
    )  # type: ignore[return-value]


norm_fwd = register_op("norm_fwd", _fwd, _fwd_fake, launch=f"{_LAUNCH}:norm_fwd")
norm_bwd = register_op("norm_bwd", _bwd, _bwd_fake, launch=f"{_LAUNCH}:norm_bwd")


class NormFunction(torch.autograd.Function):
    """Saves ``x + residual`` and the gate; the backward pass takes the statistics again.

    Gradients pass through the quantisation as if it were not there.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        gate: torch.Tensor | None,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        residual: torch.Tensor | None,
        options: Any,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        y, total = norm_fwd(x, gate, weight, bias, residual, *options)
        *shared, _, total_dtype, _ = options
        ctx.save_for_backward(x if total_dtype is None else total, gate, weight, bias)
        ctx.options = *shared, x.dtype, None if residual is None else residual.dtype
        ctx.set_materialize_grads(False)
        # torch.compile would hand zeros of its shape to the backward pass for an empty second output.
        return y if total_dtype is None else (y, total)

    @staticmethod
    @first_order("norm")
    def backward(
        ctx: Any, saved: tuple[Any, ...], dy: torch.Tensor | None, dtotal: torch.Tensor | None = None
    ) -> tuple[Any, ...]:
        total, gate, weight, bias = saved
        dy = torch.zeros_like(total) if dy is None else dy
        dx, dresidual, dgate, dweight, dbias = norm_bwd(total, gate, weight, bias, dy, dtotal, *ctx.options)
        x_dtype, residual_dtype = ctx.options[4:]
        if residual_dtype is None:
            dresidual = None
        elif residual_dtype == x_dtype:
            dresidual = dx
        return (
            dx,
            None if gate is None else dgate,
            None if weight is None else dweight,
            None if bias is None else dbias,
            dresidual,
            None,
        )


def run_norm_triton(
    x: torch.Tensor,
    gate: torch.Tensor | None,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    kind: str,
    activation: str,
    eps: float,
    groups: int,
    prenorm: bool,
    total_dtype: torch.dtype,
    out_dtype: torch.dtype,
    quantise: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`fla.modules._norm.run_norm` on checked arguments."""
    differentiate = needs_gradient(x, gate, weight, bias, residual)
    stored = total_dtype if residual is not None and (prenorm or differentiate) else None
    options = kind, activation, eps, groups, out_dtype, stored, quantise
    if differentiate:
        result = NormFunction.apply(x, gate, weight, bias, residual, options)  # type: ignore[no-untyped-call]
    else:
        result = norm_fwd(x, gate, weight, bias, residual, *options)
    if stored is not None:
        return result  # type: ignore[no-any-return]
    y = result if differentiate else result[0]
    return y, x.to(total_dtype) if prenorm else x
