"""Comba, step by step: what every other implementation is held against."""

from __future__ import annotations

import torch

from fla.ops._shared.arguments import sum_dtype
from fla.ops.generalized_delta_rule.reference import generalized_delta_rule_reference


def comba_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    p: torch.Tensor,
    g: torch.Tensor,
    beta: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The recurrence :math:`S_t = e^{g_t} S_{t-1} + \beta_t k_t (v_t - S_{t-1}^\top p_t)^\top`.

    .. math:: o_t = scale \cdot S_t^\top q_t

    Runs in float64 on float64 inputs and in float32 on all others, on any device, differentiated by autograd.
    Arguments and results are those of :func:`fla.ops.comba.chunk_comba`.
    """
    q_, k_, p_ = (x.to(sum_dtype(q)).repeat_interleave(v.shape[2] // q.shape[2], 2) for x in (q, k, p))
    written = k_ if beta is None else k_ * beta.to(k_.dtype).unsqueeze(-1)
    decay = g.unsqueeze(-1)
    return generalized_delta_rule_reference(
        q_,
        written,
        v,
        a=p_,
        b=-written,
        gk=decay,
        scale=scale,
        initial_state=initial_state,
        output_final_state=output_final_state,
        cu_seqlens=cu_seqlens,
    )


def naive_recurrent_comba(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    p: torch.Tensor,
    beta: torch.Tensor | None,
    g: torch.Tensor,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`comba_reference` in flash-linear-attention's order of arguments: beta before g."""
    return comba_reference(
        q,
        k,
        v,
        p=p,
        g=g,
        beta=beta,
        scale=scale,
        initial_state=initial_state,
        output_final_state=output_final_state,
        cu_seqlens=cu_seqlens,
    )
