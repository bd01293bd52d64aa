"""Launchers of the elementwise scan: one launch each way, or three where time is split to fill the GPU."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton

from fla.ops.hgrn import scan_kernels as kernels
from fla.ops.hgrn.tiles import ScanTile, scan_tile, segment_steps
from fla.utils._varlen import chunk_table, max_chunks


class _Walk(NamedTuple):
    """How the steps of a call are given to programs."""

    tile: ScanTile
    sequences: int
    segment: int
    segments: int
    """Of a sequence, where they are not packed."""
    programs: int
    cu_seqlens: torch.Tensor | None
    sequence: torch.Tensor | None
    first_segment: torch.Tensor | None

    @property
    def segmented(self) -> bool:
        return self.programs != self.sequences or self.sequence is not None


def _plan(x: torch.Tensor, cu_seqlens: torch.Tensor | None) -> _Walk:
    batch, total, channels = x.shape
    tile = scan_tile(total, channels)
    blocks = triton.cdiv(channels, tile.channels)
    sequences = batch if cu_seqlens is None else cu_seqlens.shape[0] - 1
    segment = segment_steps(total, sequences, blocks)
    if segment >= total:
        return _Walk(tile, sequences, total, 1, sequences, cu_seqlens, None, None)
    if cu_seqlens is None:
        segments = triton.cdiv(total, segment)
        return _Walk(tile, sequences, segment, segments, sequences * segments, None, None, None)
    table = chunk_table(cu_seqlens, total, segment)
    programs = max_chunks(total, sequences, segment)
    return _Walk(tile, sequences, segment, 0, programs, cu_seqlens, table.sequence, table.first_chunk)


def scan_fwd_triton(
    x: torch.Tensor, g: torch.Tensor, initial_state: torch.Tensor | None, cu_seqlens: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, D]`` and final states ``[N, D]``."""
    x, g = x.contiguous(), g.contiguous()
    start = None if initial_state is None else initial_state.contiguous()
    walk = _plan(x, cu_seqlens)
    o, final_state = torch.empty_like(x), x.new_empty(walk.sequences, x.shape[2], dtype=torch.float32)
    if walk.segmented:
        ends, through = _new_states(x, walk), _new_states(x, walk)
        _scan_fwd(x, g, None, None, ends, through, walk)
        start = _carry(ends, through, start, final_state, walk, reverse=False)
    _scan_fwd(x, g, o, start, final_state, None, walk)
    return o, final_state


def scan_bwd_triton(
    g: torch.Tensor,
    o: torch.Tensor,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, g and the initial states."""
    g, o, do = g.contiguous(), o.contiguous(), do.contiguous()
    initial_state = None if initial_state is None else initial_state.contiguous()
    start = None if dfinal_state is None else dfinal_state.contiguous()
    walk = _plan(o, cu_seqlens)
    dx, dg = torch.empty_like(o), torch.empty_like(g)
    # A sequence without steps hands the gradient of its state on as it is.
    dinitial = o.new_zeros(walk.sequences, o.shape[2], dtype=torch.float32) if start is None else start.float().clone()
    if walk.segmented:
        ends, through = _new_states(o, walk), _new_states(o, walk)
        _scan_bwd(g, o, initial_state, do, None, None, None, (ends, through), None, walk)
        start = _carry(ends, through, start, torch.empty_like(dinitial), walk, reverse=True)
    _scan_bwd(g, o, initial_state, do, dx, dg, start, None, dinitial, walk)
    return dx, dg, dinitial


def _new_states(x: torch.Tensor, walk: _Walk) -> torch.Tensor:
    return x.new_empty(walk.programs, x.shape[2], dtype=torch.float32)


def _scan_fwd(
    x: torch.Tensor,
    g: torch.Tensor,
    o: torch.Tensor | None,
    start: torch.Tensor | None,
    end: torch.Tensor,
    through: torch.Tensor | None,
    walk: _Walk,
) -> None:
    """The outputs, or without ``o`` the summary of every segment."""
    _, total, channels = x.shape
    kernels.scan_fwd_kernel[(triton.cdiv(channels, walk.tile.channels), walk.programs)](
        x,
        g,
        o,
        start,
        end,
        through,
        walk.cu_seqlens,
        walk.sequence,
        walk.first_segment,
        total,
        walk.segment,
        D=channels,
        BT=walk.tile.steps,
        BD=walk.tile.channels,
        SUMMARY=o is None,
        SEGMENTED=walk.segmented,
        HAS_START=start is not None,
        PACKED=walk.cu_seqlens is not None,
        num_warps=walk.tile.warps,
    )


def _scan_bwd(
    g: torch.Tensor,
    o: torch.Tensor,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dx: torch.Tensor | None,
    dg: torch.Tensor | None,
    start: torch.Tensor | None,
    summary: tuple[torch.Tensor, torch.Tensor] | None,
    dinitial_state: torch.Tensor | None,
    walk: _Walk,
) -> None:
    """The gradients, or with somewhere to put it the summary of every segment."""
    _, total, channels = o.shape
    end, through = (None, None) if summary is None else summary
    kernels.scan_bwd_kernel[(triton.cdiv(channels, walk.tile.channels), walk.programs)](
        g,
        o,
        initial_state,
        do,
        dx,
        dg,
        start,
        end,
        through,
        dinitial_state,
        walk.cu_seqlens,
        walk.sequence,
        walk.first_segment,
        total,
        walk.segment,
        D=channels,
        BT=walk.tile.steps,
        BD=walk.tile.channels,
        SUMMARY=summary is not None,
        SEGMENTED=walk.segmented,
        HAS_START=start is not None,
        HAS_INITIAL=initial_state is not None,
        PACKED=walk.cu_seqlens is not None,
        num_warps=walk.tile.warps,
    )


def _carry(
    ends: torch.Tensor,
    through: torch.Tensor,
    start: torch.Tensor | None,
    end: torch.Tensor,
    walk: _Walk,
    reverse: bool,
) -> torch.Tensor:
    """The state at the start of every segment; ``end`` gets that after each sequence."""
    starts, channels = torch.empty_like(ends), ends.shape[1]
    kernels.carry_kernel[(triton.cdiv(channels, walk.tile.channels), walk.sequences)](
        ends,
        through,
        starts,
        start,
        end,
        walk.first_segment,
        walk.segments,
        D=channels,
        BD=walk.tile.channels,
        REVERSE=reverse,
        HAS_START=start is not None,
        PACKED=walk.cu_seqlens is not None,
        num_warps=walk.tile.warps,
    )
    return starts
