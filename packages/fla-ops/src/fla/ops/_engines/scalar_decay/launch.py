"""Launchers of the chunked kernels of linear attention with scalar decay.

A pass over time is one launch where there are enough heads to fill the device, or few steps, and two otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton

from fla.ops._engines.scalar_decay import kernels, tiles
from fla.ops._engines.scalar_decay.key_grad_kernels import scalar_decay_key_bwd_kernel
from fla.ops._engines.scalar_decay.tiles import CHUNK_TILES, ChunkTile, shared_heads
from fla.ops._shared.chunk_launch import Chunks, cut, precision
from fla.utils.plans import launch
from fla.utils.sum_launch import sum_parts
from fla.utils.tiles import Block, launch_grid, tile_key


class Factors(NamedTuple):
    """Factors beside queries, keys and values; each may be missing."""

    g: torch.Tensor | None = None
    """Log decays ``[B, T, HV]``."""
    g_gamma: torch.Tensor | None = None
    """Log decays of each head ``[HV]``."""
    w: torch.Tensor | None = None
    """The weight of each write ``[B, T, HV]``."""
    skip: torch.Tensor | None = None
    """How much of each value is added to its output ``[HV, V]``."""

    @property
    def decay(self) -> int:
        """Which kind of decay there is, as the kernels count."""
        return 2 if self.g is not None else 0 if self.g_gamma is None else 1

    def contiguous(self) -> Factors:
        """The same, as kernels read them."""
        return Factors(*(None if x is None else x.contiguous() for x in self))


class Pass(NamedTuple):
    """Results of one pass over time: see the formulas of ``kernels.py``."""

    out: torch.Tensor
    """``[B, T, HV, V]``"""
    end: torch.Tensor
    """``[N, HV, K, V]``"""
    states: torch.Tensor
    """``[M, HV, K, V]``, empty where they were not asked for."""
    dw: torch.Tensor
    """``[blocks, B, T, HV]``"""
    dskip: torch.Tensor
    """``[M, HV, V]``"""


class _Pass:
    """A pass over time with readers x, writers y and values v, forward or in reverse."""

    def __init__(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        v: torch.Tensor,
        factors: Factors,
        start: torch.Tensor | None,
        scale: float,
        chunks: Chunks,
        tile: ChunkTile,
        reverse: bool,
    ) -> None:
        self.x, self.y, self.v, self.factors, self.scale = x, y, v, factors, scale
        self.start = None if start is None else start.contiguous()
        self.chunks, self.tile, self.reverse = chunks, tile, reverse
        self.total, self.heads, self.key_dim = x.shape[1:]
        self.value_heads, self.value_dim = v.shape[2:]
        self.decay = factors.g if factors.g is not None else x if factors.g_gamma is None else factors.g_gamma
        shape = (chunks.sequences, self.value_heads, self.key_dim, self.value_dim)
        self.end = x.new_empty(shape, dtype=torch.float32)

    def constants_of_chunks(self, block: Block) -> dict[str, object]:
        """What kernels are compiled for that see neither the pass nor its direction."""
        return {
            "H": self.heads,
            "HV": self.value_heads,
            "K": self.key_dim,
            "V": self.value_dim,
            "C": self.tile.chunk,
            "BK": block.k,
            "BV": block.v,
            "DECAY": self.factors.decay,
            "WEIGHTED": self.factors.w is not None,
            "PACKED": self.chunks.packed,
            "PRECISION": precision(),
            "num_warps": block.warps,
            "num_stages": block.stages,
        }

    def constants(self, block: Block) -> dict[str, object]:
        """What every kernel of the pass is compiled for."""
        return {**self.constants_of_chunks(block), "REVERSE": self.reverse}

    def walks(self) -> bool:
        """Whether to keep the state in registers: a pure function of shapes."""
        if self.tile.walk is None:
            return False
        programs = self.chunks.sequences * self.value_heads * triton.cdiv(self.value_dim, self.tile.walk.v)
        return programs >= tiles.WALK_PROGRAMS or self.total <= tiles.WALK_STEPS

    def empty_states(self) -> torch.Tensor:
        return self.x.new_empty(self.chunks.total, *self.end.shape[1:])

    def carry(self) -> torch.Tensor:
        """The states before every chunk ``[M, HV, K, V]``, by a launch that makes ``end`` as well."""
        states, block = self.empty_states(), self.tile.state
        blocks = triton.cdiv(self.key_dim, block.k) * triton.cdiv(self.value_dim, block.v)
        launch(
            kernels.scalar_decay_state_kernel,
            launch_grid(blocks, self.chunks.sequences, self.value_heads),
            self.y,
            self.v,
            self.decay,
            self.factors.w,
            states,
            self.start,
            self.end,
            self.chunks.cu_seqlens,
            self.chunks.first_chunk,
            self.scale if self.reverse else 1.0,
            self.total,
            HAS_START=self.start is not None,
            **self.constants(block),
        )
        return states

    def run(self, other: torch.Tensor | None = None, store_states: bool = False) -> Pass:
        """All of the pass; in reverse ``other`` are the values that weights and skip belong to."""
        if self.walks():
            block = self.tile.walk
            assert block is not None
            states = self.empty_states() if store_states else self.x.new_empty(0)
        else:
            block, states = self.tile.output, self.carry()
        blocks, sums = triton.cdiv(self.value_dim, block.v), torch.float32
        w, skip = self.factors.w, self.factors.skip
        out = torch.empty_like(self.v)
        dw = self.v.new_empty((blocks, *w.shape) if self.reverse and w is not None else (0,), dtype=sums)
        shape = (self.chunks.total, *skip.shape) if self.reverse and skip is not None else (0,)
        dskip = self.v.new_zeros(shape, dtype=sums)
        operands = (self.x, self.y, self.v, self.decay, w, skip if skip is not None else self.x, other, states)
        gradients = (out, dw, dskip, self.chunks.cu_seqlens)
        numbers = (self.chunks.first_chunk, self.scale, self.total, dw.stride(0))
        constants = {**self.constants(block), "SKIP": skip is not None}
        if self.walks():
            launch(
                kernels.scalar_decay_walk_kernel,
                launch_grid(blocks, self.chunks.sequences, self.value_heads),
                *operands,
                self.start,
                self.end,
                *gradients,
                *numbers,
                HAS_START=self.start is not None,
                STORE_STATES=store_states,
                **constants,
            )
        else:
            launch(
                kernels.scalar_decay_output_fwd_kernel,
                launch_grid(blocks, self.chunks.total, heads=self.value_heads),
                *operands,
                *gradients,
                self.chunks.sequence,
                *numbers,
                **constants,
            )
        return Pass(out, self.end, states, dw, dskip)


def _outputs(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    factors: Factors,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, HV, V]`` and final states ``[N, HV, K, V]``."""
    q, k, v = (x.contiguous() for x in (q, k, v))
    tile = CHUNK_TILES.choose(tile_key(q, v.shape[-1]))
    chunks = cut(q, cu_seqlens, tile.chunk)
    forward = _Pass(q, k, v, factors.contiguous(), initial_state, scale, chunks, tile, reverse=False).run()
    return forward.out, forward.end


