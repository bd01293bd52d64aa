"""Launchers of the chunked gated delta rule's kernels: two launches forward, four backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton

from fla.ops._engines.delta import channel_kernels, kernels, walk_kernels
from fla.ops._engines.delta.tiles import CHUNK_TILES, WIDEST, ChunkTile, halves
from fla.ops._shared.arguments import ungroup
from fla.ops._shared.chunk_launch import Chunks, cut, half_spans, inverse_precision, precision
from fla.utils.plans import launch
from fla.utils.sum_launch import sum_parts
from fla.utils.tiles import Block, launch_grid, tile_key


class _Call(NamedTuple):
    """Contiguous operands and what the launches have in common."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    p: torch.Tensor
    beta: torch.Tensor
    g: torch.Tensor
    """Never read where nothing decays."""
    decay: int
    """0: none, 2: by step and head, 3: by channel."""
    tile: ChunkTile
    chunks: Chunks

    @property
    def heads(self) -> tuple[int, int]:
        """Of queries and keys, and of values."""
        return self.q.shape[2], self.v.shape[2]

    @property
    def total(self) -> int:
        return self.q.shape[1]

    @property
    def dims(self) -> tuple[int, int]:
        return self.q.shape[3], self.v.shape[3]

    @property
    def spans(self) -> torch.Tensor | None:
        """What the kernels of a decay by channel take."""
        return half_spans(self.q, self.tile.chunk, False, self.q.dtype) if self.decay == 3 else None

    @property
    def where(self) -> tuple[torch.Tensor | None, ...]:
        """Where the chunks lie."""
        return self.chunks.cu_seqlens, self.chunks.sequence, self.chunks.first_chunk

    def constants(self, block: Block) -> dict[str, Any]:
        """What every kernel is compiled for."""
        return {
            "H": self.heads[0],
            "HV": self.heads[1],
            "K": self.dims[0],
            "C": self.tile.chunk,
            "BK": block.k,
            "PACKED": self.chunks.packed,
            "PRECISION": precision(),
            "num_warps": block.warps,
            "num_stages": block.stages,
        }

    def constants_of_decay(self, block: Block) -> dict[str, Any]:
        """Those of kernels for any kind of decay."""
        return {**self.constants(block), "DECAY": self.decay, "BEFORE": self.p is not self.k}


class _Walked(NamedTuple):
    """What the walks over chunks take: the operands, decayed if decay is by channel, and the pairs of each chunk."""

    q: torch.Tensor
    k: torch.Tensor
    p: torch.Tensor
    total: torch.Tensor | None
    """Decay over each chunk ``[M, HV, K]`` if by channel."""
    scores: torch.Tensor
    corrections: torch.Tensor

    def constants(self, constants: dict[str, Any]) -> dict[str, Any]:
        """Those of a kernel over these operands: what is decayed is there for each value head."""
        return constants if self.total is None else {**constants, "H": constants["HV"]}


def _call(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    p: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> _Call:
    if q.shape[-1] > WIDEST:
        raise ValueError(
            f"q: expected a head dimension of at most {WIDEST} on the triton backend, got {q.shape[-1]}; "
            'backend="torch" takes any'
        )
    q, k, v, beta = (x.contiguous() for x in (q, k, v, beta))
    p = k if p is None else p.contiguous()
    decay, g = (0, beta) if g is None else (g.dim() - 1, g.contiguous())
    assert p is k or decay != 3, "no family has both"
    tile = CHUNK_TILES[decay].choose(tile_key(q, v.shape[-1]))
    return _Call(q, k, v, p, beta, g, decay, tile, cut(q, cu_seqlens, tile.chunk))


def chunk_gated_delta_rule_fwd_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    p: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    save: bool,
) -> tuple[torch.Tensor, ...]:
    """Outputs ``[B, T, HV, V]``, final states ``[N, HV, K, V]``, and scores and corrections ``[B, T, HV, C]`` if saved.

    Where decay is by channel, the backward pass makes them again.
    """
    call = _call(q, k, v, beta, g, p, cu_seqlens)
    walked = _pairs(call, scale)
    o = torch.empty_like(call.v)
    final_state = q.new_empty(call.chunks.sequences, call.heads[1], *call.dims, dtype=torch.float32)
    _walk(call, walked, initial_state, scale, o=o, end=final_state)
    saved = (walked.scores, walked.corrections) if save and call.decay != 3 else ()
    return o, final_state, *saved


