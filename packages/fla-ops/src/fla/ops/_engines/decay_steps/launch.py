"""Launcher of the step-by-step gated linear attention kernel."""

from __future__ import annotations

import torch
import triton

from fla.ops._engines.decay_steps.kernels import decay_steps_fwd_kernel
from fla.ops._shared.step_tiles import RECURRENT_TILES
from fla.utils.plans import launch
from fla.utils.tiles import launch_grid, tile_key


def recurrent_gla_fwd_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    gk: torch.Tensor | None,
    gv: torch.Tensor | None,
    u: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    state_v_first: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, H, V]`` and final states, ``[N, H, K, V]`` or ``[N, H, V, K]``."""
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    g, gk, gv, u, initial_state = (None if x is None else x.contiguous() for x in (g, gk, gv, u, initial_state))
    batch, total, heads, key_dim = q.shape
    value_heads, value_dim = v.shape[2:]
    sequences = batch if cu_seqlens is None else cu_seqlens.shape[0] - 1
    tile = RECURRENT_TILES.choose(tile_key(q, value_dim))
    o = torch.empty_like(v)
    state_dims = (value_dim, key_dim) if state_v_first else (key_dim, value_dim)
    final_state = q.new_empty(sequences, value_heads, *state_dims, dtype=torch.float32)
    launch(
        decay_steps_fwd_kernel,
        launch_grid(triton.cdiv(value_dim, tile.v), sequences, value_heads),
        q,
        k,
        v,
        g,
        gk,
        gv,
        u,
        o,
        initial_state,
        final_state,
        cu_seqlens,
        scale,
        total,
        H=heads,
        HV=value_heads,
        K=key_dim,
        V=value_dim,
        BK=tile.k,
        BV=tile.v,
        HAS_G=g is not None,
        HAS_GK=gk is not None,
        HAS_GV=gv is not None,
        HAS_U=u is not None,
        HAS_START=initial_state is not None,
        STATE_V_FIRST=state_v_first,
        PACKED=cu_seqlens is not None,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return o, final_state
