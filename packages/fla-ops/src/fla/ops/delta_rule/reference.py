"""The delta rule, step by step: what every other implementation is held against."""

from __future__ import annotations

import torch

from fla.ops.gated_delta_rule.reference import gated_delta_rule_reference


def delta_rule_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The recurrence :math:`S_t = S_{t-1} + k_t (\beta_t \odot (v_t - S_{t-1}^\top k_t))^\top`.

    .. math:: o_t = scale \cdot S_t^\top q_t

    Runs in float64 on float64 inputs and in float32 on all others, on any device, differentiated by autograd.
    Arguments and results are those of :func:`fla.ops.delta_rule.fused_recurrent_delta_rule`.
    """
    return gated_delta_rule_reference(
        q,
        k,
        v,
        beta=beta,
        scale=scale,
        initial_state=initial_state,
        output_final_state=output_final_state,
        cu_seqlens=cu_seqlens,
    )


#: Its older name.
naive_recurrent_delta_rule = delta_rule_reference


def delta_rule_recurrence(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = True,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`delta_rule_reference` by another name, with the scale left at ``K ** -0.5``."""
    return delta_rule_reference(q, k, v, beta=beta, initial_state=initial_state, output_final_state=output_final_state)
