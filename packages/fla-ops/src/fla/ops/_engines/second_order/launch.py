"""Launchers of the chunked kernels over second-order features: two launches forward, five backward."""

from __future__ import annotations

from typing import Any

import torch
import triton

from fla.ops._engines.second_order import kernels
from fla.ops._engines.second_order.features import feature_width
from fla.ops._engines.second_order.gradient_kernels import second_order_key_bwd_kernel, second_order_query_bwd_kernel
from fla.ops._engines.second_order.tiles import CHUNK_TILES, ChunkTile
from fla.ops._shared.chunk_launch import Chunks, cut, precision
from fla.utils.plans import launch
from fla.utils.tiles import Block, launch_grid, power_of_two, tile_key


class _Plan:
    """How a call is cut, and what every kernel is told of it."""

    def __init__(
        self,
        q: torch.Tensor,
        v: torch.Tensor,
        features: int,
        cu_seqlens: torch.Tensor | None,
        eps: float | None,
        taylor: bool,
    ) -> None:
        self.heads, self.key_dim = q.shape[2:]
        self.value_dim, self.features = v.shape[3], features
        self.tile: ChunkTile = CHUNK_TILES.choose(tile_key(q, self.value_dim))
        self.chunks: Chunks = cut(q, cu_seqlens, self.tile.chunk)
        self.shared = {
            "eps": 0.0 if eps is None else eps,
            "T": q.shape[1],
            "H": self.heads,
            "K": self.key_dim,
            "F": features,
            "V": self.value_dim,
            "C": self.tile.chunk,
            "BD": power_of_two(self.key_dim, self.tile.channels),
            "TAYLOR": taylor,
            "NORMALIZE": eps is not None,
            "cu_seqlens": self.chunks.cu_seqlens,
            "first_chunk": self.chunks.first_chunk,
            "PACKED": self.chunks.packed,
            "PRECISION": precision(),
        }

    def options(self, block: Block) -> dict[str, Any]:
        """The arguments that all kernels end with."""
        return {**self.shared, "BF": block.k, "BV": block.v, "num_warps": block.warps, "num_stages": block.stages}

    def per_chunk(self, block: Block) -> dict[str, Any]:
        """The arguments that all kernels end with of which a program has one chunk."""
        return {**self.options(block), "sequence": self.chunks.sequence}

    def carry(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        totals: torch.Tensor | None,
        dtotals: torch.Tensor | None,
        start: tuple[torch.Tensor | None, torch.Tensor | None],
        scale: float,
        reverse: bool,
        wide: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """(Gradients of) S and z before every chunk, ``[M, H, F, V]`` and ``[M, H, F]``; and after the last.

        z is float32, and so is S where it is ``wide``.
        """
        rows = (self.chunks.total, self.heads, self.features)
        states = x.new_empty(*rows, self.value_dim, dtype=torch.float32 if wide else x.dtype)
        sums = x.new_empty(rows, dtype=torch.float32)
        end_rows = (self.chunks.sequences, *rows[1:])
        end = x.new_empty(*end_rows, self.value_dim, dtype=torch.float32)
        end_sum = x.new_empty(end_rows, dtype=torch.float32)
        begun = _start(start, end, end_sum)
        block = self.tile.state
        blocks = triton.cdiv(self.features, block.k) * triton.cdiv(self.value_dim, block.v)
        launch(
            kernels.second_order_state_kernel,
            launch_grid(blocks, self.chunks.sequences, self.heads),
            x,
            y,
            totals,
            dtotals,
            states,
            sums,
            *begun,
            end,
            end_sum,
            scale=scale,
            HAS_START=begun[0] is not None,
            REVERSE=reverse,
            **self.options(block),
        )
        return states, sums, end, end_sum

    def read(
        self,
        x: torch.Tensor,
        x_other: torch.Tensor,
        y: torch.Tensor,
        totals: torch.Tensor,
        states: torch.Tensor,
        sums: torch.Tensor,
        scale: float,
        reverse: bool,
    ) -> torch.Tensor:
        """Outputs, while totals are written; in reverse the gradient of v."""
        o = torch.empty_like(y)
        block = self.tile.output
        grid = launch_grid(triton.cdiv(self.value_dim, block.v), self.chunks.total, heads=self.heads)
        launch(
            kernels.second_order_output_fwd_kernel,
            grid,
            x,
            x_other,
            y,
            totals,
            states,
            sums,
            o,
            scale=scale,
            REVERSE=reverse,
            **self.per_chunk(block),
        )
        return o


def _start(
    start: tuple[torch.Tensor | None, torch.Tensor | None], end: torch.Tensor, end_sum: torch.Tensor
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """S and z with which to start: both or none of them, the one that is not given being zero."""
    state, z = start
    if state is None and z is None:
        return None, None
    state = torch.zeros_like(end) if state is None else state.contiguous()
    return state, torch.zeros_like(end_sum) if z is None else z.contiguous()


def second_order_fwd_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    state: torch.Tensor | None,
    z: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    eps: float | None,
    taylor: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, H, V]``, totals ``[B, T, H]``, and the final S ``[N, H, F, V]`` and z ``[N, H, F]``."""
    q, k, v = (x.contiguous() for x in (q, k, v))
    plan = _Plan(q, v, feature_width(q.shape[-1], taylor), cu_seqlens, eps, taylor)
    states, sums, end, end_sum = plan.carry(k, v, None, None, (state, z), 1.0, reverse=False)
    totals = q.new_empty(q.shape[:3], dtype=torch.float32)
    return plan.read(q, k, v, totals, states, sums, scale, reverse=False), totals, end, end_sum


def second_order_bwd_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    state: torch.Tensor | None,
    z: torch.Tensor | None,
    totals: torch.Tensor,
    do: torch.Tensor,
    dtotals: torch.Tensor | None,
    dstate: torch.Tensor | None,
    dz: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    eps: float | None,
    taylor: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k, v and of the initial S and z. Those of totals are given where nothing is divided by them."""
    q, k, v, do = (x.contiguous() for x in (q, k, v, do))
    plan = _Plan(q, v, feature_width(q.shape[-1], taylor), cu_seqlens, eps, taylor)
    if eps is not None:
        dtotals = torch.empty_like(totals)
    else:
        dtotals = torch.zeros_like(totals) if dtotals is None else dtotals.contiguous()
    dq, dk = torch.empty_like(q), torch.empty_like(k)
    grid, options = launch_grid(plan.chunks.total, heads=plan.heads), plan.per_chunk(plan.tile.grad)

    # What values have in common cancels between S and z in the gradient of q, so both must be as precise.
    wide = eps is not None
    states, sums, _, _ = plan.carry(k, v, None, None, (state, z), 1.0, reverse=False, wide=wide)
    launch(second_order_query_bwd_kernel, grid, q, k, v, totals, dtotals, states, sums, do, dq, scale=scale, **options)
    dstates, dsums, dstart, dstart_sum = plan.carry(q, do, totals, dtotals, (dstate, dz), scale, reverse=True)
    dv = plan.read(k, q, do, totals, dstates, dsums, scale, reverse=True)
    launch(second_order_key_bwd_kernel, grid, q, k, v, totals, dtotals, dstates, dsums, do, dk, scale=scale, **options)
    return dq, dk, dv, dstart, dstart_sum
