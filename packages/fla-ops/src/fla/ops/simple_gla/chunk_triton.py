"""Launchers of the chunked kernels of linear attention with scalar decay: two launches forward, four backward."""

from __future__ import annotations

import torch
import triton

from fla.ops._chunks_triton import Chunks, cut, precision
from fla.ops.simple_gla import chunk_kernels as kernels
from fla.ops.simple_gla.tiles import CHUNK_TILES, ChunkTile
from fla.utils._tiles import tile_key


def _decay(q: torch.Tensor, g: torch.Tensor | None, g_gamma: torch.Tensor | None) -> tuple[torch.Tensor, int]:
    """What the kernels take as g, and what kind of decay that is. Without any, g is never read."""
    if g is not None:
        return g.contiguous(), 2
    return (q, 0) if g_gamma is None else (g_gamma.contiguous(), 1)


def _carry_states(
    x: torch.Tensor,
    y: torch.Tensor,
    decay: tuple[torch.Tensor, int],
    start: torch.Tensor | None,
    scale: float,
    chunks: Chunks,
    tile: ChunkTile,
    reverse: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The (gradient of the) state before every chunk ``[M, HV, K, V]``, and after the last ``[N, HV, K, V]``."""
    total, heads, key_dim = x.shape[1:]
    value_heads, value_dim = y.shape[2:]
    states = x.new_empty(chunks.total, value_heads, key_dim, value_dim)
    end = x.new_empty(chunks.sequences, value_heads, key_dim, value_dim, dtype=torch.float32)
    blocks = triton.cdiv(key_dim, tile.state.k) * triton.cdiv(value_dim, tile.state.v)
    kernels.state_kernel[(blocks, chunks.sequences * value_heads)](
        x,
        y,
        decay[0],
        states,
        start,
        end,
        chunks.cu_seqlens,
        chunks.first_chunk,
        scale,
        total,
        H=heads,
        HV=value_heads,
        K=key_dim,
        V=value_dim,
        C=tile.chunk,
        BK=tile.state.k,
        BV=tile.state.v,
        DECAY=decay[1],
        HAS_START=start is not None,
        REVERSE=reverse,
        PACKED=chunks.packed,
        PRECISION=precision(),
        num_warps=tile.state.warps,
        num_stages=tile.state.stages,
    )
    return states, end


def chunk_simple_gla_fwd_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    g_gamma: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    save_scores: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, HV, V]``, final states ``[N, HV, K, V]``, scores ``[B, T, HV, C]`` (empty unless saved)."""
    q, k, v = (x.contiguous() for x in (q, k, v))
    decay = _decay(q, g, g_gamma)
    initial_state = None if initial_state is None else initial_state.contiguous()
    total, heads, key_dim = q.shape[1:]
    value_heads, value_dim = v.shape[2:]
    tile = CHUNK_TILES.choose(tile_key(q, value_dim))
    chunks = cut(q, cu_seqlens, tile.chunk)
    states, final_state = _carry_states(k, v, decay, initial_state, 1.0, chunks, tile, reverse=False)
    o = torch.empty_like(v)
    scores = q.new_empty(*v.shape[:3], tile.chunk) if save_scores else q.new_empty(0)
    kernels.output_kernel[(triton.cdiv(value_dim, tile.output.v) * chunks.total, value_heads)](
        q,
        k,
        v,
        decay[0],
        states,
        o,
        scores,
        chunks.cu_seqlens,
        chunks.sequence,
        chunks.first_chunk,
        scale,
        total,
        H=heads,
        HV=value_heads,
        K=key_dim,
        V=value_dim,
        C=tile.chunk,
        BK=tile.output.k,
        BV=tile.output.v,
        DECAY=decay[1],
        STORE_SCORES=save_scores,
        PACKED=chunks.packed,
        PRECISION=precision(),
        num_warps=tile.output.warps,
        num_stages=tile.output.stages,
    )
    return o, final_state, scores


def chunk_simple_gla_bwd_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    g_gamma: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    scores: torch.Tensor,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Gradients of q, k, v, g and the initial states."""
    q, k, v, do = (x.contiguous() for x in (q, k, v, do))
    decay = _decay(q, g, g_gamma)
    initial_state = None if initial_state is None else initial_state.contiguous()
    dfinal_state = None if dfinal_state is None else dfinal_state.contiguous()
    total, heads, key_dim = q.shape[1:]
    value_heads, value_dim = v.shape[2:]
    tile = CHUNK_TILES.choose(tile_key(q, value_dim))
    chunks = cut(q, cu_seqlens, tile.chunk)
    states, _ = _carry_states(k, v, decay, initial_state, 1.0, chunks, tile, reverse=False)
    dstates, dinitial_state = _carry_states(q, do, decay, dfinal_state, scale, chunks, tile, reverse=True)
    dv = torch.empty_like(v)
    where = (chunks.cu_seqlens, chunks.sequence, chunks.first_chunk)
    kernels.value_grad_kernel[(triton.cdiv(value_dim, tile.value_grad.v) * chunks.total, value_heads)](
        k,
        decay[0],
        scores,
        do,
        dstates,
        dv,
        *where,
        total,
        H=heads,
        HV=value_heads,
        K=key_dim,
        V=value_dim,
        C=tile.chunk,
        BK=tile.value_grad.k,
        BV=tile.value_grad.v,
        DECAY=decay[1],
        PACKED=chunks.packed,
        PRECISION=precision(),
        num_warps=tile.value_grad.warps,
        num_stages=tile.value_grad.stages,
    )
    blocks = triton.cdiv(key_dim, tile.key_grad.k)
    dq, dk = (x.new_empty(*v.shape[:3], key_dim) for x in (q, k))
    dg = q.new_empty((0,) if g is None else (blocks, *g.shape), dtype=torch.float32)
    kernels.key_grad_kernel[(blocks * chunks.total, value_heads)](
        q,
        k,
        v,
        decay[0],
        scores,
        states,
        do,
        dstates,
        dq,
        dk,
        dg,
        *where,
        scale,
        total,
        dg.stride(0),
        H=heads,
        HV=value_heads,
        K=key_dim,
        V=value_dim,
        C=tile.chunk,
        BK=tile.key_grad.k,
        BV=tile.key_grad.v,
        DECAY=decay[1],
        PACKED=chunks.packed,
        PRECISION=precision(),
        num_warps=tile.key_grad.warps,
        num_stages=tile.key_grad.stages,
    )
    if value_heads != heads:
        dq, dk = (x.unflatten(2, (heads, -1)).sum(3, dtype=torch.float32).to(q.dtype) for x in (dq, dk))
    return dq, dk, dv, None if g is None else dg.sum(0).to(g.dtype), dinitial_state
