"""The public function of ReBased: what it computes and accepts."""

from __future__ import annotations

import math
from typing import Any

import torch

from fla.ops._engines.normalised_reads.ops import (
    RECURRENT_STEPS,
    LinearState,
    check_linear_state,
    run_linear_attn,
    sums_and_totals,
)
from fla.ops._engines.second_order.features import half_square, half_square_width
from fla.ops._engines.second_order.ops import run_second_order
from fla.ops._shared.arguments import check_heads, sum_dtype
from fla.ops.rebased.reference import rebased_reference
from fla.utils.backends import choose_backend


def parallel_rebased(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    eps: float = 1e-5,
    use_scale: bool = True,
    use_normalize: bool = True,
    return_both: bool = False,
    initial_state: LinearState | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    backend: str | None = None,
) -> Any:
    r"""Attention whose weights are the squares of scores, in linear time (ReBased, arXiv 2402.10644).

    .. math:: w_{ij} = (scale \cdot q_i \cdot k_j)^2, \qquad
        o_i = \sum_{j \le i} w_{ij} v_j \Big/ \Big(\sum_{j \le i} w_{ij} + eps\Big)

    It is linear attention over features :math:`\phi` with :math:`\phi(x) \cdot \phi(y) = (x \cdot y)^2 / 2`, of which
    there are F, about K squared over 2: 144 for K = 16. All is computed in float32 (float64 for float64 inputs), also
    for half-precision operands: the first few weights of a sequence may be so small that features in half precision
    would lose them. Only for bfloat16 on the Triton backend, where weights within a chunk of steps are squares of
    float32 scores, features and states are bfloat16 between chunks. Differentiable once in every floating argument.

    Args:
        q: queries ``[B, T, H, K]``; float32, bfloat16, float16, or float64 on the torch backend.
        k: keys ``[B, T, H, K]``.
        v: values ``[B, T, H, V]``.
        eps: added to the sum of the weights.
        use_scale: the scale is ``K ** -0.5``, else 1.
        use_normalize: divide by the sum of the weights.
        return_both: return the weighted sum of the values, not divided, and the sum of the weights.
        initial_state: state before the first step ``(S, z)``, S ``[N, H, F, V]`` the sum of :math:`\phi(k_j)
            v_j^\top` and z ``[N, 1, H, F]`` that of :math:`\phi(k_j)`; S alone where no sum of weights is asked for.
            N is B, or the number of packed sequences.
        output_final_state: also return the state after the last step.
        cu_seqlens: boundaries of packed sequences ``[N + 1]``, int32 or int64, from 0 to T; B must be 1.
        backend: ``"triton"``, ``"torch"`` or ``"reference"``; by device unless given.

    Returns:
        o ``[B, T, H, V]`` in the dtype of v; then, where asked for, the sum of the weights ``[B, T, H]`` and the
        final state, both in float32.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: an argument of the wrong shape, on another device, S without z where a sum of weights is asked
            for, or a backend that cannot run here.

    Example:
        >>> q, k = torch.randn(2, 1, 64, 2, 16)
        >>> v = torch.randn(1, 64, 2, 32)
        >>> parallel_rebased(q, k, v).shape
        torch.Size([1, 64, 2, 32])
    """
    scale = check_heads(q, k, v, {}, None if use_scale else 1.0, None, cu_seqlens)
    sums_weights = use_normalize or return_both
    width = half_square_width(q.shape[-1])
    check_linear_state(initial_state, sums_weights, q, v, width, cu_seqlens)
    chosen = choose_backend(q, backend)
    if chosen == "reference":
        return rebased_reference(
            q,
            k,
            v,
            eps=eps,
            use_scale=use_scale,
            use_normalize=use_normalize,
            return_both=return_both,
            initial_state=initial_state,
            output_final_state=output_final_state,
            cu_seqlens=cu_seqlens,
        )
    recurrent = q.shape[1] <= RECURRENT_STEPS
    divisor = eps if use_normalize and not return_both else None
    total: torch.Tensor | None = None
    final_state: LinearState | None
    if chosen == "triton" and not recurrent:
        # float16 does not hold the squares of channels that are not near one, nor what small sums divide.
        q_, k_, v_ = (x.float() if x.dtype == torch.float16 else x for x in (q, k, v))
        # Weights are halves of squares there.
        root = math.sqrt(2.0) * scale
        o, total, end = run_second_order(q_, k_, v_, root, divisor, initial_state, cu_seqlens, taylor=False)
        final_state = end if sums_weights else end[0]
    else:
        q_, k_, v_ = (x.to(sum_dtype(x)) for x in (q, k, v))
        features = (half_square(q_), half_square(k_), v_, 2 * scale**2)
        if return_both:
            assert not isinstance(initial_state, torch.Tensor)
            o, total, final_state = sums_and_totals(
                *features, initial_state, output_final_state, cu_seqlens, chosen, recurrent=recurrent
            )
            total = total.squeeze(-1)
        else:
            o, final_state = run_linear_attn(
                *features, divisor, initial_state, output_final_state, cu_seqlens, chosen, recurrent=recurrent
            )
    results = (*((total,) if return_both else ()), *((final_state,) if output_final_state else ()))
    return (o.to(v.dtype), *results) if results else o.to(v.dtype)
