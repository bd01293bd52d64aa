"""Launchers of the chunked gated linear attention kernels: two launches forward, four backward."""

from __future__ import annotations

import torch
import triton

from fla.ops._engines.channel_decay import kernels
from fla.ops._engines.channel_decay.tiles import CHUNK_TILES, ChunkTile
from fla.ops._shared.chunk_launch import Chunks, cut, half_spans, precision
from fla.utils.plans import launch
from fla.utils.sum_launch import sum_parts
from fla.utils.tiles import launch_grid, tile_key


def _carry_states(
    x: torch.Tensor,
    y: torch.Tensor,
    g: torch.Tensor,
    start: torch.Tensor | None,
    scale: float,
    chunks: Chunks,
    tile: ChunkTile,
    reverse: bool = False,
    bonus: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The (gradient of the) state before every chunk ``[M, H, K, V]``, and after the last ``[N, H, K, V]``."""
    total, heads, key_dim, value_dim = *x.shape[1:], y.shape[-1]
    states = x.new_empty(chunks.total, heads, key_dim, value_dim)
    end = x.new_empty(chunks.sequences, heads, key_dim, value_dim, dtype=torch.float32)
    blocks = triton.cdiv(key_dim, tile.state.k) * triton.cdiv(value_dim, tile.state.v)
    launch(
        kernels.channel_decay_state_kernel,
        launch_grid(blocks, chunks.sequences, heads),
        x,
        y,
        g,
        states,
        start,
        end,
        chunks.cu_seqlens,
        chunks.first_chunk,
        scale,
        total,
        H=heads,
        K=key_dim,
        V=value_dim,
        C=tile.chunk,
        BK=tile.state.k,
        BV=tile.state.v,
        HAS_START=start is not None,
        REVERSE=reverse,
        BONUS=bonus,
        PACKED=chunks.packed,
        PRECISION=precision(),
        num_warps=tile.state.warps,
        num_stages=tile.state.stages,
    )
    return states, end


def chunk_gla_fwd_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    u: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    save_scores: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, H, V]``, final states ``[N, H, K, V]`` and scores ``[B, T, H, C]`` (empty unless saved)."""
    q, k, v, g = (x.contiguous() for x in (q, k, v, g))
    initial_state = None if initial_state is None else initial_state.contiguous()
    total, heads, key_dim, value_dim = *q.shape[1:], v.shape[-1]
    tile = CHUNK_TILES.choose(tile_key(q, value_dim))
    chunks = cut(q, cu_seqlens, tile.chunk)
    states, final_state = _carry_states(k, v, g, initial_state, 1.0, chunks, tile)
    o = torch.empty_like(v)
    scores = q.new_empty(*q.shape[:3], tile.chunk) if save_scores else q.new_empty(0)
    grid = launch_grid(triton.cdiv(value_dim, tile.output.v), chunks.total, heads=heads)
    launch(
        kernels.channel_decay_output_fwd_kernel,
        grid,
        q,
        k,
        v,
        g,
        u,
        half_spans(q, tile.chunk, u is not None, q.dtype),
        states,
        o,
        scores,
        chunks.cu_seqlens,
        chunks.sequence,
        chunks.first_chunk,
        scale,
        total,
        H=heads,
        K=key_dim,
        V=value_dim,
        C=tile.chunk,
        LEVELS=tile.levels,
        BK=tile.output.k,
        BV=tile.output.v,
        STORE_SCORES=save_scores,
        BONUS=u is not None,
        PACKED=chunks.packed,
        PRECISION=precision(),
        num_warps=tile.output.warps,
        num_stages=tile.output.stages,
    )
    return o, final_state, scores


def chunk_gla_bwd_triton(
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
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Gradients of q, k, v, g, u and the initial states."""
    q, k, v, g, do = (x.contiguous() for x in (q, k, v, g, do))
    initial_state = None if initial_state is None else initial_state.contiguous()
    dfinal_state = None if dfinal_state is None else dfinal_state.contiguous()
    total, heads, key_dim, value_dim = *q.shape[1:], v.shape[-1]
    tile = CHUNK_TILES.choose(tile_key(q, value_dim))
    chunks = cut(q, cu_seqlens, tile.chunk)
    states, _ = _carry_states(k, v, g, initial_state, 1.0, chunks, tile)
    dstates, dinitial_state = _carry_states(q, do, g, dfinal_state, scale, chunks, tile, True, u is not None)
    dq, dk, dv, dg = (torch.empty_like(x) for x in (q, k, v, g))
    # Chunks past the end of packed sequences store nothing.
    du = None if u is None else q.new_zeros(chunks.total, heads, key_dim, dtype=torch.float32)
    where = (chunks.cu_seqlens, chunks.sequence, chunks.first_chunk)
    grid = launch_grid(triton.cdiv(value_dim, tile.value_grad.v), chunks.total, heads=heads)
    launch(
        kernels.channel_decay_value_bwd_kernel,
        grid,
        k,
        g,
        scores,
        do,
        dstates,
        dv,
        *where,
        total,
        H=heads,
        K=key_dim,
        V=value_dim,
        C=tile.chunk,
        BK=tile.value_grad.k,
        BV=tile.value_grad.v,
        PACKED=chunks.packed,
        PRECISION=precision(),
        num_warps=tile.value_grad.warps,
        num_stages=tile.value_grad.stages,
    )
    launch(
        kernels.channel_decay_key_bwd_kernel,
        launch_grid(triton.cdiv(key_dim, tile.key_grad.k), chunks.total, heads=heads),
        q,
        k,
        v,
        g,
        u,
        half_spans(q, tile.chunk, u is not None, q.dtype),
        states,
        do,
        dstates,
        dq,
        dk,
        dg,
        du,
        *where,
        scale,
        total,
        H=heads,
        K=key_dim,
        V=value_dim,
        C=tile.chunk,
        LEVELS=tile.levels,
        BK=tile.key_grad.k,
        BV=tile.key_grad.v,
        BONUS=u is not None,
        ONLY_Q=False,
        PACKED=chunks.packed,
        PRECISION=precision(),
        num_warps=tile.key_grad.warps,
        num_stages=tile.key_grad.stages,
    )
    return dq, dk, dv, dg, None if u is None or du is None else sum_parts(du, u.dtype), dinitial_state


def value_decay_fwd_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, H, V]`` in float32 and final states ``[N, H, V, K]`` where the values decay."""
    q, k, v, g = (x.contiguous() for x in (q, k, v, g))
    initial_state = None if initial_state is None else initial_state.contiguous()
    total, heads, key_dim, value_dim = *q.shape[1:], v.shape[-1]
    # The parts of gated linear attention: the decaying values are its keys, the keys its values, q the gradient.
    tile = CHUNK_TILES.choose(tile_key(v, key_dim))
    chunks = cut(q, cu_seqlens, tile.chunk)
    states, final_state = _carry_states(v, k, g, initial_state, 1.0, chunks, tile)
    o = torch.empty_like(v, dtype=torch.float32)
    grid = launch_grid(triton.cdiv(value_dim, tile.key_grad.k), chunks.total, heads=heads)
    launch(
        kernels.channel_decay_key_bwd_kernel,
        grid,
        None,
        v,
        k,
        g,
        None,
        half_spans(q, tile.chunk, False, q.dtype),
        states,
        q,
        None,
        o,
        None,
        None,
        None,
        chunks.cu_seqlens,
        chunks.sequence,
        chunks.first_chunk,
        scale,
        total,
        H=heads,
        K=value_dim,
        V=key_dim,
        C=tile.chunk,
        LEVELS=tile.levels,
        BK=tile.key_grad.k,
        BV=tile.key_grad.v,
        BONUS=False,
        ONLY_Q=True,
        PACKED=chunks.packed,
        PRECISION=precision(),
        num_warps=tile.key_grad.warps,
        num_stages=tile.key_grad.stages,
    )
    return o, final_state
