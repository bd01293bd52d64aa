"""The registered ops of the chunked form on Triton: kernels of ``simple_gla`` that weigh writes and skip."""

from __future__ import annotations

import torch

from fla.ops._shared.arguments import state_like
from fla.ops._shared.autograd import state_function
from fla.utils.registration import register_op


def _fwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    w: torch.Tensor,
    skip: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    from fla.ops._engines.scalar_decay.launch import Factors, chunk_simple_gla_fwd_triton

    return chunk_simple_gla_fwd_triton(q, k, v, Factors(g, None, w, skip), initial_state, cu_seqlens, scale)


def _fwd_fake(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    w: torch.Tensor,
    skip: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    return v.new_empty(v.shape), state_like(q, v, cu_seqlens)


def _bwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    w: torch.Tensor,
    skip: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> list[torch.Tensor]:
    from fla.ops._engines.scalar_decay.launch import Factors, chunk_simple_gla_bwd_triton

    factors = Factors(g, None, w, skip)
    dq, dk, dv, (dg, _, dw, dskip), dstate = chunk_simple_gla_bwd_triton(
        q, k, v, factors, initial_state, do, dfinal_state, cu_seqlens, scale
    )
    assert dg is not None
    assert dw is not None
    return [dq, dk, dv, dg, dw, q.new_empty(0) if dskip is None else dskip, dstate]


def _bwd_fake(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    w: torch.Tensor,
    skip: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    do: torch.Tensor,
    dfinal_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
    scale: float,
) -> list[torch.Tensor]:
    gradients = [x.new_empty(x.shape) for x in (q, k, v, g, w)]
    return [*gradients, q.new_empty(0) if skip is None else skip.new_empty(skip.shape), state_like(q, v, cu_seqlens)]


chunk_ssd_fwd = register_op(
    "chunk_ssd_fwd",
    "(Tensor q, Tensor k, Tensor v, Tensor g, Tensor w, Tensor? skip, Tensor? initial_state, Tensor? cu_seqlens,"
    " float scale) -> (Tensor, Tensor)",
    _fwd,
    _fwd_fake,
)
chunk_ssd_bwd = register_op(
    "chunk_ssd_bwd",
    "(Tensor q, Tensor k, Tensor v, Tensor g, Tensor w, Tensor? skip, Tensor? initial_state, Tensor do,"
    " Tensor? dfinal_state, Tensor? cu_seqlens, float scale) -> Tensor[]",
    _bwd,
    _bwd_fake,
)
_chunk_ssd = state_function(chunk_ssd_fwd, chunk_ssd_bwd)


def run_chunk_ssd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    w: torch.Tensor,
    skip: torch.Tensor | None,
    initial_state: torch.Tensor | None,
    cu_seqlens: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``S_t = e^g_t S_{t-1} + w_t k_t v_t^T``, ``o_t = S_t^T q_t + skip v_t``; checked arguments, states K first."""
    return _chunk_ssd((1.0,), cu_seqlens, initial_state, q, k, v, g, w, skip)
