"""Host side of ``fused_recurrent_gla``: the registered ops, gradients, and which backend runs."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from fla.ops.gla.chunk import chunk_gla_bwd, chunk_gla_fwd
from fla.ops.gla.recurrent_torch import recurrent_gla_bwd_torch, recurrent_gla_fwd_torch
from fla.utils._registration import register_op
from fla.utils._validation import count_sequences
from fla.utils._varlen import boundaries

Gradients = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def _fwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    gk: torch.Tensor | None,
    gv: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    state_v_first: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    if backend == "triton":
        from fla.ops.gla.recurrent_triton import recurrent_gla_fwd_triton

        return recurrent_gla_fwd_triton(q, k, v, gk, gv, initial_state, cu_seqlens, scale, state_v_first)
    initial_state = _k_first(initial_state, state_v_first)
    parts = [
        recurrent_gla_fwd_torch(*_cut((q, k, v, gk, gv), span), _of_sequence(initial_state, n), scale)
        for n, span in _spans(cu_seqlens, q.shape[1])
    ]
    final_state = torch.cat([state for _, state in parts])
    return torch.cat([o for o, _ in parts], 1), _k_first(final_state, state_v_first, copy=True)


def _fwd_fake(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    gk: torch.Tensor | None,
    gv: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    state_v_first: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    return v.new_empty(v.shape), _state_like(q, v, cu_seqlens, state_v_first)


def _bwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    gk: torch.Tensor | None,
    gv: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    state_v_first: bool,
    backend: str,
) -> Gradients:
    """Without value decays the chunked form has the same gradient and is faster."""
    initial_state, dfinal_state = (_k_first(x, state_v_first) for x in (initial_state, dfinal_state))
    if gv is None:
        gradients = _bwd_chunked(q, k, v, gk, initial_state, do, dfinal_state, cu_seqlens, scale, backend)
    else:
        parts = [
            recurrent_gla_bwd_torch(
                *_cut((q, k, v, gk, gv), span),
                _of_sequence(initial_state, n),
                do[:, span],
                _of_sequence(dfinal_state, n),
                scale,
            )
            for n, span in _spans(cu_seqlens, q.shape[1])
        ]
        *dinputs, dstates = zip(*parts, strict=True)
        joined = [q.new_empty(0) if pieces[0] is None else torch.cat(pieces, 1) for pieces in dinputs]
        gradients = (*joined, torch.cat(dstates))
    *dinputs, dinitial_state = gradients
    return (*dinputs, _k_first(dinitial_state, state_v_first, copy=True))


def _bwd_chunked(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    gk: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    backend: str,
) -> Gradients:
    g = torch.zeros_like(k) if gk is None else gk
    scores = q.new_empty(0)
    if backend == "triton":
        _, _, scores = chunk_gla_fwd(q, k, v, g, initial_state, cu_seqlens, scale, True, backend)
    dq, dk, dv, dg, dinitial_state = chunk_gla_bwd(
        q, k, v, g, initial_state, scores, do, dfinal_state, cu_seqlens, scale, backend
    )
    return dq, dk, dv, q.new_empty(0) if gk is None else dg, q.new_empty(0), dinitial_state


def _bwd_fake(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    gk: torch.Tensor | None,
    gv: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    state_v_first: bool,
    backend: str,
) -> Gradients:
    dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
    dgk, dgv = (q.new_empty(0) if x is None else x.new_empty(x.shape) for x in (gk, gv))
    return dq, dk, dv, dgk, dgv, _state_like(q, v, cu_seqlens, state_v_first)


def _state_like(
    q: torch.Tensor, v: torch.Tensor, cu_seqlens: torch.Tensor | None, state_v_first: bool
) -> torch.Tensor:
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    dims = (v.shape[3], q.shape[3]) if state_v_first else (q.shape[3], v.shape[3])
    return q.new_empty((count_sequences(cu_seqlens, q.shape[0]), q.shape[2], *dims), dtype=dtype)


def _k_first(state: torch.Tensor | None, state_v_first: bool, copy: bool = False) -> torch.Tensor | None:
    """Swap the state's last two dimensions if V comes first (or should)."""
    if state is None or not state_v_first:
        return state
    return state.transpose(-1, -2).contiguous() if copy else state.transpose(-1, -2)


