"""Kimi delta attention, step by step: what every other implementation is held against."""

from __future__ import annotations

import torch

from fla.ops.gated_delta_rule.reference import gated_delta_rule_reference


def kda_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    beta: torch.Tensor,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    state_v_first: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The recurrence :math:`S_t = (I - \beta_t k_t k_t^\top)\,\mathrm{diag}(e^{g_t})\,S_{t-1} + \beta_t k_t v_t^\top`.

    .. math:: o_t = scale \cdot S_t^\top q_t

    Runs in float64 on float64 inputs and in float32 on all others, on any device, differentiated by autograd.
    Arguments and results are those of :func:`fla.ops.kda.chunk_kda`.
    """
    return gated_delta_rule_reference(
        q,
        k,
        v,
        gk=g,
        beta=beta,
        scale=scale,
        initial_state=initial_state,
        output_final_state=output_final_state,
        state_v_first=state_v_first,
        cu_seqlens=cu_seqlens,
    )


#: Its older name.
naive_recurrent_kda = kda_reference
