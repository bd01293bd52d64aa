"""ReBased by its definition, and over features step by step: what every other implementation is held against."""

from __future__ import annotations

from typing import Any

import torch

from fla.ops.based.reference import naive_half_square
from fla.ops.linear_attn.reference import State, naive_sums


def naive_parallel_rebased(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float | None = None, use_norm: bool = True
) -> torch.Tensor:
    r"""Weights :math:`(scale \cdot q_i \cdot k_j)^2`, over their sum :math:`+ 10^{-5}`.

    Quadratic in T. Runs in float64 on float64 inputs and in float32 on all others, differentiated by autograd.
    Arguments and result are those of :func:`fla.ops.rebased.parallel_rebased`.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    dtype = torch.promote_types(q.dtype, torch.float32)
    q_, k_, v_ = (x.to(dtype).transpose(1, 2) for x in (q, k, v))
    weights = (scale * q_ @ k_.mT).square().tril()
    if use_norm:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-5)
    return (weights @ v_).transpose(1, 2).to(v.dtype)


def rebased_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    eps: float = 1e-5,
    use_scale: bool = True,
    use_normalize: bool = True,
    return_both: bool = False,
    initial_state: State | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> Any:
    """:func:`naive_parallel_rebased` as a recurrence over features; arguments and results as ``parallel_rebased``."""
    scale = q.shape[-1] ** -0.5 if use_scale else 1.0
    dtype = torch.promote_types(q.dtype, torch.float32)
    features = naive_half_square(q.to(dtype)), naive_half_square(k.to(dtype))
    o, total, state = naive_sums(
        *features,
        v.to(dtype),
        2 * scale**2,
        initial_state,
        output_final_state,
        use_normalize or return_both,
        False,
        cu_seqlens,
    )
    results: list[Any] = []
    if return_both:
        assert total is not None
        results.append(total.squeeze(-1))
    elif total is not None:
        o = o / (total + eps)
    if output_final_state:
        results.append(state)
    return (o.to(v.dtype), *results) if results else o.to(v.dtype)


#: Its older name.
naive_recurrent_rebased = rebased_reference
