"""The generalized delta rule, step by step: what every other implementation is held against."""

from __future__ import annotations

import torch

from fla.ops._shared.arguments import sum_dtype
from fla.utils.varlen import boundaries


def generalized_delta_rule_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    gk: torch.Tensor | None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The recurrence in words of one step.

    .. math:: S_t = \mathrm{diag}(e^{gk_t}) S_{t-1} + b_t (S_{t-1}^\top a_t)^\top + k_t v_t^\top, \qquad
        o_t = scale \cdot S_t^\top q_t

    Runs in float64 on float64 inputs and in float32 on all others, on any device, differentiated by autograd.
    Arguments and results are those of :func:`fla.ops.generalized_delta_rule.fused_recurrent_dplr_delta_rule`; nothing
    decays where gk is None.
    """
    dtype = sum_dtype(q)
    batch, total, heads, key_dim = q.shape
    value_dim = v.shape[-1]
    scale = key_dim**-0.5 if scale is None else scale
    q_, k_, v_, a_, b_ = (x.to(dtype) for x in (q, k, v, a, b))
    decay = None if gk is None else gk.to(dtype).exp().unsqueeze(-1)

    ends = [0, total] if cu_seqlens is None else boundaries(cu_seqlens, total)
    rows = batch if cu_seqlens is None else 1
    outputs: list[torch.Tensor] = []
    states: list[torch.Tensor] = []
    for n, (start, end) in enumerate(zip(ends, ends[1:])):
        if initial_state is None:
            state = q_.new_zeros(rows, heads, key_dim, value_dim)
        else:
            state = (initial_state if cu_seqlens is None else initial_state[n : n + 1]).to(dtype)
        steps: list[torch.Tensor] = []
        for t in reversed(range(start, end)) if reverse else range(start, end):
            w = (a_[:, t, :, :, None] * state).sum(-2)
            if decay is not None:
                state = state * decay[:, t]
            state = state + b_[:, t, :, :, None] * w.unsqueeze(-2) + k_[:, t, :, :, None] * v_[:, t].unsqueeze(-2)
            steps.append(scale * (q_[:, t, :, :, None] * state).sum(-2))
        outputs += reversed(steps) if reverse else steps
        states.append(state)
    return torch.stack(outputs, 1).to(v.dtype), torch.cat(states) if output_final_state else None


def naive_recurrent_dplr_delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    gk: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`generalized_delta_rule_reference` by its older name, where gk may be left out."""
    return generalized_delta_rule_reference(
        q,
        k,
        v,
        a=a,
        b=b,
        gk=gk,
        scale=scale,
        initial_state=initial_state,
        output_final_state=output_final_state,
        reverse=reverse,
        cu_seqlens=cu_seqlens,
    )


def dplr_recurrence(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    alpha: torch.Tensor,
    beta: torch.Tensor,
    gk: torch.Tensor | None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = True,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`generalized_delta_rule_reference` with heads before time, ``[B, H, T, D]``, a and b by other names."""
    q, k, v, alpha, beta = (x.transpose(1, 2) for x in (q, k, v, alpha, beta))
    gk = None if gk is None else gk.transpose(1, 2)
    o, state = generalized_delta_rule_reference(
        q, k, v, a=alpha, b=beta, gk=gk, initial_state=initial_state, output_final_state=output_final_state
    )
    return o.transpose(1, 2), state


def iplr_recurrence(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    alpha: torch.Tensor,
    beta: torch.Tensor,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = True,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`dplr_recurrence` without decay."""
    return dplr_recurrence(q, k, v, alpha, beta, None, initial_state, output_final_state)
