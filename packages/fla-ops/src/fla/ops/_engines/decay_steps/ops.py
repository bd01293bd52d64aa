"""Host side of the recurrent form of all decay families: the registered ops, gradients, and which backend runs."""

from __future__ import annotations

import torch

from fla.ops._engines.channel_decay.ops import chunk_gla_bwd, chunk_gla_fwd
from fla.ops._engines.channel_decay.value_decay_ops import value_decay_bwd, value_decay_fwd
from fla.ops._engines.decay_steps.algorithm import Gradients, recurrent_gla_bwd_torch, recurrent_gla_fwd_torch
from fla.ops._engines.scalar_decay.ops import chunk_simple_gla_bwd, chunk_simple_gla_fwd
from fla.ops._shared.arguments import as_asked, flip_time, keys_first, output_and_state_like, state_like
from fla.ops._shared.autograd import state_function
from fla.utils.registration import fake_gradients, register_op

#: From this many steps on, PyTorch is faster in chunks.
LONG = 16
#: The kernel holds all of K in one block; wider keys go in chunks.
WIDEST = 256


def _fwd(
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
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    if backend == "triton" and q.shape[-1] <= WIDEST:
        from fla.ops._engines.decay_steps.launch import recurrent_gla_fwd_triton

        return recurrent_gla_fwd_triton(q, k, v, g, gk, gv, u, initial_state, cu_seqlens, scale, state_v_first)
    start = keys_first(initial_state, state_v_first)
    short = backend == "torch" and q.shape[1] < LONG
    if short or (gk is not None and gv is not None):
        o, final_state = recurrent_gla_fwd_torch(q, k, v, g, gk, gv, u, start, cu_seqlens, scale)
    elif gv is not None:
        o, final_state = value_decay_fwd(q, k, v, gv, keys_first(start, True), cu_seqlens, scale, backend)
        o, final_state = o.to(v.dtype), final_state.transpose(-1, -2).contiguous()
    elif gk is not None:
        o, final_state, _ = chunk_gla_fwd(q, k, v, _both(g, gk), u, start, cu_seqlens, scale, backend, False)
    else:
        o, final_state = chunk_simple_gla_fwd(q, k, v, g, None, start, cu_seqlens, scale, backend)
    return o, as_asked(final_state, state_v_first)


def _bwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    gk: torch.Tensor | None,
    gv: torch.Tensor | None,
    u: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    state_v_first: bool,
    backend: str,
) -> list[torch.Tensor]:
    """Unless keys and values both decay, one of the chunked forms has the same gradient and is faster."""
    start, dend = keys_first(initial_state, state_v_first), keys_first(dfinal_state, state_v_first)
    gradients: Gradients
    if gv is not None and gk is not None:
        gradients = recurrent_gla_bwd_torch(q, k, v, gk, gv, start, do, dend, cu_seqlens, scale)
    elif gv is not None:
        gradients = _bwd_values(q, k, v, gv, start, do, dend, cu_seqlens, scale, backend)
    elif gk is not None:
        gradients = _bwd_keys(q, k, v, g, gk, u, start, do, dend, cu_seqlens, scale, backend)
    else:
        gradients = _bwd_scalar(q, k, v, g, start, do, dend, cu_seqlens, scale, backend)
    *doperands, dstart = gradients
    assert dstart is not None
    return [q.new_empty(0) if d is None else d for d in doperands] + [as_asked(dstart, state_v_first)]


def _bwd_scalar(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    backend: str,
) -> Gradients:
    dq, dk, dv, dg, _, dinitial_state = chunk_simple_gla_bwd(
        q, k, v, g, None, initial_state, do, dfinal_state, cu_seqlens, scale, backend
    )
    return dq, dk, dv, dg, None, None, None, dinitial_state


def _bwd_values(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    gv: torch.Tensor,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    backend: str,
) -> Gradients:
    start, dend = keys_first(initial_state, True), keys_first(dfinal_state, True)
    dq, dk, dv, dgv, dstart = value_decay_bwd(q, k, v, gv, start, do, dend, cu_seqlens, scale, backend)
    return dq, dk, dv, None, None, dgv, None, dstart.transpose(-1, -2).contiguous()


def _bwd_keys(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    gk: torch.Tensor,
    u: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    backend: str,
) -> Gradients:
    decay, scores = _both(g, gk), q.new_empty(0)
    if backend == "triton":
        _, _, scores = chunk_gla_fwd(q, k, v, decay, u, initial_state, cu_seqlens, scale, backend, True)
    dq, dk, dv, ddecay, du, dinitial_state = chunk_gla_bwd(
        q, k, v, decay, u, initial_state, scores, do, dfinal_state, cu_seqlens, scale, backend
    )
    dg = None if g is None else ddecay.sum(-1).to(g.dtype)
    return dq, dk, dv, dg, ddecay.to(gk.dtype), None, du, dinitial_state


def _both(g: torch.Tensor | None, gk: torch.Tensor) -> torch.Tensor:
    return gk if g is None else gk + g.unsqueeze(-1)


fused_recurrent_gla_fwd = register_op("fused_recurrent_gla_fwd", _fwd, output_and_state_like)
fused_recurrent_gla_bwd = register_op("fused_recurrent_gla_bwd", _bwd, fake_gradients(_bwd, state_like))


_recurrent_gla = state_function(fused_recurrent_gla_fwd, fused_recurrent_gla_bwd)


def run_recurrent_gla(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    output_final_state: bool,
    reverse: bool,
    state_v_first: bool,
    backend: str,
    *,
    g: torch.Tensor | None = None,
    gk: torch.Tensor | None = None,
    gv: torch.Tensor | None = None,
    u: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`fla.ops.gla.fused_recurrent_gla` on checked arguments, with a decay of all channels ``g [B, T, HV]`` too.

    Where neither gk nor gv is given, HV value heads may share the H heads of q and k. With ``u [H, K]``, which needs
    gk, a step reads ``S_{t-1} + diag(u) k_t v_t^T`` instead of ``S_t``.
    """
    packed = cu_seqlens is not None
    operands: list[torch.Tensor | None] = [q, k, v, g, gk, gv]
    if reverse:
        operands, cu_seqlens = flip_time(operands, cu_seqlens)
        initial_state = initial_state.flip(0) if packed and initial_state is not None else initial_state
    options = (scale, state_v_first, backend)
    o, final_state = _recurrent_gla(options, cu_seqlens, initial_state, *operands, u)
    if reverse:
        o = o.flip(1)
        final_state = final_state.flip(0) if packed else final_state
    return o, final_state if output_final_state else None
