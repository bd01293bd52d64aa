"""Lightning attention, step by step: what every other implementation is held against."""

from __future__ import annotations

import torch

from fla.ops.simple_gla.reference import simple_gla_reference


def lightning_attn_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    layer_idx: int,
    num_layers: int,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    reverse: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    r"""The recurrence :math:`S_t = e^{-s_h} S_{t-1} + k_t v_t^\top`, :math:`o_t = scale \cdot S_t^\top q_t`.

    :math:`s_h = 8 h / H \cdot (1 - layer\_idx / num\_layers)` for head h of H. Runs in float64 on float64 inputs and
    in float32 on all others, on any device, differentiated by autograd. Arguments and results are those of
    :func:`fla.ops.lightning_attn.fused_recurrent_lightning_attn`.
    """
    heads = v.shape[2]
    slopes = [8 * h * (num_layers - layer_idx) / (heads * num_layers) for h in range(heads)]
    g_gamma = -torch.tensor(slopes, dtype=torch.float64, device=v.device)
    return simple_gla_reference(
        q,
        k,
        v,
        g_gamma=g_gamma,
        scale=scale,
        initial_state=initial_state,
        output_final_state=output_final_state,
        reverse=reverse,
        cu_seqlens=cu_seqlens,
    )


#: Its older name.
naive_recurrent_lightning_attn = lightning_attn_reference
