"""Launchers of the chunked generalized delta rule's kernels: two launches forward, five backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton

from fla.ops._engines.delta.tiles import WIDEST, ChunkTile, halves
from fla.ops._engines.low_rank import kernels
from fla.ops._engines.low_rank.tiles import CHUNK_TILES
from fla.ops._shared.chunk_launch import Chunks, cut, half_spans, inverse_precision, precision
from fla.utils.plans import launch
from fla.utils.tiles import Block, launch_grid, tile_key


class _Call(NamedTuple):
    """Contiguous operands and what the launches have in common."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor
    g: torch.Tensor
    tile: ChunkTile
    chunks: Chunks

    @property
    def dims(self) -> tuple[int, int, int]:
        """Heads, and the channels of keys and of values."""
        return self.q.shape[2], self.q.shape[3], self.v.shape[3]

    @property
    def total(self) -> int:
        return self.q.shape[1]

    @property
    def spans(self) -> tuple[torch.Tensor, torch.Tensor]:
        """For readers after and before their own decay."""
        size, dtype = self.tile.chunk, self.q.dtype
        return half_spans(self.q, size, False, dtype), half_spans(self.q, size, True, dtype)

    @property
    def where(self) -> tuple[torch.Tensor | None, ...]:
        """Where the chunks lie."""
        return self.chunks.cu_seqlens, self.chunks.sequence, self.chunks.first_chunk

    def constants(self, block: Block) -> dict[str, Any]:
        """What every kernel is compiled for."""
        return {
            "H": self.dims[0],
            "C": self.tile.chunk,
            "PACKED": self.chunks.packed,
            "PRECISION": precision(),
            "num_warps": block.warps,
            "num_stages": block.stages,
        }


class _Pairs(NamedTuple):
    """What the walks over chunks take: operands with their decay to the chunk's ends, scores and corrections."""

    q: torch.Tensor
    a: torch.Tensor
    k: torch.Tensor
    b: torch.Tensor
    total: torch.Tensor
    """Decay over each chunk ``[M, H, K]``."""
    qk: torch.Tensor
    qb: torch.Tensor
    ak: torch.Tensor
    corrections: torch.Tensor


