"""The gated delta product, step by step: what every other implementation is held against."""

from __future__ import annotations

import torch

from fla.ops._shared.arguments import sum_dtype
from fla.utils.varlen import boundaries


def gated_delta_product_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    beta: torch.Tensor,
    num_householder: int,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""Decay the state, correct it under each of the token's keys in turn, and read it.

    .. math::
        S_t = \Big(\prod_{i=n}^{1} (I - \beta_{t,i} k_{t,i} k_{t,i}^\top)\Big) e^{g_t} S_{t-1}
        + \text{what the } n \text{ steps write}, \qquad o_t = scale \cdot S_t^\top q_t

    Runs in float64 on float64 inputs and in float32 on all others, on any device, differentiated by autograd.
    Arguments and results are those of :func:`fla.ops.gated_delta_product.fused_recurrent_gated_delta_product`.
    """
    dtype = sum_dtype(q)
    batch, total, heads, key_dim = q.shape
    value_heads, value_dim = v.shape[2:]
    scale = key_dim**-0.5 if scale is None else scale
    q_, k_ = (x.to(dtype).repeat_interleave(value_heads // heads, 2) for x in (q, k))
    k_, v_, beta_ = (x.to(dtype).unflatten(1, (total, num_householder)) for x in (k_, v, beta))
    ends = [0, total] if cu_seqlens is None else boundaries(cu_seqlens, total)
    rows = batch if cu_seqlens is None else 1
    outputs: list[torch.Tensor] = []
    states: list[torch.Tensor] = []
    for n, (start, end) in enumerate(zip(ends, ends[1:])):
        if initial_state is None:
            state = q_.new_zeros(rows, value_heads, key_dim, value_dim)
        else:
            state = (initial_state if cu_seqlens is None else initial_state[n : n + 1]).to(dtype)
        for t in range(start, end):
            if g is not None:
                state = state * g[:, t].to(dtype).exp()[..., None, None]
            for i in range(num_householder):
                read = torch.einsum("bhk,bhkv->bhv", k_[:, t, i], state)
                write = beta_[:, t, i, :, None] * (v_[:, t, i] - read)
                state = state + torch.einsum("bhk,bhv->bhkv", k_[:, t, i], write)
            outputs.append(scale * torch.einsum("bhk,bhkv->bhv", q_[:, t], state))
        states.append(state)
    return torch.stack(outputs, 1).to(v.dtype), torch.cat(states) if output_final_state else None


def naive_recurrent_gated_delta_product(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    beta: torch.Tensor,
    scale: float | None = None,
    cu_seqlens: torch.Tensor | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    num_householder: int = 1,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`gated_delta_product_reference` in flash-linear-attention's order of arguments."""
    return gated_delta_product_reference(
        q,
        k,
        v,
        g=g,
        beta=beta,
        num_householder=num_householder,
        scale=scale,
        initial_state=initial_state,
        output_final_state=output_final_state,
        cu_seqlens=cu_seqlens,
    )
