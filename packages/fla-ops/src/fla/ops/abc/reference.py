"""Attention with bounded memory control, step by step."""

from __future__ import annotations

import torch

from fla.ops.gsa.reference import gsa_reference


def abc_reference(
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
    return gsa_reference(
        q,
        k,
        v,
        s=s,
        scale=scale,
        initial_state=initial_state,
        output_final_state=output_final_state,
        cu_seqlens=cu_seqlens,
    )


#: Its older name.
naive_recurrent_abc = abc_reference