def chunk_gated_delta_rule_bwd_triton(
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
) -> tuple[
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor | None,
    torch.Tensor | None,
    torch.Tensor,
]:
    """Gradients of q, k, v, beta, g, p and the initial states."""
    call = _call(q, k, v, beta, g, p, cu_seqlens)
    chunks, tile, (key_dim, value_dim) = call.chunks, call.tile, call.dims
    # Operands decayed by channel take more memory than all that is kept: they are made again.
    walked = _pairs(call, scale) if call.decay == 3 else _Walked(call.q, call.k, call.p, None, scores, corrections)
    do = do.contiguous()
    states, dstates = (q.new_empty(chunks.total, call.heads[1], key_dim, value_dim) for _ in range(2))
    parts = 1 if call.decay == 3 else halves(q.dtype)
    x, dv = q.new_empty(parts, *call.v.shape), torch.empty_like(call.v)
    _walk(call, walked, initial_state, scale, x=x, states=states)
    dbeta, dinitial_state = _walk_back(call, walked, x, do, dfinal_state, scale, dv, dstates)

    blocks = triton.cdiv(key_dim, tile.key_grad.k)
    dq, dk, dp = (q.new_empty(*v.shape[:3], key_dim) if wanted else None for wanted in (True, True, p is not None))
    # Where decay is by step, the pairs have a part of its gradient besides those of the blocks of K.
    dg = torch.empty_like(call.g) if call.decay == 3 else q.new_empty(blocks + 1, *v.shape[:3], dtype=torch.float32)
    dscores, dpairs = q.new_empty(parts, *walked.scores.shape), torch.empty_like(walked.scores)
    launch(
        kernels.delta_pairs_bwd_kernel,
        launch_grid(chunks.total, heads=call.heads[1]),
        call.k,
        call.p,
        call.beta,
        call.g,
        walked.scores,
        x,
        do,
        dv,
        dscores,
        dpairs,
        dg if call.decay == 3 else dg[blocks],
        *call.where,
        scale,
        call.total,
        walked.scores.numel(),
        V=value_dim,
        BV=tile.pair_grad.v,
        **call.constants_of_decay(tile.pair_grad),
    )
    grid = launch_grid(blocks, chunks.total, heads=call.heads[1])
    products = x, states, do, dv, dstates, dscores, dpairs
    shared = {"V": value_dim, "BV": tile.key_grad.v}
    if call.decay == 3:
        launch(
            channel_kernels.delta_channel_key_bwd_kernel,
            grid,
            call.q,
            call.k,
            call.beta,
            call.g,
            call.spans,
            *products,
            dq,
            dk,
            dg,
            *call.where,
            scale,
            call.total,
            LEVELS=tile.levels,
            **shared,
            **call.constants(tile.key_grad),
        )
    else:
        launch(
            kernels.delta_key_bwd_kernel,
            grid,
            call.q,
            call.k,
            call.p,
            call.beta,
            call.g,
            *products,
            dq,
            dk,
            dp,
            dg,
            *call.where,
            scale,
            call.total,
            v.shape[0] * v.shape[1] * v.shape[2],
            **shared,
            **call.constants_of_decay(tile.key_grad),
        )
    assert dq is not None
    assert dk is not None
    if g is None:
        dg_ = None
    else:
        dg_ = dg if call.decay == 3 else sum_parts(dg, g.dtype)
    return (
        ungroup(dq, q),
        ungroup(dk, k),
        dv,
        dbeta,
        dg_,
        None if p is None or dp is None else ungroup(dp, p),
        dinitial_state,
    )


