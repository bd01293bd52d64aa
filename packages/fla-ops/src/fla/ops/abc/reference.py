"""Attention with bounded memory control, step by step."""

from __future__ import annotations

import torch

from fla.ops.gsa.reference import naive_recurrent_gsa


def naive_recurrent_abc(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    s: torch.Tensor,
    initial_state: tuple[torch.Tensor, ...] | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    scale: float | None = None,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...] | None]:
    """Gated slot attention without a gate, which normalises its writes; see :func:`fla.ops.abc.chunk_abc`."""
    return naive_recurrent_gsa(q, k, v, s, None, scale, initial_state, output_final_state, cu_seqlens=cu_seqlens)
