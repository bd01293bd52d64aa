"""Gated linear attention, step by step: what every other implementation is held against."""

from __future__ import annotations

import torch

from fla.ops._shared.arguments import sum_dtype
from fla.utils.varlen import boundaries


def gla_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    gk: torch.Tensor | None = None,
    gv: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    state_v_first: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The recurrence in words of one step, :math:`S_t = e^{gk_t} (e^{gv_t})^\top \odot S_{t-1} + k_t v_t^\top`.

    .. math:: o_t = scale \cdot S_t^\top q_t

    Runs in float64 on float64 inputs and in float32 on all others, on any device, differentiated by autograd.
    Arguments and results are those of :func:`fla.ops.gla.fused_recurrent_gla`.
    """
    dtype = sum_dtype(q)
    batch, total, heads, key_dim = q.shape
    value_dim = v.shape[-1]
    scale = key_dim**-0.5 if scale is None else scale
    q_, k_, v_ = (x.to(dtype) for x in (q, k, v))
    gk_, gv_ = (None if g is None else g.to(dtype).exp() for g in (gk, gv))

    ends = [0, total] if cu_seqlens is None else boundaries(cu_seqlens, total)
    rows = batch if cu_seqlens is None else 1
    outputs: list[torch.Tensor] = []
    states: list[torch.Tensor] = []
    for n, (start, end) in enumerate(zip(ends, ends[1:], strict=False)):
        if initial_state is None:
            state = q_.new_zeros(rows, heads, key_dim, value_dim)
        else:
            first = initial_state if cu_seqlens is None else initial_state[n : n + 1]
            state = (first.transpose(-1, -2) if state_v_first else first).to(dtype)
        steps: list[torch.Tensor] = []
        for t in reversed(range(start, end)) if reverse else range(start, end):
            if gk_ is not None:
                state = state * gk_[:, t, :, :, None]
            if gv_ is not None:
                state = state * gv_[:, t, :, None, :]
            state = state + k_[:, t, :, :, None] * v_[:, t, :, None, :]
            steps.append(scale * (q_[:, t, :, :, None] * state).sum(-2))
        outputs += reversed(steps) if reverse else steps
        states.append(state)
    o = torch.stack(outputs, 1).to(v.dtype)
    if not output_final_state:
        return o, None
    final = torch.cat(states)
    return o, final.transpose(-1, -2).contiguous() if state_v_first else final


def naive_recurrent_gla(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    gk: torch.Tensor | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    gv: torch.Tensor | None = None,
    scale: float | None = None,
    reverse: bool = False,
    state_v_first: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`gla_reference` in flash-linear-attention's order of arguments."""
    return gla_reference(
        q,
        k,
        v,
        gk=gk,
        gv=gv,
        scale=scale,
        initial_state=initial_state,
        output_final_state=output_final_state,
        reverse=reverse,
        state_v_first=state_v_first,
        cu_seqlens=cu_seqlens,
    )