def _spans(cu_seqlens: torch.Tensor | None, total: int) -> list[tuple[int, slice]]:
    """Per group of sequences of one length: its number and steps. A dense batch is one group."""
    ends = [0, total] if cu_seqlens is None else boundaries(cu_seqlens, total)
    if cu_seqlens is None:
        return [(-1, slice(0, total))]
    return [(n, slice(start, end)) for n, (start, end) in enumerate(zip(ends, ends[1:], strict=False))]


def _cut(tensors: tuple[torch.Tensor | None, ...], span: slice) -> list[torch.Tensor | None]:
    return [None if x is None else x[:, span] for x in tensors]


def _of_sequence(state: torch.Tensor | None, n: int) -> torch.Tensor | None:
    return state if state is None or n < 0 else state[n : n + 1]


fused_recurrent_gla_fwd = register_op(
    "fused_recurrent_gla_fwd",
    "(Tensor q, Tensor k, Tensor v, Tensor? gk, Tensor? gv, Tensor? initial_state, Tensor? cu_seqlens, float scale,"
    " bool state_v_first, str backend) -> (Tensor, Tensor)",
    _fwd,
    _fwd_fake,
)
fused_recurrent_gla_bwd = register_op(
    "fused_recurrent_gla_bwd",
    "(Tensor q, Tensor k, Tensor v, Tensor? gk, Tensor? gv, Tensor? initial_state, Tensor do, Tensor? dfinal_state,"
    " Tensor? cu_seqlens, float scale, bool state_v_first, str backend)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _bwd,
    _bwd_fake,
)


class FusedRecurrentGLAFunction(torch.autograd.Function):
    """Saves the inputs only."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        gk: torch.Tensor | None,
        gv: torch.Tensor | None,
        initial_state: torch.Tensor | None,
        cu_seqlens: torch.Tensor | None,
        scale: float,
        state_v_first: bool,
        backend: str,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(q, k, v, gk, gv, initial_state, cu_seqlens)
        ctx.scale, ctx.state_v_first, ctx.backend = scale, state_v_first, backend
        ctx.set_materialize_grads(False)
        o, final_state = fused_recurrent_gla_fwd(
            q, k, v, gk, gv, initial_state, cu_seqlens, scale, state_v_first, backend
        )
        return o, final_state

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, do: torch.Tensor | None, dfinal_state: torch.Tensor | None) -> tuple[Any, ...]:
        q, k, v, gk, gv, initial_state, cu_seqlens = ctx.saved_tensors
        do = torch.zeros_like(v) if do is None else do
        dq, dk, dv, dgk, dgv, dinitial_state = fused_recurrent_gla_bwd(
            q, k, v, gk, gv, initial_state, do, dfinal_state, cu_seqlens, ctx.scale, ctx.state_v_first, ctx.backend
        )
        dgk = None if gk is None else dgk
        dgv = None if gv is None else dgv
        dinitial_state = None if initial_state is None else dinitial_state.to(initial_state.dtype)
        return dq, dk, dv, dgk, dgv, dinitial_state, None, None, None, None


def run_recurrent_gla(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    gk: torch.Tensor | None,
    gv: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
    output_final_state: bool,
    reverse: bool,
    state_v_first: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """:func:`fla.ops.gla.fused_recurrent_gla` on checked arguments."""
    packed = cu_seqlens is not None
    if reverse:
        # Flipping time turns the order of packed sequences round as well.
        q, k, v, gk, gv = (None if x is None else x.flip(1) for x in (q, k, v, gk, gv))  # type: ignore[assignment]
        if packed:
            cu_seqlens = cu_seqlens[-1] - cu_seqlens.flip(0)
            initial_state = None if initial_state is None else initial_state.flip(0)
    o, final_state = FusedRecurrentGLAFunction.apply(
        q, k, v, gk, gv, initial_state, cu_seqlens, scale, state_v_first, backend
    )
    if reverse:
        o = o.flip(1)
        final_state = final_state.flip(0) if packed else final_state
    return o, final_state if output_final_state else None
