"""Launchers of the selective scan's kernels: one launch each way."""

from __future__ import annotations

from typing import Any

import torch
import triton

from fla.ops._engines.selective_scan.gradient_kernels import selective_scan_bwd_kernel
from fla.ops._engines.selective_scan.kernels import selective_scan_fwd_kernel
from fla.ops._engines.selective_scan.operands import Operands, new_states
from fla.ops._engines.selective_scan.tiles import GRADIENT_TILES, OUTPUT_TILES, SPANS, WARP, ScanTile, cut_states
from fla.utils.plans import launch
from fla.utils.sum_launch import sum_parts
from fla.utils.tiles import TileTable, launch_grid, tile_key
from fla.utils.validation import count_sequences


class _Plan:
    """How a call is cut, and what both kernels are told of it."""

    def __init__(
        self, operands: Operands, cu_seqlens: torch.Tensor | None, softplus: bool, tiles: TileTable[ScanTile]
    ) -> None:
        self.operands = operands = operands.laid_out()
        self.cu_seqlens, self.softplus = cu_seqlens, softplus
        self.sequences = count_sequences(cu_seqlens, operands.u.shape[0])
        group = operands.u.shape[2] // operands.groups
        self.tile = tiles.choose(tile_key(operands.B, group))
        self.blocks = triton.cdiv(group, self.tile.channels)
        self.pieces = cut_states(operands.states)
        self.grid = launch_grid(self.blocks, operands.groups, self.sequences)

    def options(self) -> dict[str, Any]:
        """The arguments that both kernels end with."""
        operands = self.operands
        return {
            "cu_seqlens": self.cu_seqlens,
            "T": operands.u.shape[1],
            "D": operands.u.shape[2],
            "G": operands.groups,
            "N": operands.states,
            "Q": self.pieces[0],
            "J": self.pieces[1],
            "BD": self.tile.channels,
            "S": self.tile.steps,
            "SPAN": SPANS["triton"],
            "SOFTPLUS": self.softplus,
            "HAS_SKIP": operands.skip is not None,
            "HAS_GATE": operands.z is not None,
            "HAS_BIAS": operands.bias is not None,
            "PACKED": self.cu_seqlens is not None,
            "num_warps": self.tile.warps,
        }

    def new(self, *shape: int) -> torch.Tensor:
        """Room for sums."""
        return self.operands.u.new_empty(shape, dtype=torch.float32)

    def new_state(self) -> torch.Tensor:
        """Room for a state of each sequence."""
        return self.new(self.sequences, *self.operands.A.shape)


def selective_scan_fwd_triton(
    operands: Operands,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    softplus: bool,
    save_states: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, D]``, last states ``[S, D, N]`` and the state before each span (empty unless saved)."""
    plan = _Plan(operands, cu_seqlens, softplus, OUTPUT_TILES)
    y, last_state = torch.empty_like(plan.operands.u), plan.new_state()
    states = new_states(operands, cu_seqlens, "triton") if save_states else plan.new(0)
    in_words, words = plan.operands.in_words()
    launch(
        selective_scan_fwd_kernel,
        plan.grid,
        *in_words,
        y,
        states,
        None if initial_state is None else initial_state.contiguous(),
        last_state,
        HAS_START=initial_state is not None,
        SAVE_STATES=save_states,
        WORDS=words,
        **plan.options(),
    )
    return y, last_state, states


def selective_scan_bwd_triton(
    operands: Operands,
    states: torch.Tensor,
    dy: torch.Tensor,
    dlast_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    softplus: bool,
) -> tuple[torch.Tensor, ...]:
    """Gradients of the operands and the initial states."""
    plan = _Plan(operands, cu_seqlens, softplus, GRADIENT_TILES)
    u, delta, A, B, C, skip, z, bias = plan.operands
    batch, total, channels = u.shape
    count = SPANS["triton"] // plan.tile.steps + plan.tile.steps - 1
    tiles = plan.new(plan.grid[0], count, *plan.pieces, plan.tile.channels)
    du, ddelta, dz = (plan.new(0) if x is None else torch.empty_like(x) for x in (u, delta, z))
    dA, dstart = plan.new_state(), plan.new_state()
    dB, dC = plan.new(2, plan.blocks * triton.cdiv(plan.tile.channels, WARP), *B.shape)
    dskip, dbias = plan.new(2, plan.sequences, channels)
    launch(
        selective_scan_bwd_kernel,
        plan.grid,
        *plan.operands,
        states,
        tiles,
        dy.contiguous(),
        None if dlast_state is None else dlast_state.contiguous(),
        du,
        ddelta,
        dA,
        dB,
        dC,
        dskip,
        dz,
        dbias,
        dstart,
        STEPS=batch * total,
        HAS_END=dlast_state is not None,
        **plan.options(),
    )
    return (
        du,
        ddelta,
        sum_parts(dA, A.dtype),
        sum_parts(dB, operands.B.dtype),
        sum_parts(dC, operands.C.dtype),
        plan.new(0) if skip is None else sum_parts(dskip, skip.dtype),
        dz,
        plan.new(0) if bias is None else sum_parts(dbias, bias.dtype),
        dstart,
    )
