"""Host side of the chunked gated delta rule: the registered ops, and which backend runs."""

from __future__ import annotations

import torch

from fla.ops._engines.delta.algorithm import chunk_gated_delta_rule_bwd_torch, chunk_gated_delta_rule_fwd_torch
from fla.ops._shared.arguments import as_asked, keys_first, state_like
from fla.ops._shared.autograd import autograd_function, state_function
from fla.utils.registration import fake_gradients, register_op
from fla.utils.tiles import tile_key

_LAUNCH = "fla.ops._engines.delta.launch"


def _fwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    p: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    backend: str,
    save: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return o, the final state, and scores and corrections if they are saved."""
    raise NotImplementedError


def _kept(g: torch.Tensor | None, backend: str, save: bool) -> bool:
    """Whether scores and corrections are kept for the backward pass, which makes them again if decay is by channel."""
    return save and backend == "triton" and (g is None or g.dim() == 3)


def _fwd_fake(
    q: torch.Tensor, v: torch.Tensor, g: torch.Tensor | None, cu_seqlens: torch.Tensor | None, backend: str, save: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    if _kept(g, backend, save):
        from fla.ops._engines.delta.tiles import CHUNK_TILES, halves

        chunk = CHUNK_TILES[0 if g is None else 2].choose(tile_key(q, v.shape[-1])).chunk
        scores = q.new_empty((*v.shape[:3], chunk))
        corrections = q.new_empty((halves(q.dtype), *scores.shape))
    else:
        scores, corrections = q.new_empty(0), q.new_empty(0)
    return v.new_empty(v.shape), state_like(q, v, cu_seqlens), scores, corrections


def _bwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    p: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    scores: torch.Tensor,
    corrections: torch.Tensor,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    backend: str,
) -> list[torch.Tensor]:
    """Return the gradients of the operands and of the initial state."""
    raise NotImplementedError


chunk_gated_delta_rule_fwd = register_op(
    "chunk_gated_delta_rule_fwd",
    _fwd,
    _fwd_fake,
    algorithm=chunk_gated_delta_rule_fwd_torch,
    launch=f"{_LAUNCH}:chunk_gated_delta_rule_fwd_triton",
)
chunk_gated_delta_rule_bwd = register_op(
    "chunk_gated_delta_rule_bwd",
    _bwd,
    fake_gradients(_bwd, state_like),
    algorithm=chunk_gated_delta_rule_bwd_torch,
    launch=f"{_LAUNCH}:chunk_gated_delta_rule_bwd_triton",
)
#: Imported by name elsewhere. Its ``apply`` takes what :func:`fla.ops._shared.autograd.autograd_function` says.
ChunkGatedDeltaRuleFunction = autograd_function(chunk_gated_delta_rule_fwd, chunk_gated_delta_rule_bwd, tells=True)
_chunk_gated_delta_rule = state_function(chunk_gated_delta_rule_fwd, chunk_gated_delta_rule_bwd, tells=True)


def run_chunk_gated_delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    p: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    output_final_state: bool,
    state_v_first: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`fla.ops.gated_delta_rule.chunk_gated_delta_rule` on checked arguments.

    The decay ``g`` is ``[B, T, HV]``, ``[B, T, HV, K]`` or None. With the erase key ``p [B, T, H, K]`` a step reads the
    state there, and not at k, and before it decays.
    """
    initial_state = keys_first(initial_state, state_v_first)
    o, final_state = _chunk_gated_delta_rule((scale, backend), cu_seqlens, initial_state, q, k, v, beta, g, p)
    return o, as_asked(final_state, state_v_first) if output_final_state else None
