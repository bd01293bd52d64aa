"""Host side of ``chunk_gla``: the registered ops, what is saved for the backward pass, and which backend runs."""

from __future__ import annotations

import torch

from fla.ops._engines.channel_decay.algorithm import chunk_gla_bwd_torch, chunk_gla_fwd_torch
from fla.ops._shared.arguments import as_asked, keys_first, state_like
from fla.ops._shared.autograd import state_function
from fla.utils.registration import fake_gradients, register_op
from fla.utils.tiles import tile_key

_LAUNCH = "fla.ops._engines.channel_decay.launch"


def _fwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    u: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    backend: str,
    save_scores: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return o, the final state, and the scores of each chunk if they are saved."""
    raise NotImplementedError


def _fwd_fake(
    q: torch.Tensor, v: torch.Tensor, cu_seqlens: torch.Tensor | None, backend: str, save_scores: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if save_scores and backend == "triton":
        from fla.ops._engines.channel_decay.tiles import CHUNK_TILES

        scores = q.new_empty((*q.shape[:3], CHUNK_TILES.choose(tile_key(q, v.shape[-1])).chunk))
    else:
        scores = q.new_empty(0)
    return v.new_empty(v.shape), state_like(q, v, cu_seqlens), scores


def _bwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    u: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    scores: torch.Tensor,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of the operands and of the initial state."""
    raise NotImplementedError


chunk_gla_fwd = register_op(
    "chunk_gla_fwd", _fwd, _fwd_fake, algorithm=chunk_gla_fwd_torch, launch=f"{_LAUNCH}:chunk_gla_fwd_triton"
)
chunk_gla_bwd = register_op(
    "chunk_gla_bwd",
    _bwd,
    fake_gradients(_bwd, state_like),
    algorithm=chunk_gla_bwd_torch,
    launch=f"{_LAUNCH}:chunk_gla_bwd_triton",
)


_chunk_gla = state_function(chunk_gla_fwd, chunk_gla_bwd, tells=True)


def run_chunk_gla(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    output_final_state: bool,
    state_v_first: bool,
    backend: str,
    u: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`fla.ops.gla.chunk_gla` on checked arguments.

    With ``u [H, K]`` a step reads ``S_{t-1} + diag(u) k_t v_t^T`` instead of ``S_t``.
    """
    initial_state = keys_first(initial_state, state_v_first)
    o, final_state = _chunk_gla((scale, backend), cu_seqlens, initial_state, q, k, v, g, u)
    return o, as_asked(final_state, state_v_first) if output_final_state else None