def _gradients(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    factors: Factors,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Factors, torch.Tensor]:
    """Gradients of q, k, v, the factors (but ``g_gamma``) and the initial states."""
    q, k, v, do = (x.contiguous() for x in (q, k, v, do))
    factors = factors.contiguous()
    tile = CHUNK_TILES.choose(tile_key(q, v.shape[-1]))
    chunks = cut(q, cu_seqlens, tile.chunk)
    forward = _Pass(q, k, v, factors, initial_state, scale, chunks, tile, reverse=False)
    states = forward.carry()
    backward = _Pass(k, q, do, factors, dfinal_state, scale, chunks, tile, reverse=True)
    gradients = backward.run(other=v, store_states=True)

    g, w, skip = factors.g, factors.w, factors.skip
    block, shared = tile.key_grad, shared_heads(forward.heads, forward.value_heads)
    blocks, parts = triton.cdiv(forward.key_dim, block.k), forward.value_heads // shared
    dtype = q.dtype if parts == forward.heads else torch.float32
    dq, dk = (q.new_empty(*q.shape[:2], parts, forward.key_dim, dtype=dtype) for _ in range(2))
    dg = q.new_empty((0,) if g is None else (blocks, *g.shape), dtype=torch.float32)
    launch(
        scalar_decay_key_bwd_kernel,
        launch_grid(blocks, chunks.total, heads=parts),
        q,
        k,
        v,
        forward.decay,
        w,
        states,
        do,
        gradients.states,
        dq,
        dk,
        dg,
        chunks.cu_seqlens,
        chunks.sequence,
        chunks.first_chunk,
        scale,
        forward.total,
        dg.stride(0),
        HEADS=shared,
        **forward.constants_of_chunks(block),
    )
    if parts != forward.heads:
        dq, dk = (x.unflatten(2, (forward.heads, -1)).sum(3).to(q.dtype) for x in (dq, dk))
    dfactors = Factors(
        g=None if g is None else sum_parts(dg, g.dtype),
        w=None if w is None else sum_parts(gradients.dw, w.dtype),
        skip=None if skip is None else sum_parts(gradients.dskip, skip.dtype),
    )
    return dq, dk, gradients.out, dfactors, gradients.end


def simple_gla_fwd_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    g_gamma: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and final states with a decay per step, per head, or none."""
    return _outputs(q, k, v, Factors(g, g_gamma), initial_state, cu_seqlens, scale)


def simple_gla_bwd_triton(
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
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, None, torch.Tensor]:
    """Gradients of q, k, v, g, none of ``g_gamma``, and those of the initial states."""
    dq, dk, dv, (dg, *_), dstate = _gradients(
        q, k, v, Factors(g, g_gamma), initial_state, do, dfinal_state, cu_seqlens=cu_seqlens, scale=scale
    )
    return dq, dk, dv, dg, None, dstate


def weighted_fwd_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    w: torch.Tensor,
    skip: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and final states with weights of what is written and values that skip the state."""
    return _outputs(q, k, v, Factors(g, None, w, skip), initial_state, cu_seqlens, scale)


def weighted_bwd_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    w: torch.Tensor,
    skip: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor | None, ...]:
    """Gradients of q, k, v, g, w, skip and the initial states."""
    dq, dk, dv, (dg, _, dw, dskip), dstate = _gradients(
        q, k, v, Factors(g, None, w, skip), initial_state, do, dfinal_state, cu_seqlens=cu_seqlens, scale=scale
    )
    return dq, dk, dv, dg, dw, dskip, dstate
