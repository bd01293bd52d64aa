"""Based by its definition, and over features step by step: what every other implementation is held against."""

from __future__ import annotations

import math

import torch

from fla.ops.linear_attn.reference import State, naive_sums


def naive_parallel_based(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float | None = None, use_norm: bool = True
) -> torch.Tensor:
    r"""Weights :math:`1 + s + s^2 / 2`, :math:`s = scale \cdot q_i \cdot k_j`, over their sum :math:`+ 10^{-6}`.

    Quadratic in T. Runs in float64 on float64 inputs and in float32 on all others, differentiated by autograd.
    Arguments and result are those of :func:`fla.ops.based.parallel_based`.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    dtype = torch.promote_types(q.dtype, torch.float32)
    q_, k_, v_ = (x.to(dtype).transpose(1, 2) for x in (q, k, v))
    scores = scale * q_ @ k_.mT
    weights = (1 + scores + scores.square() / 2).tril()
    if use_norm:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-6)
    return (weights @ v_).transpose(1, 2).to(v.dtype)


def based_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None = None,
    use_norm: bool = True,
    initial_state: State | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> torch.Tensor | tuple[torch.Tensor, State | None]:
    """:func:`naive_parallel_based` as a recurrence over features; arguments and results as ``parallel_based``."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    dtype = torch.promote_types(q.dtype, torch.float32)
    features = naive_taylor(q.to(dtype) * scale), naive_taylor(k.to(dtype))
    o, total, state = naive_sums(
        *features, v.to(dtype), 1.0, initial_state, output_final_state, use_norm, False, cu_seqlens
    )
    o = (o if total is None else o / (total + 1e-6)).to(v.dtype)
    return (o, state) if output_final_state else o


#: Its older name.
naive_recurrent_based = based_reference


def naive_taylor(x: torch.Tensor) -> torch.Tensor:
    """The features of :func:`fla.ops._engines.second_order.features.taylor`, one after the other."""
    one = torch.ones_like(x[..., :1])
    return torch.cat([one, naive_half_square(torch.cat([one, x], -1))[..., 1:]], -1)


def naive_half_square(x: torch.Tensor) -> torch.Tensor:
    """The features of :func:`fla.ops._engines.second_order.features.half_square`, one after the other."""
    dim = x.shape[-1]
    features = []
    for shift in range(dim // 2 + 1):
        weight = math.sqrt(0.5) if shift in (0, dim / 2) else 1.0
        features += [weight * x[..., i] * x[..., (i + shift) % dim] for i in range(dim)]
    features += [torch.zeros_like(x[..., 0])] * (-len(features) % 8)
    return torch.stack(features, -1)
