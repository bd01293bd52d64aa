"""Launcher of the step-by-step generalized delta rule's kernel."""

from __future__ import annotations

import torch
import triton

from fla.ops._engines.low_rank_steps.kernels import low_rank_steps_fwd_kernel
from fla.ops._shared.arguments import state_like
from fla.ops._shared.step_tiles import RECURRENT_TILES
from fla.utils.plans import launch
from fla.utils.tiles import launch_grid, tile_key


def recurrent_dplr_delta_rule_fwd_triton(
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
    q, k, v, a, b = (x.contiguous() for x in (q, k, v, a, b))
    gk, initial_state = (None if x is None else x.contiguous() for x in (gk, initial_state))
    total, heads, key_dim = q.shape[1:]
    value_dim = v.shape[3]
    tile = RECURRENT_TILES.choose(tile_key(q, value_dim))
    o, final_state = torch.empty_like(v), state_like(q, v, cu_seqlens)
    launch(
        low_rank_steps_fwd_kernel,
        launch_grid(triton.cdiv(value_dim, tile.v), final_state.shape[0], heads),
        q,
        k,
        v,
        a,
        b,
        gk,
        o,
        initial_state,
        final_state,
        cu_seqlens,
        scale,
        total,
        H=heads,
        K=key_dim,
        V=value_dim,
        BK=tile.k,
        BV=tile.v,
        HAS_GK=gk is not None,
        HAS_START=initial_state is not None,
        PACKED=cu_seqlens is not None,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return o, final_state
