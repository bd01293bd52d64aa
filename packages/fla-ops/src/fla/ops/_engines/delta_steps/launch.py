"""Launcher of the step-by-step gated delta rule's kernel."""

from __future__ import annotations

import torch
import triton

from fla.ops._engines.delta_steps.kernels import delta_steps_fwd_kernel
from fla.ops._shared.step_tiles import RECURRENT_TILES
from fla.utils.plans import launch
from fla.utils.tiles import launch_grid, tile_key


def recurrent_delta_rule_fwd_triton(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    gk: torch.Tensor | None,
    gv: torch.Tensor | None,
    p: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    state_v_first: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs ``[B, T, HV, V]`` and final states, ``[N, HV, K, V]`` or ``[N, HV, V, K]``."""
    q, k, v, beta = (x.contiguous() for x in (q, k, v, beta))
    g, gk, gv, p, initial_state = (None if x is None else x.contiguous() for x in (g, gk, gv, p, initial_state))
    batch, total, heads, key_dim = q.shape
    value_heads, value_dim = v.shape[2:]
    sequences = batch if cu_seqlens is None else cu_seqlens.shape[0] - 1
    tile = RECURRENT_TILES.choose(tile_key(q, value_dim))
    o = torch.empty_like(v)
    state_dims = (value_dim, key_dim) if state_v_first else (key_dim, value_dim)
    final_state = q.new_empty(sequences, value_heads, *state_dims, dtype=torch.float32)
    launch(
        delta_steps_fwd_kernel,
        launch_grid(triton.cdiv(value_dim, tile.v), sequences, value_heads),
        q,
        k,
        k if p is None else p,
        v,
        beta,
        g,
        gk,
        gv,
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
        BEFORE=p is not None,
        HAS_G=g is not None,
        HAS_GK=gk is not None,
        HAS_GV=gv is not None,
        HAS_START=initial_state is not None,
        BETA_PER_CHANNEL=beta.dim() == 4,
        STATE_V_FIRST=state_v_first,
        PACKED=cu_seqlens is not None,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return o, final_state
