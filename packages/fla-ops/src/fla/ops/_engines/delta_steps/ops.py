"""Host side of the recurrent form of the delta rules: the registered ops, gradients, and which backend runs."""

from __future__ import annotations

import torch

from fla.ops._engines.delta.ops import chunk_gated_delta_rule_bwd, chunk_gated_delta_rule_fwd
from fla.ops._engines.delta_steps.algorithm import (
    Gradients,
    recurrent_delta_rule_bwd_torch,
    recurrent_delta_rule_fwd_torch,
)
from fla.ops._shared.arguments import as_asked, keys_first, output_and_state_like, state_like
from fla.ops._shared.autograd import autograd_function, state_function
from fla.utils.registration import fake_gradients, register_op

#: From this many steps on, PyTorch is faster in chunks.
LONG = 16


def _fwd(
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
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    if backend == "triton":
        from fla.ops._engines.delta_steps.launch import recurrent_delta_rule_fwd_triton

        return recurrent_delta_rule_fwd_triton(
            q, k, v, beta, g, gk, gv, p, initial_state, cu_seqlens, scale, state_v_first
        )
    start = keys_first(initial_state, state_v_first)
    if q.shape[1] < LONG or not _fits_chunks(beta, gv):
        o, end = recurrent_delta_rule_fwd_torch(q, k, v, beta, g, gk, gv, p, start, cu_seqlens, scale)
    else:
        decay = _decay(g, gk)
        o, end, *_ = chunk_gated_delta_rule_fwd(q, k, v, beta, decay, p, start, cu_seqlens, scale, backend, False)
    return o, as_asked(end, state_v_first)


def _bwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    gk: torch.Tensor | None,
    gv: torch.Tensor | None,
    p: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    state_v_first: bool,
    backend: str,
) -> list[torch.Tensor]:
    """Unless value channels differ in decay or beta, the chunked form has the same gradient and is faster."""
    start, dend = keys_first(initial_state, state_v_first), keys_first(dfinal_state, state_v_first)
    gradients: Gradients
    if _fits_chunks(beta, gv):
        gradients = _bwd_chunks(q, k, v, beta, g, gk, p, start, do, dend, cu_seqlens, scale, backend)
    else:
        gradients = recurrent_delta_rule_bwd_torch(q, k, v, beta, g, gk, gv, p, start, do, dend, cu_seqlens, scale)
    *doperands, dstart = gradients
    assert dstart is not None
    return [q.new_empty(0) if d is None else d for d in doperands] + [as_asked(dstart, state_v_first)]


def _bwd_chunks(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    gk: torch.Tensor | None,
    p: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    backend: str,
) -> Gradients:
    decay = _decay(g, gk)
    saved = (q.new_empty(0), q.new_empty(0))
    if backend == "triton":
        _, _, *saved = chunk_gated_delta_rule_fwd(
            q, k, v, beta, decay, p, initial_state, cu_seqlens, scale, backend, True
        )
    dq, dk, dv, dbeta, ddecay, dp, dinitial_state = chunk_gated_delta_rule_bwd(
        q, k, v, beta, decay, p, initial_state, *saved, do, dfinal_state, cu_seqlens, scale, backend
    )
    dg = dgk = None
    if gk is not None:
        dgk = ddecay.to(gk.dtype)
        dg = None if g is None else ddecay.sum(-1).to(g.dtype)
    elif g is not None:
        dg = ddecay
    return dq, dk, dv, dbeta, dg, dgk, None, dp, dinitial_state


def _fits_chunks(beta: torch.Tensor, gv: torch.Tensor | None) -> bool:
    return gv is None and beta.dim() == 3


def _decay(g: torch.Tensor | None, gk: torch.Tensor | None) -> torch.Tensor | None:
    return g if gk is None else gk if g is None else gk + g.unsqueeze(-1)


fused_recurrent_delta_rule_fwd = register_op("fused_recurrent_delta_rule_fwd", _fwd, output_and_state_like)
fused_recurrent_delta_rule_bwd = register_op("fused_recurrent_delta_rule_bwd", _bwd, fake_gradients(_bwd, state_like))
#: Imported by name elsewhere. Its ``apply`` takes what :func:`fla.ops._shared.autograd.autograd_function` says.
FusedRecurrentFunction = autograd_function(fused_recurrent_delta_rule_fwd, fused_recurrent_delta_rule_bwd)
_recurrent_delta_rule = state_function(fused_recurrent_delta_rule_fwd, fused_recurrent_delta_rule_bwd)


def run_recurrent_delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    output_final_state: bool,
    state_v_first: bool,
    backend: str,
    *,
    g: torch.Tensor | None = None,
    gk: torch.Tensor | None = None,
    gv: torch.Tensor | None = None,
    p: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`fla.ops.gated_delta_rule.fused_recurrent_gated_delta_rule` on checked arguments.

    With the erase key ``p [B, T, H, K]`` a step reads the state there, and not at k, and before it decays.
    """
    beta = v.new_ones(v.shape[:3]) if beta is None else beta
    options = (scale, state_v_first, backend)
    o, final_state = _recurrent_delta_rule(options, cu_seqlens, initial_state, q, k, v, beta, g, gk, gv, p)
    return o, final_state if output_final_state else None
