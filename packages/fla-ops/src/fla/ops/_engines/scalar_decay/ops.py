"""Host side of ``chunk_simple_gla``: the registered ops, and which backend runs."""

from __future__ import annotations

import torch

from fla.ops._engines.scalar_decay.algorithm import chunk_simple_gla_bwd_torch, chunk_simple_gla_fwd_torch
from fla.ops._shared.arguments import as_asked, keys_first, output_and_state_like, state_like
from fla.ops._shared.autograd import state_function
from fla.utils.registration import register_op

_LAUNCH = "fla.ops._engines.scalar_decay.launch"


def _fwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    g_gamma: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return o and the final state."""
    raise NotImplementedError


def _bwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    g_gamma: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of the operands and of the initial state.

    A decay per head has none here: one that needs it comes as a decay per step.
    """
    raise NotImplementedError


def _bwd_fake(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, g: torch.Tensor | None, cu_seqlens: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
    dg = q.new_empty(0) if g is None else g.new_empty(g.shape)
    return dq, dk, dv, dg, q.new_empty(0), state_like(q, v, cu_seqlens)


chunk_simple_gla_fwd = register_op(
    "chunk_simple_gla_fwd",
    _fwd,
    output_and_state_like,
    algorithm=chunk_simple_gla_fwd_torch,
    launch=f"{_LAUNCH}:simple_gla_fwd_triton",
)
chunk_simple_gla_bwd = register_op(
    "chunk_simple_gla_bwd",
    _bwd,
    _bwd_fake,
    algorithm=chunk_simple_gla_bwd_torch,
    launch=f"{_LAUNCH}:simple_gla_bwd_triton",
)
_chunk_simple_gla = state_function(chunk_simple_gla_fwd, chunk_simple_gla_bwd)


def run_chunk_simple_gla(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    g_gamma: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    output_final_state: bool,
    state_v_first: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`fla.ops.simple_gla.chunk_simple_gla` on checked arguments, with at most one of the decays."""
    initial_state = keys_first(initial_state, state_v_first)
    o, final_state = _chunk_simple_gla((scale, backend), cu_seqlens, initial_state, q, k, v, g, g_gamma)
    return o, as_asked(final_state, state_v_first) if output_final_state else None
