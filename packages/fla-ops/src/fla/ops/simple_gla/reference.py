"""Linear attention with scalar decay, step by step: what every other implementation is held against."""

from __future__ import annotations

import torch

from fla.ops.gla.reference import gla_reference


def simple_gla_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None = None,
    g_gamma: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    state_v_first: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The recurrence :math:`S_t = e^{g_t + \gamma} S_{t-1} + k_t v_t^\top`, :math:`o_t = scale \cdot S_t^\top q_t`.

    It is that of gated linear attention with the same decay in every channel. Runs in float64 on float64 inputs and
    in float32 on all others, on any device, differentiated by autograd. Arguments and results are those of
    :func:`fla.ops.simple_gla.fused_recurrent_simple_gla`.
    """
    groups = v.shape[2] // q.shape[2]
    q, k = q.repeat_interleave(groups, 2), k.repeat_interleave(groups, 2)
    gk = None
    for decay in (g, g_gamma):
        if decay is not None:
            wide = decay.to(torch.promote_types(q.dtype, torch.float32)).unsqueeze(-1).expand_as(k)
            gk = wide if gk is None else gk + wide
    return gla_reference(
        q,
        k,
        v,
        gk=gk,
        scale=scale,
        initial_state=initial_state,
        output_final_state=output_final_state,
        reverse=reverse,
        state_v_first=state_v_first,
        cu_seqlens=cu_seqlens,
    )


def naive_recurrent_simple_gla(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    g_gamma: torch.Tensor | None = None,
    reverse: bool = False,
    state_v_first: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`simple_gla_reference` in flash-linear-attention's order of arguments."""
    return simple_gla_reference(
        q,
        k,
        v,
        g=g,
        g_gamma=g_gamma,
        scale=scale,
        initial_state=initial_state,
        output_final_state=output_final_state,
        reverse=reverse,
        state_v_first=state_v_first,
        cu_seqlens=cu_seqlens,
    )
