"""Attention whose weights are a polynomial of degree two, by the matrix of weights: what the rest is held against."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from fla.utils._varlen import boundaries

State = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


def naive_parallel_based(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None = None,
    use_norm: bool = True,
    initial_state: State | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> torch.Tensor | tuple[torch.Tensor, State]:
    r"""Weights :math:`1 + s + s^2 / 2`, :math:`s = scale \cdot q_i \cdot k_j`, over their sum :math:`+ 10^{-6}`.

    Runs in float64 on float64 inputs and in float32 on all others, on any device, differentiated by autograd.
    Arguments and results are those of :func:`fla.ops.based.parallel_based`.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale

    def features(x: torch.Tensor) -> torch.Tensor:
        squared = naive_half_square(torch.cat([torch.ones_like(x[..., :1]), x], -1))
        return torch.cat([torch.ones_like(x[..., :1]), squared[..., 1:]], -1)

    o, total, state, z = attend_by_weights(
        q, k, v, lambda x: 1 + scale * x + (scale * x).square() / 2, lambda x: features(scale * x), features,
        initial_state, cu_seqlens,
    )  # fmt: skip
    if use_norm:
        o = o / (total + 1e-6)
    o = o.to(v.dtype)
    return (o, (state, z) if use_norm else state) if output_final_state else o


def naive_half_square(x: torch.Tensor) -> torch.Tensor:
    """The features of :func:`fla.ops.based.feature_map.half_square`, one after the other."""
    dim = x.shape[-1]
    features = []
    for shift in range(dim // 2 + 1):
        weight = math.sqrt(0.5) if shift in (0, dim / 2) else 1.0
        features += [weight * x[..., i] * x[..., (i + shift) % dim] for i in range(dim)]
    features += [torch.zeros_like(x[..., 0])] * (-len(features) % 8)
    return torch.stack(features, -1)


def attend_by_weights(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    weight: Callable[[torch.Tensor], torch.Tensor],
    query_features: Callable[[torch.Tensor], torch.Tensor],
    key_features: Callable[[torch.Tensor], torch.Tensor],
    initial_state: State | None,
    cu_seqlens: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The sums of values ``[B, T, H, V]`` and of ones ``[B, T, H, 1]`` by weights ``weight(q . k)``, and the state.

    What came before the first step is known by its features: S ``[N, H, F, V]`` and z ``[N, 1, H, F]``.
    """
    dtype = torch.promote_types(q.dtype, torch.float32)
    q_, k_, v_ = (x.to(dtype).transpose(1, 2) for x in (q, k, v))
    v_ = torch.cat([v_, torch.ones_like(v_[..., :1])], -1)
    past = None
    if initial_state is not None:
        # Without a normaliser nobody looks at z.
        s, z = (initial_state, None) if isinstance(initial_state, torch.Tensor) else initial_state
        column = torch.zeros_like(s[..., :1]) if z is None else z.permute(0, 2, 3, 1)
        past = torch.cat([s, column], -1).to(dtype)
    ends = [0, q.shape[1]] if cu_seqlens is None else boundaries(cu_seqlens, q.shape[1])
    sums, states = [], []
    for n, (start, end) in enumerate(zip(ends, ends[1:])):
        q_n, k_n, v_n = (x[:, :, start:end] for x in (q_, k_, v_))
        o = weight(q_n @ k_n.mT).tril() @ v_n
        state = key_features(k_n).mT @ v_n
        if past is not None:
            before = past if cu_seqlens is None else past[n : n + 1]
            o, state = o + query_features(q_n) @ before, before + state
        sums.append(o.transpose(1, 2))
        states.append(state)
    total, state = torch.cat(sums, 1), torch.cat(states)
    return total[..., :-1], total[..., -1:], state[..., :-1], state[..., -1:].permute(0, 3, 1, 2)