def _call(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    gk: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> _Call:
    if q.shape[-1] > WIDEST:
        raise ValueError(
            f"q: expected a head dimension of at most {WIDEST} on the triton backend, got {q.shape[-1]}; "
            'backend="torch" takes any'
        )
    q, k, v, a, b = (x.contiguous() for x in (q, k, v, a, b))
    g = torch.zeros_like(q) if gk is None else gk.contiguous()
    tile = CHUNK_TILES.choose(tile_key(q, v.shape[-1]))
    return _Call(q, k, v, a, b, g, tile, cut(q, cu_seqlens, tile.chunk))


def chunk_dplr_delta_rule_fwd_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    gk: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, H, V]`` and final states ``[N, H, K, V]``."""
    call = _call(q, k, v, a, b, gk, cu_seqlens)
    o = torch.empty_like(call.v)
    final_state = q.new_empty(call.chunks.sequences, *call.dims, dtype=torch.float32)
    _walk(call, _pairs(call, scale), initial_state, scale, o=o, end=final_state)
    return o, final_state


def chunk_dplr_delta_rule_bwd_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    gk: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor | None,
    torch.Tensor,
]:
    """Gradients of q, k, v, a, b, gk and the initial states."""
    call = _call(q, k, v, a, b, gk, cu_seqlens)
    heads, key_dim, value_dim = call.dims
    do = do.contiguous()
    # What the forward pass made of the operands takes more memory than they do: it is made again.
    pairs = _pairs(call, scale)
    states, dstates = (q.new_empty(call.chunks.total, *call.dims) for _ in range(2))
    w, dv, dy = (torch.empty_like(call.v) for _ in range(3))
    _walk(call, pairs, initial_state, scale, w=w, states=states)
    dinitial_state = _walk_back(call, pairs, do, dfinal_state, scale, dv, dy, dstates)

    dscores = q.new_empty(4, *pairs.qk.shape)
    block = call.tile.pair_grad
    grid = (*launch_grid(call.chunks.total, heads=heads), 4)
    launch(
        kernels.low_rank_pairs_bwd_kernel,
        grid,
        do,
        dy,
        call.v,
        w,
        dscores,
        *call.where,
        scale,
        call.total,
        dscores[0].numel(),
        V=value_dim,
        BV=block.v,
        **call.constants(block),
    )
    dq, dk, da, db = (torch.empty_like(call.q) for _ in range(4))
    dg = torch.empty_like(call.g)
    block = call.tile.key_grad
    launch(
        kernels.low_rank_key_bwd_kernel,
        launch_grid(triton.cdiv(key_dim, block.k), call.chunks.total, heads=heads),
        call.q,
        call.k,
        call.a,
        call.b,
        call.g,
        *call.spans,
        call.v,
        w,
        states,
        do,
        dy,
        dstates,
        dscores,
        dq,
        dk,
        da,
        db,
        dg,
        *call.where,
        scale,
        call.total,
        dscores[0].numel(),
        K=key_dim,
        V=value_dim,
        LEVELS=call.tile.levels,
        BK=block.k,
        BV=block.v,
        **call.constants(block),
    )
    return dq, dk, dv, da, db, None if gk is None else dg, dinitial_state


def _pairs(call: _Call, scale: float) -> _Pairs:
    """What pairs of steps have to do with each other, and the operands of the walks."""
    heads, key_dim, _ = call.dims
    tile = call.tile
    qk, qb, ak = (call.q.new_empty(*call.q.shape[:3], tile.chunk) for _ in range(3))
    corrections = qk.new_empty(halves(qk.dtype), *qk.shape)
    q, a, k, b = (torch.empty_like(call.q) for _ in range(4))
    total = call.q.new_empty(call.chunks.total, heads, key_dim, dtype=torch.float32)
    launch(
        kernels.low_rank_pairs_fwd_kernel,
        launch_grid(call.chunks.total, heads=heads),
        call.q,
        call.k,
        call.a,
        call.b,
        call.g,
        *call.spans,
        qk,
        qb,
        ak,
        corrections,
        q,
        a,
        k,
        b,
        total,
        *call.where,
        scale,
        call.total,
        qk.numel(),
        K=key_dim,
        LEVELS=tile.levels,
        BK=tile.pairs.k,
        INVERSE_PRECISION=inverse_precision(qk.dtype),
        **call.constants(tile.pairs),
    )
    return _Pairs(q, a, k, b, total, qk, qb, ak, corrections)


def _walk(
    call: _Call,
    pairs: _Pairs,
    initial_state: torch.Tensor | None,
    scale: float,
    *,
    o: torch.Tensor | None = None,
    end: torch.Tensor | None = None,
    w: torch.Tensor | None = None,
    states: torch.Tensor | None = None,
) -> None:
    """Fill o and the final states, or for the backward pass W and the states before each chunk."""
    block, (heads, key_dim, value_dim) = call.tile.walk, call.dims
    launch(
        kernels.low_rank_walk_fwd_kernel,
        launch_grid(triton.cdiv(value_dim, block.v), call.chunks.sequences, heads),
        pairs.q,
        pairs.a,
        pairs.k,
        pairs.b,
        call.v,
        pairs.total,
        pairs.qk,
        pairs.qb,
        pairs.ak,
        pairs.corrections,
        o,
        w,
        states,
        None if initial_state is None else initial_state.contiguous(),
        end,
        call.chunks.cu_seqlens,
        call.chunks.first_chunk,
        scale,
        call.total,
        pairs.qk.numel(),
        K=key_dim,
        V=value_dim,
        BK=block.k,
        BV=block.v,
        HAS_START=initial_state is not None,
        FOR_BACKWARD=o is None,
        **call.constants(block),
    )


def _walk_back(
    call: _Call,
    pairs: _Pairs,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    scale: float,
    dv: torch.Tensor,
    dy: torch.Tensor,
    dstates: torch.Tensor,
) -> torch.Tensor:
    """Fill dv, dy and the gradients of the states after each chunk; returns those of the initial states."""
    block, (heads, key_dim, value_dim) = call.tile.walk_back, call.dims
    dstart = call.q.new_empty(call.chunks.sequences, *call.dims, dtype=torch.float32)
    launch(
        kernels.low_rank_walk_bwd_kernel,
        launch_grid(triton.cdiv(value_dim, block.v), call.chunks.sequences, heads),
        pairs.q,
        pairs.a,
        pairs.k,
        pairs.b,
        pairs.total,
        pairs.qk,
        pairs.qb,
        pairs.ak,
        pairs.corrections,
        do,
        dv,
        dy,
        dstates,
        None if dfinal_state is None else dfinal_state.contiguous(),
        dstart,
        call.chunks.cu_seqlens,
        call.chunks.first_chunk,
        scale,
        call.total,
        pairs.qk.numel(),
        K=key_dim,
        V=value_dim,
        BK=block.k,
        BV=block.v,
        HAS_DEND=dfinal_state is not None,
        **call.constants(block),
    )
    return dstart