def _pairs(call: _Call, scale: float) -> _Walked:
    """What pairs of steps have to do with each other, and the operands of the walks."""
    tile, like = call.tile, call.v.shape[:3]
    scores = call.q.new_empty(*like, tile.chunk)
    corrections = scores.new_empty(halves(scores.dtype), *scores.shape)
    grid = launch_grid(call.chunks.total, heads=call.heads[1])
    last = *call.where, scale, call.total, scores.numel()
    constants = {"LEVELS": tile.levels, "INVERSE_PRECISION": inverse_precision(scores.dtype)}
    if call.decay != 3:
        constants.update(call.constants_of_decay(tile.pairs))
        launch(
            kernels.delta_pairs_fwd_kernel,
            grid,
            call.q,
            call.k,
            call.p,
            call.beta,
            call.g,
            scores,
            corrections,
            *last,
            **constants,
        )
        return _Walked(call.q, call.k, call.p, None, scores, corrections)
    constants.update(call.constants(tile.pairs))
    q, p, k = (call.q.new_empty(*like, call.dims[0]) for _ in range(3))
    total = call.q.new_empty(call.chunks.total, call.heads[1], call.dims[0], dtype=torch.float32)
    launch(
        channel_kernels.delta_channel_pairs_fwd_kernel,
        grid,
        call.q,
        call.k,
        call.beta,
        call.g,
        call.spans,
        scores,
        corrections,
        q,
        p,
        k,
        total,
        *last,
        **constants,
    )
    return _Walked(q, k, p, total, scores, corrections)


def _walk(
    call: _Call,
    walked: _Walked,
    initial_state: torch.Tensor | None,
    scale: float,
    *,
    o: torch.Tensor | None = None,
    end: torch.Tensor | None = None,
    x: torch.Tensor | None = None,
    states: torch.Tensor | None = None,
) -> None:
    """Fill o and the final states, or for the backward pass X and the states before each chunk."""
    block, chunks = call.tile.walk, call.chunks
    grid = launch_grid(triton.cdiv(call.dims[1], block.v), chunks.sequences, call.heads[1])
    launch(
        walk_kernels.delta_walk_fwd_kernel,
        grid,
        walked.q,
        walked.k,
        walked.p,
        call.v,
        call.beta,
        call.g,
        walked.total,
        walked.scores,
        walked.corrections,
        o,
        x,
        states,
        None if initial_state is None else initial_state.contiguous(),
        end,
        chunks.cu_seqlens,
        chunks.first_chunk,
        scale,
        call.total,
        walked.scores.numel(),
        V=call.dims[1],
        BV=block.v,
        HAS_START=initial_state is not None,
        FOR_BACKWARD=o is None,
        **walked.constants(call.constants_of_decay(block)),
    )


def _walk_back(
    call: _Call,
    walked: _Walked,
    x: torch.Tensor,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    scale: float,
    dv: torch.Tensor,
    dstates: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fill dv and the gradients of the states after each chunk; returns those of beta and of the initial states."""
    block, chunks = call.tile.walk_back, call.chunks
    blocks, rows = triton.cdiv(call.dims[1], block.v), call.v.shape[:3]
    dbeta = call.q.new_empty(blocks, *rows, dtype=torch.float32)
    dstart = call.q.new_empty(chunks.sequences, call.heads[1], *call.dims, dtype=torch.float32)
    launch(
        walk_kernels.delta_walk_bwd_kernel,
        launch_grid(blocks, chunks.sequences, call.heads[1]),
        walked.q,
        walked.k,
        walked.p,
        call.beta,
        call.g,
        walked.total,
        walked.scores,
        walked.corrections,
        x,
        do,
        dv,
        dbeta,
        dstates,
        None if dfinal_state is None else dfinal_state.contiguous(),
        dstart,
        chunks.cu_seqlens,
        chunks.first_chunk,
        scale,
        call.total,
        walked.scores.numel(),
        V=call.dims[1],
        BV=block.v,
        HAS_DEND=dfinal_state is not None,
        **walked.constants(call.constants_of_decay(block)),
    )
    return sum_parts(dbeta, call.beta.dtype), dstart
