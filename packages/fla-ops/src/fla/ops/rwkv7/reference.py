"""RWKV-7's recurrence, step by step: what every other implementation is held against."""

from __future__ import annotations

import torch

from fla.ops.generalized_delta_rule.reference import generalized_delta_rule_reference


def rwkv7_reference(
    r: torch.Tensor,
    w: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = True,
    cu_seqlens: torch.Tensor | None = None,
    reverse: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The recurrence in words of one step.

    .. math::
        S_t = (\mathrm{diag}(e^{w_t}) + b_t a_t^\top)\, S_{t-1} + k_t v_t^\top, \qquad o_t = scale \cdot S_t^\top r_t

    Runs in float64 on float64 inputs and in float32 on all others, on any device, differentiated by autograd.
    Arguments and results are those of :func:`fla.ops.rwkv7.fused_recurrent_rwkv7`.
    """
    return generalized_delta_rule_reference(
        r,
        k,
        v,
        a=a,
        b=b,
        gk=w,
        scale=scale,
        initial_state=initial_state,
        output_final_state=output_final_state,
        reverse=reverse,
        cu_seqlens=cu_seqlens,
    )


def naive_recurrent_rwkv7(
    r: torch.Tensor,
    w: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = True,
    reverse: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`rwkv7_reference` by its older name, where reverse comes before cu_seqlens."""
    return rwkv7_reference(
        r,
        w=w,
        k=k,
        v=v,
        a=a,
        b=b,
        scale=scale,
        initial_state=initial_state,
        output_final_state=output_final_state,
        cu_seqlens=cu_seqlens,
        reverse=reverse,
    )
