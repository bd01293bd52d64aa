"""Comba, step by step: what every other implementation is held against."""

from __future__ import annotations

import torch

from fla.ops.gated_delta_rule.reference import naive_recurrent_gated_delta_rule


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
    r"""The recurrence :math:`S_t = e^{g_t} (I - \beta_t k_t p_t^\top)\, S_{t-1} + \beta_t k_t v_t^\top`.

    .. math:: o_t = scale \cdot S_t^\top q_t

    Runs in float64 on float64 inputs and in float32 on all others, on any device, differentiated by autograd.
    Arguments and results are those of :func:`fla.ops.comba.chunk_comba`.
    """
    return naive_recurrent_gated_delta_rule(
        q, k, v, beta, g, scale, initial_state, output_final_state, p=p, cu_seqlens=cu_seqlens
    )
