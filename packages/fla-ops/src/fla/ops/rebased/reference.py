"""ReBased by the matrix of weights: what every other implementation is held against."""

from __future__ import annotations

import math
from typing import Any

import torch

from fla.ops.based.reference import State, attend_by_weights, naive_half_square


def naive_parallel_rebased(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None = None,
    use_norm: bool = True,
    eps: float = 1e-5,
    return_both: bool = False,
    initial_state: State | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> Any:
    r"""Weights :math:`(scale \cdot q_i \cdot k_j)^2`, over their sum + eps.

    Runs in float64 on float64 inputs and in float32 on all others, on any device, differentiated by autograd.
    Results, and arguments that are not those of :func:`fla.ops.based.naive_parallel_based`, are those of
    :func:`fla.ops.rebased.parallel_rebased`.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    o, total, state, z = attend_by_weights(
        q,
        k,
        v,
        lambda x: (scale * x).square(),
        lambda x: math.sqrt(2) * scale * naive_half_square(x) * (math.sqrt(2) * scale),
        naive_half_square,
        initial_state,
        cu_seqlens,
    )
    if use_norm and not return_both:
        o = o / (total + eps)
    results = [o.to(v.dtype)]
    if return_both:
        results.append(total.squeeze(-1))
    if output_final_state:
        results.append((state, z) if use_norm or return_both else state)  # type: ignore[arg-type]
    return tuple(results) if len(results) > 1 else results[0]
