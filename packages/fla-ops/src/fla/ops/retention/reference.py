"""Retention, step by step: what every other implementation is held against."""

from __future__ import annotations

import torch

from fla.ops.simple_gla.reference import simple_gla_reference


def retention_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    state_v_first: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The recurrence :math:`S_t = (1 - 2^{-5-h}) S_{t-1} + k_t v_t^\top`, :math:`o_t = scale \cdot S_t^\top q_t`.

    Runs in float64 on float64 inputs and in float32 on all others, on any device, differentiated by autograd.
    Arguments and results are those of :func:`fla.ops.retention.fused_recurrent_retention`.
    """
    gamma = torch.tensor([1 - 0.5 ** (5 + h) for h in range(v.shape[2])], dtype=torch.float64, device=v.device)
    return simple_gla_reference(
        q,
        k,
        v,
        g_gamma=gamma.log(),
        scale=scale,
        initial_state=initial_state,
        output_final_state=output_final_state,
        reverse=reverse,
        state_v_first=state_v_first,
        cu_seqlens=cu_seqlens,
    )


#: Its older name.
naive_retention = retention_reference
