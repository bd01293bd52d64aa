"""Launchers of HGRN's kernels: one launch each way, two where time is cut."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton

from fla.ops._engines.scan import kernels
from fla.ops._engines.scan.tiles import ENOUGH_PROGRAMS, SCAN_TILES, ScanTile
from fla.ops._shared.chunk_launch import Chunks, cut
from fla.utils.plans import launch
from fla.utils.tiles import launch_grid, tile_key
from fla.utils.varlen import max_chunks


class Plan(NamedTuple):
    """How a scan over x ``[B, T, D]`` is cut, and what every kernel is told of it."""

    tile: ScanTile
    segments: Chunks
    steps: int
    """Of a segment."""
    grid: tuple[int, int]
    is_cut: bool

    @classmethod
    def of(
        cls, x: torch.Tensor, cu_seqlens: torch.Tensor | None, tile: ScanTile, enough: int = ENOUGH_PROGRAMS
    ) -> Plan:
        """The plan for tiles of this size; time is cut where there are fewer than ``enough`` programs."""
        batch, total, channels = x.shape
        blocks = triton.cdiv(channels, tile.channels)
        # Nothing is known here of packed sequences but that one of them may be nearly all.
        steps = tile.segment(total, batch * blocks, enough)
        segments = cut(x, cu_seqlens, steps)
        return cls(tile, segments, steps, launch_grid(blocks, segments.total), steps < total)

    def options(self, x: torch.Tensor) -> dict[str, Any]:
        """The arguments that all kernels end with."""
        return {
            "cu_seqlens": self.segments.cu_seqlens,
            "sequence": self.segments.sequence,
            "first_segment": self.segments.first_chunk,
            "T": x.shape[1],
            "L": self.steps,
            "D": x.shape[2],
            "S": self.tile.steps,
            "BD": self.tile.channels,
            "SIDE_BY_SIDE": self.tile.channels_per_thread,
            "STAGES": self.tile.stages,
            "PACKED": self.segments.packed,
            "num_warps": self.tile.warps,
        }

    def new_state(self, x: torch.Tensor, like: torch.Tensor | None, nothing: float = 0.0) -> torch.Tensor:
        """A state for a kernel to write, which writes none for an empty sequence: it ends as it starts."""
        if self.segments.packed and like is not None:
            return like.to(torch.float32, copy=True)
        state = torch.empty(self.segments.sequences, x.shape[2], dtype=torch.float32, device=x.device)
        return state.fill_(nothing) if self.segments.packed else state


def _plan(x: torch.Tensor, cu_seqlens: torch.Tensor | None) -> Plan:
    return Plan.of(x, cu_seqlens, SCAN_TILES.choose(tile_key(x, x.shape[2])))


def _summaries(
    plan: Plan, x: torch.Tensor, g: torch.Tensor, reverse: bool
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """The decay and the sum of each segment ``[segments, D]``, where time is cut."""
    if not plan.is_cut:
        return None, None
    decays, sums = x.new_empty(2, plan.segments.total, x.shape[2], dtype=torch.float32)
    launch(kernels.scan_summary_kernel, plan.grid, x, g, decays, sums, REVERSE=reverse, **plan.options(x))
    return decays, sums


def hgrn_fwd_triton(
    x: torch.Tensor,
    g: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    save_states: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, D]``, final states ``[N, D]`` and the state before each tile (empty unless saved)."""
    x, g = x.contiguous(), g.contiguous()
    initial_state = None if initial_state is None else initial_state.contiguous()
    plan = _plan(x, cu_seqlens)
    batch, total, channels = x.shape
    o, final_state = torch.empty_like(x), plan.new_state(x, initial_state)
    states = x.new_empty(0)
    if save_states:
        tiles = max_chunks(batch * total, plan.segments.sequences, plan.tile.steps)
        states = x.new_empty(tiles, channels, dtype=torch.float32)
    launch(
        kernels.scan_fwd_kernel,
        plan.grid,
        x,
        g,
        o,
        states,
        initial_state,
        final_state,
        *_summaries(plan, x, g, reverse=False),
        HAS_START=initial_state is not None,
        IS_CUT=plan.is_cut,
        SAVE_STATES=save_states,
        **plan.options(x),
    )
    return o, final_state, states


def hgrn_bwd_triton(
    x: torch.Tensor,
    g: torch.Tensor,
    states: torch.Tensor,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, g and the initial states."""
    x, g, do = x.contiguous(), g.contiguous(), do.contiguous()
    dfinal_state = None if dfinal_state is None else dfinal_state.contiguous()
    plan = _plan(x, cu_seqlens)
    dx, dg, dinitial_state = torch.empty_like(x), torch.empty_like(g), plan.new_state(x, dfinal_state)
    launch(
        kernels.scan_bwd_kernel,
        plan.grid,
        x,
        g,
        states,
        do,
        dx,
        dg,
        dinitial_state,
        dfinal_state,
        *_summaries(plan, do, g, reverse=True),
        HAS_END=dfinal_state is not None,
        IS_CUT=plan.is_cut,
        **plan.options(x),
    )
    return dx, dg, dinitial_state
