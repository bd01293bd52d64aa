"""The generalized delta rule step by step in plain PyTorch: decoding on any device."""

from __future__ import annotations

import torch

from fla.ops._shared.arguments import sum_dtype
from fla.utils.varlen import boundaries


def recurrent_dplr_delta_rule_fwd_torch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    gk: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, H, V]`` and final states ``[N, H, K, V]``."""
    dtype = sum_dtype(q)
    batch, total, heads, key_dim = q.shape
    q_, k_, v_, a_, b_ = (x.to(dtype) for x in (q, k, v, a, b))
    decay = None if gk is None else gk.to(dtype).exp().unsqueeze(-1)
    # Both writes of a step in one product.
    keys, values = torch.stack((b_, k_), -1), torch.stack((torch.empty_like(v_), v_), -2)
    ends = [0, total] if cu_seqlens is None else boundaries(cu_seqlens, total)
    sequences = batch if cu_seqlens is None else len(ends) - 1
    if initial_state is None:
        states = q_.new_zeros(sequences, heads, key_dim, v.shape[-1])
    else:
        states = initial_state.to(dtype, copy=True)
    o = torch.empty_like(v_)
    for state, start, end in zip(states.split(sequences // (len(ends) - 1)), ends, ends[1:]):
        for t in range(start, end):
            values[:, t, :, 0] = (a_[:, t, :, None, :] @ state).squeeze(-2)
            if decay is not None:
                state *= decay[:, t]
            state += keys[:, t] @ values[:, t]
            o[:, t] = (q_[:, t, :, None, :] @ state).squeeze(-2)
    return o.mul_(scale).to(v.dtype), states
