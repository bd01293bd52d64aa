"""The gated delta rule, step by step: what every other implementation is held against."""

from __future__ import annotations

import torch

from fla.ops._shared.arguments import sum_dtype
from fla.utils.varlen import boundaries


def gated_delta_rule_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None = None,
    gk: torch.Tensor | None = None,
    gv: torch.Tensor | None = None,
    beta: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    state_v_first: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""Decay the state, read it at k, write there a share beta of what was missing.

    .. math::
        S'_t = e^{g_t + gk_t} (e^{gv_t})^\top \odot S_{t-1}, \qquad
        S_t = S'_t + k_t \left(\beta_t \odot (v_t - S'^\top_t k_t)\right)^\top, \qquad o_t = scale \cdot S_t^\top q_t

    Runs in float64 on float64 inputs and in float32 on all others, on any device, differentiated by autograd.
    Arguments and results are those of :func:`fla.ops.gated_delta_rule.fused_recurrent_gated_delta_rule`.
    """
    return _recurrence(
        q,
        k,
        v,
        p=None,
        g=g,
        gk=gk,
        gv=gv,
        beta=beta,
        scale=scale,
        initial_state=initial_state,
        output_final_state=output_final_state,
        state_v_first=state_v_first,
        cu_seqlens=cu_seqlens,
    )


def naive_recurrent_gated_delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor | None = None,
    g: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    gk: torch.Tensor | None = None,
    gv: torch.Tensor | None = None,
    p: torch.Tensor | None = None,
    state_v_first: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r""":func:`gated_delta_rule_reference` in flash-linear-attention's order of arguments: beta before g.

    With an erase key p ``[B, T, H, K]`` the state is read there instead, before it decays:
    :math:`v_t - S_{t-1}^\top p_t`.
    """
    return _recurrence(
        q,
        k,
        v,
        p=p,
        g=g,
        gk=gk,
        gv=gv,
        beta=beta,
        scale=scale,
        initial_state=initial_state,
        output_final_state=output_final_state,
        state_v_first=state_v_first,
        cu_seqlens=cu_seqlens,
    )


def _recurrence(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    p: torch.Tensor | None,
    g: torch.Tensor | None,
    gk: torch.Tensor | None,
    gv: torch.Tensor | None,
    beta: torch.Tensor | None,
    scale: float | None,
    initial_state: torch.Tensor | None,
    output_final_state: bool,
    state_v_first: bool,
    cu_seqlens: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    dtype = sum_dtype(q)
    batch, total, heads, key_dim = q.shape
    value_heads, value_dim = v.shape[2:]
    scale = key_dim**-0.5 if scale is None else scale
    q_, k_, p_ = (x.to(dtype).repeat_interleave(value_heads // heads, 2) for x in (q, k, k if p is None else p))
    v_ = v.to(dtype)
    beta_ = torch.ones_like(v_[..., 0]) if beta is None else beta.to(dtype)
    beta_ = beta_.unsqueeze(-1) if beta_.dim() == 3 else beta_
    decays = []
    if g is not None:
        decays.append(g.to(dtype).exp()[..., None, None])
    if gk is not None:
        decays.append(gk.to(dtype).exp().unsqueeze(-1))
    if gv is not None:
        decays.append(gv.to(dtype).exp().unsqueeze(-2))

    ends = [0, total] if cu_seqlens is None else boundaries(cu_seqlens, total)
    rows = batch if cu_seqlens is None else 1
    outputs: list[torch.Tensor] = []
    states: list[torch.Tensor] = []
    for n, (start, end) in enumerate(zip(ends, ends[1:])):
        if initial_state is None:
            state = q_.new_zeros(rows, value_heads, key_dim, value_dim)
        else:
            first = initial_state if cu_seqlens is None else initial_state[n : n + 1]
            state = (first.transpose(-1, -2) if state_v_first else first).to(dtype)
        for t in range(start, end):
            before = state
            for decay in decays:
                state = state * decay[:, t]
            missing = v_[:, t] - (p_[:, t, :, :, None] * (state if p is None else before)).sum(-2)
            state = state + k_[:, t, :, :, None] * (beta_[:, t] * missing).unsqueeze(-2)
            outputs.append(scale * (q_[:, t, :, :, None] * state).sum(-2))
        states.append(state)
    o = torch.stack(outputs, 1).to(v.dtype)
    if not output_final_state:
        return o, None
    final = torch.cat(states)
    return o, final.transpose(-1, -2).contiguous() if state_v_first else final
