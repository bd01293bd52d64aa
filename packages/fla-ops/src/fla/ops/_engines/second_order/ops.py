"""Host side of the chunked kernels over second-order features: the registered ops and their ``autograd.Function``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fla.ops._engines.normalised_reads.ops import LinearState
from fla.ops._engines.second_order.features import feature_width
from fla.utils.derivatives import first_order
from fla.utils.registration import register_op
from fla.utils.validation import count_sequences

_LAUNCH = "fla.ops._engines.second_order.launch"


def _states_like(
    q: torch.Tensor, v: torch.Tensor, cu_seqlens: torch.Tensor | None, taylor: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    rows = (count_sequences(cu_seqlens, q.shape[0]), q.shape[2], feature_width(q.shape[-1], taylor))
    return q.new_empty((*rows, v.shape[-1]), dtype=torch.float32), q.new_empty(rows, dtype=torch.float32)


def _fwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    state: torch.Tensor | None,
    z: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    eps: float | None,
    taylor: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return o, the sums of the weights, the final state and the final sum of the keys' features."""
    raise NotImplementedError


def _fwd_fake(
    q: torch.Tensor, v: torch.Tensor, cu_seqlens: torch.Tensor | None, taylor: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    totals = q.new_empty(q.shape[:3], dtype=torch.float32)
    return v.new_empty(v.shape), totals, *_states_like(q, v, cu_seqlens, taylor)


def _bwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    state: torch.Tensor | None,
    z: torch.Tensor | None,
    totals: torch.Tensor,
    do: torch.Tensor,
    dtotals: torch.Tensor | None,
    dstate: torch.Tensor | None,
    dz: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    eps: float | None,
    taylor: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of q, k, v, the initial state and the initial sum."""
    raise NotImplementedError


def _bwd_fake(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_seqlens: torch.Tensor | None, taylor: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
    return dq, dk, dv, *_states_like(q, v, cu_seqlens, taylor)


second_order_fwd = register_op("second_order_fwd", _fwd, _fwd_fake, launch=f"{_LAUNCH}:second_order_fwd_triton")
second_order_bwd = register_op("second_order_bwd", _bwd, _bwd_fake, launch=f"{_LAUNCH}:second_order_bwd_triton")


class _SecondOrder(torch.autograd.Function):
    """``(q, k, v, S, z, ...) -> (o, totals, S', z')``; totals are differentiable where o is not divided by them."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[torch.Tensor, ...]:
        *tensors, scale, eps, taylor = arguments
        results: tuple[torch.Tensor, ...] = second_order_fwd(*arguments)
        ctx.save_for_backward(*tensors, results[1])
        ctx.options = (scale, eps, taylor)
        ctx.like_o = (results[0].shape, results[0].dtype, results[0].device)
        ctx.set_materialize_grads(False)
        if eps is not None:
            ctx.mark_non_differentiable(results[1])
        return results

    @staticmethod
    @first_order("second_order")
    def backward(
        ctx: Any, saved: tuple[Any, ...], do: torch.Tensor | None, *others: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        *operands, cu_seqlens, totals = saved
        if do is None:
            shape, dtype, device = ctx.like_o
            do = torch.zeros(shape, dtype=dtype, device=device)
        gradients = second_order_bwd(*operands, totals, do, *others, cu_seqlens, *ctx.options)
        return *(None if x is None else dx.to(x.dtype) for x, dx in zip(operands, gradients)), *(None,) * 4


def run_second_order(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    eps: float | None,
    initial_state: LinearState | None,
    cu_seqlens: torch.Tensor | None,
    *,
    taylor: bool,
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    r"""Weights :math:`s^2 / 2`, :math:`s = scale \cdot q_i \cdot k_j`, and ``1 + s`` more for ``taylor``, on a GPU.

    Args:
        q: queries ``[B, T, H, K]``, checked as all else.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, H, V]``.
        scale: factor on the scores.
        eps: where given, outputs are divided by the sum of their weights and this.
        initial_state: ``(S, z)``, or S alone.
        cu_seqlens: boundaries of packed sequences.
        taylor: which weights.

    Returns:
        Outputs ``[B, T, H, V]``; the sums of weights ``[B, T, H]``, differentiable where eps is None; and the final S
        ``[N, H, F, V]`` and z ``[N, 1, H, F]``.
    """
    state, z = initial_state if isinstance(initial_state, (tuple, list)) else (initial_state, None)
    z = None if z is None else z.squeeze(1)
    tensors = (q, k, v, state, z)
    needs_grad = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
    # For inference: autograd's function costs as much as a small call.
    function: Callable[..., Any] = _SecondOrder.apply if needs_grad else second_order_fwd
    o, totals, state, z = function(*tensors, cu_seqlens, scale, eps, taylor)
    return o, totals, (state, z.unsqueeze(1))
